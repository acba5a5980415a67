//! A stop under load: what was acknowledged is there after it, and it ends within its time.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use mayfly::pb::CredentialKind;
use tokio::task::JoinSet;

use super::{
    rig::until,
    world::{World, is_active, issue, request},
};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_by_a_stop_under_load() {
    for engine in ["fjall", "sled"] {
        let mut world = World::with(&["--engine", engine]).await;
        let obtained = Arc::new(Mutex::new(Vec::new()));
        let mut callers = JoinSet::new();
        for at in 0..CALLERS {
            let (mut broker, obtained) = (world.broker("alpha").await, Arc::clone(&obtained));
            let kind = [CredentialKind::Opaque, CredentialKind::Jwt][at % 2];
            callers.spawn(async move {
                while let Ok(reply) = issue(&mut broker, request("alpha", kind)).await {
                    obtained.lock().unwrap().push(reply);
                }
            });
        }
        until("some load", || async { (obtained.lock().unwrap().len() >= 60).then_some(()) }).await;
        let began = Instant::now();
        let status = tokio::task::block_in_place(|| world.process.stop());
        assert!(status.success(), "{engine}: {status}: {}", world.process.log());
        assert!(began.elapsed() < DRAIN + SLACK, "{engine}: it took {:?}", began.elapsed());
        while let Some(ended) = callers.join_next().await {
            ended.expect("a caller");
        }
        world.restart().await;
        let mut verifier = world.verifier("alpha").await;
        let all = obtained.lock().unwrap().clone();
        for reply in all {
            assert!(is_active(&mut verifier, &reply).await, "{engine}: lost {:?}", reply.lease);
        }
    }
}

const CALLERS: usize = 8;
/// As the configuration's default has it.
const DRAIN: Duration = Duration::from_secs(10);
/// For closing the store.
const SLACK: Duration = Duration::from_secs(10);
