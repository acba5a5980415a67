//! Identities of local processes as laws: a clock that is moved by hand, and processes that are real.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::*;
use crate::{
    broker::testing::{Hands, TRUST, admin, apply, founded},
    identity::{Proof, UnixProof},
    model::{EndReason, Lease, Standing, TaskId},
    pb,
};

/// A process that waits for its end.
struct Sleeper(Child);

impl Sleeper {
    fn new() -> Self {
        let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        Self(child.expect("cat starts"))
    }

    fn local(&self) -> Local {
        local_of(i32::try_from(self.0.id()).expect("a number"), &["acme"])
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn user() -> u32 {
    rustix::process::getuid().as_raw()
}

fn local_of(pid: i32, tenants: &[&str]) -> Local {
    let proof = UnixProof { uid: user(), gid: rustix::process::getegid().as_raw(), pid: Some(pid) };
    Local {
        caller: Arc::new(Caller::for_test(Proof::Unix(proof))),
        process: Process::of(&proof).expect("seen"),
        tenants: tenants.iter().map(|name| name.parse().expect("a name")).collect(),
    }
}

/// This process, asking over a socket for `acme`.
fn local() -> Local {
    local_of(i32::try_from(std::process::id()).expect("a number"), &["acme"])
}

/// The trust map with a workload of this user and a grant that the Workload API serves.
fn trust(more: &str) -> String {
    let workload = format!(
        "[[workload]]\ntenant = \"acme\"\nname = \"local\"\nenvironment = \"prod\"\nselectors = [{{ unix_uid = {} }}]\n",
        user()
    );
    format!("{TRUST}{workload}{}{more}", grant("mesh", "\"local\"", "workload_api = true"))
}

fn grant(name: &str, workloads: &str, more: &str) -> String {
    let audiences = "\"spiffe://acme.mayfly.internal\", \"https://api.example\"";
    format!(
        "[[grant]]\ntenant = \"acme\"\nname = \"{name}\"\npartner = \"zeta\"\nworkloads = [{workloads}]\n\
         purposes = [\"serve\"]\naudiences = [{audiences}]\nkinds = [\"jwt\", \"x509\"]\nttl_default = 600\n\
         ttl_max = 3600\ntask_max = 7200\nrequire_binding = false\nowner = \"owner@example.com\"\nexpires = 2025-12-01\n\
         revokers = [\"admin\"]\nattest_by = 2025-09-01\nenvironment = \"prod\"\n{more}\n"
    )
}

async fn serving(more: &str) -> (Arc<Broker>, Arc<Hands>) {
    let (broker, hands) = founded().await;
    apply(&broker, &trust(more)).await;
    (broker, hands)
}

fn lease(broker: &Broker, id: LeaseId) -> (Lease, Standing) {
    let lease = broker.ledger.lease(id).expect("reads").expect("is there");
    let standing = broker.ledger.lease_standing(&lease, broker.now()).expect("reads");
    (lease, standing)
}

async fn revoke(broker: &Broker, kind: pb::ScopeKind, scope: pb::Scope, without_bar: bool) {
    let scope = Some(pb::Scope { kind: kind.into(), ..scope });
    let request = pb::RevokeRequest { scope, reason: "test".into(), without_bar, ..Default::default() };
    broker.revoke(&admin(), request).await.expect("revoked");
}

fn the_grant() -> pb::Scope {
    pb::Scope { tenant: "acme".into(), grant: "mesh".into(), ..Default::default() }
}

async fn one(broker: &Arc<Broker>, local: &Local) -> Arc<X509Svid> {
    let update = broker.x509_now(local).await.expect("has one");
    assert_eq!(update.0.len(), 1);
    Arc::clone(&update.0[0].0)
}

/// Waits for what happens by itself; panics when it never does.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if is_so() {
            return;
        }
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited in vain for: {what}");
}

#[test]
fn an_svid_is_replaced_in_the_second_half_of_the_first_half_of_its_life_never_later() {
    let begin = Timestamp::from_seconds(1_000);
    for life in [1, 60, 3_600] {
        let end = begin.after(Duration::from_secs(life));
        let all: Vec<_> = (0..=255).map(|spread| renew_at(begin, end, spread)).collect();
        assert!(all.is_sorted_by(|a, b| a >= b));
        let (first, last) = (all[255].since(begin), all[0].since(begin));
        assert_eq!(last, Duration::from_secs(life) / 2);
        assert!(first >= Duration::from_secs(life) * 2 / 5, "{life}: {first:?}");
        assert!(life < 60 || first < last, "they are spread");
    }
}

#[tokio::test]
async fn a_process_has_the_svid_of_its_grant_as_a_lease_of_a_held_task() {
    let (broker, _) = serving("").await;
    let svid = one(&broker, &local()).await;
    assert_eq!(svid.spiffe_id, "spiffe://acme.mayfly.internal/partner/zeta/workload/local");
    assert_eq!(svid.hint, "acme/mesh");
    let (row, standing) = lease(&broker, svid.lease);
    assert!(standing.is_live() && row.svid && row.broker_made_key);
    assert_eq!((row.grant.as_str(), row.purpose.as_str()), ("mesh", "serve"));
    let task = broker.ledger.task(svid.lease.task()).expect("reads").expect("is there");
    assert!(task.held && task.workload.as_str() == "local");
    let (_, leaf) = X509Certificate::from_der(&svid.chain_der[0]).expect("DER");
    let names = leaf.subject_alternative_name().expect("one").expect("there").value.general_names.clone();
    assert_eq!(names, [GeneralName::URI(&svid.spiffe_id)]);
    assert_eq!(LeaseId::from_bytes(leaf.raw_serial()), Some(svid.lease));
    // Asked again, by whichever stream, it has the same one.
    assert_eq!(one(&broker, &local()).await.lease, svid.lease);
}

#[tokio::test]
async fn only_grants_that_say_so_serve_and_only_their_workloads_and_tenants() {
    let other = grant("lab", "\"w\"", "workload_api = true") + &grant("plain", "\"local\"", "");
    let (broker, _) = serving(&other).await;
    assert_eq!(broker.x509_now(&local()).await.expect("has one").0.len(), 1);
    // A socket that does not name the tenant serves nothing of it.
    let elsewhere = local_of(local().process.pid(), &["globex"]);
    let refused = broker.x509_now(&elsewhere).await.expect_err("nobody there");
    assert!(matches!(refused, Refusal::Denied(Denied::UnknownWorkload)));
    // Another user is nobody.
    let mut stranger = local();
    stranger.caller = Arc::new(Caller::for_test(Proof::Unix(UnixProof { uid: user() + 1, gid: 0, pid: None })));
    assert!(matches!(broker.x509_now(&stranger).await, Err(Refusal::Denied(Denied::UnknownWorkload))));
    assert!(matches!(broker.identities_of(&stranger, broker.now()), Err(Refusal::Denied(_))));
}

#[tokio::test]
async fn an_svid_is_replaced_ahead_of_its_end_and_the_old_one_stays_good_until_then() {
    let (broker, hands) = serving("").await;
    let first = one(&broker, &local()).await;
    hands.advance(Duration::from_secs(200));
    assert_eq!(one(&broker, &local()).await.lease, first.lease);
    hands.advance(Duration::from_secs(101));
    let second = one(&broker, &local()).await;
    assert_ne!(second.lease, first.lease);
    assert_ne!(second.key.expose(), first.key.expose(), "with a key of its own");
    assert_eq!(second.lease.task(), first.lease.task());
    assert!(lease(&broker, first.lease).1.is_live(), "who uses it has time to change");
}

#[tokio::test]
async fn a_task_that_nears_its_end_is_followed_by_another() {
    let (broker, hands) = serving("").await;
    let first = one(&broker, &local()).await;
    let mut last = Arc::clone(&first);
    for _ in 0..40 {
        hands.advance(Duration::from_secs(240));
        last = one(&broker, &local()).await;
        let (row, standing) = lease(&broker, last.lease);
        assert!(
            standing.is_live() && row.expires.since(broker.now()) >= Duration::from_secs(200),
            "always one in hand"
        );
    }
    assert_ne!(last.lease.task(), first.lease.task());
}

#[tokio::test]
async fn what_is_cut_ends_the_stream_and_everything_under_it() {
    for (kind, scope) in [
        (pb::ScopeKind::Grant, the_grant()),
        (pb::ScopeKind::Tenant, pb::Scope { tenant: "acme".into(), ..Default::default() }),
        (pb::ScopeKind::Partner, pb::Scope { partner: "zeta".into(), ..Default::default() }),
    ] {
        let (broker, _) = serving("").await;
        let mut stream = broker.follow_x509(local()).await.expect("has one");
        let mut bundles = broker.follow_bundles(local(), |bundle| bundle.jwks.clone()).await.expect("has one");
        let svid = Arc::clone(&stream.recv().await.expect("first").expect("served").0[0].0);
        bundles.recv().await.expect("first").expect("served");
        revoke(&broker, kind, scope, false).await;
        assert_eq!(lease(&broker, svid.lease).1, Standing::Ended(EndReason::Revoked), "{kind:?}");
        for end in [stream.recv().await.map(|end| end.map(drop)), bundles.recv().await.map(|end| end.map(drop))] {
            let refusal = end.expect("an end").expect_err("refused");
            assert!(matches!(refusal, Refusal::Denied(Denied::UnknownWorkload)), "{kind:?}: {refusal}");
        }
        assert!(stream.recv().await.is_none() && broker.follow_x509(local()).await.is_err());
    }
}

#[tokio::test]
async fn after_a_cut_without_a_bar_the_stream_gets_another_svid_at_once() {
    let (broker, _) = serving("").await;
    let mut stream = broker.follow_x509(local()).await.expect("has one");
    let first = stream.recv().await.expect("first").expect("served");
    revoke(&broker, pb::ScopeKind::Grant, the_grant(), true).await;
    let second = stream.recv().await.expect("second").expect("served");
    let (first, second) = (&first.0[0].0, &second.0[0].0);
    assert!(!lease(&broker, first.lease).1.is_live() && lease(&broker, second.lease).1.is_live());
}

#[tokio::test]
async fn one_identity_that_ends_leaves_the_others() {
    let (broker, _) = serving(&grant("other", "\"local\"", "workload_api = true")).await;
    let mut stream = broker.follow_x509(local()).await.expect("has two");
    assert_eq!(stream.recv().await.expect("first").expect("served").0.len(), 2);
    revoke(&broker, pb::ScopeKind::Grant, the_grant(), false).await;
    let rest = stream.recv().await.expect("second").expect("served");
    let hints: Vec<_> = rest.0.iter().map(|(svid, _)| svid.hint.as_str()).collect();
    assert_eq!(hints, ["acme/other"]);
}

#[tokio::test]
async fn a_task_ends_with_its_process_and_so_does_its_stream() {
    let (broker, _) = serving("").await;
    let mut sleeper = Sleeper::new();
    let local = sleeper.local();
    let mut stream = broker.follow_x509(local.clone()).await.expect("has one");
    let svid = Arc::clone(&stream.recv().await.expect("first").expect("served").0[0].0);
    sleeper.0.kill().expect("ours");
    assert!(matches!(stream.recv().await, Some(Err(Refusal::Unproven(_)))));
    let task = |id: TaskId| {
        let task = broker.ledger.task(id).expect("reads").expect("is there");
        broker.ledger.task_standing(&task, broker.now()).expect("reads")
    };
    let ended = Standing::Ended(EndReason::Completed);
    until("the task's end", || task(svid.lease.task()) == ended).await;
    assert!(!lease(&broker, svid.lease).1.is_live());
    until("its place to be free", || broker.spiffe.residences.count() == 0).await;
    assert!(matches!(broker.x509_now(&local).await, Err(Refusal::Unproven(_))), "its number alone is nobody");
}

#[tokio::test]
async fn after_a_restart_a_process_finds_its_task_again_and_another_process_does_not() {
    let (broker, _) = serving("").await;
    let before = one(&broker, &local()).await;
    broker.spiffe.residences.forget();
    let after = one(&broker, &local()).await;
    assert_eq!(after.lease.task(), before.lease.task());
    assert_ne!(after.lease, before.lease, "its key is not kept");
    let other = Sleeper::new();
    assert_ne!(one(&broker, &other.local()).await.lease.task(), before.lease.task());
}

#[tokio::test]
async fn a_process_that_becomes_another_user_has_that_workloads_svid_and_not_the_one_before() {
    let other = format!(
        "[[workload]]\ntenant = \"acme\"\nname = \"next\"\nenvironment = \"prod\"\nselectors = [{{ unix_uid = {} }}]\n",
        user() + 1
    );
    let both = grant("both", "\"local\", \"next\"", "workload_api = true");
    let (broker, _) = serving(&(other + &both)).await;
    let before = local();
    let mut after = before.clone();
    let proof = UnixProof { uid: user() + 1, gid: 0, pid: Some(before.process.pid()) };
    after.caller = Arc::new(Caller::for_test(Proof::Unix(proof)));
    let of_both = async |local: &Local| {
        let update = broker.x509_now(local).await.expect("has one");
        let found = update.0.iter().find(|(svid, _)| svid.hint == "acme/both").map(|(svid, _)| Arc::clone(svid));
        found.expect("served")
    };
    let (first, second) = (of_both(&before).await, of_both(&after).await);
    assert!(first.spiffe_id.ends_with("/workload/local") && second.spiffe_id.ends_with("/workload/next"));
    assert_ne!(first.lease.task(), second.lease.task());
    assert_eq!((of_both(&before).await.lease, of_both(&after).await.lease), (first.lease, second.lease));
}

#[tokio::test]
async fn who_leaves_with_nothing_takes_no_place() {
    let (broker, _) = serving("").await;
    let binding = broker.identities_of(&local(), broker.now()).expect("has one").remove(0);
    let visit = broker.residence(&local(), &binding).expect("entered");
    assert_eq!(broker.spiffe.residences.count(), 1);
    drop(visit);
    assert_eq!(broker.spiffe.residences.count(), 0);
    one(&broker, &local()).await;
    assert_eq!(broker.spiffe.residences.count(), 1);
}

#[tokio::test]
async fn a_tenants_roots_vouch_for_its_svids_and_for_no_other_tenants() {
    let (broker, _) = serving("").await;
    let number = broker.registry.number(&"acme".parse().expect("name")).expect("there");
    let acme = broker.registry.by_number(&broker.ledger, number).expect("reads").expect("there");
    let foreign = crate::broker::testing::add_tenant(&broker, "globex").await;
    let globex = broker.registry.by_number(&broker.ledger, foreign).expect("reads").expect("there");
    let (own, other) = (broker.trust_bundle(&acme).expect("one"), broker.trust_bundle(&globex).expect("one"));
    assert_eq!((own.id.as_str(), own.domain()), ("spiffe://acme.mayfly.internal", "acme.mayfly.internal"));
    let svid = one(&broker, &local()).await;
    let (_, leaf) = X509Certificate::from_der(&svid.chain_der[0]).expect("DER");
    let vouches = |bundle: &TrustBundle| {
        bundle.roots_der.iter().any(|der| {
            let (_, root) = X509Certificate::from_der(der).expect("DER");
            assert!(root.verify_signature(None).is_ok() && root.is_ca(), "a root, signed by itself");
            leaf.issuer().as_raw() == root.subject().as_raw() && leaf.verify_signature(Some(root.public_key())).is_ok()
        })
    };
    assert!(vouches(&own) && !vouches(&other));
    assert_eq!(broker.trust_bundle(&acme).expect("one"), own, "the same for who compares");
}

#[tokio::test]
async fn a_jwt_svid_says_what_the_standard_wants_and_ends_with_its_lease() {
    let (broker, hands) = serving("").await;
    let audience = "https://api.example";
    let ask = async || broker.jwt_svids(&local(), vec![audience.into()], "").await.expect("has one").remove(0);
    let svid = ask().await;
    assert_eq!(ask().await.lease, svid.lease, "the same until it is half over");
    let found = broker.validate_jwt_svid(&local(), audience, svid.token.expose()).expect("good");
    assert_eq!(found.spiffe_id, "spiffe://acme.mayfly.internal/partner/zeta/workload/local");
    assert_eq!((found.claims["sub"].as_str(), found.claims["aud"].as_str()), (Some(&*found.spiffe_id), Some(audience)));
    assert!(found.claims["exp"].is_u64() && found.claims.get("cnf").is_none());
    for (audience, token) in [
        ("https://other.example", svid.token.expose().to_owned()),
        (audience, format!("{}A", svid.token.expose())),
        (audience, "a.b.c".into()),
        ("", svid.token.expose().to_owned()),
    ] {
        let refused = broker.validate_jwt_svid(&local(), audience, &token);
        assert!(matches!(refused, Err(Refusal::Invalid { .. })), "{audience} {token}");
    }
    hands.advance(Duration::from_secs(301));
    let next = ask().await;
    assert_ne!(next.lease, svid.lease);
    let scope = pb::Scope { lease_id: next.lease.to_string(), ..Default::default() };
    revoke(&broker, pb::ScopeKind::Lease, scope, false).await;
    assert!(broker.validate_jwt_svid(&local(), audience, next.token.expose()).is_err(), "revoked");
    assert!(broker.validate_jwt_svid(&local(), audience, svid.token.expose()).is_ok());
    hands.advance(Duration::from_secs(300));
    assert!(broker.validate_jwt_svid(&local(), audience, svid.token.expose()).is_err(), "expired");
}

#[tokio::test]
async fn a_jwt_svid_is_for_granted_audiences_and_own_names_only() {
    let (broker, _) = serving("").await;
    let ask = async |audiences: &[&str], wanted: &str| {
        let audiences = audiences.iter().map(|one| (*one).to_owned()).collect();
        broker.jwt_svids(&local(), audiences, wanted).await.map(|svids| svids.len())
    };
    let own = "spiffe://acme.mayfly.internal/partner/zeta/workload/local";
    assert_eq!(ask(&["https://api.example", "spiffe://acme.mayfly.internal"], own).await.expect("has one"), 1);
    for (audiences, wanted, field) in [
        (&[][..], "", "audience"),
        (&["https://api.example"][..], "spiffe://", "spiffe_id"),
        (&["https://api.example"][..], "https://x", "spiffe_id"),
        (&["with space"][..], "", "audiences"),
    ] {
        let refused = ask(audiences, wanted).await;
        assert!(matches!(&refused, Err(Refusal::Invalid { field: named, .. }) if *named == field), "{refused:?}");
    }
    for (audience, wanted) in
        [("https://other.example", ""), ("https://api.example", "spiffe://acme.mayfly.internal/x")]
    {
        assert!(matches!(ask(&[audience], wanted).await, Err(Refusal::Denied(_))), "{audience} {wanted}");
    }
    // An access token of the same grant is no SVID.
    let request = pb::IssueRequest {
        tenant: "acme".into(),
        partner: "zeta".into(),
        purpose: "serve".into(),
        kind: pb::CredentialKind::Jwt.into(),
        audiences: vec!["https://api.example".into()],
        ..Default::default()
    };
    let reply = broker.issue(&local().caller, request).await.expect("issued");
    let Some(pb::issue_response::Credential::Token(token)) = reply.credential else { panic!("no token") };
    assert!(broker.validate_jwt_svid(&local(), "https://api.example", &token).is_err());
}

#[tokio::test]
async fn a_tenant_that_signs_with_eddsa_has_no_jwt_svids_and_publishes_no_such_key() {
    let (broker, _) = founded().await;
    let text = trust("").replacen("name = \"acme\"", "name = \"acme\"\ntoken_algorithm = \"EdDSA\"", 1);
    apply(&broker, &text).await;
    let refused = broker.jwt_svids(&local(), vec!["https://api.example".into()], "").await;
    assert!(matches!(refused, Err(Refusal::NotAllowed(_))));
    let mut bundles = broker.follow_bundles(local(), |bundle| bundle.jwks.clone()).await.expect("has one");
    let bundles = bundles.recv().await.expect("first").expect("served");
    assert_eq!(bundles, [("spiffe://acme.mayfly.internal".to_owned(), r#"{"keys":[]}"#.to_owned())]);
    assert_eq!(broker.x509_now(&local()).await.expect("has one").0.len(), 1);
}
