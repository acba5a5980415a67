//! (tests only) Laws of the trust map's life, on a clock that is moved by hand.

use std::{sync::Arc, time::Duration};

use super::{
    Broker, Refusal,
    testing::{Hands, TRUST, add_tenant, admin, apply, days, founded, worker},
};
use crate::{
    identity::{Authority, Caller, CertificateProof, Proof},
    ledger::Hold,
    model::{Digest, LeaseId, Scope, Standing, Suspension, Timestamp},
    pb::{self, issue_response::Credential},
};

struct Stage {
    broker: Arc<Broker>,
    hands: Arc<Hands>,
}

/// What was issued: its lease and the token.
#[derive(Clone)]
struct Issued {
    lease: LeaseId,
    token: String,
}

impl Stage {
    async fn new(trust: &str) -> Self {
        let (broker, hands) = founded().await;
        apply(&broker, trust).await;
        Self { broker, hands }
    }

    fn pass(&self, by: Duration) {
        self.hands.advance(by);
    }

    async fn ask(&self, grant: &str) -> Result<Issued, Refusal> {
        let request = pb::IssueRequest {
            tenant: "acme".into(),
            partner: if grant == "h" { "eta" } else { "zeta" }.into(),
            purpose: "work".into(),
            grant: grant.into(),
            audiences: vec!["https://api.example".into()],
            actions: vec!["read".into()],
            kind: pb::CredentialKind::Opaque.into(),
            ttl_seconds: 3_600,
            ..Default::default()
        };
        let reply = self.broker.issue(&worker(), request).await?;
        let lease = reply.lease.expect("lease").lease_id.parse().expect("an id");
        let Some(Credential::Token(token)) = reply.credential else { panic!("a token") };
        Ok(Issued { lease, token })
    }

    async fn issue(&self) -> Issued {
        self.ask("g").await.expect("issued")
    }

    async fn refusal(&self, grant: &str) -> &'static str {
        self.ask(grant).await.err().map_or("", |refusal| refusal.reason())
    }

    /// As introspection says.
    async fn is_active(&self, issued: &Issued) -> bool {
        let request = pb::IntrospectRequest {
            credential: Some(pb::introspect_request::Credential::Token(issued.token.clone())),
            presented_certificate_sha256: Digest::of(b"worker").0.to_vec(),
            ..Default::default()
        };
        self.broker.introspect(&admin(), request).await.expect("answers").active
    }

    fn standing(&self, issued: &Issued, at: Timestamp) -> Standing {
        let lease = self.broker.ledger.lease(issued.lease).expect("reads").expect("is there");
        self.broker.ledger.lease_standing(&lease, at).expect("reads")
    }

    async fn tend(&self) {
        self.broker.tend().await.expect("tends");
    }

    async fn attest(&self, who: &Caller, grant: &str, until: &str) -> Result<pb::AttestResponse, Refusal> {
        let attest_by = Timestamp::parse_rfc3339(until).map(super::event::stamp);
        let request =
            pb::AttestRequest { tenant: "acme".into(), grant: grant.into(), attest_by, reason: "still needed".into() };
        self.broker.attest(who, request).await
    }

    async fn quarantine(&self, scope: &Scope, for_: Duration, auto_lift: bool) -> pb::QuarantineResponse {
        let request = pb::QuarantineRequest {
            scope: Some(super::view::scope(scope)),
            duration_seconds: u32::try_from(for_.as_secs()).expect("short"),
            auto_lift,
            reason: "odd traffic".into(),
        };
        self.broker.quarantine(&admin(), request).await.expect("quarantined")
    }

    async fn transfer(&self, grant: &str, owner: &str) -> pb::TransferGrantResponse {
        let request = pb::TransferGrantRequest {
            tenant: "acme".into(),
            grant: grant.into(),
            owner: owner.into(),
            dry_run: false,
            reason: "team was split".into(),
        };
        self.broker.transfer_grant(&admin(), request).await.expect("transferred")
    }

    async fn leave(&self, owner: &str, dry_run: bool) -> pb::LeaveOwnerResponse {
        let request = pb::LeaveOwnerRequest { owner: owner.into(), dry_run, reason: "left".into() };
        self.broker.leave_owner(&admin(), request).await.expect("left")
    }

    async fn inventory(&self, request: pb::InventoryRequest) -> Vec<pb::InventoryRecord> {
        self.broker.inventory(&admin(), request).await.expect("lists").records
    }

    /// The kinds of the events in a tenant's streams.
    async fn told(&self, kind: &str) -> usize {
        let request = pb::ListEventsRequest {
            page: Some(pb::Page { size: 1_000, token: String::new() }),
            kind_prefix: kind.into(),
            ..Default::default()
        };
        self.broker.list_events(&admin(), request).await.expect("lists").events.len()
    }
}

/// Lets what was spawned run until `ask` answers, a bounded number of times.
async fn eventually<T, F: Future<Output = Option<T>>>(ask: impl Fn() -> F) -> Option<T> {
    for _ in 0..10_000 {
        if let Some(found) = ask().await {
            return Some(found);
        }
        tokio::task::yield_now().await;
    }
    None
}

fn operator(name: &str) -> Caller {
    Caller::for_test(Proof::Certificate(CertificateProof {
        sha256: Digest::of(name.as_bytes()),
        key: Digest::of(b"a key"),
        authority: Authority::Own,
        spiffe_id: Some(format!("spiffe://mayfly.internal/operator/{name}")),
        dns_names: vec![],
        serial: vec![0x42; 16],
        not_after: Timestamp::from_millis(u64::MAX / 2),
    }))
}

fn grant() -> Scope {
    Scope::Grant("acme".parse().expect("name"), "g".parse().expect("name"))
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

/// The trust map with a second partner and a grant `h` of another owner.
fn two() -> String {
    let (_, first) = TRUST.split_once("[[grant]]").expect("a grant");
    let second = first
        .replace("name = \"g\"", "name = \"h\"")
        .replace("partner = \"zeta\"", "partner = \"eta\"")
        .replace("owner@example.com", "other@example.com");
    let partner = "[[partner]]\nname = \"eta\"\ndisplay_name = \"Eta\"\ncontact = \"eta@example.com\"\n";
    format!("{TRUST}\n{partner}[[grant]]{second}")
}

/// To ten minutes before the grant must be attested.
fn before_deadline(stage: &Stage) -> Duration {
    let deadline = Timestamp::parse_rfc3339("2025-09-01T00:00:00Z").expect("a time");
    deadline.before(minutes(10)).since(stage.broker.now())
}

#[tokio::test]
async fn a_missed_attestation_suspends_what_lives_and_begins_nothing_though_no_sweep_ran() {
    let stage = Stage::new(TRUST).await;
    stage.pass(before_deadline(&stage));
    let issued = stage.issue().await;
    assert!(stage.is_active(&issued).await);
    stage.pass(minutes(11));
    assert!(!stage.is_active(&issued).await, "active after the deadline");
    assert_eq!(stage.standing(&issued, stage.broker.now()), Standing::Suspended);
    assert_eq!(stage.refusal("g").await, "ATTESTATION_OVERDUE");
    let renew = pb::RenewRequest { lease_id: issued.lease.to_string(), ..Default::default() };
    let refused = stage.broker.renew(&worker(), renew.clone()).await.err().expect("refused");
    assert_eq!(refused.reason(), "SUSPENDED");

    stage.attest(&admin(), "g", "2025-11-01T00:00:00Z").await.expect("attested");
    assert!(stage.is_active(&issued).await, "an attestation did not revive it");
    stage.issue().await;
    stage.broker.renew(&worker(), renew).await.expect("renewed");
}

#[tokio::test]
async fn a_written_lapse_outlasts_an_apply_and_an_earlier_clock_until_it_is_attested() {
    let stage = Stage::new(TRUST).await;
    stage.pass(before_deadline(&stage));
    let (issued, then) = (stage.issue().await, stage.broker.now());
    stage.pass(minutes(11));
    stage.tend().await;
    stage.tend().await;
    assert_eq!(stage.told("scope.suspended").await, 1);
    assert_eq!(stage.standing(&issued, then), Standing::Suspended, "an earlier time revives it");
    assert_eq!(stage.broker.ledger.suspensions().len(), 1, "offline verifiers are not told");

    apply(&stage.broker, &TRUST.replace("attest_by = 2025-09-01", "attest_by = 2025-11-30")).await;
    assert!(!stage.is_active(&issued).await, "an apply lifted a lapse");
    assert_eq!(stage.refusal("g").await, "ATTESTATION_OVERDUE");

    let reply = stage.attest(&admin(), "g", "2025-11-01T00:00:00Z").await.expect("attested");
    assert_eq!(reply.lifted, ["attestation overdue"]);
    assert!(stage.is_active(&issued).await && stage.broker.ledger.suspensions().is_empty());
    // What was attested at run time is not reset by the files: their date is past, and counts no more.
    apply(&stage.broker, TRUST).await;
    stage.issue().await;
}

#[tokio::test]
async fn only_who_speaks_for_the_owner_attests_where_the_trust_map_names_somebody() {
    let speaker = "[[operator]]\nname = \"ann\"\nrole = \"auditor\"\ntenants = \"all\"\npartners = \"all\"\n\
                   speaks_for = [\"owner@example.com\"]\n";
    let stage = Stage::new(&format!("{TRUST}\n{speaker}")).await;
    let refused = stage.attest(&admin(), "g", "2025-11-01T00:00:00Z").await.expect_err("refused");
    assert!(matches!(refused, Refusal::NotAllowed(_)), "{refused:?}");
    let refused = stage.attest(&operator("bob"), "g", "2025-11-01T00:00:00Z").await.expect_err("refused");
    assert!(matches!(refused, Refusal::Unproven(_)), "{refused:?}");
    stage.attest(&operator("ann"), "g", "2025-11-01T00:00:00Z").await.expect("attested");
}

#[tokio::test]
async fn an_attestation_without_a_date_takes_the_period_of_the_grant() {
    let stage = Stage::new(&TRUST.replace("owner = ", "attest_every = \"30d\"\n    owner = ")).await;
    let reply = stage.attest(&admin(), "g", "").await.expect("attested");
    let by = super::event::unstamp(&reply.attest_by.expect("a date"));
    assert_eq!(by, stage.broker.now().after(days(30)));
    let without = Stage::new(TRUST).await;
    let refused = without.attest(&admin(), "g", "").await.expect_err("refused");
    assert!(matches!(refused, Refusal::Invalid { field: "attest_by", .. }), "{refused:?}");
}

#[tokio::test]
async fn a_quarantine_suspends_until_it_is_lifted_and_an_apply_does_not_lift_it() {
    let workload = Scope::Workload("acme".parse().expect("name"), "w".parse().expect("name"));
    let tenant = Scope::Tenant("acme".parse().expect("name"));
    let in_tenant = Scope::PartnerInTenant("acme".parse().expect("name"), "zeta".parse().expect("name"));
    let partner = Scope::Partner("zeta".parse().expect("name"));
    for scope in [grant(), workload, tenant, in_tenant, partner] {
        let stage = Stage::new(TRUST).await;
        let issued = stage.issue().await;
        assert!(stage.quarantine(&scope, minutes(30), false).await.changed);
        assert!(!stage.is_active(&issued).await, "{scope}");
        assert_eq!(stage.refusal("g").await, "BARRED", "{scope}");
        apply(&stage.broker, &TRUST.replace("Zeta", "Zeta Ltd")).await;
        assert!(!stage.is_active(&issued).await, "an apply lifted the quarantine of {scope}");
        let lift =
            pb::LiftRequest { scope: Some(super::view::scope(&scope)), reason: "clean".into(), only_quarantine: true };
        assert!(stage.broker.lift(&admin(), lift).await.expect("lifted").changed, "{scope}");
        assert!(stage.is_active(&issued).await, "{scope}");
        stage.issue().await;
    }
}

#[tokio::test]
async fn a_quarantine_whose_time_is_over_stays_closed_and_is_told_once() {
    let stage = Stage::new(TRUST).await;
    let issued = stage.issue().await;
    stage.quarantine(&grant(), minutes(10), false).await;
    for _ in 0..3 {
        stage.pass(minutes(10));
        stage.tend().await;
    }
    assert!(!stage.is_active(&issued).await && stage.refusal("g").await == "BARRED");
    assert_eq!((stage.told("quarantine.lapsed").await, stage.broker.lapsed_quarantines()), (1, 1));
}

#[tokio::test]
async fn an_automatic_lift_waits_for_its_time_and_for_a_clock_that_is_believed() {
    let stage = Stage::new(TRUST).await;
    let issued = stage.issue().await;
    stage.quarantine(&grant(), minutes(10), true).await;
    stage.pass(minutes(9));
    stage.tend().await;
    assert!(!stage.is_active(&issued).await, "lifted before its time");
    stage.pass(minutes(2));
    stage.broker.ledger.holds().set(Hold::Clock);
    stage.tend().await;
    assert!(!stage.is_active(&issued).await, "lifted on a time that nobody has confirmed");
    stage.broker.ledger.holds().clear(Hold::Clock);
    stage.tend().await;
    assert!(stage.is_active(&issued).await, "not lifted");
    assert_eq!(stage.told("quarantine.lapsed").await, 0);
}

#[tokio::test]
async fn a_bar_and_a_quarantine_of_one_scope_do_not_lift_each_other() {
    let stage = Stage::new(TRUST).await;
    let issued = stage.issue().await;
    let scope = Some(super::view::scope(&grant()));
    let bar = pb::BarRequest { scope: scope.clone(), suspend: true, reason: "for good".into() };
    stage.broker.bar(&admin(), bar).await.expect("barred");
    stage.quarantine(&grant(), minutes(1), true).await;
    stage.pass(minutes(2));
    stage.tend().await;
    assert!(stage.broker.ledger.held_for(Suspension::Quarantine).is_empty(), "the quarantine was not lifted");
    assert!(!stage.is_active(&issued).await, "the end of a quarantine lifted a bar");
    let bars = stage.broker.list_bars(&admin(), pb::ListBarsRequest::default()).await.expect("lists").bars;
    assert_eq!((bars.len(), bars[0].cause.as_str()), (1, ""));
}

#[tokio::test]
async fn each_reason_is_listed_once_whatever_the_size_of_the_page() {
    let stage = Stage::new(TRUST).await;
    stage.leave("owner@example.com", false).await;
    stage.quarantine(&grant(), minutes(10), false).await;
    let bar = pb::BarRequest { scope: Some(super::view::scope(&grant())), suspend: false, reason: "test".into() };
    stage.broker.bar(&admin(), bar).await.expect("barred");
    let (mut causes, mut token) = (Vec::new(), String::new());
    for _ in 0..9 {
        let page = Some(pb::Page { size: 1, token });
        let reply = stage.broker.list_bars(&admin(), pb::ListBarsRequest { page }).await.expect("lists");
        causes.extend(reply.bars.into_iter().map(|bar| bar.cause));
        token = reply.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(causes, ["", "quarantine", "owner left"]);
}

#[tokio::test]
async fn a_transferred_grant_is_suspended_until_its_new_owner_attests() {
    let stage = Stage::new(&two()).await;
    let (issued, other) = (stage.issue().await, stage.ask("h").await.expect("issued"));
    let reply = stage.transfer("g", "new@example.com").await;
    assert_eq!((reply.owner_before.as_str(), reply.leases, reply.changed), ("owner@example.com", 1, true));
    assert!(!stage.is_active(&issued).await && stage.is_active(&other).await);
    assert_eq!(stage.refusal("g").await, "BARRED");
    assert!(!stage.transfer("g", "new@example.com").await.changed, "again changed something");
    let listed = stage.inventory(pb::InventoryRequest { owner: "new@example.com".into(), ..Default::default() }).await;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].suspended_for, ["transfer pending"]);
    assert_eq!(listed[0].owner_in_trust_map, "owner@example.com");
    // The files catch up: nothing more to attest than there is.
    apply(&stage.broker, &two().replace("owner = \"owner@example.com\"", "owner = \"new@example.com\"")).await;
    assert!(!stage.is_active(&issued).await, "an apply lifted it");
    let reply = stage.attest(&admin(), "g", "2025-08-01T00:00:00Z").await.expect("attested");
    assert_eq!(reply.lifted, ["transfer pending"]);
    assert!(stage.is_active(&issued).await);
}

#[tokio::test]
async fn an_apply_that_names_another_owner_suspends_until_that_owner_attests() {
    let stage = Stage::new(TRUST).await;
    let issued = stage.issue().await;
    apply(&stage.broker, &TRUST.replace("owner@example.com", "new@example.com")).await;
    assert!(!stage.is_active(&issued).await);
    assert_eq!(stage.told("grant.transferred").await, 1);
    stage.attest(&admin(), "g", "2025-08-01T00:00:00Z").await.expect("attested");
    assert!(stage.is_active(&issued).await);
}

#[tokio::test]
async fn an_owner_who_leaves_takes_nothing_of_other_owners_along() {
    let stage = Stage::new(&two()).await;
    let (issued, other) = (stage.issue().await, stage.ask("h").await.expect("issued"));
    let dry = stage.leave("owner@example.com", true).await;
    assert_eq!((dry.grant_count, dry.leases, dry.suspended), (1, 1, 0));
    assert!(stage.is_active(&issued).await, "a dry run suspended");
    assert_eq!(stage.leave("owner@example.com", false).await.suspended, 1);
    assert_eq!(stage.leave("owner@example.com", false).await.suspended, 0, "again changed something");
    assert!(!stage.is_active(&issued).await && stage.is_active(&other).await);
    assert_eq!(stage.told("owner.left").await, 1);
    // Who has left attests nothing, and it cannot be given back to who has left.
    let refused = stage.attest(&admin(), "g", "2025-08-01T00:00:00Z").await.expect_err("refused");
    assert!(matches!(refused, Refusal::Invalid { field: "grant", .. }), "{refused:?}");
    stage.transfer("g", "new@example.com").await;
    assert!(!stage.is_active(&issued).await, "a transfer alone lifted it");
    stage.attest(&admin(), "g", "2025-08-01T00:00:00Z").await.expect("attested");
    assert!(stage.is_active(&issued).await);
}

#[tokio::test]
async fn an_offboarded_partner_ends_everywhere_stays_barred_and_takes_no_other_along() {
    let stage = Stage::new(&two()).await;
    let (issued, other) = (stage.issue().await, stage.ask("h").await.expect("issued"));
    let scope = Some(super::view::scope(&Scope::Partner("zeta".parse().expect("name"))));
    let request = |dry_run| pb::DecommissionRequest { scope: scope.clone(), dry_run, reason: "contract ended".into() };
    let dry = stage.broker.decommission(&admin(), request(true)).await.expect("counted");
    assert_eq!((dry.leases, dry.grant_count, dry.tenants), (1, 1, 1));
    assert!(stage.is_active(&issued).await, "a dry run ended");
    let real = stage.broker.decommission(&admin(), request(false)).await.expect("ended");
    assert!(real.changed && real.grants[0].grant == "g");
    assert!(!stage.broker.decommission(&admin(), request(false)).await.expect("again").changed);
    assert!(!stage.is_active(&issued).await && stage.is_active(&other).await);
    apply(&stage.broker, &two().replace("Zeta", "Zeta Ltd")).await;
    assert_eq!(stage.refusal("g").await, "BARRED");
    stage.ask("h").await.expect("another partner's");
    assert_eq!(stage.told("partner.offboarded").await, 1);
}

#[tokio::test]
async fn a_retired_grant_ends_and_a_closed_project_and_tenant_too() {
    let (tenant, partner) = ("acme".parse().expect("name"), "zeta".parse().expect("name"));
    let project = Scope::PartnerInTenant("acme".parse().expect("name"), partner);
    for (scope, kind, other_lives) in [
        (grant(), "grant.retired", true),
        (project, "partner.closed_out", true),
        (Scope::Tenant(tenant), "tenant.closed_out", false),
    ] {
        let stage = Stage::new(&two()).await;
        let (issued, other) = (stage.issue().await, stage.ask("h").await.expect("issued"));
        let request =
            pb::DecommissionRequest { scope: Some(super::view::scope(&scope)), dry_run: false, reason: "done".into() };
        stage.broker.decommission(&admin(), request).await.expect("ended");
        assert!(!stage.is_active(&issued).await, "{scope}");
        assert_eq!(stage.is_active(&other).await, other_lives, "{scope}");
        assert_eq!(stage.told(kind).await, 1, "{scope}");
    }
}

fn sleepy() -> String {
    TRUST.replace("name = \"acme\"\n    max", "name = \"acme\"\n    dormant_after = \"30d\"\n    max")
}

#[tokio::test]
async fn a_grant_that_is_not_used_for_long_is_suspended_and_refuses_before_any_sweep() {
    let stage = Stage::new(&sleepy()).await;
    stage.tend().await;
    stage.pass(days(20));
    stage.issue().await;
    stage.pass(days(20));
    stage.tend().await;
    stage.issue().await;
    stage.pass(days(30));
    // No sweep has run since.
    assert_eq!(stage.refusal("g").await, "GRANT_DORMANT");
    stage.tend().await;
    assert_eq!(stage.broker.ledger.held_for(Suspension::Dormant), [grant().id()]);
    let listed = stage.inventory(pb::InventoryRequest { state: "dormant".into(), ..Default::default() }).await;
    assert_eq!(listed[0].suspended_for, ["dormant"]);
    let reply = stage.attest(&admin(), "g", "2025-11-01T00:00:00Z").await.expect("attested");
    assert_eq!(reply.lifted, ["dormant"]);
    stage.issue().await;
}

#[tokio::test]
async fn a_grant_that_was_never_used_becomes_dormant_and_without_a_rule_none_does() {
    let stage = Stage::new(&sleepy()).await;
    stage.pass(days(31));
    stage.tend().await;
    assert_eq!(stage.broker.ledger.held_for(Suspension::Dormant).len(), 1);
    let awake = Stage::new(TRUST).await;
    awake.tend().await;
    awake.pass(days(70));
    awake.tend().await;
    awake.issue().await;
}

#[tokio::test]
async fn the_last_use_is_read_back_from_its_row() {
    let stage = Stage::new(&sleepy()).await;
    stage.pass(days(10));
    stage.issue().await;
    let used = stage.broker.now();
    stage.broker.write_last_uses(false).await.expect("writes");
    let number = stage.broker.registry.number(&"acme".parse().expect("name")).expect("a number");
    let rows = stage.broker.ledger.grant_uses(number).expect("reads");
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].0.as_str(), rows[0].1.last_used), ("g", used.millis()));
    // Within the hour nothing is written again, but for a stop.
    stage.pass(minutes(5));
    stage.issue().await;
    stage.broker.write_last_uses(false).await.expect("writes");
    assert_eq!(stage.broker.ledger.grant_uses(number).expect("reads")[0].1.last_used, used.millis());
    stage.broker.write_last_uses(true).await.expect("writes");
    assert_eq!(stage.broker.ledger.grant_uses(number).expect("reads")[0].1.last_used, stage.broker.now().millis());
    // A registry that knows nothing yet learns it from the rows.
    let fresh = super::registry::Registry::load(&stage.broker.ledger).expect("loads");
    let tenant = fresh.by_number(&stage.broker.ledger, number).expect("reads").expect("is there");
    assert_eq!(tenant.uses[&"g".parse().expect("name")].at(), stage.broker.now());
}

#[tokio::test]
async fn a_staging_workload_obtains_no_production_grant_through_child_tasks_either() {
    let stage = Stage::new(TRUST).await;
    let open = |parent: &str| pb::OpenTaskRequest {
        tenant: "acme".into(),
        partner: "zeta".into(),
        purpose: "work".into(),
        parent_task_id: parent.into(),
        ..Default::default()
    };
    let task = stage.broker.open_task(&worker(), open("")).await.expect("opened").task.expect("a task");
    // It moves to staging: the files may not say so of both, so the row is what an older file left behind.
    let number = stage.broker.registry.number(&"acme".parse().expect("name")).expect("a number");
    let row = stage.broker.ledger.trust(number).expect("reads").expect("is there");
    let text = String::from_utf8(row.trust.clone()).expect("JSON");
    let staging = text.replacen("\"environment\":\"prod\"", "\"environment\":\"staging\"", 1);
    assert_ne!(text, staging);
    let trust = crate::policy::TenantTrust::from_bytes(staging.as_bytes()).expect("reads");
    let change = crate::ledger::TenantChange {
        number,
        name: "acme".parse().expect("name"),
        hash: trust.hash(),
        trust: trust.to_bytes(),
        version: row.version + 1,
        removed: false,
    };
    let commit = crate::ledger::TrustCommit {
        basis: stage.broker.ledger.basis().1,
        tenants: vec![change],
        global: None,
        keys: vec![],
        changed: vec![],
        cuts: vec![],
        grant_states: vec![],
        custody: vec![],
        uses: vec![],
        events: vec![],
        now: stage.broker.now(),
    };
    stage.broker.ledger.apply(commit, || ()).await.expect("applies");
    stage.broker.registry.changed(&[("acme".parse().expect("name"), number)]);
    assert_eq!(stage.refusal("g").await, "ENVIRONMENT_MISMATCH");
    let child = stage.broker.open_task(&worker(), open(&task.task_id)).await.expect_err("refused");
    assert_eq!(child.reason(), "ENVIRONMENT_MISMATCH");
    let under = pb::IssueRequest {
        task_id: task.task_id,
        audiences: vec!["https://api.example".into()],
        kind: pb::CredentialKind::Opaque.into(),
        ..Default::default()
    };
    let refused = stage.broker.issue(&worker(), under).await.err().expect("refused");
    assert_eq!(refused.reason(), "ENVIRONMENT_MISMATCH");
}

#[tokio::test]
async fn who_can_revoke_is_exactly_who_may() {
    let more = "[[operator]]\nname = \"look\"\nrole = \"auditor\"\ntenants = \"all\"\npartners = \"all\"\n\
                [[operator]]\nname = \"ward\"\nrole = \"revoker\"\ntenants = [\"acme\"]\npartners = [\"zeta\"]\n\
                [[operator]]\nname = \"afar\"\nrole = \"revoker\"\ntenants = \"all\"\npartners = [\"eta\"]\n";
    let trust = format!("{}\n{more}", two().replacen("revokers = [\"admin\"]", "revokers = [\"look\"]", 1));
    let stage = Stage::new(&trust).await;
    let request = pb::WhoCanRevokeRequest { scope: Some(super::view::scope(&grant())) };
    let reply = stage.broker.who_can_revoke(&admin(), request).await.expect("answers");
    let named: Vec<_> = reply.revokers.iter().map(|one| (one.operator.as_str(), one.because.as_str())).collect();
    assert_eq!(named, [("admin", "role admin"), ("look", "named by the grant"), ("ward", "role revoker")]);
    assert_eq!((reply.owner.as_str(), reply.others), ("owner@example.com", 0));
    for (name, may) in [("admin", true), ("look", true), ("ward", true), ("afar", false)] {
        let revoke =
            pb::RevokeRequest { scope: Some(super::view::scope(&grant())), dry_run: true, ..Default::default() };
        assert_eq!(stage.broker.revoke(&operator(name), revoke).await.is_ok(), may, "{name}");
    }
}

#[tokio::test]
async fn each_edge_of_the_trust_map_names_its_grant_and_pages_lose_none() {
    let trust =
        two().replace("audiences = [\"https://api.example\"]", "audiences = [\"https://api.example\", \"b/*\"]");
    let stage = Stage::new(&trust).await;
    let (mut edges, mut token) = (Vec::new(), String::new());
    loop {
        let page = Some(pb::Page { size: 1, token });
        let request = pb::ListTrustEdgesRequest { page, ..Default::default() };
        let reply = stage.broker.list_trust_edges(&admin(), request).await.expect("lists");
        edges.extend(reply.edges);
        token = reply.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let told: Vec<_> = edges.iter().map(|edge| (edge.grant.as_str(), edge.audience.as_str())).collect();
    let want = [("g", "b/*"), ("g", "https://api.example"), ("h", "b/*"), ("h", "https://api.example")];
    assert_eq!(told, want);
    assert!(edges.iter().all(|edge| edge.trust_hash.len() == 32 && edge.state == "usable"));
}

#[tokio::test]
async fn a_proposal_is_a_grant_that_takes_away_and_gives_nothing() {
    let trust = TRUST
        .replace("purposes = [\"work\"]", "purposes = [\"work\", \"play\"]")
        .replace("audiences = [\"https://api.example\"]", "audiences = [\"https://api.example\", \"b/*\"]");
    let stage = Stage::new(&trust).await;
    stage.issue().await;
    let request = pb::GetDriftRequest { tenant: "acme".into(), grant: "g".into(), days: 0 };
    let reply = stage.broker.get_drift(&admin(), request).await.expect("answers");
    assert_eq!((reply.issues, reply.truncated), (1, false));
    for unused in ["purpose play", "audience b/*", "kind jwt", "kind x509"] {
        assert!(reply.unused.iter().any(|line| line == unused), "{unused}: {:?}", reply.unused);
    }
    let (head, _) = trust.split_once("[[grant]]").expect("a grant");
    let options = pb::ApplyOptions { dry_run: true, ..Default::default() };
    let text = format!("{head}\n{}", reply.proposal);
    let documents = vec![pb::TrustDocument { path: "trust.toml".into(), text }];
    let plan = stage.broker.apply(&admin(), options, documents).await.expect("the proposal is a trust map");
    assert_eq!(plan.changes.len(), 1);
    assert_eq!(plan.changes[0].kind(), pb::trust_change::Kind::Narrowed);
    assert!(!plan.changes[0].details.iter().any(|line| line.contains('+')), "{:?}", plan.changes[0].details);
}

#[tokio::test]
async fn a_tenant_that_was_never_asked_for_lapses_too() {
    let stage = Stage::new(TRUST).await;
    add_tenant(&stage.broker, "idle").await;
    let number = stage.broker.registry.number(&"acme".parse().expect("name")).expect("a number");
    stage.broker.registry.changed(&[("acme".parse().expect("name"), number)]);
    stage.pass(days(100));
    stage.tend().await;
    assert_eq!(stage.broker.ledger.held_for(Suspension::AttestationOverdue), [grant().id()]);
}

/// A forgotten test credential of an integration whose owner is gone, tried 400 days later.
#[tokio::test]
async fn the_klue_chain_finds_its_test_credential_closed_for_every_reason() {
    let trust =
        sleepy().replace("dormant_after = \"30d\"", "dormant_after = \"30d\"\n    test_environments = [\"prod\"]");
    let trust = trust.replace("ttl_max = 3600", "ttl_max = 300");
    let stage = Stage::new(&trust).await;
    let short = |ttl_seconds| pb::IssueRequest {
        tenant: "acme".into(),
        partner: "zeta".into(),
        purpose: "work".into(),
        audiences: vec!["https://api.example".into()],
        kind: pb::CredentialKind::Opaque.into(),
        ttl_seconds,
        ..Default::default()
    };
    // What is for tests has a low cap of its own.
    assert_eq!(stage.broker.issue(&worker(), short(301)).await.err().expect("refused").reason(), "TTL_TOO_LONG");
    stage.broker.issue(&worker(), short(300)).await.expect("issued");
    stage.leave("owner@example.com", false).await;
    stage.pass(days(100));
    stage.tend().await;
    let held = stage.broker.ledger.scope(grant().id()).held;
    for cause in [Suspension::AttestationOverdue, Suspension::OwnerLeft, Suspension::Dormant] {
        assert!(held.has(cause), "{cause:?}");
    }
    stage.pass(days(300));
    // Refused, and told: the alarm on the attempt.
    assert_eq!(stage.broker.issue(&worker(), short(300)).await.err().expect("refused").reason(), "GRANT_EXPIRED");
    let told = eventually(async || (stage.told("lease.refused").await >= 2).then_some(())).await;
    assert!(told.is_some(), "the attempt was not told");
}

/// A scanner's job asks for what its neighbour may publish.
#[tokio::test]
async fn the_litellm_chain_ends_at_the_purpose() {
    let trust = TRUST.replace("purposes = [\"work\"]", "purposes = [\"scan\"]");
    let publish = two();
    let (_, other) = publish.rsplit_once("[[grant]]").expect("a grant");
    let other = other.replace("\"eta\"", "\"zeta\"").replace("workloads = [\"w\"]", "workloads = [\"release\"]");
    let release = "[[workload]]\ntenant = \"acme\"\nname = \"release\"\nenvironment = \"prod\"\n\
                   selectors = [{ spiffe_id = \"spiffe://platform.example/release\", authority = \"platform\" }]\n";
    let publish = other.replace("purposes = [\"work\"]", "purposes = [\"publish\"]");
    let stage = Stage::new(&format!("{trust}\n{release}[[grant]]{publish}")).await;
    let ask = |purpose: &str, grant: &str| pb::IssueRequest {
        tenant: "acme".into(),
        partner: "zeta".into(),
        purpose: purpose.into(),
        grant: grant.into(),
        audiences: vec!["https://api.example".into()],
        kind: pb::CredentialKind::Opaque.into(),
        ..Default::default()
    };
    stage.broker.issue(&worker(), ask("scan", "")).await.expect("the scan itself");
    for (purpose, grant, reason) in [
        ("publish", "", "WORKLOAD_NOT_GRANTED"),
        ("publish", "g", "PURPOSE_NOT_GRANTED"),
        ("scan", "h", "WORKLOAD_NOT_GRANTED"),
    ] {
        let refused = stage.broker.issue(&worker(), ask(purpose, grant)).await.err().expect("refused");
        assert_eq!(refused.reason(), reason, "{purpose} {grant}");
    }
}
