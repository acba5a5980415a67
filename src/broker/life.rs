//! (tests only) Laws of the trust map's life, on a clock that is moved by hand.

mod attestation;
mod leaving;
mod ownership;
mod quarantine;
mod questions;
mod renewal;

use std::{sync::Arc, time::Duration};

use super::{
    Broker, Refusal,
    testing::{Hands, TRUST, add_tenant, admin, apply, days, founded, operator, worker},
};
use crate::{
    identity::Caller,
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
        let attest_by = Timestamp::parse_rfc3339(until).map(crate::broker::event::stamp);
        let request =
            pb::AttestRequest { tenant: "acme".into(), grant: grant.into(), attest_by, reason: "still needed".into() };
        self.broker.attest(who, request).await
    }

    async fn quarantine(&self, scope: &Scope, for_: Duration, auto_lift: bool) -> pb::QuarantineResponse {
        self.quarantine_by(&admin(), scope, for_, auto_lift).await
    }

    async fn quarantine_by(
        &self,
        who: &Caller,
        scope: &Scope,
        for_: Duration,
        auto_lift: bool,
    ) -> pb::QuarantineResponse {
        let request = pb::QuarantineRequest {
            scope: Some(crate::broker::view::scope(scope)),
            duration_seconds: u32::try_from(for_.as_secs()).expect("short"),
            auto_lift,
            reason: "odd traffic".into(),
        };
        self.broker.quarantine(who, request).await.expect("quarantined")
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
