use std::time::{Duration, Instant};

use mayfly::pb;

use super::rig::{Bench, Run, all_over, run};
use crate::process::world::World;

pub const TOKEN: &str = "kind=opaque,binding=none,file=token";
/// Waits for a file of its folder.
pub const UNTIL_GO: &str = "echo ready; while ! test -e go; do sleep 0.05; done; exit 6";

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_at_the_start_is_an_error_after_the_wait_and_none_when_it_comes_back() {
    let world = World::new().await;
    let bench = Bench::new(&world).await;
    bench.door.shut();
    let began = Instant::now();
    let said = run(bench.exec(&[TOKEN], &["--wait", "1s"], "touch ran"));
    assert!(said.code == 125 && said.errors.contains("error: the task: cannot reach https://"), "{said:?}");
    assert!(began.elapsed() < Duration::from_secs(10) && !bench.path("ran").exists());
    let job = Run::start(bench.exec(&[TOKEN], &["--wait", "40s"], "exit 6"));
    bench.door.open(&world);
    assert_eq!(job.end().code, 6);
    assert_eq!(all_over(&world).await, [pb::EndReason::Completed]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_at_the_end_changes_no_code_and_ends_the_task_later() {
    let mut world = World::configured("[limits]\nhold_grace_seconds = 2\nheartbeat_seconds = 1\n").await;
    let bench = Bench::new(&world).await;
    let job = Run::start(bench.exec(&[TOKEN], &[], UNTIL_GO));
    job.until("ready");
    world.process.kill();
    bench.door.shut();
    std::fs::write(bench.path("go"), "").expect("written");
    let said = job.end();
    assert!(said.code == 6 && said.errors.contains("could not be completed"), "{said:?}");
    world.restart().await;
    assert_eq!(all_over(&world).await, [pb::EndReason::Abandoned]);
}
