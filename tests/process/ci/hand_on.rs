use std::process::Stdio;

use mayfly::pb;

use super::rig::{Work, gone, lives};
use crate::process::exec::rig::{Bench, all_over, content, run, tasks};
use crate::process::world::{World, audience};

#[tokio::test(flavor = "multi_thread")]
async fn a_task_goes_on_in_the_next_job_only_where_the_first_one_says_so() {
    let world = World::new().await;
    let (bench, work) = (Bench::new(&world).await, Work::new());
    let mut runner = work.command("sh").args(["-c", "read wait"]).stdin(Stdio::piped()).spawn().expect("a shell");
    let mut start = work.job(&bench, "start");
    start.args(["--tenant", "alpha", "--partner", "courier", "--purpose", "report"]);
    start.arg(format!("--credential=audience={},action=read,binding=none,kind=opaque,file=token", audience("alpha")));
    start.arg(format!("--runner-pid={}", runner.id()));
    assert_eq!(run(start).code, 0);
    let holder = work.holder().expect("written down");
    let take = || {
        let mut take = work.job(&bench, "start");
        take.args(["--take-over", "--add-masks"]).arg("--env-file").arg(work.path("work/next.env"));
        run(take)
    };
    let refused = take();
    assert!(refused.code == 1 && refused.errors.contains("has not handed it on"), "{refused:?}");

    let mut finish = work.job(&bench, "finish");
    finish.args(["--hand-on", "5m"]);
    assert_eq!(run(finish).code, 0);
    // The first job's runner goes, and the task does not.
    runner.kill().expect("killed");
    runner.wait().expect("gone");
    let taken = take();
    assert!(taken.code == 0 && lives(holder), "{taken:?}");
    let mut step = work.command("sh");
    step.args(["-c", ". ./next.env; cat \"$MAYFLY_FILE_CREDENTIAL\""]);
    let token = run(step).out;
    assert_eq!(taken.out.lines().next(), Some(format!("::add-mask::{token}").as_str()), "masks come first");
    let [task] = tasks(&world).await.try_into().expect("one task");
    assert_eq!(task.standing(), pb::Standing::Live);

    assert_eq!(run(work.job(&bench, "finish")).code, 0);
    gone(holder).await;
    assert!(work.left_behind().is_empty() && !work.path("work/next.env").exists());
    assert_eq!(all_over(&world).await, [pb::EndReason::Completed]);

    // One that was handed on and that nobody takes ends when it was said to.
    let mut start = work.job(&bench, "start");
    start.args(["--tenant", "alpha", "--partner", "courier", "--purpose", "report"]);
    assert_eq!(run(start).code, 0);
    let holder = work.holder().expect("written down");
    let state = content(&work.state()).await;
    let mut finish = work.job(&bench, "finish");
    finish.args(["--hand-on", "1s"]);
    assert_eq!(run(finish).code, 0);
    gone(holder).await;
    assert!(!state.is_empty() && work.left_behind().is_empty());
    assert_eq!(all_over(&world).await, [pb::EndReason::Completed; 2]);
}
