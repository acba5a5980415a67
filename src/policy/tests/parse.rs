use crate::policy::{Document, Extent, parse as parse_documents};

use super::{BASE, grant, map, now, problems, read, tenant};

#[test]
fn the_sample_folder_is_a_trust_map() {
    let documents = [
        Document { path: "global.toml", text: include_str!("../../../examples/trust/global.toml") },
        Document { path: "acme.toml", text: include_str!("../../../examples/trust/acme.toml") },
        Document { path: "globex.toml", text: include_str!("../../../examples/trust/globex.toml") },
        Document { path: "guardrails.cedar", text: include_str!("../../../examples/trust/guardrails.cedar") },
    ];
    let map = parse_documents(&documents, Extent::Whole, now()).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!((map.tenants.len(), map.global.partners.len(), map.global.operators.len()), (2, 2, 3));
    let acme = tenant(&map, "acme");
    assert_eq!((acme.grants().len(), acme.workloads().len()), (4, 3));
    let export = &acme.grants()[&"nightly-export".parse().expect("a name")];
    assert_eq!((export.owner.as_str(), export.ttl_default), ("data-team@acme.example", 300));
    assert!(export.audiences[0].fits("https://files.shipfast.example/acme/x"));
    assert_eq!(tenant(&map, "globex").grants().len(), 1);
}

#[test]
fn all_problems_are_told_at_once_with_their_lines() {
    let text = "\
[[tenant]]
name = \"Acme\"

[[grant]]
tenant = \"gone\"
name = \"g\"

[[operator]]
name = \"a\"
role = \"boss\"
tenant = \"x\"
[grunt]
";
    assert_eq!(
        problems(text),
        [
            "a.toml:2: tenant.name: `Acme` has a character at byte 0 that is not one of a-z, 0-9 and inner `-`; \
             correct it",
            "a.toml:5: grant.tenant: tenant `gone` is not defined; add a [[tenant]] with this name",
            "a.toml:8: operator.partners: is missing; write \"all\" or a list of names",
            "a.toml:8: operator.tenants: is missing; write \"all\" or a list of names",
            "a.toml:10: operator.role: `boss` is not known; write \"admin\", \"revoker\" or \"auditor\"",
            "a.toml:11: operator.tenant: is not known; did you mean `tenants`?",
            "a.toml:12: document.grunt: is not known; did you mean `grant`?",
        ]
    );
}

#[test]
fn a_grant_without_owner_purpose_expiry_or_revoker_is_refused_with_a_message_of_its_own() {
    for (line, wanted) in [
        ("owner = \"team\"\n", "grant.owner: is missing; say who answers for it"),
        ("purposes = [\"deploy\"]\n", "grant.purposes: is missing; say what it is for"),
        ("expires = 2027-01-01\n", "grant.expires: is missing; say when it ends"),
        ("revokers = [\"alice\"]\n", "grant.revokers: is missing; name the operators who can end it"),
        ("attest_by = 2026-12-15\n", "grant.attest_by: is missing; say when its owner"),
        ("workloads = [\"ci\"]\n", "grant.workloads: is missing; name the workloads"),
        ("environment = \"prod\"\n", "grant.environment: is missing; say where"),
    ] {
        let text = grant("g", "");
        assert!(text.contains(line), "{line}");
        let found = problems(&format!("{BASE}{}", text.replace(line, "")));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(wanted), "{found:?}");
    }
    for (more, wanted) in [("owner = \"\"", "grant.owner"), ("purposes = []", "grant.purposes: is empty")] {
        assert!(problems(&format!("{BASE}{}", grant("g", more)))[0].contains(wanted));
    }
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let own = |more: &str| format!("{BASE}{}", grant("g", more));
    let workload = |name: &str, selector: &str| {
        let head = format!("{BASE}[[workload]]\ntenant = \"acme\"\nname = \"{name}\"\nenvironment = \"prod\"\n");
        format!("{head}selectors = [{{ {selector} }}]\n")
    };
    let issuer = |rest: &str| BASE.replacen("[[tenant]]", &format!("[[tenant]]\nissuer = \"https://{rest}\""), 1);
    map(&issuer(&"x".repeat(247)));
    for (text, wanted) in [
        (own("partner = \"gone\""), "partner `gone` is not defined"),
        (own("workloads = [\"gone\"]"), "workload `gone` is not defined"),
        (own("revokers = [\"gone\"]"), "operator `gone` is not defined"),
        (own("revokers = [\"workload:ci\"]"), "grant.revokers"),
        (own("workloads = [\"lab\"]"), "workload `lab` is in environment `lab`"),
        (own("audiences = [\"*\"]"), "grant.audiences: `*` has a `*`"),
        (own("ownr = \"x\""), "grant.ownr: is not known; did you mean `owner`?"),
        (own("frobnicate = 1"), "known are tenant, name"),
        (own("ttl_max = 3601"), "write 1s to 3600s"),
        (own("ttl_max = 0"), "write 1s to 3600s"),
        (own("ttl_max = -1"), "write 1s to 3600s"),
        (own("ttl_max = \"5 minutes\""), "write 1s to 3600s"),
        (own("ttl_default = 601"), "exceed ttl_max"),
        (own("task_max = 599"), "exceed task_max"),
        (own("task_max = 86_401"), "write 1s to 86400s"),
        (own("expires = 2028-01-01"), "more than 400 days ahead"),
        (own("expires = 2027-01-01T00:00:00"), "neither a date"),
        (own("expires = 2027-12-27T00:00:01Z"), "more than 400 days ahead"),
        (own("attest_by = 2027-01-02"), "is after expires"),
        (workload("two", "spiffe_id = \"spiffe://acme.test/two\", claims = { sub = \"x\" }"), "claims"),
        (own("kinds = [\"saml\"]"), "is none of"),
        (own("secrets = [\"stripe\"]"), "grant.secrets: is there without the kind that hands them out"),
        (own("kinds = [\"secret\"]"), "grant.secrets: is missing; name the static secrets"),
        (own("kinds = [\"secret\"]\nsecrets = []"), "grant.secrets: is empty"),
        (own("kinds = [\"secret\"]\nsecrets = [\"Stripe\"]"), "grant.secrets: `Stripe` has a character at byte 0"),
        (own("dns_names = [\"*.test\"]"), "is no DNS name"),
        (own("") + &grant("g", ""), "is defined twice, first at a.toml:"),
        (format!("{BASE}{BASE}"), "tenant.name: `acme` is defined twice, first at a.toml:2;"),
        (workload("two", "spiffe_id = \"spiffe://acme.test/ci\""), "selects workload `two` and workload `ci`"),
        (workload("two", "unix_uid = 7, unix_gid = 1"), "selects workload `two` and workload `lab`"),
        (workload("two", "spiffe_id = \"spiffe://acme.test/../x\""), "path segment"),
        (workload("two", "dns_name = \"x.test\""), "authority: is missing"),
        (workload("two", "unix_uid = 8, spiffe_id = \"spiffe://a/b\""), "exclude each other"),
        (workload("two", ""), "is missing; write one of them"),
        (format!("{BASE}[tenant2]"), "did you mean `tenant`?"),
        (BASE.replacen("[[tenant]]", "[[tenant]]\nissuer = \"http://x\"", 1), "is no https URL"),
        (issuer(""), "is no https URL of 1 to 255"),
        (issuer("/path"), "is no https URL of 1 to 255"),
        (issuer("x.test?q"), "is no https URL of 1 to 255"),
        (issuer("user@x.test"), "is no https URL of 1 to 255"),
        (issuer(&"x".repeat(248)), "is no https URL of 1 to 255"),
        (issuer("x.test/"), "ends with `/`"),
        (BASE.replacen("tenants = \"all\"", "tenants = [\"gone\"]", 1), "tenant `gone` is not defined"),
        (BASE.replacen("partners = \"all\"", "partners = [\"gone\"]", 1), "partner `gone` is not defined"),
        (workload("two", "dns_name = \"x.test\", authority = \"a\", claims = { sub = \"x\" }"), "claims"),
        ("[tenant]\nname = \"a\"".to_owned(), "write [[tenant]], with two brackets"),
        ("[[tenant]\nname = \"a\"".to_owned(), "a.toml:1: toml: "),
        (
            "[[tenant]]\nname=\"a\"\nissuer=\"https://x.test\"\n[[tenant]]\nname=\"b\"\nissuer=\"https://x.test\""
                .to_owned(),
            "is also that of tenant `a` (a.toml:1)",
        ),
    ] {
        let found = problems(&text);
        assert!(found.iter().any(|problem| problem.contains(wanted)), "{wanted}: {found:?}");
        assert!(found.len() <= 6, "{wanted}: {found:?}");
    }
}

#[test]
fn a_grant_may_end_400_days_ahead_and_be_attested_on_its_last_day() {
    map(&format!("{BASE}{}", grant("g", "expires = 2027-12-27T00:00:00Z\nattest_by = 2027-12-27T00:00:00Z")));
}

#[test]
fn a_broken_thing_is_not_also_reported_by_those_who_refer_to_it() {
    let text = format!("{BASE}{}", grant("g", "")).replace("\"spiffe://acme.test/ci\"", "\"nonsense\"");
    let found = problems(&text);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn while_a_document_is_no_toml_nobody_is_blamed_for_naming_what_it_may_define() {
    let (tenants, rest) = BASE.split_once("[[partner]]").expect("both");
    let (partners, rest) = rest.split_once("[[operator]]").expect("both");
    let (partners, rest) = (format!("[[partner]]{partners}"), format!("[[operator]]{rest}{}", grant("g", "")));
    let told = |first: &str, second: &str| {
        let second = format!("{second}{rest}");
        let documents = [Document { path: "a", text: first }, Document { path: "b", text: &second }];
        let problems = parse_documents(&documents, Extent::Whole, now()).expect_err("something is wrong");
        problems.list().iter().map(|problem| format!("{} {}", problem.path, problem.field)).collect::<Vec<_>>()
    };
    for (first, second) in [(tenants, partners.as_str()), (partners.as_str(), tenants)] {
        let broken = told(&first.replacen("]]", "", 1), second);
        assert!(broken.iter().all(|problem| problem == "a toml"), "{broken:?}");
        let other = told(&first.replace("acme", "other").replace("payco", "acme"), second);
        assert!(other.iter().any(|problem| problem.starts_with("b grant.")), "{other:?}");
    }
}

#[test]
fn what_is_wrong_twice_in_one_place_is_told_once() {
    let found = problems(&format!("{BASE}{}", grant("g", "revokers = [\"B\", \"B\"]")));
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn two_workloads_are_told_apart_by_their_group_where_both_name_one() {
    let two = |first: &str, second: &str| {
        let workload = "[[workload]]\ntenant = \"acme\"\nname = \"two\"\nenvironment = \"prod\"\n";
        format!("{}{workload}selectors = [{second}]\n", BASE.replacen("{ unix_uid = 7 }", first, 1))
    };
    let user = |rest: &str| format!("{{ unix_uid = 7{rest} }}");
    let (any, one, other) = (user(""), user(", unix_gid = 1"), user(", unix_gid = 2"));
    map(&two(&one, &other));
    map(&two(&format!("{any}, {one}"), "{ unix_uid = 8 }"));
    for (first, second) in [(&one, &one), (&any, &one), (&one, &any), (&any, &any)] {
        let found = problems(&two(first, second));
        assert!(found.len() == 1 && found[0].contains("selects workload `two` and workload `lab`"), "{found:?}");
    }
}

#[test]
fn named_tenants_refer_to_the_global_part_in_force_and_cannot_change_it() {
    let whole = map(&format!("{BASE}{}", grant("g", "")));
    let global = &whole.global;
    let alone: String = {
        let workload = "[[workload]]\ntenant = \"acme\"\nname = \"ci\"\nenvironment = \"prod\"\n\
                        selectors = [{ spiffe_id = \"spiffe://acme.test/ci\" }]\n";
        format!("[[tenant]]\nname = \"acme\"\n{workload}{}", grant("g", ""))
    };
    let named = |text: &str| parse_documents(&[Document { path: "b", text }], Extent::NamedTenants(global), now());
    let part = named(&alone).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!((&part.global, part.tenants.len()), (global, 1));
    assert!(read(&alone).is_err());
    let stranger = alone.replace("\"payco\"", "\"gone\"");
    assert!(named(&stranger).expect_err("dangling").to_string().contains("partner `gone` is not defined"));
    let global_too = format!("{alone}[[partner]]\nname = \"new\"\ndisplay_name = \"n\"\ncontact = \"c\"\n");
    assert!(named(&global_too).expect_err("global").to_string().contains("apply the whole trust map"));
}

#[test]
fn what_is_for_tests_lives_shortly_and_reaches_nothing_that_is_not() {
    let base = BASE.replacen("name = \"acme\"", "name = \"acme\"\ntest_environments = [\"lab\"]", 1);
    let lab = |more: &str| {
        let fields = "workloads = [\"lab\"]\nenvironment = \"lab\"\n";
        let own = if more.contains("audiences") { "" } else { "audiences = [\"https://lab.test\"]\n" };
        let ttl = if more.contains("ttl_max") { "" } else { "ttl_max = 300\n" };
        format!("{base}{}{}", grant("g", ""), grant("t", &format!("{fields}{own}{ttl}{more}")))
    };
    let read = map(&lab(""));
    let acme = tenant(&read, "acme");
    let is_test = |name: &str| acme.grants()[&name.parse().expect("a name")].test;
    assert!(is_test("t") && !is_test("g"), "a test environment makes a test of its grants");
    assert_eq!(crate::policy::TenantTrust::from_bytes(&acme.to_bytes()).expect("reads back"), acme);
    for (text, wanted) in [
        (lab("ttl_max = 301"), "301 s exceed the 300 s of what is for tests"),
        (lab("audiences = [\"https://api.test\"]"), "is within reach of grant `g`"),
        (lab("audiences = [\"https://api.test/*\"]"), "is within reach of grant `g`"),
        (lab("audiences = [\"https://api.test/orders/7\"]"), "is within reach of grant `g`"),
        (
            format!(
                "{base}{}{}",
                grant("g", "kinds = [\"jwt\", \"secret\"]\nsecrets = [\"stripe\"]"),
                grant(
                    "t",
                    "workloads = [\"lab\"]\nenvironment = \"lab\"\naudiences = []\nttl_max = 300\n\
                     kinds = [\"secret\"]\nsecrets = [\"stripe\"]"
                )
            ),
            "grant.secrets: secret `stripe` of `t`, which is for tests, is also one of grant `g`",
        ),
        (format!("{base}{}", grant("g", "test = true")), "is no test environment"),
        (format!("{base}{}", grant("g", "workloads = [\"lab\"]")), "workload `lab` is in environment `lab`"),
    ] {
        let told = problems(&text);
        assert!(told.iter().any(|line| line.contains(wanted)), "{wanted}: {told:?}");
    }
    let raised = lab("ttl_max = 900").replacen("test_environments", "test_ttl_max = \"15m\"\ntest_environments", 1);
    map(&raised);
}

#[test]
fn each_duty_of_an_integration_is_missed_with_a_message_of_its_own() {
    let duty = |name: &str| {
        format!("{name} = {{ party = \"vendor\", who = \"{name} desk\", contact = \"{name}@payco.example\" }}\n")
    };
    let duties = ["storage", "scope", "revocation", "escalation"];
    let whole = |left_out: &str, more: &str| {
        let named: String = duties.into_iter().filter(|name| *name != left_out).map(duty).collect();
        format!("{BASE}[[accountability]]\ntenant = \"acme\"\npartner = \"payco\"\n{named}{more}")
    };
    let read = map(&whole("", "chain = [\"PayCo\", \"Reseller\"]\n"));
    let acme = tenant(&read, "acme");
    let known = &acme.accountability()[&"payco".parse().expect("a name")];
    assert_eq!((known.revocation.who.as_str(), known.chain.len()), ("revocation desk", 2));
    let copy = crate::policy::TenantTrust::from_bytes(&acme.to_bytes()).expect("reads back");
    assert_eq!(copy.accountability(), acme.accountability());
    for name in duties {
        let told = problems(&whole(name, ""));
        assert!(told.iter().any(|line| line.contains(&format!("accountability.{name}: is missing"))), "{told:?}");
    }
    let told = problems(&whole("", "").replace("party = \"vendor\"", "party = \"nobody\""));
    assert!(told.iter().any(|line| line.contains("party: `nobody` is not known")), "{told:?}");
    let told = problems(
        &whole("", "").replace("tenant = \"acme\"\npartner = \"payco\"", "tenant = \"acme\"\npartner = \"gone\""),
    );
    assert!(told.iter().any(|line| line.contains("partner `gone` is not defined")), "{told:?}");
}

#[test]
fn a_row_of_an_older_version_keeps_its_hash() {
    let read = map(&format!("{BASE}{}", grant("g", "")));
    let text = String::from_utf8(tenant(&read, "acme").to_bytes()).expect("JSON");
    for new in ["dormant_after", "accountability", "attest_every", "\"test\"", "resource_classes", "max_renewals"] {
        assert!(!text.contains(new), "{new} is written where it is not set");
    }
    assert!(!String::from_utf8(read.global.to_bytes()).expect("JSON").contains("speaks_for"));
}

#[test]
fn a_rule_about_use_is_coarser_than_what_is_known_of_use() {
    let with =
        |time: &str| BASE.replacen("name = \"acme\"\n", &format!("name = \"acme\"\ndormant_after = \"{time}\"\n"), 1);
    assert_eq!(tenant(&map(&with("1d")), "acme").dormant_after(), Some(86_400));
    let told = problems(&with("23h"));
    assert!(told.iter().any(|line| line.contains("dormant_after: is below one day")), "{told:?}");
}

#[test]
fn a_grant_that_the_workload_api_serves_says_all_that_its_callers_cannot() {
    let served = |more: &str| format!("{BASE}{}", grant("g", &format!("workload_api = true\n{more}")));
    let whole = map(&served("require_binding = false"));
    assert!(tenant(&whole, "acme").grants().values().all(|grant| grant.workload_api));
    // Certificates need no binding.
    assert!(read(&served("kinds = [\"x509\"]")).is_ok());
    for (more, field) in [
        ("kinds = [\"x509\"]\npurposes = [\"a\", \"b\"]", "purposes"),
        ("kinds = [\"opaque\"]", "kinds"),
        ("", "require_binding"),
        ("kinds = [\"x509\"]\nsources = [\"10.0.0.0/8\"]", "sources"),
    ] {
        let problems = problems(&served(more));
        assert!(problems.len() == 1 && problems[0].contains(&format!("grant.{field}")), "{more}: {problems:?}");
    }
}
