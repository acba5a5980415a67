//! The trust map's life, through the real command line: attested, handed over, quarantined, ended, and asked about.

use mayfly::pb::{self, CredentialKind};
use serde_json::Value;

use super::{
    rig::{Said, reason, until},
    world::{World, is_active, issue, request},
};

impl World {
    fn operate(&self, arguments: &[&str]) -> Said {
        self.process.ask(&self.launch.data().join("operator"), arguments)
    }

    /// The records that a command shows as JSON.
    fn records(&self, arguments: &[&str]) -> Vec<Value> {
        let said = self.operate(&[&["--output", "json"], arguments].concat());
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
        said.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_changes_hands_and_its_owner_leaves_by_command() {
    let mut world = World::new().await;
    let reply =
        issue(&mut world.broker("alpha").await, request("alpha", CredentialKind::Opaque)).await.expect("issued");
    let owner = world.records(&["inventory", "--tenant", "alpha"])[0]["owner"].as_str().expect("an owner").to_owned();

    let dry = world.operate(&["owner", "transfer", "alpha/report", "--to", "new@alpha.example", "--dry-run"]);
    assert_eq!(dry.code, 0, "{dry:?}");
    assert!(is_active(&mut world.verifier("alpha").await, &reply).await);
    let told = world.records(&["owner", "transfer", "alpha/report", "--to", "new@alpha.example", "--reason", "split"]);
    assert_eq!((told[0]["from"].as_str(), told[0]["leases"].as_u64()), (Some(owner.as_str()), Some(1)));
    world.process.stop();
    world.restart().await;
    assert!(!is_active(&mut world.verifier("alpha").await, &reply).await, "a restart lifted it");
    let waits = world.records(&["attest", "--list", "--within", "400d", "--tenant", "alpha"]);
    assert_eq!(waits[0]["suspended_for"][0], "transfer pending");
    let own = world.operate(&["attest", "report", "--tenant", "alpha", "--until", &soon(), "--reason", "mine now"]);
    assert!(own.code == 1 && own.errors.contains("somebody else"), "who handed it over attests it: {own:?}");
    let ask = pb::AttestRequest {
        tenant: "alpha".into(),
        grant: "report".into(),
        attest_by: Some(super::tenants::in_days(20)),
        reason: "seen".into(),
    };
    let attested = world.operator("op-alpha").await.attest(ask).await.expect("attested").into_inner();
    assert_eq!(attested.lifted, ["transfer pending"]);
    assert!(is_active(&mut world.verifier("alpha").await, &reply).await);

    let left = world.records(&["owner", "leave", "new@alpha.example", "--reason", "left"]);
    assert_eq!((left[0]["suspended"].as_u64(), left[0]["leases"].as_u64()), (Some(1), Some(1)));
    assert!(!is_active(&mut world.verifier("alpha").await, &reply).await);
    issue(&mut world.broker("beta").await, request("beta", CredentialKind::Opaque)).await.expect("another owner's");
    let refused = world.operate(&["attest", "alpha/report", "--until", &soon(), "--reason", "still"]);
    assert!(refused.code == 1 && refused.errors.contains("transfer it"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantine_by_command_outlasts_a_restart_and_is_lifted_by_command() {
    let mut world = World::new().await;
    let reply =
        issue(&mut world.broker("alpha").await, request("alpha", CredentialKind::Opaque)).await.expect("issued");
    let scope = ["workload", "alpha/worker"];
    let said = world.operate(&[&["quarantine"], &scope[..], &["--for", "4h", "--reason", "odd traffic"]].concat());
    assert_eq!(said.code, 0, "{said:?}");
    let again = world.operate(&["quarantine", "workload", "alpha/worker", "--for", "5s", "--reason", "slip"]);
    assert!(again.code == 1 && again.errors.contains("duration_seconds"), "{again:?}");
    world.process.stop();
    world.restart().await;
    assert!(!is_active(&mut world.verifier("alpha").await, &reply).await);
    let bars = world.records(&["bar", "list"]);
    assert_eq!((bars.len(), bars[0]["cause"].as_str()), (1, Some("quarantine")));
    assert!(bars[0]["until"].is_string() && bars[0]["lapsed"].is_null(), "{bars:?}");
    let lift = world.operate(&[&["lift"], &scope[..], &["--quarantine", "--reason", "clean"]].concat());
    assert_eq!(lift.code, 0, "{lift:?}");
    assert!(is_active(&mut world.verifier("alpha").await, &reply).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_appeal_is_filed_listed_and_answered_by_command_and_outlasts_a_restart() {
    let mut world = World::new().await;
    let reply =
        issue(&mut world.broker("alpha").await, request("alpha", CredentialKind::Opaque)).await.expect("issued");
    let closed = world.operate(&["quarantine", "grant", "alpha/report", "--for", "4h", "--reason", "odd traffic"]);
    assert_eq!(closed.code, 0, "{closed:?}");
    let appeal = || pb::AppealRequest {
        tenant: "alpha".into(),
        grant: "report".into(),
        reason: "the month's end, not a leak".into(),
        ..Default::default()
    };
    let filed = world.broker("alpha").await.appeal(appeal()).await.expect("filed").into_inner();
    let id = filed.appeal.expect("an appeal").appeal_id;
    world.process.kill();
    world.restart().await;
    let again = world.operate(&["appeal", "file", "grant", "alpha/report", "--reason", "the same"]);
    assert!(again.code == 0 && again.out.contains(&id), "{again:?}");
    let listed = world.records(&["appeal", "list", "--open"]);
    assert_eq!((listed.len(), listed[0]["appeal_id"].as_str()), (1, Some(&*id)));
    assert_eq!(listed[0]["scope_text"].as_str(), Some("grant alpha/report"));
    assert!(!is_active(&mut world.verifier("alpha").await, &reply).await, "it gives nothing");
    let unknown = world.operate(&["appeal", "grant", "00c0ffee00c0ffee00c0ffee", "--reason", "x"]);
    assert_eq!(unknown.code, 1, "{unknown:?}");
    let granted = world.operate(&["appeal", "grant", &id, "--reason", "seen the books"]);
    assert_eq!(granted.code, 0, "{granted:?}");
    assert!(is_active(&mut world.verifier("alpha").await, &reply).await);
    assert!(world.records(&["appeal", "list"]).is_empty());
    let told = world.records(&["events", "list", "--kind", "appeal."]);
    let kinds: Vec<_> = told.iter().filter_map(|event| event["kind"].as_str()).collect();
    assert_eq!(kinds, ["appeal.filed", "appeal.granted"]);
    let nothing = world.broker("alpha").await.appeal(appeal()).await;
    assert_eq!(reason(&nothing), "NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn integrations_end_by_command_each_with_what_is_its_own() {
    let world = World::new().await;
    let mut replies = Vec::new();
    for tenant in ["alpha", "beta", "gamma"] {
        let mut broker = world.broker(tenant).await;
        replies.push(issue(&mut broker, request(tenant, CredentialKind::Opaque)).await.expect("issued"));
    }
    let alive = async || {
        let mut alive = Vec::new();
        for (tenant, reply) in ["alpha", "beta", "gamma"].into_iter().zip(&replies) {
            alive.push(is_active(&mut world.verifier(tenant).await, reply).await);
        }
        alive
    };
    let dry = world.records(&["offboard", "partner", "courier", "--dry-run"]);
    assert_eq!((dry[0]["leases"].as_u64(), dry[0]["tenants"].as_u64()), (Some(3), Some(3)));
    assert_eq!(alive().await, [true, true, true]);
    world.records(&["retire", "alpha/report", "--reason", "replaced"]);
    assert_eq!(alive().await, [false, true, true]);
    world.records(&["closeout", "project", "beta/courier", "--reason", "done"]);
    assert_eq!(alive().await, [false, false, true]);
    let last = world.records(&["offboard", "partner", "courier", "--reason", "contract ended"]);
    assert_eq!((last[0]["changed"].as_bool(), last[0]["grant_count"].as_u64()), (Some(true), Some(3)));
    assert_eq!(alive().await, [false, false, false]);
    let again = world.records(&["offboard", "partner", "courier", "--reason", "contract ended"]);
    assert_eq!(again[0]["changed"].as_bool(), Some(false));
    let wrong = world.operate(&["closeout", "project", "courier", "--reason", "x"]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trust_map_answers_questions_by_command() {
    let world = World::new().await;
    issue(&mut world.broker("alpha").await, request("alpha", CredentialKind::Opaque)).await.expect("issued");
    let records = world.records(&["inventory"]);
    assert_eq!(records.len(), 3);
    assert!(records.iter().any(|one| one["tenant"] == "alpha" && one["last_used"].is_string()), "{records:?}");
    let csv = world.operate(&["inventory", "--csv"]);
    assert_eq!((csv.code, csv.out.lines().count()), (0, 4), "{csv:?}");
    let edges = world.records(&["trust", "map", "--tenant", "alpha"]);
    assert_eq!((edges.len(), edges[0]["grant"].as_str()), (1, Some("report")));
    let graph = world.operate(&["trust", "map", "--format", "dot"]);
    assert!(graph.code == 0 && graph.out.starts_with("digraph trust {"), "{graph:?}");
    let who = world.records(&["who-can-revoke", "grant", "alpha/report"]);
    let names: Vec<_> =
        who[0]["revokers"].as_array().expect("a list").iter().map(|one| one["operator"].clone()).collect();
    assert_eq!(names, ["admin", "op-alpha"]);
    let drift = until("the issue in the audit", async || {
        let drift = world.records(&["inventory", "--drift", "alpha/report"]).remove(0);
        (drift["issues"].as_u64() == Some(1)).then_some(drift)
    });
    assert!(drift.await["proposal"].as_str().expect("text").contains("kinds = [\"opaque\"]"));
}

fn soon() -> String {
    let at = time::OffsetDateTime::now_utc() + time::Duration::days(20);
    at.date().to_string()
}
