//! kill -9 during load: what was acknowledged holds, and nothing is out there that the ledger does not know.
//!
//! `MAYFLY_KILL_ROUNDS` says how many kills (3 by default; `scripts/crash` does 200), `MAYFLY_KILL_SEED` what is under way
//! at each of them and for how long. The seed fixes the choices, not the moment within the process.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mayfly::pb::{self, ApplyOptions, CredentialKind};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::task::JoinSet;

use self::{
    book::{Book, Fate},
    chores::{Chore, Chores},
};
use super::{
    rig::{arg, mayfly, until},
    secrets::with_vendor,
    world::{World, is_active, issue, lease_of, lease_scope, request, revocation},
};

mod book;
mod chores;

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
    let seed = std::env::var("MAYFLY_KILL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(any_seed);
    eprintln!("{engine}: {rounds} kills, MAYFLY_KILL_SEED={seed}");
    let (began, mut dice) = (Instant::now(), Dice(seed));
    let extra = format!("[retention]\nended_lease_minutes = 1\n[store]\nengine = {engine:?}\n");
    let mut world = World::configured_on(&["--engine", engine], &extra).await;
    world.trust = with_vendor(&world.trust);
    world.apply(&world.trust, ApplyOptions::default()).await.expect("applies");
    let (book, mut chores) = (Arc::new(Book::default()), Chores::new(&world));
    let (mut early, mut slowest) = (0, Duration::ZERO);
    for round in 1..=rounds {
        let (chore, pause) = (Chore::ALL[dice.below(Chore::ALL.len())], Duration::from_micros(dice.up_to(65_536)));
        let before = book.len();
        let mut callers = JoinSet::new();
        for index in 0..CALLERS {
            callers.spawn(call(world.broker("alpha").await, world.admin().await, Arc::clone(&book), index));
        }
        chores.begin(chore, &world, &book, &mut callers).await;
        until("some load", || async { (book.len() >= before + 40 && chores.is_under_way()).then_some(()) }).await;
        // Anywhere within a commit.
        tokio::time::sleep(pause).await;
        world.process.kill();
        while let Some(ended) = callers.join_next().await {
            ended.expect("a caller");
        }
        // Again while it opens the store, or while what it had begun goes on: walks and sweeps run at the start.
        if dice.below(3) == 0 {
            let after = Duration::from_micros(dice.up_to(400_000));
            early += 1;
            world.launch.start_and_kill(after);
        }
        let started = Instant::now();
        world.restart().await;
        slowest = slowest.max(started.elapsed());
        let when = format!("{engine}, MAYFLY_KILL_SEED={seed}, kill {round} of {rounds} during {chore:?}");
        let checked = book.check(&world, &when, |count| dice.below(count)).await;
        chores.check(&world, &when).await;
        eprintln!(
            "{engine} {round}/{rounds}: {chore:?}, killed {:.1} ms into it; {checked} of {} leases looked at",
            pause.as_secs_f64() * 1e3,
            book.len()
        );
    }
    chores.check_backups(&world, engine);
    let (leases, events) = whole(&mut world, &book, engine).await;
    eprintln!(
        "{engine}: {rounds} kills and {early} more during a start, {leases} leases and {events} events, nothing lost; \
         {}; slowest start {:.2} s; {:.0} s in all",
        chores.told(),
        slowest.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
}

/// Everything once more after the last kill: each lease, the walks behind the cuts, the audit's chains, each row.
async fn whole(world: &mut World, book: &Book, engine: &str) -> (usize, u64) {
    book.check_all(world, &format!("{engine}, at the end")).await;
    until("the end of every walk", || {
        let admin = world.admin();
        async move {
            let listed = admin.await.list_revocations(pb::ListRevocationsRequest::default()).await.expect("listed");
            listed.into_inner().revocations.iter().all(|revocation| revocation.done).then_some(())
        }
    })
    .await;
    let audit = world.admin().await.verify_events(pb::VerifyEventsRequest::default()).await.expect("verified");
    let audit = audit.into_inner();
    assert!(audit.findings.is_empty(), "{engine}: {:?}", audit.findings);
    assert!(world.process.stop().success());
    let config = world.launch.config.clone().expect("configured");
    let rows = mayfly(&["store", "check", "--config", arg(&config)]);
    assert_eq!(rows.code, 0, "{engine}: {rows:?}");
    (book.len(), audit.events)
}

/// Issues and ends until the daemon is gone.
async fn call(
    mut broker: pb::broker_client::BrokerClient<tonic::transport::Channel>,
    mut admin: pb::admin_client::AdminClient<tonic::transport::Channel>,
    book: Arc<Book>,
    index: usize,
) {
    for turn in index.. {
        let kind = [CredentialKind::Opaque, CredentialKind::Jwt][turn % 2];
        let asked = pb::IssueRequest { ttl_seconds: 3_600, ..request("alpha", kind) };
        let Ok(reply) = issue(&mut broker, asked).await else { return };
        let lease = lease_of(&reply);
        let (lease_id, task_id) = (lease.lease_id, lease.task_id);
        book.enter(reply);
        let ended = match turn % 5 {
            0 | 1 => continue,
            2 => {
                book.ended(&lease_id, Fate::Asked);
                broker.release(pb::ReleaseRequest { lease_id: lease_id.clone() }).await.map(|_| ())
            }
            3 => {
                book.ended(&lease_id, Fate::Asked);
                broker.complete_task(pb::CompleteTaskRequest { task_id }).await.map(|_| ())
            }
            _ => {
                book.ended(&lease_id, Fate::Asked);
                admin.revoke(revocation(lease_scope(&lease_id))).await.map(|_| ())
            }
        };
        if ended.is_err() {
            return;
        }
        book.ended(&lease_id, Fate::Over);
    }
}

/// Choices that a seed fixes (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn up_to(&mut self, most: u64) -> u64 {
        self.next() % most.max(1)
    }

    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.up_to(u64::try_from(count).expect("a count"))).expect("below a count")
    }
}

fn any_seed() -> u64 {
    let mut bytes = [0; 4];
    SystemRandom::new().fill(&mut bytes).expect("entropy");
    u64::from(u32::from_le_bytes(bytes))
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

const CALLERS: usize = 6;
