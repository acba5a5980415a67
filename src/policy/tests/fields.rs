//! Fields of trust files at their limits, what their change means, and small questions to a trust map.

use crate::policy::{ChangeKind, Document, Extent, Noun, TrustMap, diff, parse as parse_documents};

use super::{BASE, grant, map, now, problems, read, tenant};

fn told(text: &str, wanted: &str) {
    let found = problems(text);
    assert!(found.iter().any(|problem| problem.contains(wanted)), "{wanted}: {found:?}");
}

const VERIFIER: &str = "[[verifier]]\nname = \"api\"\ntenants = [\"acme\"]\naudiences = [\"https://a.test\", \"https://b.test/*\"]\n\
                        selectors = [{ unix_uid = 11 }]\n";

#[test]
fn what_is_no_value_of_its_field_is_refused_by_name() {
    let in_tenant = |more: &str| BASE.replacen("name = \"acme\"", &format!("name = \"acme\"\n{more}"), 1);
    map(&in_tenant("token_algorithm = \"EdDSA\""));
    told(&in_tenant("token_algorithm = \"RS256\""), "tenant.token_algorithm: `RS256` is not known");
    told(&format!("{BASE}{}", grant("g", "require_binding = 1")), "grant.require_binding: is neither true nor false");
    told(
        &format!("{BASE}{}", VERIFIER.replace("\"acme\"", "\"gone\"")),
        "verifier.tenants: of `api`: tenant `gone` is not",
    );
    for (from, to, wanted) in [
        ("\"PayCo\"", "\"Pay\\u0007Co\"", "partner.display_name: has a control character"),
        ("[{ unix_uid = 7 }]", "[]", "workload.selectors: is empty"),
        ("unix_uid = 7", "unix_ud = 7", ".unix_ud: is not known; did you mean `unix_uid`?"),
    ] {
        told(&BASE.replacen(from, to, 1), wanted);
    }
    for duration in ["+5m", "m", "5", "five m", "-1s"] {
        told(&format!("{BASE}{}", grant("g", &format!("ttl_max = \"{duration}\""))), "grant.ttl_max: is not within");
    }
    let served = "workload_api = true\nrequire_binding = false\napprovals = { needed = 1, by = [\"alice\"] }";
    told(&format!("{BASE}{}", grant("g", served)), "grant.approvals: cannot be asked for over the Workload API");
}

#[test]
fn a_chain_of_resellers_holds_as_many_as_it_may_and_not_one_more() {
    let duty = |name| format!("{name} = {{ party = \"vendor\", who = \"desk\", contact = \"x@payco.example\" }}\n");
    let duties: String = ["storage", "scope", "revocation", "escalation"].map(duty).concat();
    let with = |count: usize| {
        let chain: Vec<String> = (0..count).map(|n| format!("reseller {n}")).collect();
        format!("{BASE}[[accountability]]\ntenant = \"acme\"\npartner = \"payco\"\nchain = {chain:?}\n{duties}")
    };
    let most = crate::policy::Accountability::CHAIN_MOST;
    map(&with(most));
    told(&with(most + 1), &format!("chain: has more than {most} entries"));
    let broken = problems(&with(1).replace("[\"reseller 0\"]", "[7]"));
    assert!(broken.len() == 1 && broken[0].contains("chain: is a integer"), "{broken:?}");
}

#[test]
fn a_tenant_may_have_a_million_live_leases_unless_it_says_otherwise() {
    let most = |text: &str| tenant(&map(text), "acme").max_live_leases();
    assert_eq!(most(BASE), 1_000_000);
    assert_eq!(most(&BASE.replacen("name = \"acme\"", "name = \"acme\"\nmax_live_leases = 7", 1)), 7);
}

#[test]
fn a_grant_needs_no_audiences_where_it_hands_out_static_secrets_alone() {
    let without = |kinds: &str| {
        let text = grant("g", &format!("kinds = {kinds}\nsecrets = [\"stripe\"]"));
        let line = text.lines().find(|line| line.starts_with("audiences")).expect("a line").to_owned();
        format!("{BASE}{}", text.replace(&line, ""))
    };
    map(&without("[\"secret\"]"));
    told(&without("[\"secret\", \"jwt\"]"), "grant.audiences: is missing; name the resources it is for");
}

#[test]
fn the_part_that_is_no_tenants_is_no_larger_than_its_row() {
    let with = |operators: usize| {
        let words: Vec<String> = (0..64).map(|n| format!("{n:0128}")).collect();
        let operator = |n| {
            format!(
                "[[operator]]\nname = \"o{n}\"\nrole = \"auditor\"\ntenants = \"all\"\npartners = \"all\"\nspeaks_for = {words:?}\n"
            )
        };
        BASE.to_owned() + &(0..operators).map(operator).collect::<String>()
    };
    assert!(read(&with(100)).is_ok());
    told(&with(150), "partners, operators, verifiers and guardrails together are larger than 1 MiB");
}

#[test]
fn what_is_not_of_one_tenant_is_not_changed_with_one() {
    let whole = map(BASE);
    for more in [
        "[[operator]]\nname = \"new\"\nrole = \"auditor\"\ntenants = \"all\"\npartners = \"all\"\n",
        "[[partner]]\nname = \"new\"\ndisplay_name = \"n\"\ncontact = \"c\"\n",
        VERIFIER,
    ] {
        let text = format!("[[tenant]]\nname = \"acme\"\n{more}");
        let refused =
            parse_documents(&[Document { path: "b", text: &text }], Extent::NamedTenants(&whole.global), now());
        assert!(refused.expect_err("global").to_string().contains("does not belong to one tenant"), "{more}");
    }
}

#[test]
fn an_operator_answers_for_its_own_name_and_for_whom_it_speaks() {
    let text = BASE.replace("role = \"admin\"", "role = \"admin\"\nspeaks_for = [\"night desk\", \"team\"]");
    let global = map(&text).global;
    let alice = "alice".parse().expect("a name");
    let answers = |owner: &str| global.operators[&alice].answers_for(&alice, owner);
    assert_eq!(["alice", "team", "night desk", "bob", "te", ""].map(answers), [true, true, true, false, false, false]);
}

#[test]
fn a_verifier_sees_what_fits_one_of_its_audiences_in_the_tenants_it_names() {
    let global = map(&format!("{BASE}{VERIFIER}")).global;
    let api = &global.verifiers["api"];
    let sees = |audience: &str| api.verifier.may_see(audience);
    assert_eq!(["https://a.test", "https://b.test/x", "https://c.test"].map(sees), [true, true, false]);
    let reaches = |name: &str| api.tenants.includes(&name.parse().expect("a name"));
    assert_eq!([reaches("acme"), reaches("globex")], [true, false]);
}

/// The one change between two maps: what, of what kind, and its details.
fn change(old: &TrustMap, new: &TrustMap) -> (Noun, ChangeKind, Vec<String>) {
    let [change] = &diff(old, new)[..] else { panic!("{:?}", diff(old, new)) };
    assert!(!change.is_removal());
    (change.noun, change.kind, change.details.clone())
}

#[test]
fn each_field_that_is_no_grants_gives_takes_or_neither() {
    use ChangeKind::{Edited, Narrowed, Widened};
    let base = format!("{BASE}{VERIFIER}[[tenant]]\nname = \"globex\"\n");
    let old = map(&base);
    for (from, to, noun, kind, told) in [
        (
            "name = \"acme\"",
            "name = \"acme\"\nissuer = \"https://id.acme.test\"",
            Noun::Tenant,
            Edited,
            "issuer (default) -> https://id.acme.test",
        ),
        ("name = \"acme\"", "name = \"acme\"\nmax_live_leases = 1", Noun::Tenant, Edited, "max_live_leases "),
        (
            "name = \"acme\"",
            "name = \"acme\"\ntoken_algorithm = \"EdDSA\"",
            Noun::Tenant,
            Edited,
            "token_algorithm ES256 -> EdDSA",
        ),
        ("\"PayCo\"", "\"Pay\"", Noun::Partner, Edited, "display_name PayCo -> Pay"),
        ("\"x@payco.example\"", "\"y@payco.example\"", Noun::Partner, Edited, "contact x@payco.example -> y@"),
        (
            "contact = \"x@payco.example\"",
            "contact = \"x@payco.example\"\nmax_live_leases = 1",
            Noun::Partner,
            Edited,
            "max_live_leases ",
        ),
        ("tenants = [\"acme\"]", "tenants = \"all\"", Noun::Verifier, Widened, "tenants acme -> all"),
        ("tenants = [\"acme\"]", "tenants = [\"globex\"]", Noun::Verifier, Narrowed, "tenants -acme +globex"),
        ("\"https://a.test\", ", "", Noun::Verifier, Narrowed, "audiences -https://a.test"),
        ("unix_uid = 11", "unix_uid = 12", Noun::Verifier, Narrowed, "selectors "),
    ] {
        let new = map(&base.replacen(from, to, 1));
        let (of, does, details) = change(&old, &new);
        assert_eq!((of, does), (noun, kind), "{to}");
        assert!(details.len() == 1 && details[0].starts_with(told), "{to}: {details:?}");
    }
    assert_eq!(diff(&old, &old), []);
    let gone = diff(&map(&format!("{BASE}{}", grant("g", ""))), &map(BASE));
    assert!(gone.len() == 1 && gone[0].is_removal());
}

#[test]
fn a_tenants_own_verifier_that_sees_more_is_widened_and_that_sees_less_is_narrowed() {
    let own = VERIFIER.replace("tenants = [\"acme\"]", "tenant = \"acme\"");
    let (less, more) =
        (map(&format!("{BASE}{}", own.replace("\"https://a.test\", ", ""))), map(&format!("{BASE}{own}")));
    for (old, new, kind, told) in [
        (&less, &more, ChangeKind::Widened, "audiences +https://a.test"),
        (&more, &less, ChangeKind::Narrowed, "audiences -https://a.test"),
    ] {
        assert_eq!(change(old, new), (Noun::Verifier, kind, vec![told.to_owned()]));
    }
    assert_eq!(change(&map(BASE), &more).1, ChangeKind::Added);
}

#[test]
fn a_grant_that_becomes_one_for_tests_ends_what_it_gave() {
    let lab = "workloads = [\"lab\"]\nenvironment = \"lab\"\naudiences = [\"https://lab.test\"]\nttl_max = 300";
    let tests = BASE.replacen("name = \"acme\"", "name = \"acme\"\ntest_environments = [\"lab\"]", 1);
    let [before, after] = [BASE, tests.as_str()].map(|base| map(&format!("{base}{}", grant("t", lab))));
    let told = (Noun::Grant, ChangeKind::Narrowed, vec!["test false -> true".to_owned()]);
    assert_eq!(change(&before, &after), told);
}

#[test]
fn a_grant_that_moves_or_hands_out_other_secrets_takes_what_it_gave() {
    let staged = BASE.replacen("environment = \"prod\"", "environment = \"stage\"", 1);
    let changes = diff(
        &map(&format!("{BASE}{}", grant("g", ""))),
        &map(&format!("{staged}{}", grant("g", "environment = \"stage\""))),
    );
    let moved = changes.iter().find(|change| change.noun == Noun::Grant).expect("the grant's");
    assert_eq!((moved.kind, &moved.details[..]), (ChangeKind::Narrowed, &["environment prod -> stage".to_owned()][..]));
    let with = |more: &str| map(&format!("{BASE}{}", grant("g", more)));
    let secrets = |names: &str| with(&format!("kinds = [\"secret\"]\nsecrets = [{names}]"));
    let cd = "[[workload]]\ntenant = \"acme\"\nname = \"cd\"\nenvironment = \"prod\"\nselectors = [{ unix_uid = 8 }]\n";
    let beside = |more: &str| map(&format!("{BASE}{cd}{}", grant("g", more)));
    let (one, both) = ("sources = [\"10.0.0.0/8\"]", "sources = [\"10.0.0.0/8\", \"192.0.2.0/24\"]");
    let unbound = "require_binding = false";
    for (old, new, kind, told) in [
        (beside(""), beside("workloads = [\"cd\", \"ci\"]"), ChangeKind::Widened, "workloads +cd"),
        (
            with(unbound),
            with(&format!("{unbound}\nworkload_api = true")),
            ChangeKind::Widened,
            "workload_api false -> true",
        ),
        (secrets("\"a\", \"b\""), secrets("\"a\""), ChangeKind::Narrowed, "secrets -b"),
        (secrets("\"a\""), secrets("\"a\", \"b\""), ChangeKind::Widened, "secrets +b"),
        (with(""), with("attest_every = \"30d\""), ChangeKind::Edited, "attest_every by date -> 2592000s"),
        (with(both), with(one), ChangeKind::Narrowed, "sources -192.0.2.0/24"),
        (with(one), with(both), ChangeKind::Widened, "sources +192.0.2.0/24"),
    ] {
        assert_eq!(change(&old, &new), (Noun::Grant, kind, vec![told.to_owned()]));
    }
}

#[test]
fn networks_that_are_not_named_are_not_written() {
    let acme = tenant(&map(&format!("{BASE}{}", grant("g", ""))), "acme");
    assert!(!String::from_utf8(acme.to_bytes()).expect("JSON").contains("sources"));
    assert_eq!(acme.issuer(), None);
}
