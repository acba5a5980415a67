use crate::{
    model::Scope,
    policy::{ChangeKind, Noun, TrustMap, diff, diff_global, diff_tenant},
};

use super::{BASE, grant, map};

fn with(text: &str) -> TrustMap {
    map(&format!("{BASE}{text}"))
}

#[test]
fn each_grant_field_gives_takes_or_neither() {
    use ChangeKind::{Edited, Narrowed, Widened};
    let table = [
        ("partner = \"other\"", Narrowed),
        ("purposes = [\"deploy\", \"scan\"]", Widened),
        ("purposes = [\"scan\"]", Narrowed),
        ("audiences = [\"https://api.test\"]", Narrowed),
        ("audiences = [\"https://api.test\", \"https://api.test/*\"]", Widened),
        ("audiences = [\"https://api.test\", \"https://api.test/orders/7\"]", Narrowed),
        ("audiences = [\"https://api.test\", \"https://api.test/orders/*\", \"https://api.test/orders/7\"]", Edited),
        ("audiences = [\"https://new.test\"]", Narrowed),
        ("actions = [\"read\"]", Narrowed),
        ("actions = [\"read\", \"write\", \"delete\"]", Widened),
        ("kinds = [\"jwt\"]", Narrowed),
        ("kinds = [\"jwt\", \"x509\", \"opaque\"]", Widened),
        ("kinds = [\"jwt\", \"x509\", \"secret\"]\nsecrets = [\"stripe\"]", Widened),
        ("dns_names = []", Narrowed),
        ("ttl_max = 599", Narrowed),
        ("ttl_max = 601", Widened),
        ("ttl_default = 10", Edited),
        ("task_max = 1800", Narrowed),
        ("task_max = \"2h\"", Widened),
        ("owner = \"someone else\"", Edited),
        ("expires = 2026-12-31", Narrowed),
        ("expires = 2027-01-02", Widened),
        ("attest_by = 2026-12-01", Narrowed),
        ("attest_by = 2026-12-31", Widened),
        ("revokers = [\"alice\", \"bob\"]", Edited),
        ("require_binding = false", Widened),
        ("max_live_leases = 1", Edited),
        ("max_live_leases = 20_000", Widened),
        ("max_leases_per_task = 65", Widened),
        ("max_renewals = 5", Edited),
        ("environment = \"lab\"\nworkloads = [\"lab\"]", Narrowed),
        ("sources = [\"10.0.0.0/8\"]", Narrowed),
    ];
    let bob = "[[operator]]\nname = \"bob\"\nrole = \"revoker\"\ntenants = \"all\"\npartners = \"all\"\n";
    let old = with(&format!("{bob}{}", grant("g", "")));
    for (more, kind) in table {
        let new = with(&format!("{bob}{}", grant("g", more)));
        let changes = diff(&old, &new);
        assert_eq!(changes.len(), 1, "{more}: {changes:?}");
        let change = &changes[0];
        assert_eq!((change.kind, change.noun, change.name.as_str()), (kind, Noun::Grant, "g"), "{more}: {change:?}");
        assert!(!change.details.is_empty());
        let cut = Scope::Grant("acme".parse().expect("a name"), "g".parse().expect("a name"));
        assert_eq!(change.cut_scope(), (kind == Narrowed).then_some(cut), "{more}");
    }
    assert!(diff(&old, &old.clone()).is_empty());
    let back = diff(&with(&format!("{bob}{}", grant("g", "require_binding = false"))), &old);
    assert_eq!((back[0].kind, back[0].details[0].as_str()), (Narrowed, "require_binding false -> true"));
    for (more, told) in [
        ("actions = [\"read\"]", "actions -write"),
        ("actions = [\"delete\", \"list\", \"read\"]", "actions -write +delete +list"),
        ("sources = [\"10.0.0.0/8\"]", "sources +10.0.0.0/8"),
    ] {
        assert_eq!(diff(&old, &with(&format!("{bob}{}", grant("g", more))))[0].details, [told]);
    }
    let ttl = diff(&old, &with(&format!("{bob}{}", grant("g", "ttl_max = 120"))));
    assert!(ttl[0].details.contains(&"ttl_max 600s -> 120s".to_owned()), "{ttl:?}");
}

#[test]
fn what_is_removed_ends_in_the_narrowest_scope() {
    let old = with(&grant("g", ""));
    let without_grant = with("");
    let acme = || "acme".parse().expect("a name");
    let cuts = |old: &TrustMap, new: &TrustMap| diff(old, new).iter().filter_map(|c| c.cut_scope()).collect::<Vec<_>>();
    assert_eq!(cuts(&old, &without_grant), [Scope::Grant(acme(), "g".parse().expect("a name"))]);
    assert_eq!(cuts(&without_grant, &old), []);
    let moved = map(&BASE.replace("unix_uid = 7", "unix_uid = 8"));
    assert_eq!(cuts(&without_grant, &moved), [Scope::Workload(acme(), "lab".parse().expect("a name"))]);
    let more = map(&BASE.replace("{ unix_uid = 7 }", "{ unix_uid = 7 }, { unix_uid = 8 }"));
    assert_eq!(diff(&without_grant, &more)[0].kind, ChangeKind::Widened);
    let gone = diff_tenant(old.tenants.get(&acme()), None);
    assert_eq!((gone.len(), gone[0].cut_scope(), gone[0].is_removal()), (1, Some(Scope::Tenant(acme())), true));
    let mut global = old.global.clone();
    global.partners.remove(&"other".parse().expect("a name"));
    global.operators.clear();
    let changes = diff_global(&old.global, &global);
    assert_eq!(changes.iter().filter_map(|c| c.cut_scope()).count(), 1);
    assert_eq!(changes[0].cut_scope(), Some(Scope::Partner("other".parse().expect("a name"))));
    assert_eq!(diff_tenant(None, old.tenants.get(&acme())).len(), 4);
}

#[test]
fn an_operators_role_and_reach_are_ordered() {
    let with = |field: &str, value: &str| {
        let alice = [("role", "\"admin\""), ("tenants", "\"all\""), ("partners", "\"all\""), ("speaks_for", "[]")];
        let alice = alice.map(|(name, usual)| format!("{name} = {}\n", if name == field { value } else { usual }));
        let (before, after) =
            BASE.split_once("role = \"admin\"\ntenants = \"all\"\npartners = \"all\"\n").expect("alice");
        map(&format!("{before}{}{after}[[tenant]]\nname = \"globex\"\n", alice.concat()))
    };
    for (field, more, less) in [
        ("role", "\"admin\"", "\"auditor\""),
        ("tenants", "\"all\"", "[\"acme\", \"globex\"]"),
        ("tenants", "[\"acme\", \"globex\"]", "[\"acme\"]"),
        ("partners", "\"all\"", "[\"payco\"]"),
        ("partners", "[\"other\", \"payco\"]", "[\"payco\"]"),
        ("speaks_for", "[\"night desk\"]", "[]"),
        ("speaks_for", "[\"desk\", \"night desk\"]", "[\"desk\"]"),
    ] {
        let (old, new) = (with(field, more), with(field, less));
        for (changes, kind) in [(diff(&old, &new), ChangeKind::Narrowed), (diff(&new, &old), ChangeKind::Widened)] {
            assert_eq!((changes.len(), changes[0].noun), (1, Noun::Operator), "{changes:?}");
            assert_eq!((changes[0].kind, changes[0].cut_scope()), (kind, None), "{field} {more} {less}");
            assert!(changes[0].details[0].starts_with(field), "{changes:?}");
        }
    }
    for (field, old, new) in [("tenants", "[\"acme\"]", "[\"globex\"]"), ("speaks_for", "[\"a\"]", "[\"b\"]")] {
        assert_eq!(diff(&with(field, old), &with(field, new))[0].kind, ChangeKind::Narrowed, "another is no more");
    }
}

#[test]
fn a_workload_that_moves_or_may_come_from_fewer_networks_ends_what_it_has() {
    let lab = |environment: &str, more: &str| {
        map(&BASE.replace("environment = \"lab\"\n", &format!("environment = \"{environment}\"\n{more}")))
    };
    let all = || lab("lab", "");
    let (wide, narrow) = (lab("lab", "sources = [\"10.0.0.0/8\"]\n"), lab("lab", "sources = [\"10.1.0.0/16\"]\n"));
    let cut = Scope::Workload("acme".parse().expect("a name"), "lab".parse().expect("a name"));
    for (old, new, kind) in [
        (all(), lab("test", ""), ChangeKind::Narrowed),
        (lab("test", ""), all(), ChangeKind::Narrowed),
        (all(), wide.clone(), ChangeKind::Narrowed),
        (wide.clone(), narrow.clone(), ChangeKind::Narrowed),
        (narrow, wide.clone(), ChangeKind::Widened),
        (wide, all(), ChangeKind::Widened),
    ] {
        let changes = diff(&old, &new);
        assert_eq!((changes.len(), changes[0].noun, changes[0].kind), (1, Noun::Workload, kind), "{changes:?}");
        assert_eq!(changes[0].cut_scope(), (kind == ChangeKind::Narrowed).then(|| cut.clone()));
    }
}

#[test]
fn who_answers_for_a_partner_is_part_of_what_changes() {
    let with = |who: &str| {
        let duty =
            |name| format!("{name} = {{ party = \"vendor\", who = \"{who}\", contact = \"x@payco.example\" }}\n");
        let duties: String = ["storage", "scope", "revocation", "escalation"].into_iter().map(duty).collect();
        map(&format!("{BASE}[[accountability]]\ntenant = \"acme\"\npartner = \"payco\"\n{duties}"))
    };
    for (old, new) in [(with("desk"), with("night desk")), (map(BASE), with("desk")), (with("desk"), map(BASE))] {
        let changes = diff(&old, &new);
        assert_eq!((changes.len(), changes[0].noun, changes[0].cut_scope()), (1, Noun::Tenant, None), "{changes:?}");
        assert!(changes[0].details[0].starts_with("accountability"), "{changes:?}");
    }
}

#[test]
fn when_grants_fall_asleep_is_part_of_what_changes() {
    let with =
        |time: &str| map(&BASE.replacen("name = \"acme\"", &format!("name = \"acme\"\ndormant_after = \"{time}\""), 1));
    for (old, new, told) in [
        (map(BASE), with("1d"), "dormant_after never -> 86400s"),
        (with("2d"), with("1d"), "dormant_after 172800s -> 86400s"),
        (with("1d"), map(BASE), "dormant_after 86400s -> never"),
    ] {
        let changes = diff(&old, &new);
        assert_eq!((changes.len(), changes[0].noun), (1, Noun::Tenant), "{changes:?}");
        assert_eq!(changes[0].details, [told]);
    }
}
