//! Many jobs through a crash of the broker and an upgrade of its program.
//!
//! `MAYFLY_EXEC_JOBS` says how many jobs (20 by default; `scripts/upgrade` does 200).

use mayfly::pb;

use super::{
    away::{TOKEN, UNTIL_GO},
    rig::{Bench, Run, all_over, holds, tasks},
};
use crate::process::world::{World, partner_scope, revocation};

#[tokio::test(flavor = "multi_thread")]
async fn no_job_fails_by_a_crash_or_an_upgrade_of_the_broker_and_none_outlives_its_task() {
    let count: usize = std::env::var("MAYFLY_EXEC_JOBS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let mut world = World::new().await;
    let bench = Bench::new(&world).await;
    // Half of them end by themselves, the others would go on for ever. All have a file that is renewed.
    let forever = UNTIL_GO.replace("-e go", "-e never");
    let start = |script: &str| Run::start(bench.exec(&[TOKEN], &[], script));
    let ending: Vec<Run> = (0..count / 2).map(|_| start(UNTIL_GO)).collect();
    let staying: Vec<Run> = (count / 2..count).map(|_| start(&forever)).collect();
    ending.iter().chain(&staying).for_each(|job| job.until("ready"));
    let all_live = async |world: &World| {
        holds(world, count).await;
        let tasks = tasks(world).await;
        assert!(tasks.len() == count && tasks.iter().all(|task| task.standing() == pb::Standing::Live));
    };
    all_live(&world).await;

    // It crashes.
    world.process.kill();
    bench.door.shut();
    world.restart().await;
    bench.door.open(&world);
    all_live(&world).await;

    // It is asked to stop, and another program goes on with its data.
    let next = world.launch.folder.join("mayfly-next");
    std::fs::copy(world.process.program(), &next).expect("copied");
    assert!(world.process.stop().success());
    bench.door.shut();
    world.launch.program = Some(next.clone());
    world.restart().await;
    assert_eq!(world.process.program(), next);
    bench.door.open(&world);
    all_live(&world).await;

    std::fs::write(bench.path("go"), "").expect("written");
    for job in ending {
        let said = job.end();
        assert!(said.code == 6 && said.errors.is_empty(), "{said:?}");
    }
    holds(&world, count - count / 2).await;
    world.admin().await.revoke(revocation(partner_scope("alpha"))).await.expect("revoked");
    for job in staying {
        let said = job.end();
        assert!(said.code == 128 + 15 && said.errors.contains("revoked"), "{said:?}");
    }
    assert_eq!(all_over(&world).await.len(), count);
    assert_eq!(world.live().await, 0);
}
