//! A hostile crowd: what it takes is bounded, what it is told is typed, and everybody else is served.
//!
//! Nothing here asserts how long anything takes; `cargo run --release --example load -- abuse` measures that.

use std::{collections::BTreeMap, path::Path, time::Duration};

use mayfly::pb::{self, CredentialKind};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};
use tonic_types::StatusExt;

use super::{
    rig::{get_plain, reason, until},
    world::{World, audience, is_active, issue, lease_of, lease_scope, request, revocation},
};
use crate::support::Frames;

const ISSUE: &str = "/mayfly.v1.Broker/Issue";

/// A fresh caller is served, and a revoke takes effect.
async fn works(world: &World, what: &str) {
    let reply = issue(&mut world.broker("beta").await, request("beta", CredentialKind::Opaque)).await.expect(what);
    let mut verifier = world.verifier("beta").await;
    assert!(is_active(&mut verifier, &reply).await, "{what}");
    world.admin().await.revoke(revocation(lease_scope(&lease_of(&reply).lease_id))).await.expect(what);
    assert!(!is_active(&mut verifier, &reply).await, "{what}: a revoke had no effect");
}

fn disk_kib(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(folder).expect("a folder").map_while(Result::ok);
    entries
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .fold(0, |sum, (path, meta)| sum + if meta.is_dir() { disk_kib(&path) } else { meta.blocks() / 2 })
}

/// Asserts that memory and disk have not grown by more than these MiB since `before`.
fn bounded(world: &World, before: (u64, u64), mib: (u64, u64), what: &str) {
    let (memory, disk) = used(world);
    let (memory, disk) = (memory.saturating_sub(before.0) >> 10, disk.saturating_sub(before.1) >> 10);
    assert!(memory <= mib.0, "{what}: {memory} MiB more memory, {} are allowed", mib.0);
    assert!(disk <= mib.1, "{what}: {disk} MiB more on disk, {} are allowed", mib.1);
}

fn used(world: &World) -> (u64, u64) {
    (world.process.resident_kib(), disk_kib(&world.launch.data()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_says_nothing_gives_way_to_who_does() {
    let world = World::configured("[limits]\nconnections = 40\nhandshake_seconds = 120\n").await;
    let before = used(&world);
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(world.process.address).await.expect("connects"));
    }
    // Ten are in the handshake; all the others have given way.
    until("those who gave way", || async {
        let (_, body) = get_plain(world.process.metrics, "/metrics").await;
        let refused = body.lines().filter(|line| line.starts_with("mayfly_connections_refused_total"));
        let count: f64 = refused.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        (count >= 190.0).then_some(())
    })
    .await;
    works(&world, "beside connections that say nothing").await;
    bounded(&world, before, (64, 8), "silent connections");
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_callers_without_proof_cost_nothing_lasting() {
    let world = World::new().await;
    let before = used(&world);
    let mut crowd = JoinSet::new();
    for turn in 0..32_u8 {
        let (address, roots) = (world.process.address, world.roots());
        crowd.spawn(async move {
            for length in 1..12_usize {
                let Ok(mut stream) = TcpStream::connect(address).await else { continue };
                // Begins as a TLS record does, or does not.
                let start: &[u8] = if turn % 2 == 0 { &[22, 3, 1] } else { b"PRI * HTTP/2.0" };
                let _ = stream.write_all(&[start, &vec![turn.wrapping_mul(37); length * 97]].concat()).await;
                let Ok(mut frames) = Frames::open(address, &roots, None, ISSUE).await else { continue };
                let requests: Vec<u8> = (0..50).flat_map(|at| frames.request(at * 2 + 1)).collect();
                let _ = frames.send(&requests).await;
            }
        });
    }
    for _ in 0..5 {
        works(&world, "beside garbage").await;
    }
    crowd.join_all().await;
    works(&world, "after garbage").await;
    bounded(&world, before, (96, 8), "garbage");
    let live = world.live().await;
    assert_eq!(live, 0, "somebody without proof obtained a lease");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_taken_back_at_once_do_not_pile_up() {
    let world = World::new().await;
    let (before, identity) = (used(&world), world.identity("alpha/worker"));
    let mut floods = JoinSet::new();
    for _ in 0..8 {
        let mut frames =
            Frames::open(world.process.address, &world.roots(), Some(&identity), ISSUE).await.expect("TLS");
        floods.spawn(async move {
            for burst in 0..100_u32 {
                let numbers = (0..100).map(|at| (burst * 100 + at) * 2 + 1);
                let bytes: Vec<u8> =
                    numbers.flat_map(|number| [frames.request(number), Frames::reset(number)].concat()).collect();
                if frames.send(&bytes).await.is_err() {
                    break;
                }
            }
            frames.answered(Duration::from_secs(1)).await
        });
    }
    works(&world, "during a flood of resets").await;
    let ends = floods.join_all().await;
    // ENHANCE_YOUR_CALM, where it came faster than it could be dropped.
    assert!(ends.iter().all(|end| end.goaway.is_none_or(|code| code == 11)), "{ends:?}");
    works(&world, "after a flood of resets").await;
    bounded(&world, before, (96, 8), "80,000 resets");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_headers_beyond_their_limits_are_refused() {
    let world = World::configured("[limits]\nstreams_per_connection = 32\n").await;
    let (before, identity) = (used(&world), world.identity("alpha/worker"));
    let connect =
        async || Frames::open(world.process.address, &world.roots(), Some(&identity), ISSUE).await.expect("TLS");
    for (streams, refused) in [(32, 0), (33, 1), (200, 168)] {
        let mut frames = connect().await;
        let bytes: Vec<u8> = (0..streams).flat_map(|at| frames.request(at * 2 + 1)).collect();
        frames.send(&bytes).await.expect("sent");
        let answered = frames.answered(Duration::from_secs(1)).await;
        assert!(answered.refused == refused || answered.goaway.is_some(), "{streams} streams: {answered:?}");
    }
    for bytes in [64 << 10, 4 << 20] {
        let mut frames = connect().await;
        let huge = frames.huge_request(1, bytes);
        let sent = frames.send(&huge).await;
        let answered = frames.answered(Duration::from_secs(2)).await;
        assert!(sent.is_err() || answered != Default::default(), "{bytes} bytes of headers were taken: {answered:?}");
    }
    works(&world, "after streams and headers").await;
    bounded(&world, before, (64, 8), "streams and headers");
}

/// A count of the metrics port.
async fn counted(world: &World, metric: &str) -> f64 {
    let (_, body) = get_plain(world.process.metrics, "/metrics").await;
    let line = body.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or(0.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_what_comes_to_nothing_is_read_as_slowly_as_its_credit_grows_over_all_its_connections() {
    let world = World::configured("[limits]\nframes_per_caller_per_second = 10\n").await;
    let (before, identity) = (used(&world), world.identity("alpha/worker"));
    let mut answered = 0;
    for _ in 0..8 {
        let mut frames =
            Frames::open(world.process.address, &world.roots(), Some(&identity), ISSUE).await.expect("TLS");
        frames.send(&Frames::ping().repeat(3_000)).await.expect("sent");
        answered += frames.answered(Duration::from_millis(100)).await.pongs;
    }
    // Twenty at once, and what one turn of each connection reads before it is counted.
    assert!((20..3_000).contains(&answered), "{answered} of 24,000 pings were answered");
    assert!(counted(&world, "mayfly_reads_paused_total{reason=\"frames\"}").await > 0.0);
    works(&world, "beside somebody who is read slowly").await;
    bounded(&world, before, (64, 8), "24,000 pings");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_and_asks_is_not_read_slowly_for_it() {
    let world = World::configured("[limits]\nframes_per_caller_per_second = 10\n").await;
    let mut broker = world.broker("alpha").await;
    for _ in 0..100 {
        issue(&mut broker, request("alpha", CredentialKind::Opaque)).await.expect("issued");
    }
    assert_eq!(counted(&world, "mayfly_reads_paused_total{reason=\"frames\"}").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_never_say_what_they_ask_end_and_leave_room_for_others() {
    let world = World::configured("[limits]\nstreams_per_connection = 32\nhandshake_seconds = 1\n").await;
    let identity = world.identity("alpha/worker");
    let mut frames = Frames::open(world.process.address, &world.roots(), Some(&identity), ISSUE).await.expect("TLS");
    for round in 0..2 {
        let numbers = round * 32..(round + 1) * 32;
        let bytes: Vec<u8> = numbers.flat_map(|at| frames.request(at * 2 + 1)).collect();
        frames.send(&bytes).await.expect("sent");
        let answered = frames.answered_until(Duration::from_secs(10), |answered| answered.resets == 32).await;
        assert_eq!((answered.resets, answered.refused, answered.goaway), (32, 0, None), "round {round}: {answered:?}");
    }
    works(&world, "after half requests").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_waits_for_its_turn_earlier_while_others_ask_too() {
    let world = World::configured("[limits]\nrequests_at_work = 1000\nrequests_at_work_per_tenant = 1\n").await;
    works(&world, "another tenant").await;
    let (mut flood, broker) = (JoinSet::new(), world.broker("alpha").await);
    for _ in 0..64 {
        let mut broker = broker.clone();
        flood.spawn(async move { issue(&mut broker, request("alpha", CredentialKind::Opaque)).await.expect("issued") });
    }
    flood.join_all().await;
    assert!(counted(&world, "mayfly_turns_total{outcome=\"waited\"}").await > 0.0, "64 worked at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_that_do_not_read_are_as_many_as_allowed_and_keep_little() {
    let world = World::configured("[limits]\nwatchers = 40\n").await;
    let watch = |tenant: &str| pb::WatchRevocationsRequest { tenant: tenant.into(), after: None };
    let (mut verifier, mut unread, mut reasons) = (world.verifier("alpha").await, Vec::new(), Vec::new());
    for _ in 0..60 {
        match verifier.watch_revocations(watch("alpha")).await {
            Ok(stream) => unread.push(stream),
            Err(status) => reasons.push(reason(&Err::<(), _>(status))),
        }
    }
    // One caller gets half of the room.
    assert_eq!((unread.len(), reasons.len()), (20, 40));
    assert!(reasons.iter().all(|reason| reason == "TOO_MANY_REQUESTS"), "{reasons:?}");
    let mut other = world.verifier("beta").await;
    let mut heard = other.watch_revocations(watch("beta")).await.expect("room for another caller").into_inner();
    heard.message().await.expect("answers").expect("a message");
    let before = used(&world);
    let (mut broker, mut admin) = (world.broker("beta").await, world.admin().await);
    for _ in 0..300 {
        let reply = issue(&mut broker, request("beta", CredentialKind::Opaque)).await.expect("issued");
        admin.revoke(revocation(lease_scope(&lease_of(&reply).lease_id))).await.expect("revoked");
    }
    bounded(&world, before, (48, 16), "watchers that do not read");
    drop(unread);
    until("room again", || {
        let mut verifier = verifier.clone();
        async move { verifier.watch_revocations(watch("alpha")).await.ok().map(drop) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_floods_is_told_so_and_fills_no_disk() {
    let world = World::configured(
        "[limits]\nrate_per_caller_per_second = 1\nrate_burst = 100\nqueue_per_tenant = 16\nholds = 8\n",
    )
    .await;
    let before = used(&world);
    let mut flood = JoinSet::new();
    for _ in 0..16 {
        let mut broker = world.broker("alpha").await;
        flood.spawn(async move {
            let mut reasons = BTreeMap::new();
            for turn in 0..500 {
                let mut asked = request("alpha", CredentialKind::Opaque);
                if turn % 2 == 0 {
                    asked.audiences = vec![audience("gamma")];
                }
                *reasons.entry(reason(&issue(&mut broker, asked).await)).or_insert(0) += 1;
            }
            reasons
        });
    }
    for _ in 0..5 {
        works(&world, "beside a flood").await;
    }
    let mut reasons = BTreeMap::new();
    while let Some(part) = flood.join_next().await {
        for (reason, count) in part.expect("a caller") {
            *reasons.entry(reason).or_insert(0) += count;
        }
    }
    let told = reasons.get("TOO_MANY_REQUESTS").copied().unwrap_or(0);
    assert!(told > 4_000, "{reasons:?}");
    assert!(!reasons.keys().any(|reason| ["INTERNAL", "UNKNOWN"].contains(&reason.as_str())), "{reasons:?}");
    works(&world, "after a flood").await;
    bounded(&world, before, (64, 8), "8,000 requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_whose_line_is_full_is_told_when_to_come_again_and_others_and_ends_go_on() {
    let world = World::configured("[limits]\nrequests_at_work = 2\nqueue_per_tenant = 4\n").await;
    // The others are known: who comes for the first time stands in one line with all strangers of its authority.
    works(&world, "before").await;
    let (mut flood, broker) = (JoinSet::new(), world.broker("alpha").await);
    for _ in 0..64 {
        let mut broker = broker.clone();
        flood.spawn(async move {
            let (mut issued, mut advised) = (0, 0);
            for _ in 0..20 {
                match issue(&mut broker, request("alpha", CredentialKind::Opaque)).await {
                    Ok(_) => issued += 1,
                    Err(status) => {
                        let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
                        assert_eq!(reason(&Err::<(), _>(status)), "TOO_MANY_REQUESTS");
                        assert!(retry.is_some_and(|delay| !delay.is_zero()), "{retry:?}");
                        advised += 1;
                    }
                }
            }
            (issued, advised)
        });
    }
    for _ in 0..3 {
        works(&world, "beside a full line").await;
    }
    let (issued, advised) =
        flood.join_all().await.into_iter().fold((0, 0), |sum, (issued, advised)| (sum.0 + issued, sum.1 + advised));
    assert!(issued > 0 && advised > 0, "{issued} issued, {advised} told to come again");
    let (_, body) = get_plain(world.process.metrics, "/metrics").await;
    let refused = body.lines().find(|line| line.starts_with("mayfly_turns_total{outcome=\"refused\"}"));
    assert_eq!(refused.and_then(|line| line.rsplit(' ').next()), Some(advised.to_string().as_str()), "{refused:?}");
    works(&world, "after a full line").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_caller_holds_half_of_the_tasks_that_may_be_held_and_no_more() {
    let world = World::configured("[limits]\nholds = 64\nhold_grace_seconds = 600\n").await;
    let open = |tenant: &str| pb::OpenTaskRequest {
        tenant: tenant.into(),
        partner: super::world::PARTNER.into(),
        purpose: "report".into(),
        hold: true,
        ..Default::default()
    };
    let (mut alpha, mut held, mut refused) = (world.broker("alpha").await, 0, Vec::new());
    for _ in 0..65 {
        match alpha.open_task(open("alpha")).await {
            Ok(_) => held += 1,
            Err(status) => refused.push(reason(&Err::<(), _>(status))),
        }
    }
    assert_eq!(held, 32);
    assert!(refused.iter().all(|reason| reason == "UNAVAILABLE"), "{refused:?}");
    world.broker("beta").await.open_task(open("beta")).await.expect("room for another tenant");
}
