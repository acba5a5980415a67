use mayfly::pb;
use rustix::process::Signal;

use super::rig::{Bench, Run, all_over, content, run, signal_to};
use crate::process::world::World;

const TOKEN: &str = "kind=opaque,binding=none,file=token";

#[tokio::test(flavor = "multi_thread")]
async fn exec_ends_as_its_command_does_and_completes_the_task() {
    let world = World::new().await;
    let bench = Bench::new(&world).await;
    for (script, want) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("test -s \"$MAYFLY_FILE_CREDENTIAL\"", 0),
        ("kill -KILL $$", 128 + 9),
        ("kill -TERM $$", 128 + 15),
    ] {
        let said = run(bench.exec(&[TOKEN], &[], script));
        assert_eq!(said.code, want, "{script}: {said:?}");
    }
    let reasons = all_over(&world).await;
    assert_eq!(reasons, vec![pb::EndReason::Completed; 6]);
    assert_eq!(world.live().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_command_has_a_code_of_its_own_and_the_task_is_completed() {
    let world = World::new().await;
    let bench = Bench::new(&world).await;
    let place = ["--tenant", "alpha", "--partner", "courier", "--purpose", "report"];
    std::fs::write(bench.path("text"), "no program").expect("written");
    for (program, want) in [("./absent", 127), ("./text", 126)] {
        let mut command = bench.bare();
        command.args(place).args(["--", program]);
        let said = run(command);
        assert_eq!(said.code, want, "{said:?}");
        assert!(said.errors.contains(program), "{said:?}");
    }
    assert_eq!(all_over(&world).await, vec![pb::EndReason::Completed; 2]);
    for wrong in [&["--colour", "red"][..], &["--credential", "kind=saml"], &["--tenant", "alpha"], &["--job", "none"]]
    {
        let mut command = bench.bare();
        command.args(wrong).args(["--", "touch", "ran"]);
        let said = run(command);
        assert!(said.code == 125 && said.errors.starts_with("error"), "{wrong:?}: {said:?}");
    }
    assert!(!bench.path("ran").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_piece_that_is_missing_is_named_and_nothing_starts() {
    let world = World::new().await;
    let bench = Bench::new(&world).await;
    let credentials = [
        "name=good,kind=jwt,binding=none,env=GOOD",
        "name=too-much,kind=jwt,action=write,env=A",
        "name=too-long,kind=jwt,ttl=2h,env=B",
    ];
    let said = run(bench.exec(&credentials, &[], "touch ran"));
    assert_eq!(said.code, 125, "{said:?}");
    for part in ["error: too-much: ", "ACTION_NOT_GRANTED", "error: too-long: ", "TTL_TOO_LONG"] {
        assert!(said.errors.contains(part), "{part}: {said:?}");
    }
    assert!(!said.errors.contains("error: good") && !bench.path("ran").exists());
    // The one that came is as dead as its task.
    assert_eq!(all_over(&world).await, [pb::EndReason::Completed]);
    assert_eq!(world.live().await, 0);
    let mut foreign = bench.bare();
    foreign.args(["--tenant", "beta", "--partner", "courier", "--purpose", "report", "--", "touch", "ran"]);
    let said = run(foreign);
    assert!(said.code == 125 && said.errors.contains("error: the task: "), "{said:?}");
    assert!(said.errors.contains("UNKNOWN_WORKLOAD") && !bench.path("ran").exists(), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_of_the_command_completes_and_a_kill_of_exec_ends_the_task_within_its_grace() {
    let world = World::configured("[limits]\nhold_grace_seconds = 2\nheartbeat_seconds = 1\n").await;
    let bench = Bench::new(&world).await;
    let script = "echo $$ > pid; echo ready; exec sleep 60";
    let job = Run::start(bench.exec(&[TOKEN], &[], script));
    job.until("ready");
    signal_to(content(&bench.path("pid")).await.trim().parse().expect("a number"), Signal::KILL);
    assert_eq!(job.end().code, 128 + 9);
    assert_eq!(all_over(&world).await, [pb::EndReason::Completed]);

    let mut job = Run::start(bench.exec(&[TOKEN], &[], script));
    job.until("ready");
    assert_eq!(world.live().await, 1);
    job.kill();
    let reasons = all_over(&world).await;
    assert!(reasons.contains(&pb::EndReason::Abandoned), "{reasons:?}");
    assert_eq!(world.live().await, 0);
    // The command went on, with a credential that is dead.
    signal_to(content(&bench.path("pid")).await.trim().parse().expect("a number"), Signal::KILL);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_does_not_outlive_its_task() {
    let world = World::new().await;
    let bench = Bench::new(&world).await;
    // It takes the end well; still the job did not end well.
    let polite = Run::start(bench.exec(&[TOKEN], &[], "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done"));
    let stubborn = Run::start(bench.exec(
        &[TOKEN],
        &["--kill-after", "1s"],
        "trap '' TERM; echo ready; while :; do sleep 0.05; done",
    ));
    polite.until("ready");
    stubborn.until("ready");
    let scope = crate::process::world::partner_scope("alpha");
    world.admin().await.revoke(crate::process::world::revocation(scope)).await.expect("revoked");
    let said = polite.end();
    assert!(said.code == 125 && said.errors.contains("revoked"), "{said:?}");
    assert_eq!(stubborn.end().code, 128 + 9);
}
