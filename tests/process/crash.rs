//! kill -9 during load: what was acknowledged holds, and nothing is out there that the ledger does not know.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use mayfly::pb::{self, CredentialKind, IssueResponse};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::task::JoinSet;

use super::{
    rig::until,
    world::{World, is_active, issue, lease_of, lease_scope, request, revocation},
};

/// What became of one lease, as far as its holder knows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Fate {
    #[default]
    Live,
    /// Its end was asked for; no answer came.
    Asked,
    /// Its end was acknowledged.
    Over,
}

type Records = Arc<Mutex<BTreeMap<String, (IssueResponse, Fate)>>>;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_by_a_crash_over_fjall() {
    crash("fjall").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_by_a_crash_over_sled() {
    crash("sled").await;
}

async fn crash(engine: &str) {
    let rounds = std::env::var("MAYFLY_KILL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let mut world = World::with(&["--engine", engine]).await;
    let records = Records::default();
    for round in 0..rounds {
        let before = records.lock().unwrap().len();
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            callers.spawn(call(world.broker("alpha").await, world.admin().await, Arc::clone(&records)));
        }
        until("some load", || async { (records.lock().unwrap().len() >= before + 40).then_some(()) }).await;
        // Anywhere within a commit.
        tokio::time::sleep(random_pause()).await;
        world.process.kill();
        while let Some(ended) = callers.join_next().await {
            ended.expect("a caller");
        }
        world.restart().await;
        check(&world, &records, &format!("{engine}, round {round}")).await;
    }
}

fn random_pause() -> Duration {
    let mut bytes = [0; 2];
    SystemRandom::new().fill(&mut bytes).expect("entropy");
    Duration::from_micros(u64::from(u16::from_le_bytes(bytes)))
}

/// Issues and ends until the daemon is gone.
async fn call(
    mut broker: pb::broker_client::BrokerClient<tonic::transport::Channel>,
    mut admin: pb::admin_client::AdminClient<tonic::transport::Channel>,
    records: Records,
) {
    for turn in 0_usize.. {
        let kind = [CredentialKind::Opaque, CredentialKind::Jwt][turn % 2];
        let asked = pb::IssueRequest { ttl_seconds: 3_600, ..request("alpha", kind) };
        let Ok(reply) = issue(&mut broker, asked).await else { return };
        let lease = lease_of(&reply);
        let (lease_id, task_id) = (lease.lease_id, lease.task_id);
        let end = |fate| {
            if let Some(record) = records.lock().unwrap().get_mut(&lease_id) {
                record.1 = fate;
            }
        };
        records.lock().unwrap().insert(lease_id.clone(), (reply, Fate::Live));
        let ended = match turn % 5 {
            0 | 1 => continue,
            2 => {
                end(Fate::Asked);
                broker.release(pb::ReleaseRequest { lease_id: lease_id.clone() }).await.map(|_| ())
            }
            3 => {
                end(Fate::Asked);
                broker.complete_task(pb::CompleteTaskRequest { task_id }).await.map(|_| ())
            }
            _ => {
                end(Fate::Asked);
                admin.revoke(revocation(lease_scope(&lease_id))).await.map(|_| ())
            }
        };
        if ended.is_err() {
            return;
        }
        end(Fate::Over);
    }
}

async fn check(world: &World, records: &Records, when: &str) {
    let (mut verifier, mut admin) = (world.verifier("alpha").await, world.admin().await);
    let all = records.lock().unwrap().clone();
    let mut wrong = Vec::new();
    for (id, (reply, fate)) in &all {
        let active = is_active(&mut verifier, reply).await;
        match (fate, active) {
            (Fate::Live, false) => wrong.push(format!("lease {id} was acknowledged and is gone")),
            (Fate::Over, true) => wrong.push(format!("lease {id} was ended and lives again")),
            (Fate::Live | Fate::Asked, true) | (Fate::Over | Fate::Asked, false) => {}
        }
        // An active answer proves that it is known already.
        if !active {
            let found = admin.identify(pb::IdentifyRequest { found: id.clone() }).await.expect("answers").into_inner();
            if found.lease.is_none() {
                wrong.push(format!("lease {id} was handed out and is not known"));
            }
        }
    }
    assert!(wrong.is_empty(), "{when}, {} leases: {}", all.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_task_survives_a_restart_when_it_is_resumed_and_ends_when_not() {
    for engine in ["fjall", "sled"] {
        let mut world = World::with(&["--engine", engine]).await;
        let identity = world.identity("alpha/worker");
        let mut leases = Vec::new();
        let mut streams = Vec::new();
        for _ in 0..2 {
            let mut broker = world.broker_as(&identity).await;
            let open = pb::OpenTaskRequest {
                tenant: "alpha".into(),
                partner: "courier".into(),
                purpose: "report".into(),
                hold: true,
                ..Default::default()
            };
            let task = broker.open_task(open).await.expect("opened").into_inner().task.expect("a task");
            streams.push(hold(&mut broker, &task.task_id).await);
            let asked = pb::IssueRequest { task_id: task.task_id.clone(), ..request("alpha", CredentialKind::Opaque) };
            leases.push((task.task_id, issue(&mut broker, asked).await.expect("issued")));
        }
        world.process.kill();
        drop(streams);
        world.restart().await;
        let mut verifier = world.verifier("alpha").await;
        for (_, reply) in &leases {
            assert!(is_active(&mut verifier, reply).await, "{engine}: the restart ended a held task");
        }
        let kept = hold(&mut world.broker_as(&identity).await, &leases[0].0).await;
        let ended = &leases[1].1;
        until("the end of the task that nobody resumed", || {
            let mut verifier = verifier.clone();
            async move { (!is_active(&mut verifier, ended).await).then_some(()) }
        })
        .await;
        assert!(is_active(&mut verifier, &leases[0].1).await, "{engine}: the resumed task ended");
        drop(kept);
    }
}

/// Holds a task until dropped.
async fn hold(broker: &mut pb::broker_client::BrokerClient<tonic::transport::Channel>, task_id: &str) -> Held {
    let (sender, beats) = tokio::sync::mpsc::channel(4);
    sender.send(pb::HoldTaskRequest { task_id: task_id.to_owned() }).await.expect("room");
    let call = broker.hold_task(tokio_stream::wrappers::ReceiverStream::new(beats)).await;
    let mut replies = call.expect("held").into_inner();
    let first = replies.message().await.expect("answers").expect("a message");
    let pause = Duration::from_secs(u64::from(first.heartbeat_seconds.max(2) / 2));
    Held(tokio::spawn(async move {
        while sender.send(pb::HoldTaskRequest::default()).await.is_ok() {
            tokio::select! {
                reply = replies.message() => if !matches!(reply, Ok(Some(_))) { return },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }))
}

/// Beats in the background until dropped.
struct Held(tokio::task::JoinHandle<()>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.abort();
    }
}

const CALLERS: usize = 8;
