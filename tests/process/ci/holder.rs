use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    process::Stdio,
};

use mayfly::pb::{self, introspect_request::Credential as Presented};
use rustix::process::Signal;

use super::rig::{Work, gone, lives, opened};
use crate::process::exec::rig::{Bench, Run, all_over, content, run, signal_to};
use crate::process::{
    rig::{Said, arg, get, until},
    world::{World, audience, introspect},
};

const WORK: [&str; 6] = ["--tenant", "alpha", "--partner", "courier", "--purpose", "report"];

fn credential(text: &str) -> String {
    format!("--credential=audience={},action=read,binding=none,{text}", audience("alpha"))
}

/// What `--output json` says.
fn json(said: &Said) -> serde_json::Value {
    assert_eq!(said.code, 0, "{said:?}");
    serde_json::from_str(said.out.lines().last().unwrap_or_default()).expect("JSON")
}

async fn active(world: &World, token: &str) -> bool {
    introspect(&mut world.verifier("alpha").await, Presented::Token(token.trim().into())).await.active
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_needs_is_there_for_all_its_steps_and_gone_after_it() {
    let world = World::new().await;
    let (bench, work) = (Bench::new(&world).await, Work::new());
    let outside = work.path("work/outside");
    let mut start = work.job(&bench, "start");
    start.args(WORK).arg(credential("name=a,kind=opaque,ttl=3s,file=token"));
    start.arg(credential("name=b,kind=opaque,env=T")).arg(credential("name=c,kind=jwt,endpoint"));
    start.arg(credential(&format!("name=d,kind=x509,file={}", outside.display())).replace("binding=none,", ""));
    start.arg("--env-file").arg(work.path("work/job.env"));
    // It returns when nobody has its output open any more: the holder does not keep the step.
    let started = json(&run(start));
    let holder = work.holder().expect("written down");
    assert!(lives(holder));
    // A session of its own, which the end of the step's does not concern.
    let stat = std::fs::read_to_string(format!("/proc/{holder}/stat")).expect("shown");
    let session = stat.rsplit_once(") ").expect("a name").1.split(' ').nth(3).expect("a session").to_owned();
    assert_eq!(session, holder.to_string());

    // The next step: another process, which only has the file.
    let step = "set -e; . ./job.env; cat \"$MAYFLY_FILE_A\"; echo; echo \"$T\"; echo \"$MAYFLY_ENDPOINT\"; echo \"$MAYFLY_TASK_ID\"";
    let mut step_one = work.command("sh");
    step_one.args(["-c", step]);
    let said = run(step_one);
    let lines: Vec<&str> = said.out.lines().collect();
    let [file, env, endpoint, task] = lines[..] else { panic!("{said:?}") };
    assert_eq!(task, started["task_id"]);
    assert!(active(&world, file).await && active(&world, env).await);
    let served = get(tokio::net::UnixStream::connect(endpoint).await.expect("connects"), "/c").await.1;
    assert!(active(&world, &served).await);
    let directory = std::path::PathBuf::from(started["directory"].as_str().expect("a folder"));
    let mode = |path: &std::path::Path| path.metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&directory), mode(&work.state()), mode(&work.path("work/job.env"))), (0o700, 0o600, 0o600));
    let state = content(&work.state()).await;
    assert!(!state.contains(file) && !state.contains(env) && !state.contains(&served), "a secret in the state");
    let next = async || Some(content(&directory.join("token")).await).filter(|now| now != file);
    let next = until("a successor", next).await;

    // One job a state.
    let mut second = work.job(&bench, "start");
    second.args(WORK);
    let said = run(second);
    assert!(said.code == 2 && said.errors.contains("already"), "{said:?}");
    assert!(active(&world, &next).await && lives(holder));

    let finished = json(&run(work.job(&bench, "finish")));
    assert!(finished["ended_now"] == true && finished["task_id"] == started["task_id"]);
    assert!(!lives(holder) && work.left_behind().is_empty(), "{:?}", work.left_behind());
    assert!(!outside.exists() && !work.path("work/job.env").exists());
    assert_eq!(all_over(&world).await, [pb::EndReason::Completed]);
    for token in [&next, env, &served] {
        assert!(!active(&world, token).await, "outlived its job");
    }
    let again = run(work.job(&bench, "finish"));
    assert!(again.code == 0 && again.errors.contains("nothing to finish"), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_was_killed_leaves_nothing_that_finish_does_not_take_away() {
    let world = World::new().await;
    let (bench, work) = (Bench::new(&world).await, Work::new());
    let outside = work.path("work/token");
    let file = credential(&format!("kind=opaque,file={}", outside.display()));
    let start = || {
        let mut start = work.job(&bench, "start");
        start.args(WORK).arg(&file).arg("--env-file").arg(work.path("work/job.env"));
        json(&run(start))
    };
    start();
    let holder = work.holder().expect("written down");
    signal_to(holder, Signal::KILL);
    gone(holder).await;
    let token = content(&outside).await;
    // Who has an identity of its own ends the task at once; for others the hold is broken.
    assert!(json(&run(work.job(&bench, "finish")))["ended_now"] == true);
    assert!(work.left_behind().is_empty() && !outside.exists() && !work.path("work/job.env").exists());
    assert!(!active(&world, &token).await);
    assert_eq!(all_over(&world).await, [pb::EndReason::Completed]);

    // One that does not answer is ended. One that is told to end completes.
    start();
    let holder = work.holder().expect("written down");
    signal_to(holder, Signal::TERM);
    gone(holder).await;
    assert!(work.left_behind().is_empty() && !outside.exists(), "{:?}", work.left_behind());
    assert_eq!(all_over(&world).await, [pb::EndReason::Completed; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_holder_left_anywhere_goes_with_the_next_job() {
    let world = World::new().await;
    let (bench, work) = (Bench::new(&world).await, Work::new());
    // Jobs of one runner: each has a state of its own, and nobody finishes the first.
    let start = |id: &str| {
        let mut start = work.command("mayfly");
        start.args(["job", "start", "--output", "json", "--identity"]).arg(bench.folder.path()).env("CI_JOB_ID", id);
        start.arg("--server").arg(format!("https://{}", bench.door.address)).args(WORK);
        let outside = work.path("work").join(format!("token-{id}"));
        start.arg(credential(&format!("kind=opaque,env=T,file={}", outside.display())));
        start.arg("--env-file").arg(work.path("work").join(format!("{id}.env")));
        json(&run(start));
        outside
    };
    let outside = start("1");
    let holder = work.holder().expect("written down");
    let token = content(&outside).await;
    assert!(content(&work.path("work/1.env")).await.contains("export T="));
    signal_to(holder, Signal::KILL);
    gone(holder).await;
    let left = work.left_behind();
    assert!(left.len() == 2 && outside.exists(), "a state and a folder: {left:?}");

    let next = start("2");
    assert!(left.iter().all(|path| !path.exists()), "{left:?}");
    assert!(!outside.exists() && !work.path("work/1.env").exists(), "secrets of a job that is over");
    assert!(next.exists() && work.path("work/2.env").exists());
    let holder = work.holder().expect("written down");
    signal_to(holder, Signal::TERM);
    gone(holder).await;
    assert!(work.left_behind().is_empty() && !next.exists());
    all_over(&world).await;
    assert!(!active(&world, &token).await);
}

/// GitLab's shell executor: one service for all jobs, with a shell for each.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_with_its_own_process_where_a_service_runs_one_after_the_other() {
    let world = World::new().await;
    let (bench, work) = (Bench::new(&world).await, Work::new());
    let mut start = work.job(&bench, "start");
    start.args(WORK).arg(credential("kind=opaque,file=token"));
    let words = std::iter::once(start.get_program()).chain(start.get_args());
    let line: Vec<String> = words.map(|word| format!("'{}'", word.to_str().expect("UTF-8"))).collect();
    // A script is called as its file, so this one is `gitlab-runner`.
    let service = "#!/bin/sh\nsh ./stage.sh\necho over\nread wait\n";
    std::fs::write(work.path("work/gitlab-runner"), service).expect("written");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(work.path("work/gitlab-runner"), mode).expect("chmod");
    let stage = format!("{} > /dev/null\necho $$\necho ready\nread wait\n", line.join(" "));
    std::fs::write(work.path("work/stage.sh"), stage).expect("written");
    let (service, keys) = Run::with_keys(work.command("./gitlab-runner"));
    let stage = service.line().parse().expect("the stage's process");
    service.until("ready");
    let holder = work.holder().expect("written down");
    assert!(lives(holder));
    // The job is cancelled: its processes are killed, and the service goes on.
    signal_to(stage, Signal::KILL);
    gone(holder).await;
    service.until("over");
    assert!(lives(service.pid()) && work.left_behind().is_empty(), "{:?}", work.left_behind());
    assert_eq!(all_over(&world).await, [pb::EndReason::Completed]);
    drop(keys);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_ends_with_its_runner_and_with_whoever_starts_it() {
    let world = World::new().await;
    let (bench, work) = (Bench::new(&world).await, Work::new());
    let mut runner = work.command("sh").args(["-c", "read wait"]).stdin(Stdio::piped()).spawn().expect("a shell");
    let mut start = work.job(&bench, "start");
    start.args(WORK).arg(credential("kind=opaque,file=token")).args(["--runner-pid", &runner.id().to_string()]);
    json(&run(start));
    let holder = work.holder().expect("written down");
    runner.kill().expect("killed");
    runner.wait().expect("gone");
    gone(holder).await;
    assert!(work.left_behind().is_empty());
    assert_eq!(all_over(&world).await, [pb::EndReason::Completed]);

    // Everything is there and nobody was told of it yet: whoever starts it dies.
    let mut start = work.job(&bench, "start");
    start.args(WORK).arg(credential("kind=opaque,file=token")).arg("--as-holder");
    let mut holder = start.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts");
    let mut line = String::new();
    BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut line).expect("told");
    assert!(line.contains("task_id") && !work.left_behind().is_empty());
    drop(holder.stdin.take());
    assert!(!holder.wait().expect("ends").success());
    assert!(work.left_behind().is_empty());
    assert_eq!(all_over(&world).await, [pb::EndReason::Completed; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_have_all_it_needs_has_nothing() {
    let world = World::new().await;
    let (bench, work) = (Bench::new(&world).await, Work::new());
    let start = |more: &[&str]| {
        let mut start = work.job(&bench, "start");
        start.args(WORK).args(more).args(["--env-file", arg(&work.path("work/job.env"))]);
        run(start)
    };
    let good = credential("name=good,kind=opaque,file=token");
    let missing =
        good.replace("name=good", "name=missing").replace("action=read", "action=write").replace("=token", "=b");
    let said = start(&[&good, &missing]);
    assert!(said.code == 1 && said.errors.contains("error: missing: ") && said.out.is_empty(), "{said:?}");
    assert!(work.left_behind().is_empty() && !work.path("work/job.env").exists(), "{:?}", work.left_behind());
    assert_eq!(all_over(&world).await, [pb::EndReason::Completed]);
    // What no later step could find, and a name that GitHub would not take, are refused before a task is open.
    let said = start(&[&credential("kind=opaque,fd=3")]);
    assert!(said.code == 2 && said.errors.contains("exec"), "{said:?}");
    assert_eq!(opened(&world).await, 1);
    let said = start(&[&credential("kind=opaque,env=GITHUB_TOKEN"), "--env-format", "github"]);
    assert!(said.code == 2 && said.errors.contains("GITHUB_TOKEN"), "{said:?}");
    assert!(work.left_behind().is_empty());
    all_over(&world).await;
}
