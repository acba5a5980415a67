//! Approvals as laws.

use std::sync::Arc;

use super::*;
use crate::{
    broker::testing::{Company, Hands, TRUST, admin, apply, founded, told, worker},
    identity::{Authority, CertificateProof, Proof},
    ledger::CutDraft,
    model::{Digest, EndReason, Lease, LeaseId, Scope},
};

const MORE: &str = r#"
    [[operator]]
    name = "op-a"
    role = "auditor"
    tenants = ["acme"]
    partners = "all"
    [[operator]]
    name = "op-b"
    role = "auditor"
    tenants = ["acme"]
    partners = "all"
    [[operator]]
    name = "op-c"
    role = "auditor"
    tenants = ["acme"]
    partners = "all"
    [[grant]]
    tenant = "acme"
    name = "glass"
    partner = "zeta"
    workloads = ["w"]
    purposes = ["break-glass", "look"]
    audiences = ["https://db.example"]
    actions = ["read"]
    kinds = ["opaque"]
    ttl_default = 300
    ttl_max = 3600
    task_max = 7200
    require_binding = false
    owner = "owner@example.com"
    expires = 2025-12-01
    revokers = ["admin"]
    attest_by = 2025-09-01
    environment = "prod"
    max_live_leases = 100000
"#;
const NEED: &str = "approvals = { needed = 2, by = [\"op-a\", \"op-b\", \"op-c\"], valid_seconds = 900, purposes = \
                    [\"break-glass\"] }";

fn map(need: &str) -> String {
    format!("{TRUST}{MORE}{need}\n")
}

struct Bed {
    broker: Arc<Broker>,
    hands: Arc<Hands>,
}

fn operator_with(name: &str, key: &str) -> Caller {
    Caller::for_test(Proof::Certificate(CertificateProof {
        sha256: Digest::of(format!("certificate of {key}").as_bytes()),
        key: Digest::of(key.as_bytes()),
        authority: Authority::Own,
        spiffe_id: Some(format!("spiffe://mayfly.internal/operator/{name}")),
        dns_names: vec![],
        serial: vec![0x40; 16],
        not_after: Timestamp::from_millis(u64::MAX / 2),
    }))
}

fn operator(name: &str) -> Caller {
    operator_with(name, name)
}

fn asking(purpose: &str, approval: &str) -> pb::IssueRequest {
    pb::IssueRequest {
        tenant: "acme".into(),
        partner: "zeta".into(),
        purpose: purpose.into(),
        kind: pb::CredentialKind::Opaque.into(),
        audiences: vec!["https://db.example".into()],
        actions: vec!["read".into()],
        approval_id: approval.into(),
        task_deadline_seconds: 7_200,
        ..Default::default()
    }
}

impl Bed {
    async fn new() -> Self {
        let (broker, hands) = founded().await;
        apply(&broker, &map(NEED)).await;
        Self { broker, hands }
    }

    async fn request(&self) -> String {
        self.try_request("").await.expect("asked")
    }

    async fn try_request(&self, task: &str) -> Result<String, &'static str> {
        let request = pb::RequestApprovalRequest {
            tenant: "acme".into(),
            grant: "glass".into(),
            purpose: "break-glass".into(),
            task_id: task.into(),
            reason: "incident 4711".into(),
        };
        let reply = self.broker.request_approval(&worker(), request).await.map_err(|why| why.reason())?;
        Ok(reply.approval.expect("approval").approval_id)
    }

    async fn decide(&self, by: &Caller, id: &str, approve: bool) -> Result<String, &'static str> {
        let request = pb::DecideApprovalRequest { approval_id: id.into(), approve, reason: "seen".into() };
        let reply = self.broker.decide_approval(by, request).await.map_err(|why| why.reason())?;
        Ok(reply.approval.expect("approval").standing)
    }

    /// A request that op-a and op-b have agreed to.
    async fn granted(&self) -> String {
        let id = self.request().await;
        assert_eq!(self.decide(&operator("op-a"), &id, true).await, Ok("open".into()));
        assert_eq!(self.decide(&operator("op-b"), &id, true).await, Ok("granted".into()));
        id
    }

    async fn issue(&self, request: pb::IssueRequest) -> Result<pb::IssueResponse, &'static str> {
        self.broker.issue(&worker(), request).await.map_err(|why| why.reason())
    }

    async fn use_it(&self, id: &str) -> Result<Lease, &'static str> {
        let reply = self.issue(asking("break-glass", id)).await?;
        let id: LeaseId = reply.lease.expect("lease").lease_id.parse().expect("id");
        Ok(self.broker.ledger.lease(id).expect("reads").expect("there"))
    }

    fn standing(&self, id: &str) -> String {
        let request = pb::GetApprovalRequest { approval_id: id.into() };
        let reply = self.broker.get_approval(&admin(), &request).expect("seen");
        reply.approval.expect("approval").standing
    }

    fn live(&self, lease: &Lease) -> bool {
        self.broker.ledger.lease_standing(lease, self.broker.now()).expect("reads").is_live()
    }
}

#[tokio::test]
async fn a_grant_that_needs_approvals_gives_nothing_before_enough_agreed_and_then_to_one_task() {
    let bed = Bed::new().await;
    assert_eq!(bed.issue(asking("break-glass", "")).await.err(), Some("APPROVAL_NEEDED"));
    let open = pb::OpenTaskRequest {
        tenant: "acme".into(),
        partner: "zeta".into(),
        purpose: "break-glass".into(),
        ..Default::default()
    };
    let opened = bed.broker.open_task(&worker(), open.clone()).await;
    assert_eq!(opened.expect_err("refused").reason(), "APPROVAL_NEEDED");
    bed.issue(asking("look", "")).await.expect("a purpose that needs none");

    let id = bed.request().await;
    assert_eq!(bed.use_it(&id).await.err(), Some("APPROVAL_PENDING"));
    bed.decide(&operator("op-a"), &id, true).await.expect("one");
    assert_eq!(bed.use_it(&id).await.err(), Some("APPROVAL_PENDING"));
    bed.decide(&operator("op-b"), &id, true).await.expect("two");
    let lease = bed.use_it(&id).await.expect("granted");
    assert_eq!(bed.standing(&id), "used");

    let within = pb::IssueRequest { task_id: lease.id.task().to_string(), ..asking("", "") };
    bed.issue(pb::IssueRequest { task_deadline_seconds: 0, partner: String::new(), ..within }).await.expect("its task");
    let renew = pb::RenewRequest { lease_id: lease.id.to_string(), ..Default::default() };
    bed.broker.renew(&worker(), renew).await.expect("renewed");
    assert_eq!(bed.use_it(&id).await.err(), Some("APPROVAL_OVER"), "another task");
    let other = bed.broker.open_task(&worker(), pb::OpenTaskRequest { approval_id: id, ..open }).await;
    assert_eq!(other.expect_err("another task").reason(), "APPROVAL_OVER");
}

#[tokio::test]
async fn nobody_agrees_to_what_he_asked_for_nor_twice_whatever_he_is_called() {
    let bed = Bed::new().await;
    let request = pb::RequestApprovalForRequest {
        tenant: "acme".into(),
        grant: "glass".into(),
        purpose: "break-glass".into(),
        workload: "w".into(),
        reason: "for the one on call".into(),
        ..Default::default()
    };
    let reply = bed.broker.request_approval_for(&operator("op-a"), request).await.expect("asked");
    let id = reply.approval.expect("approval").approval_id;
    assert_eq!(bed.decide(&operator("op-a"), &id, true).await, Err("NOT_ALLOWED"), "who asked");
    assert_eq!(bed.decide(&operator_with("op-b", "op-a"), &id, true).await, Err("NOT_ALLOWED"), "the same key");
    assert_eq!(bed.decide(&admin(), &id, true).await, Err("NOT_ALLOWED"), "an admin that is not named");
    bed.decide(&operator("op-b"), &id, true).await.expect("one");
    assert_eq!(bed.decide(&operator("op-b"), &id, true).await, Err("NOT_ALLOWED"), "twice");
    assert_eq!(bed.decide(&operator_with("op-c", "op-b"), &id, true).await, Err("NOT_ALLOWED"), "by another name");
    assert_eq!(bed.standing(&id), "open");
    bed.decide(&operator("op-c"), &id, true).await.expect("two");
    assert_eq!(bed.standing(&id), "granted");
}

#[tokio::test]
async fn one_denial_or_a_withdrawal_closes_it_with_the_task_that_uses_it() {
    let bed = Bed::new().await;
    let id = bed.request().await;
    bed.decide(&operator("op-a"), &id, true).await.expect("one");
    assert_eq!(bed.decide(&operator("op-b"), &id, false).await, Ok("denied".into()));
    assert_eq!(bed.decide(&operator("op-c"), &id, true).await, Err("APPROVAL_OVER"));
    assert_eq!(bed.use_it(&id).await.err(), Some("APPROVAL_OVER"));

    for withdraw in [false, true] {
        let id = bed.granted().await;
        let lease = bed.use_it(&id).await.expect("granted");
        assert!(bed.live(&lease));
        if withdraw {
            let request = pb::WithdrawApprovalRequest { approval_id: id, reason: "over".into() };
            bed.broker.withdraw_approval(&worker(), request).await.expect("withdrawn");
        } else {
            bed.decide(&operator("op-c"), &id, false).await.expect("denied");
        }
        assert!(!bed.live(&lease));
    }
}

#[tokio::test]
async fn an_approver_who_was_cut_or_removed_meanwhile_no_longer_counts() {
    let bed = Bed::new().await;
    let id = bed.granted().await;
    let scope = Scope::Proof(Digest::of(b"certificate of op-a"));
    let now = bed.broker.now();
    let event = event::own("scope.revoked", now);
    let cut = CutDraft {
        scope,
        why: EndReason::Revoked,
        bar: false,
        operator: "admin".into(),
        reason: "lost laptop".into(),
        covers_until: now.after(WAITS),
        event,
        now,
        resets_time: false,
    };
    bed.broker.ledger.cut(cut).await.expect("cut");
    assert_eq!(bed.use_it(&id).await.err(), Some("APPROVAL_PENDING"));

    let id = bed.granted_by("op-b", "op-c").await;
    let without = map(&NEED.replace("\"op-a\", ", "")).replace("name = \"op-b\"", "name = \"op-d\"");
    let without = without.replace("[\"op-b\", \"op-c\"]", "[\"op-d\", \"op-c\"]");
    let document = pb::TrustDocument { path: "trust.toml".into(), text: without };
    bed.broker.apply(&admin(), pb::ApplyOptions::default(), vec![document]).await.expect("applies");
    assert_eq!(bed.use_it(&id).await.err(), Some("APPROVAL_OVER"), "the grant names others");
}

impl Bed {
    async fn granted_by(&self, one: &str, other: &str) -> String {
        let id = self.request().await;
        self.decide(&operator(one), &id, true).await.expect("one");
        self.decide(&operator(other), &id, true).await.expect("two");
        id
    }
}

#[tokio::test]
async fn a_request_waits_an_hour_and_what_is_granted_ends_when_its_time_is_over() {
    let bed = Bed::new().await;
    let id = bed.request().await;
    bed.decide(&operator("op-a"), &id, true).await.expect("one");
    bed.hands.advance(WAITS);
    assert_eq!(bed.decide(&operator("op-b"), &id, true).await, Err("APPROVAL_OVER"));

    let id = bed.granted().await;
    let long = pb::IssueRequest { ttl_seconds: 3_600, ..asking("break-glass", &id) };
    let reply = bed.issue(long).await.expect("granted");
    assert_eq!(reply.bound(), pb::Bound::Approval);
    let lease = reply.lease.expect("lease");
    let life = lease.expires.expect("end").seconds - lease.issued.expect("begin").seconds;
    assert_eq!(life, 900);
    bed.hands.advance(Duration::from_secs(900));
    let within = pb::IssueRequest { task_id: lease.task_id, task_deadline_seconds: 0, ..asking("break-glass", "") };
    assert_eq!(bed.issue(within).await.err(), Some("APPROVAL_NEEDED"), "the task lives on, the approval does not");
}

#[tokio::test]
async fn a_grant_that_changed_makes_what_was_agreed_to_void_for_good() {
    let bed = Bed::new().await;
    let (open, granted) = (bed.request().await, bed.granted().await);
    apply(
        &bed.broker,
        &map(NEED).replace("[\"https://db.example\"]", "[\"https://db.example\", \"https://more.example\"]"),
    )
    .await;
    for id in [&open, &granted] {
        assert_eq!(bed.standing(id), "void");
        assert_eq!(bed.use_it(id).await.err(), Some("APPROVAL_OVER"));
    }
    apply(&bed.broker, &map(NEED)).await;
    assert_eq!(bed.use_it(&granted).await.err(), Some("APPROVAL_OVER"), "also when it is as it was");
    // Dates and who answers for it are no part of what was agreed to.
    let granted = bed.granted().await;
    apply(&bed.broker, &map(NEED).replace("owner@example.com", "other@example.com")).await;
    assert_eq!(bed.standing(&granted), "granted");
}

#[tokio::test]
async fn a_request_for_an_open_task_is_for_no_other() {
    let bed = Bed::new().await;
    let first = bed.use_it(&bed.granted().await).await.expect("granted").id.task();
    let second = bed.use_it(&bed.granted().await).await.expect("granted").id.task();
    bed.hands.advance(Duration::from_secs(901));
    let id = bed.try_request(&first.to_string()).await.expect("asked");
    bed.decide(&operator("op-a"), &id, true).await.expect("one");
    bed.decide(&operator("op-b"), &id, true).await.expect("two");
    let under = |task: TaskId, id: &str| pb::IssueRequest {
        task_id: task.to_string(),
        task_deadline_seconds: 0,
        ..asking("break-glass", id)
    };
    assert_eq!(bed.issue(under(second, &id)).await.err(), Some("APPROVAL_OVER"));
    assert_eq!(bed.use_it(&id).await.err(), Some("APPROVAL_OVER"));
    bed.issue(under(first, &id)).await.expect("its task");
    bed.issue(under(first, "")).await.expect("and again");
}

#[tokio::test]
async fn requests_that_wait_are_bounded_and_a_retry_uses_one_approval_once() {
    let bed = Bed::new().await;
    for _ in 0..Approval::OPEN_PER_WORKLOAD {
        bed.request().await;
    }
    assert_eq!(bed.try_request("").await, Err("QUOTA_USED_UP"));
    bed.hands.advance(WAITS);

    let id = bed.granted().await;
    let request = pb::IssueRequest { idempotency_key: "k".into(), ..asking("break-glass", &id) };
    let first = bed.issue(request.clone()).await.expect("first").lease.expect("lease");
    let second = bed.issue(request).await.expect("a retry").lease.expect("lease");
    let old: TaskId = first.task_id.parse().expect("id");
    assert_ne!(first.task_id, second.task_id);
    let within = pb::IssueRequest { task_id: old.to_string(), task_deadline_seconds: 0, ..asking("break-glass", "") };
    assert_eq!(bed.issue(within).await.err(), Some("TASK_ENDED"), "its place is taken");
    bed.decide(&operator("op-c"), &id, false).await.expect("denied");
    for lease in [first, second] {
        let id: LeaseId = lease.lease_id.parse().expect("id");
        assert!(!bed.live(&bed.broker.ledger.lease(id).expect("reads").expect("there")));
    }
}

#[tokio::test]
async fn what_is_refused_of_approvals_is_told_with_who_wanted_what() {
    let bed = Bed::new().await;
    let asked = |grant: &str| pb::RequestApprovalRequest {
        tenant: "acme".into(),
        grant: grant.into(),
        purpose: "break-glass".into(),
        reason: "incident 4711".into(),
        ..Default::default()
    };
    assert!(bed.broker.request_approval(&worker(), asked("gone")).await.is_err());
    let by = |grant: &str| pb::RequestApprovalForRequest {
        tenant: "acme".into(),
        workload: "w".into(),
        grant: grant.into(),
        purpose: "break-glass".into(),
        reason: "incident 4711".into(),
        ..Default::default()
    };
    assert!(bed.broker.request_approval_for(&admin(), by("gone")).await.is_err());
    assert!(bed.broker.request_approval_for(&admin(), by("g")).await.is_err(), "needs none");
    let id = bed.request().await;
    assert_eq!(bed.decide(&admin(), &id, true).await, Err("NOT_ALLOWED"));
    let events = told(&bed.broker, "approval.refused").await;
    let seen: Vec<_> = events
        .iter()
        .map(|event| (event.stream.as_str(), event.actor.as_str(), event.grant.as_str(), event.reason.as_str()))
        .collect();
    let mut want = vec![
        ("acme/-", "workload:w", "gone", "UNKNOWN_GRANT"),
        ("-/-", "operator:admin", "", "NOT_FOUND"),
        ("acme/-", "operator:admin", "g", "PURPOSE_NOT_GRANTED"),
        ("acme/zeta", "operator:admin", "glass", "NOT_ALLOWED"),
    ];
    want.sort_unstable();
    let mut seen = seen;
    seen.sort_unstable();
    assert_eq!(seen, want);
    let has = |detail: &str| events.iter().any(|event| event.details.contains(&detail.to_owned()));
    assert!(has("claimed_grant=gone") && has("approve=true"), "{events:?}");
}

/// A request to which people who signed in have agreed: `ann` as `op-a`, `bob` as `op-b`.
async fn agreed_by_people(company: &Company) -> (Bed, String) {
    apply(&company.broker, &map(NEED)).await;
    let bed = Bed { broker: Arc::clone(&company.broker), hands: Arc::clone(&company.hands) };
    let (ann, bob) = (company.sign_in("ann", "a").await, company.sign_in("bob", "b").await);
    let id = bed.request().await;
    assert_eq!(bed.decide(&ann, &id, true).await, Ok("open".into()));
    assert_eq!(bed.decide(&bob, &id, true).await, Ok("granted".into()));
    company.hands.advance(Duration::from_secs(1));
    (bed, id)
}

fn counting(bed: &Bed, id: &str) -> usize {
    let request = pb::GetApprovalRequest { approval_id: id.into() };
    let reply = bed.broker.get_approval(&admin(), &request).expect("seen");
    reply.approval.expect("approval").votes.iter().filter(|vote| vote.counts).count()
}

#[tokio::test]
async fn the_word_of_who_is_signed_out_or_left_since_counts_no_more_when_it_is_used() {
    let change = |name: &str, active| crate::broker::directory::UserChange {
        user_name: Some(name.to_owned()),
        active: Some(active),
        ..Default::default()
    };
    let out = |person: &str, operator: &str| pb::EndSignInsRequest {
        person: person.into(),
        operator: operator.into(),
        reason: "lost laptop".into(),
    };
    for left in 0..4 {
        let company = Company::new(|_| {}).await;
        let (bed, id) = agreed_by_people(&company).await;
        assert_eq!(counting(&bed, &id), 2);
        let broker = &company.broker;
        match left {
            0 => drop(broker.end_sign_ins(&admin(), out("bob@acme.example", "")).await.expect("ended")),
            1 => drop(broker.end_sign_ins(&admin(), out("", "op-b")).await.expect("ended")),
            2 => drop(broker.add_user(change("Bob@acme.example", false), None).await.expect("added")),
            _ => {
                let user = broker.add_user(change("bob@acme.example", true), None).await.expect("added");
                broker.remove_user(&user.id.to_string(), None).await.expect("removed");
            }
        }
        assert_eq!(counting(&bed, &id), 1, "{left}");
        assert_eq!(bed.use_it(&id).await.map(drop), Err("APPROVAL_PENDING"), "{left}");
        // Another's word makes up for it.
        let cleo = company.sign_in("cleo", "c").await;
        let again = bed.request().await;
        let ann = company.sign_in("ann", "a").await;
        bed.decide(&cleo, &again, true).await.expect("agreed");
        bed.decide(&ann, &again, true).await.expect("agreed");
        company.hands.advance(Duration::from_secs(1));
        bed.use_it(&again).await.expect("used");
    }
}

#[tokio::test]
async fn what_rests_on_the_word_of_who_left_since_is_not_renewed_and_a_sign_in_that_ended_by_itself_takes_no_word_back()
{
    let company = Company::new(|rules| rules.life = Duration::from_secs(300)).await;
    let (bed, id) = agreed_by_people(&company).await;
    // Both have gone home; their words are what they were.
    company.hands.advance(Duration::from_secs(301));
    let lease = bed.use_it(&id).await.expect("used");
    let renew = async || {
        let request = pb::RenewRequest { lease_id: lease.id.to_string(), ..Default::default() };
        bed.broker.renew(&worker(), request).await.map(drop).map_err(|why| why.reason())
    };
    let out = pb::EndSignInsRequest { person: "00u-ann".into(), reason: "stolen".into(), ..Default::default() };
    bed.broker.end_sign_ins(&admin(), out).await.expect("ended");
    assert_eq!(renew().await, Err("APPROVAL_PENDING"));
}
