use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::{
    broker::testing::{Hands, TRUST, admin, apply, founded_with},
    config,
    identity::{
        Authority, CertificateProof,
        oidc::testing::{self, Signer},
    },
    issuers::Issuers,
    model::{IssuerKind, IssuerRules, LeaseId, Standing},
    pb,
};
use std::sync::Arc;

struct Bed {
    broker: Arc<Broker>,
    hands: Arc<Hands>,
    signer: Signer,
    _keys: tempfile::TempDir,
}

const BINDINGS: &str = r#"
    [[workload]]
    tenant = "acme"
    name = "gh"
    environment = "prod"
    [[workload.selectors]]
    issuer = "github"
    longest_job = "45m"
    claims = { repository_id = "74", ref = "refs/heads/main", environment = ["production", "staging"] }
    [[workload]]
    tenant = "acme"
    name = "gl"
    environment = "prod"
    selectors = [{ issuer = "gitlab", claims = { project_id = 20, ref_protected = true } }]
    [[workload]]
    tenant = "acme"
    name = "pod"
    environment = "prod"
    [[workload.selectors]]
    issuer = "kubernetes"
    [workload.selectors.claims]
    "kubernetes.io/namespace" = "payments"
    "kubernetes.io/serviceaccount/name" = "deployer"
"#;

impl Bed {
    async fn new() -> Self {
        Self::with(OnReuse::Alarm).await
    }

    async fn with(on_reuse: OnReuse) -> Self {
        let signer = Signer::new();
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("keys.json");
        std::fs::write(&file, signer.key_set().to_string()).expect("written");
        let issuer = |kind: IssuerKind, url: &str| config::Issuer {
            rules: Arc::new(IssuerRules {
                on_reuse,
                allow_events: vec!["workflow_run".to_owned()],
                ..IssuerRules::of_kind(kind, url, testing::AUDIENCE)
            }),
            keys: config::KeySource::Pinned(file.clone()),
            refresh: Duration::from_secs(600),
            stale: Duration::from_secs(3_600),
        };
        let issuers = [
            issuer(IssuerKind::Github, testing::GITHUB),
            issuer(IssuerKind::Gitlab, testing::GITLAB),
            issuer(IssuerKind::Kubernetes, testing::KUBERNETES),
        ];
        let (broker, hands) = founded_with(Issuers::open(&issuers).expect("issuers")).await;
        let trust = TRUST.replace(r#"workloads = ["w"]"#, r#"workloads = ["w", "gh", "gl", "pod"]"#);
        let trust = trust.replace(r#"purposes = ["work"]"#, r#"purposes = ["work", "audit"]"#);
        apply(&broker, &format!("{trust}{BINDINGS}")).await;
        Self { broker, hands, signer, _keys: folder }
    }

    fn seconds(&self) -> u64 {
        self.broker.now().seconds()
    }

    async fn prove(&self, claims: &Value, key: Option<PeerKey>) -> Result<Caller, Refusal> {
        self.broker.prove_token(&self.signer.rs256(claims), key, Some("192.0.2.7:1".parse().expect("an address"))).await
    }

    async fn caller(&self, claims: &Value, key: u8) -> Caller {
        self.prove(claims, Some(own(key))).await.expect("proven")
    }

    async fn open(&self, caller: &Caller, hold: bool) -> Result<pb::Task, Refusal> {
        let request = pb::OpenTaskRequest { hold, ..opening() };
        Ok(self.broker.open_task(caller, request).await?.task.expect("a task"))
    }

    fn with_key(&self, key: u8, task: &pb::Task) -> Result<Caller, Refusal> {
        self.broker.task_caller(own(key), &task.task_id, None)
    }

    async fn issue(&self, caller: &Caller, task: &str) -> Result<pb::Lease, Refusal> {
        let request = pb::IssueRequest { task_id: task.to_owned(), ..asking() };
        Ok(self.broker.issue(caller, request).await?.lease.expect("a lease"))
    }

    fn standing(&self, lease: &pb::Lease) -> Standing {
        let id: LeaseId = lease.lease_id.parse().expect("an id");
        let row = self.broker.ledger.lease(id).expect("reads").expect("is there");
        self.broker.ledger.lease_standing(&row, self.broker.now()).expect("reads")
    }

    async fn events(&self, kind: &str) -> Vec<pb::Event> {
        let request = pb::ListEventsRequest { kind_prefix: kind.into(), ..Default::default() };
        self.broker.list_events(&admin(), request).await.expect("listed").events
    }

    async fn revoke(&self, scope: pb::Scope) {
        let request = pb::RevokeRequest { scope: Some(scope), reason: "incident".into(), ..Default::default() };
        self.broker.revoke(&admin(), request).await.expect("revoked");
    }
}

fn own(number: u8) -> PeerKey {
    PeerKey { spki: Digest::of(&[number]), certificate: Digest::of(&[number, number]) }
}

fn opening() -> pb::OpenTaskRequest {
    pb::OpenTaskRequest { tenant: "acme".into(), partner: "zeta".into(), purpose: "work".into(), ..Default::default() }
}

fn asking() -> pb::IssueRequest {
    pb::IssueRequest {
        tenant: "acme".into(),
        partner: "zeta".into(),
        purpose: "work".into(),
        kind: pb::CredentialKind::Opaque.into(),
        audiences: vec!["https://api.example".into()],
        actions: vec!["read".into()],
        ttl_seconds: 240,
        binding: pb::Binding::None.into(),
        ..Default::default()
    }
}

fn reason<T>(outcome: Result<T, Refusal>) -> &'static str {
    outcome.err().map_or("", |refusal| refusal.reason())
}

fn seconds(at: &Option<prost_types::Timestamp>) -> u64 {
    u64::try_from(at.as_ref().expect("a time").seconds).expect("after 1970")
}

#[tokio::test]
async fn a_job_of_forty_minutes_goes_on_with_its_key_after_its_token_of_five() {
    let bed = Bed::new().await;
    let began = bed.seconds();
    let token = testing::github(began);
    let first = bed.caller(&token, 1).await;
    let task = bed.open(&first, true).await.expect("opened");
    assert_eq!((task.issuer.as_str(), seconds(&task.client_key_until)), ("github", began + 45 * 60));
    assert_eq!(task.client_key_sha256, own(1).spki.0);
    let (beat, beats) = tokio::sync::mpsc::channel(4);
    let hold = pb::HoldTaskRequest { task_id: task.task_id.clone() };
    let mut told = bed.broker.hold_task(&first, hold, beats).await.expect("held");
    told.recv().await.expect("told").expect("lives");
    let mut lease = bed.issue(&first, &task.task_id).await.expect("issued");
    for _ in 0..10 {
        bed.hands.advance(Duration::from_secs(230));
        beat.send(()).await.expect("beats");
        told.recv().await.expect("told").expect("the hold goes on without the token");
        let caller = bed.with_key(1, &task).expect("the key goes on");
        let request = pb::RenewRequest { lease_id: lease.lease_id.clone(), ttl_seconds: 240, ..Default::default() };
        lease = bed.broker.renew(&caller, request).await.expect("renewed").lease.expect("a lease");
        assert_eq!(bed.standing(&lease), Standing::Live);
        assert!(bed.with_key(2, &task).is_err(), "another key");
    }
    assert!(bed.seconds() >= began + 2_300);
    assert_eq!(reason(bed.prove(&token, Some(own(1))).await), "IDENTITY_TOKEN_EXPIRED");
    // The binding gives the job 45 minutes: nothing outlives them, and after them the key is worth nothing.
    bed.hands.advance(Duration::from_secs(200));
    let last = bed.issue(&bed.with_key(1, &task).expect("goes on"), &task.task_id).await.expect("issued");
    assert_eq!(seconds(&last.expires), began + 45 * 60);
    bed.hands.advance(Duration::from_secs(200));
    assert_eq!(reason(bed.with_key(1, &task)), "UNPROVEN");
    assert_ne!(bed.standing(&last), Standing::Live);
}

#[tokio::test]
async fn a_key_goes_on_only_while_its_task_is_held_and_lives() {
    let bed = Bed::new().await;
    let first = bed.caller(&testing::github(bed.seconds()), 1).await;
    let free = bed.open(&first, false).await.expect("opened");
    let lease = bed.issue(&first, &free.task_id).await.expect("issued with the token");
    assert!(seconds(&lease.expires) <= bed.seconds() + 300);
    let key = bed.with_key(1, &free).expect("known");
    assert_eq!(reason(bed.issue(&key, &free.task_id).await), "LIFETIME_TOO_SHORT", "nobody holds it");
    let (_beat, beats) = tokio::sync::mpsc::channel(1);
    let hold = pb::HoldTaskRequest { task_id: free.task_id.clone() };
    assert_eq!(reason(bed.broker.hold_task(&key, hold, beats).await), "UNPROVEN");
    for parent in ["", free.task_id.as_str()] {
        let child = pb::OpenTaskRequest { parent_task_id: parent.into(), hold: true, ..opening() };
        assert_eq!(reason(bed.broker.open_task(&key, child).await), "UNPROVEN", "nor through a child that is held");
    }
    let request = pb::CompleteTaskRequest { task_id: free.task_id.clone() };
    bed.broker.complete_task(&key, request).await.expect("what only ends needs no hold");
    assert_ne!(bed.standing(&lease), Standing::Live);

    let second = bed.caller(&testing::github(bed.seconds() - 1), 2).await;
    let held = bed.open(&second, true).await.expect("opened");
    let key = bed.with_key(2, &held).expect("known");
    let lease = bed.issue(&key, &held.task_id).await.expect("issued");
    assert_eq!(reason(bed.issue(&key, "").await), "", "confined to its task");
    assert_eq!(reason(bed.issue(&key, &free.task_id).await), "NOT_FOUND", "and to no other");
    let child = pb::OpenTaskRequest { parent_task_id: held.task_id.clone(), hold: true, ..opening() };
    let child = bed.broker.open_task(&key, child).await.expect("a child").task.expect("a task");
    assert_eq!(child.parent_task_id, held.task_id);
    bed.with_key(2, &child).expect("the child is bound to the same key");
    let request = pb::CompleteTaskRequest { task_id: held.task_id.clone() };
    bed.broker.complete_task(&key, request).await.expect("completed");
    assert_ne!(bed.standing(&lease), Standing::Live);
    assert_eq!(reason(bed.issue(&bed.with_key(2, &child).expect("known"), &child.task_id).await), "TASK_ENDED");
}

#[tokio::test]
async fn a_token_for_one_use_opens_one_task_and_a_lost_reply_is_no_second_use() {
    let bed = Bed::new().await;
    let token = testing::github(bed.seconds());
    let first = bed.caller(&token, 1).await;
    let task = bed.open(&first, true).await.expect("opened");
    let again = bed.open(&first, true).await.expect("the same request again");
    assert_eq!(again.task_id, task.task_id);
    assert_eq!(reason(bed.open(&first, false).await), "IDENTITY_TOKEN_SPENT", "another request");
    assert_eq!(reason(bed.issue(&first, "").await), "IDENTITY_TOKEN_SPENT", "a second task");
    assert!(bed.events("identity.token_reused").await.is_empty(), "one's own mistake is no alarm");
    bed.issue(&first, &task.task_id).await.expect("in its task it may go on");
    let child = pb::OpenTaskRequest { parent_task_id: task.task_id.clone(), ..opening() };
    let child = bed.broker.open_task(&first, child).await.expect("and below it").task.expect("a task");
    bed.issue(&first, &child.task_id).await.expect("and in what is below");

    let other = bed.caller(&testing::github(bed.seconds() - 1), 2).await;
    let lease = bed.issue(&other, "").await.expect("issued");
    let retried = bed.issue(&other, "").await.expect("the same request again");
    assert_ne!(bed.standing(&lease), Standing::Live, "never two live of one token");
    assert_eq!(bed.standing(&retried), Standing::Live);
    let gone: TaskId = lease.task_id.parse().expect("an id");
    let row = bed.broker.ledger.task(gone).expect("reads").expect("is there");
    assert!(!bed.broker.ledger.task_standing(&row, bed.broker.now()).expect("reads").is_live());
    assert_eq!(reason(bed.issue(&other, &task.task_id).await), "NOT_FOUND", "another key's task");
}

#[tokio::test]
async fn what_was_ended_is_not_begun_anew_with_the_token_that_opened_it() {
    let bed = Bed::new().await;
    let revoked = bed.caller(&testing::github(bed.seconds()), 1).await;
    let lease = bed.issue(&revoked, "").await.expect("issued");
    bed.revoke(pb::Scope { kind: pb::ScopeKind::Task.into(), task_id: lease.task_id, ..Default::default() }).await;
    let completed = bed.caller(&testing::github(bed.seconds() - 1), 2).await;
    let lease = bed.issue(&completed, "").await.expect("issued");
    let request = pb::CompleteTaskRequest { task_id: lease.task_id };
    bed.broker.complete_task(&completed, request).await.expect("completed");
    for caller in [revoked, completed] {
        for _ in 0..2 {
            assert_eq!(reason(bed.issue(&caller, "").await), "IDENTITY_TOKEN_SPENT");
        }
    }
    assert!(bed.events("identity.token_reused").await.is_empty(), "one's own mistake is no alarm");
}

#[tokio::test]
async fn who_is_confined_to_a_task_stays_with_its_partner_and_purpose() {
    let bed = Bed::new().await;
    let token = bed.caller(&testing::github(bed.seconds()), 1).await;
    let task = bed.open(&token, true).await.expect("opened");
    let leaf = pb::IssueRequest {
        task_id: task.task_id.clone(),
        kind: pb::CredentialKind::X509.into(),
        generate_key: true,
        binding: pb::Binding::Unspecified.into(),
        ..asking()
    };
    let reply = bed.broker.issue(&token, leaf).await.expect("issued");
    let serial: LeaseId = reply.lease.expect("a lease").lease_id.parse().expect("an id");
    let Some(pb::issue_response::Credential::X509(leaf)) = reply.credential else { panic!("a certificate") };
    let certificate = Caller::for_test(Proof::Certificate(CertificateProof {
        sha256: Digest::of(&leaf.chain_der[0]),
        key: Digest::of(b"its key"),
        authority: Authority::Own,
        spiffe_id: Some(leaf.spiffe_id),
        dns_names: vec![],
        serial: serial.as_bytes().to_vec(),
        not_after: Timestamp::from_millis(u64::MAX / 2),
    }));
    let open = |partner: &str, purpose: &str| pb::OpenTaskRequest {
        parent_task_id: task.task_id.clone(),
        partner: partner.into(),
        purpose: purpose.into(),
        ..opening()
    };
    for caller in [bed.with_key(1, &task).expect("known"), certificate] {
        let other = pb::IssueRequest { purpose: "audit".into(), ..asking() };
        assert_eq!(reason(bed.broker.issue(&caller, other).await), "INVALID_FIELD");
        let other = pb::IssueRequest { partner: "eta".into(), ..asking() };
        assert_eq!(reason(bed.broker.issue(&caller, other).await), "INVALID_FIELD");
        let silent = pb::IssueRequest { partner: String::new(), purpose: String::new(), ..asking() };
        let lease = bed.broker.issue(&caller, silent).await.expect("issued").lease.expect("a lease");
        assert_eq!((lease.task_id, lease.purpose), (task.task_id.clone(), "work".to_owned()));
        for other in [open("zeta", "audit"), open("eta", "work")] {
            assert_eq!(reason(bed.broker.open_task(&caller, other).await), "INVALID_FIELD");
        }
        bed.broker.open_task(&caller, open("zeta", "work")).await.expect("of its own");
    }
    bed.broker.open_task(&token, open("zeta", "audit")).await.expect("a token confines nobody to a task");
}

#[tokio::test]
async fn a_spent_token_with_another_key_is_refused_and_told() {
    let bed = Bed::new().await;
    let token = testing::github(bed.seconds());
    let task = bed.open(&bed.caller(&token, 1).await, true).await.expect("opened");
    let thief = bed.caller(&token, 2).await;
    for attempt in [bed.open(&thief, true).await.map(drop), bed.issue(&thief, "").await.map(drop)] {
        assert_eq!(reason(attempt), "IDENTITY_TOKEN_SPENT");
    }
    assert_eq!(reason(bed.issue(&thief, &task.task_id).await), "NOT_FOUND");
    let complete = pb::CompleteTaskRequest { task_id: task.task_id.clone() };
    assert_eq!(reason(bed.broker.complete_task(&thief, complete).await), "NOT_FOUND");
    let alarms = bed.events("identity.token_reused").await;
    let alarm = alarms.first().expect("told");
    assert_eq!((alarm.tenant.as_str(), alarm.workload.as_str(), alarm.decision.as_str()), ("acme", "gh", "refused"));
    assert_eq!(alarm.source, "192.0.2.7:1");
    for detail in [
        "issuer=github",
        "subject=repo:octo-org@65/octo-repo@74:ref:refs/heads/main",
        &format!("first_task={}", task.task_id),
    ] {
        assert!(alarm.details.iter().any(|one| one == detail), "{detail}: {:?}", alarm.details);
    }
    bed.issue(&bed.with_key(1, &task).expect("its own"), &task.task_id).await.expect("the first one goes on");
    // Long after the token is over its use is still known, until nobody would take it any more.
    bed.hands.advance(Duration::from_secs(299));
    assert_eq!(reason(bed.open(&bed.caller(&token, 3).await, true).await), "IDENTITY_TOKEN_SPENT");
}

#[tokio::test]
async fn where_the_issuer_says_so_reuse_suspends_what_the_first_one_got() {
    let bed = Bed::with(OnReuse::Suspend).await;
    let token = testing::github(bed.seconds());
    let first = bed.caller(&token, 1).await;
    let task = bed.open(&first, true).await.expect("opened");
    let lease = bed.issue(&first, &task.task_id).await.expect("issued");
    let other = bed.caller(&testing::github(bed.seconds() - 1), 9).await;
    let unharmed = bed.issue(&other, "").await.expect("issued");
    assert_eq!(reason(bed.open(&bed.caller(&token, 2).await, true).await), "IDENTITY_TOKEN_SPENT");
    assert_eq!(bed.standing(&lease), Standing::Suspended);
    assert_eq!(bed.standing(&unharmed), Standing::Live);
    assert_eq!(reason(bed.issue(&bed.with_key(1, &task).expect("known"), &task.task_id).await), "UNPROVEN");
    assert_eq!(bed.events("identity.token_reused").await.len(), 1);
}

#[tokio::test]
async fn two_programs_in_one_gitlab_job_have_a_task_each_and_no_part_of_the_others() {
    let bed = Bed::new().await;
    let token = testing::gitlab(bed.seconds());
    let (build, deploy) = (bed.caller(&token, 1).await, bed.caller(&token, 2).await);
    let ours = bed.open(&build, true).await.expect("opened");
    let theirs = bed.open(&deploy, true).await.expect("opened with the same token");
    assert_ne!(ours.task_id, theirs.task_id);
    bed.issue(&build, &ours.task_id).await.expect("issued");
    let lease = bed.issue(&deploy, &theirs.task_id).await.expect("issued");
    assert_eq!(reason(bed.issue(&build, &theirs.task_id).await), "NOT_FOUND");
    let release = pb::ReleaseRequest { lease_id: lease.lease_id.clone() };
    assert_eq!(reason(bed.broker.release(&build, release).await), "NOT_FOUND");
    assert_eq!(reason(bed.issue(&build, "").await), "IDENTITY_TOKEN_SPENT", "one task a key");
    assert_eq!(reason(bed.with_key(1, &theirs)), "UNPROVEN");
    // Programs are many, and not without end.
    for key in 3..=32 {
        bed.open(&bed.caller(&token, key).await, false).await.expect("one more program");
    }
    assert_eq!(reason(bed.open(&bed.caller(&token, 33).await, false).await), "IDENTITY_TOKEN_SPENT");
}

#[tokio::test]
async fn a_clusters_token_serves_until_it_expires_and_needs_no_key() {
    let bed = Bed::new().await;
    let token = testing::kubernetes(bed.seconds());
    let pod = bed.prove(&token, None).await.expect("proven");
    let lease = bed.issue(&pod, "").await.expect("issued");
    let task = bed.open(&pod, false).await.expect("opened");
    let other = bed.caller(&token, 7).await;
    bed.issue(&other, &task.task_id).await.expect("the same workload, whatever its key");
    assert_eq!(bed.standing(&lease), Standing::Live);
    for claims in [testing::github(bed.seconds()), testing::gitlab(bed.seconds())] {
        assert_eq!(reason(bed.prove(&claims, None).await), "CLIENT_KEY_REQUIRED");
    }
    bed.hands.advance(Duration::from_secs(500));
    let request = pb::IssueRequest { ttl_seconds: 3_600, ..asking() };
    let lease = bed.broker.issue(&pod, request).await.expect("issued").lease.expect("a lease");
    assert_eq!(seconds(&lease.expires), bed.seconds() + 100, "never longer than what proves its caller");
}

#[tokio::test]
async fn revoking_an_issuer_ends_all_of_it_and_nothing_else() {
    let bed = Bed::new().await;
    let github = bed.caller(&testing::github(bed.seconds()), 1).await;
    let task = bed.open(&github, true).await.expect("opened");
    let lost = bed.issue(&github, &task.task_id).await.expect("issued");
    let gitlab = bed.caller(&testing::gitlab(bed.seconds()), 2).await;
    let kept = bed.issue(&gitlab, "").await.expect("issued");
    bed.revoke(pb::Scope { kind: pb::ScopeKind::Issuer.into(), issuer: "github".into(), ..Default::default() }).await;
    assert_ne!(bed.standing(&lost), Standing::Live);
    assert_eq!(bed.standing(&kept), Standing::Live);
    assert_eq!(reason(bed.issue(&bed.with_key(1, &task).expect("known"), &task.task_id).await), "UNPROVEN");
    let fresh = bed.caller(&testing::github(bed.seconds() - 1), 3).await;
    assert_eq!(reason(bed.issue(&fresh, "").await), "UNPROVEN", "barred until it is lifted");
    let scope = pb::Scope { kind: pb::ScopeKind::Issuer.into(), issuer: "github".into(), ..Default::default() };
    let lift = pb::LiftRequest { scope: Some(scope), reason: "its keys are new".into(), ..Default::default() };
    bed.broker.lift(&admin(), lift).await.expect("lifted");
    bed.hands.advance(Duration::from_secs(60));
    assert_eq!(reason(bed.issue(&fresh, "").await), "UNPROVEN", "issued before the cut");
    assert_ne!(reason(bed.issue(&bed.with_key(1, &task).expect("known"), &task.task_id).await), "");
    let since = bed.caller(&testing::github(bed.seconds()), 4).await;
    let task = bed.open(&since, true).await.expect("issued after it");
    let lease = bed.issue(&bed.with_key(4, &task).expect("goes on"), &task.task_id).await.expect("issued");
    assert_eq!(bed.standing(&lease), Standing::Live);
    let unknown = pb::Scope { kind: pb::ScopeKind::Issuer.into(), issuer: "gitlub".into(), ..Default::default() };
    let request = pb::RevokeRequest { scope: Some(unknown), reason: "slip".into(), ..Default::default() };
    assert_eq!(reason(bed.broker.revoke(&admin(), request).await), "NOT_FOUND");
}

#[tokio::test]
async fn a_token_and_a_key_are_proofs_that_can_be_revoked() {
    let bed = Bed::new().await;
    let token = testing::gitlab(bed.seconds());
    let by_token = bed.caller(&token, 1).await;
    let scope = |digest: Digest| pb::Scope {
        kind: pb::ScopeKind::Proof.into(),
        proof_sha256: digest.0.to_vec(),
        ..Default::default()
    };
    let one = bed.issue(&by_token, "").await.expect("issued");
    let two = bed.issue(&bed.caller(&token, 2).await, "").await.expect("issued");
    bed.revoke(scope(own(1).spki)).await;
    assert_ne!(bed.standing(&one), Standing::Live);
    assert_eq!(bed.standing(&two), Standing::Live);
    let id = UnverifiedToken::parse(&bed.signer.rs256(&token)).expect("reads").id();
    assert_eq!(by_token.proof_text(), id.to_string(), "events name it so");
    bed.revoke(scope(id)).await;
    assert_ne!(bed.standing(&two), Standing::Live);
}

#[tokio::test]
async fn claims_decide_who_it_is_and_a_caller_learns_nothing_of_them() {
    let bed = Bed::new().await;
    let now = bed.seconds();
    let github = |name: &str, value: Value| {
        let mut claims = testing::github(now);
        claims[name] = value;
        claims
    };
    let mut key = 0;
    for (claims, good) in [
        (github("environment", json!("staging")), true),
        (github("environment", json!("dev")), false),
        (github("repository_id", json!("75")), false),
        (github("ref", json!("refs/heads/main2")), false),
        (github("ref", json!("refs/heads/Main")), false),
        (github("sub", json!("repo:octo-org/octo-repo:ref:refs/heads/main")), true),
        // The config allows it; the binding does not name it.
        (github("event_name", json!("workflow_run")), false),
        (testing::gitlab(now), true),
        (
            {
                let mut claims = testing::gitlab(now);
                claims["ref_protected"] = json!("false");
                claims
            },
            false,
        ),
        (testing::kubernetes(now), true),
        (
            {
                let mut claims = testing::kubernetes(now);
                claims["kubernetes.io"]["namespace"] = json!("other");
                claims
            },
            false,
        ),
        (
            {
                let mut claims = testing::kubernetes(now);
                claims["kubernetes.io"] = json!("payments");
                claims
            },
            false,
        ),
    ] {
        key += 1;
        let caller = bed.caller(&claims, key).await;
        assert_eq!(reason(bed.issue(&caller, "").await), if good { "" } else { "UNKNOWN_WORKLOAD" }, "{claims}");
    }
    for claims in
        [testing::circleci(now), github("aud", json!("https://other")), github("iss", json!("https://evil.example"))]
    {
        assert_eq!(reason(bed.prove(&claims, Some(own(1))).await), "IDENTITY_TOKEN_REFUSED");
    }
    assert_eq!(reason(bed.broker.prove_token("nonsense", None, None).await), "IDENTITY_TOKEN_REFUSED");
}

#[tokio::test]
async fn the_job_is_linked_as_the_token_says_and_a_child_is_its_parents() {
    let bed = Bed::new().await;
    let caller = bed.caller(&testing::github(bed.seconds()), 1).await;
    let claimed = pb::OpenTaskRequest { job_url: "https://evil.example/".into(), hold: true, ..opening() };
    let parent = bed.broker.open_task(&caller, claimed).await.expect("opened").task.expect("a task");
    let run = "https://github.com/octo-org/octo-repo/actions/runs/99/attempts/2";
    assert_eq!(parent.job_url, run);
    let key = bed.with_key(1, &parent).expect("proven");
    let child = pb::OpenTaskRequest { parent_task_id: parent.task_id.clone(), ..opening() };
    let child = bed.broker.open_task(&key, child).await.expect("opened").task.expect("a task");
    assert_eq!(child.job_url, run);

    // Of others it is their own word, and plain.
    let worker = crate::broker::testing::worker();
    let with = |job_url: &str| pb::OpenTaskRequest { job_url: job_url.into(), ..opening() };
    let opened = bed.broker.open_task(&worker, with("https://ci.example/jobs/7")).await.expect("opened");
    assert_eq!(opened.task.expect("a task").job_url, "https://ci.example/jobs/7");
    for odd in
        ["javascript:alert(1)", "https://u@ci/", "https://ci/a b", "ci/7", &format!("https://{}", "x".repeat(600))]
    {
        assert_eq!(reason(bed.broker.open_task(&worker, with(odd)).await), "INVALID_FIELD", "{odd}");
    }
}
