use proptest::{collection::vec, prelude::*, sample::subsequence};

use super::*;
use crate::{
    broker::event::{ACTIONS, actions_of, stamp},
    model::Timestamp,
    policy::{ChangeKind, Document, Extent, Grant, Pattern, TrustMap, diff, parse},
};

const WORKLOADS: [&str; 3] = ["ci", "lab", "night"];
const PURPOSES: [&str; 3] = ["deploy", "read", "break-glass"];
const AUDIENCES: [&str; 4] = ["https://api.test", "https://api.test/orders/7", "https://api.test/orders/8/lines", "b"];
const ACTIONS_ASKED: [&str; 4] = ["read", "write", "orders/close", "orders/open"];
const KINDS: [CredentialKind; 3] = [CredentialKind::Jwt, CredentialKind::Opaque, CredentialKind::X509];

const BASE: &str = r#"
[[tenant]]
name = "acme"
[[partner]]
name = "payco"
display_name = "PayCo"
contact = "x@payco.example"
[[operator]]
name = "alice"
role = "admin"
tenants = "all"
partners = "all"
[[operator]]
name = "bob"
role = "revoker"
tenants = "all"
partners = "all"
[[workload]]
tenant = "acme"
name = "ci"
environment = "prod"
selectors = [{ spiffe_id = "spiffe://acme.test/ci" }]
[[workload]]
tenant = "acme"
name = "lab"
environment = "prod"
selectors = [{ spiffe_id = "spiffe://acme.test/lab" }]
[[workload]]
tenant = "acme"
name = "night"
environment = "prod"
selectors = [{ spiffe_id = "spiffe://acme.test/night" }]
"#;

const GRANT: &str = r#"
[[grant]]
tenant = "acme"
name = "g"
partner = "payco"
workloads = ["ci", "lab", "night"]
purposes = ["deploy", "read", "break-glass"]
audiences = ["https://api.test", "https://api.test/orders/*", "b"]
actions = ["read", "write", "orders/*"]
kinds = ["jwt", "opaque", "x509"]
ttl_max = 600
owner = "team"
expires = 2027-01-01
attest_by = 2026-12-15
revokers = ["alice"]
environment = "prod"
max_renewals = 3
approvals = { needed = 2, by = ["alice", "bob"], purposes = ["break-glass", "read"] }
velocity = { derivations_per_minute = 30, resources = 16 }
"#;

fn map(text: &str) -> TrustMap {
    let now = Timestamp::parse_rfc3339("2026-11-22T00:00:00Z").expect("a time");
    parse(&[Document { path: "a.toml", text }], Extent::Whole, now).unwrap_or_else(|problems| panic!("{problems}"))
}

fn grant_of(map: &TrustMap) -> Grant {
    let tenant = &map.tenants[&"acme".parse().expect("a name")];
    tenant.grants()[&"g".parse().expect("a name")].clone()
}

/// One issue, as it was asked for.
#[derive(Clone, Debug)]
struct Use {
    workload: &'static str,
    purpose: &'static str,
    audiences: Vec<&'static str>,
    actions: Vec<&'static str>,
    kind: CredentialKind,
    ttl: u32,
}

impl Use {
    fn event(&self, grant: &Grant) -> pb::Event {
        let mut actions: Vec<String> = self.actions.iter().map(|&action| action.to_owned()).collect();
        actions.sort_unstable();
        let at = Timestamp::from_millis(1_750_000_000_000);
        pb::Event {
            at: Some(stamp(at)),
            expires: Some(stamp(at.after(Duration::from_secs(self.ttl.into())))),
            workload: self.workload.into(),
            purpose: self.purpose.into(),
            audiences: self.audiences.iter().map(|&audience| audience.to_owned()).collect(),
            credential_kind: self.kind.code().into(),
            details: actions_of(&actions, grant).into_iter().collect(),
            ..Default::default()
        }
    }
}

fn uses() -> impl Strategy<Value = Vec<Use>> {
    let of = |all: &'static [&'static str], least: usize| subsequence(all.to_vec(), least..=all.len());
    let one = (
        proptest::sample::select(&WORKLOADS[..]),
        proptest::sample::select(&PURPOSES[..]),
        of(&AUDIENCES, 1),
        of(&ACTIONS_ASKED, 0),
        proptest::sample::select(&KINDS[..]),
        1_u32..=600,
    );
    let made =
        |(workload, purpose, audiences, actions, kind, ttl)| Use { workload, purpose, audiences, actions, kind, ttl };
    vec(one.prop_map(made), 1..5)
}

fn used_of(uses: &[Use], grant: &Grant) -> Used {
    let mut used = Used::default();
    uses.iter().for_each(|one| used.note(one.event(grant)));
    used
}

fn proposed(used: &Used, grant: &Grant) -> TrustMap {
    let proposal = narrow::proposal(&"acme".parse().expect("name"), &"g".parse().expect("name"), grant, used);
    map(&format!("{BASE}{proposal}"))
}

proptest! {
    #[test]
    fn a_proposal_covers_all_that_was_used_and_gives_nothing_that_the_grant_did_not(uses in uses()) {
        let before = map(&format!("{BASE}{GRANT}"));
        let old = grant_of(&before);
        let after = proposed(&used_of(&uses, &old), &old);
        let new = grant_of(&after);
        for change in diff(&before, &after) {
            prop_assert!(matches!(change.kind, ChangeKind::Narrowed | ChangeKind::Edited), "{:?}", change);
        }
        let covered = |new: &[Pattern], old: &[Pattern]| new.iter().all(|one| old.iter().any(|wide| wide.covers(one)));
        prop_assert!(covered(&new.actions, &old.actions) && covered(&new.audiences, &old.audiences));
        for one in &uses {
            prop_assert!(new.workloads.has(&one.workload.parse().expect("a name")));
            prop_assert!(new.purposes.has(&one.purpose.parse().expect("a purpose")));
            prop_assert!(one.audiences.iter().all(|asked| new.audiences.iter().any(|given| given.fits(asked))));
            prop_assert!(one.actions.iter().all(|asked| new.actions.iter().any(|given| given.fits(asked))));
            prop_assert!(new.kinds.has(&one.kind) && one.ttl <= new.ttl_max);
        }
        // Nothing that nobody used is left, of actions either.
        let asked = |given: &Pattern| uses.iter().any(|one| one.actions.contains(&given.as_str()));
        prop_assert!(new.actions.iter().all(asked), "{:?}", new.actions);
        // What was demanded for a purpose still is.
        for purpose in new.purposes.iter() {
            prop_assert_eq!(new.approvals_for(purpose).map(|need| need.needed), old.approvals_for(purpose).map(|need| need.needed));
        }
        prop_assert_eq!(new.velocity, old.velocity);
    }
}

#[test]
fn an_event_names_actions_only_where_they_are_not_all_of_the_grants() {
    let exact = GRANT.replace("\"orders/*\"", "\"orders/close\"");
    let (old, exact) = (grant_of(&map(&format!("{BASE}{GRANT}"))), grant_of(&map(&format!("{BASE}{exact}"))));
    let asked = |actions: &[&str]| actions.iter().map(|&action| action.to_owned()).collect::<Vec<_>>();
    assert_eq!(actions_of(&asked(&["orders/close", "read", "write"]), &exact), None);
    let told = |actions: &[&str], grant: &Grant| actions_of(&asked(actions), grant).expect("is told");
    assert_eq!(told(&["orders/close", "read", "write"], &old), "actions=orders/close read write");
    assert_eq!(told(&["read"], &exact), "actions=read");
    assert_eq!(told(&[], &exact), ACTIONS);
}

#[test]
fn what_an_older_version_noted_keeps_all_actions_and_a_static_secret_none() {
    let old = grant_of(&map(&format!("{BASE}{GRANT}")));
    let one =
        |kind| Use { workload: "ci", purpose: "read", audiences: vec!["b"], actions: vec!["read"], kind, ttl: 60 };
    let bare = |kind| pb::Event { details: Vec::new(), ..one(kind).event(&old) };
    let mut used = used_of(&[one(CredentialKind::Opaque)], &old);
    let actions =
        |used: &Used| grant_of(&proposed(used, &old)).actions.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(actions(&used), ["read"]);
    let unused = narrow::unused(&old, &used);
    assert!(unused.iter().any(|line| line == "action write") && unused.iter().any(|line| line == "action orders/*"));
    assert!(!unused.iter().any(|line| line == "action read"), "{unused:?}");
    used.note(bare(CredentialKind::Secret));
    used.kinds.remove("secret");
    assert_eq!(actions(&used), ["read"]);
    used.note(bare(CredentialKind::Opaque));
    assert_eq!(actions(&used), ["orders/*", "read", "write"]);
    assert!(!narrow::unused(&old, &used).iter().any(|line| line.starts_with("action ")));
}

#[test]
fn more_than_a_list_holds_is_proposed_as_what_the_grant_says() {
    let old = grant_of(&map(&format!("{BASE}{GRANT}")));
    let mut used = used_of(&[], &old);
    used.note(pb::Event {
        workload: "ci".into(),
        purpose: "deploy".into(),
        audiences: vec!["b".into()],
        credential_kind: CredentialKind::Jwt.code().into(),
        details: vec![format!("{ACTIONS}read")],
        ..Default::default()
    });
    for at in 0..64 {
        used.actions.insert(format!("orders/{at}"));
    }
    let actions =
        |used: &Used| grant_of(&proposed(used, &old)).actions.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(actions(&used), ["orders/*", "read"]);
    used.actions.remove("orders/0");
    assert_eq!(actions(&used).len(), 64);
}
