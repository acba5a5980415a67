//! Templates, and tables that hold what they should not.

use super::{BASE, grant, map, problems, tenant};

/// Two tenants: `acme` in eu and x, `globex` in eu.
fn labelled() -> String {
    BASE.replacen("name = \"acme\"", "name = \"acme\"\nlabels = [\"eu\", \"x\"]", 1)
        + "[[tenant]]\nname = \"globex\"\nlabels = [\"eu\"]\n"
}

/// A workload and a grant for a set of tenants.
fn template(set: &str) -> String {
    let text = grant("t", "workloads = [\"bot\"]\nowner = \"{tenant}-team\"").replace("tenant = \"acme\"\n", "");
    let text = text.replace("[[grant]]", "[[template.grant]]");
    format!(
        "[[template]]\nname = \"x\"\n{set}\n[[template.workload]]\nname = \"bot\"\nenvironment = \"prod\"\n\
         selectors = [{{ spiffe_id = \"spiffe://{{tenant}}.test/bot\" }}]\n{text}"
    )
}

#[test]
fn a_template_is_as_if_written_out_and_may_not_clash() {
    let labelled = labelled();
    let both = map(&format!("{labelled}{}", template("tenants_with = [\"eu\"]")));
    let name = "t".parse().expect("a name");
    assert_eq!(tenant(&both, "acme").grants()[&name].owner, "acme-team");
    assert_eq!(tenant(&both, "globex").grants()[&name].owner, "globex-team");
    let globex = tenant(&both, "globex");
    let bot = &globex.workloads()[&"bot".parse().expect("a name")];
    assert_eq!(bot.selectors[0].to_string(), "spiffe_id = \"spiffe://globex.test/bot\"");
    let one = map(&format!("{labelled}{}", template("tenants_with = [\"eu\", \"x\"]")));
    assert_eq!((tenant(&one, "acme").grants().len(), tenant(&one, "globex").grants().len()), (1, 0));
    let listed = map(&format!("{labelled}{}", template("tenants = [\"globex\"]")));
    assert_eq!((tenant(&listed, "acme").grants().len(), tenant(&listed, "globex").grants().len()), (0, 1));
    for (set, more, wanted) in [
        ("tenants = [\"gone\"]", String::new(), "tenant `gone` is not defined"),
        ("", String::new(), "or tenants_with is missing"),
        ("tenants = [\"acme\"]\ntenants_with = [\"eu\"]", String::new(), "exclude each other"),
        ("tenants = [\"acme\"]", grant("t", ""), "`t` of tenant `acme` is defined twice"),
    ] {
        let found = problems(&format!("{labelled}{more}{}", template(set)));
        assert!(found.len() == 1 && found[0].contains(wanted), "{wanted}: {found:?}");
    }
}

#[test]
fn what_is_wrong_in_a_template_is_said_once_and_not_for_each_tenant() {
    let all = template("tenants_with = [\"eu\"]");
    map(&format!("{}{all}", labelled()));
    let wrong = all.replace("spiffe://{tenant}.test/bot", "{tenant}");
    let found = problems(&format!("{}{wrong}", labelled()));
    assert!(found.len() == 1 && found[0].contains("`acme`"), "{found:?}");
}

#[test]
fn a_tenant_that_is_wrong_in_itself_is_in_no_set() {
    let template = "[[template]]\nname = \"x\"\ntenants_with = [\"eu\"]\n";
    let theirs = grant("t", "").replace("tenant = \"acme\"\n", "").replace("[[grant]]", "[[template.grant]]");
    let wrong = "[[tenant]]\nname = \"wrong\"\nissuer = \"http://x\"\n";
    let acme = labelled().replace("name = \"globex\"\nlabels = [\"eu\"]", "name = \"globex\"");
    map(&format!("{acme}{template}{theirs}"));
    let found = problems(&format!("{acme}{wrong}{template}{theirs}"));
    assert!(found.len() == 1 && found[0].contains("tenant.issuer"), "{found:?}");
}

#[test]
fn what_is_in_a_template_names_no_tenant_of_its_own() {
    let all = template("tenants = [\"acme\"]");
    for table in ["[[template.workload]]\n", "[[template.grant]]\n"] {
        let found =
            problems(&format!("{}{}", labelled(), all.replace(table, &format!("{table}tenant = \"globex\"\n"))));
        assert!(found.len() == 1 && found[0].contains(".tenant: is not for templates"), "{found:?}");
    }
}

/// One of each table that a trust file can have.
fn every_table() -> String {
    let duty = |name| format!("{name} = {{ party = \"vendor\", who = \"desk\", contact = \"x@payco.example\" }}\n");
    let duties: String = ["storage", "scope", "revocation", "escalation"].map(duty).concat();
    let selectors = "selectors = [{ unix_uid = 11 }]";
    format!(
        "{BASE}{}[[verifier]]\ntenant = \"acme\"\nname = \"own\"\naudiences = \"all\"\n{selectors}\n\
         [[verifier]]\ntenants = \"all\"\nname = \"global\"\naudiences = \"all\"\n{selectors}\n\
         [[accountability]]\ntenant = \"acme\"\npartner = \"payco\"\n{duties}\
         [[resource_class]]\ntenant = \"acme\"\nname = \"money\"\naudiences = [\"https://ledger.test/*\"]\nttl_max = 60\n\
         {}",
        grant("g", ""),
        template("tenants = [\"acme\"]")
    )
}

#[test]
fn no_table_takes_a_field_that_it_does_not_know() {
    let whole = every_table();
    map(&whole);
    let mut tables = 0;
    for (at, open) in whole.match_indices("]]\n").chain(whole.match_indices("{ ")) {
        let (before, after) = whole.split_at(at + open.len());
        let more = if open == "{ " { "zzz = 1, " } else { "zzz = 1\n" };
        let found = problems(&format!("{before}{more}{after}"));
        assert!(found.len() == 1 && found[0].contains(".zzz: is not known"), "{more} at {after:.60}: {found:?}");
        tables += 1;
    }
    assert_eq!(tables, whole.matches("[[").count() + whole.matches("{ ").count());
}

#[test]
fn what_is_of_another_type_is_told_with_its_place() {
    for (from, to, told) in [
        ("name = \"acme\"", "name = 7", "a.toml:3: tenant.name: is a integer, not a text; write it in quotes"),
        ("role = \"admin\"", "role = [\"admin\"]", ".role: is a array, not a text; write it in quotes"),
        ("[{ unix_uid = 7 }]", "[7]", ": selectors: is a integer, not a table; write [[selectors]]"),
        ("[{ unix_uid = 7 }]", "7", ".selectors: is a integer, not a list"),
        ("[{ unix_uid = 7 }]", "[{ unix_uid = \"7\" }]", ".unix_uid: is not within its limits"),
    ] {
        let found = problems(&BASE.replacen(from, to, 1));
        assert!(found.iter().any(|problem| problem.contains(told)), "{to}: {found:?}");
    }
}

#[test]
fn a_thousand_problems_are_listed_and_all_are_counted() {
    for (wrong, listed, more) in [(999, 999, 0), (1_000, 1_000, 0), (1_001, 1_000, 1)] {
        let fields: String = (0..wrong).map(|n| format!("zzz{n} = 1\n")).collect();
        let found = super::read(&format!("[[tenant]]\nname = \"a\"\n{fields}")).expect_err("wrong");
        assert_eq!((found.list().len(), found.more()), (listed, more));
        assert_eq!(found.to_string().ends_with("and 1 more\n"), more == 1);
    }
}
