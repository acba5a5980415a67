//! Environments, questions, and chains of named breaches.

use super::attestation::sleepy;
use super::*;

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
    let staging = |text: String| text.replacen("\"environment\":\"prod\"", "\"environment\":\"staging\"", 1);
    crate::broker::testing::slip_in(&stage.broker, staging).await;
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
    let request = pb::WhoCanRevokeRequest { scope: Some(crate::broker::view::scope(&grant())) };
    let reply = stage.broker.who_can_revoke(&admin(), request).await.expect("answers");
    let named: Vec<_> = reply.revokers.iter().map(|one| (one.operator.as_str(), one.because.as_str())).collect();
    assert_eq!(named, [("admin", "role admin"), ("look", "named by the grant"), ("ward", "role revoker")]);
    assert_eq!((reply.owner.as_str(), reply.others), ("owner@example.com", 0));
    for (name, may) in [("admin", true), ("look", true), ("ward", true), ("afar", false)] {
        let revoke = pb::RevokeRequest {
            scope: Some(crate::broker::view::scope(&grant())),
            dry_run: true,
            ..Default::default()
        };
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
        .replace("actions = [\"read\"]", "actions = [\"read\", \"write\"]")
        .replace("audiences = [\"https://api.example\"]", "audiences = [\"https://api.example\", \"b/*\"]");
    let stage = Stage::new(&trust).await;
    stage.issue().await;
    let request = pb::GetDriftRequest { tenant: "acme".into(), grant: "g".into(), days: 0 };
    let reply = stage.broker.get_drift(&admin(), request).await.expect("answers");
    assert_eq!((reply.issues, reply.truncated), (1, false));
    for unused in ["purpose play", "audience b/*", "action write", "kind jwt", "kind x509"] {
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
