use std::process::Stdio;

use mayfly::pb;
use rustix::process::Signal;

use super::rig::{Bench, Run, all_over};
use crate::process::{rig::until, world::World};

#[tokio::test(flavor = "multi_thread")]
async fn every_signal_is_passed_on_every_time() {
    let world = World::new().await;
    let bench = Bench::new(&world).await;
    let mut all = vec![
        Signal::HUP,
        Signal::INT,
        Signal::QUIT,
        Signal::USR1,
        Signal::USR2,
        Signal::ALARM,
        Signal::TERM,
        Signal::CONT,
        Signal::TSTP,
        Signal::URG,
        Signal::VTALARM,
        Signal::WINCH,
        Signal::IO,
        Signal::ABORT,
        Signal::PROF,
        Signal::XCPU,
        Signal::POWER,
    ];
    // What a job in the background was started to ignore, all below it ignore.
    all.retain(|signal| !has(std::process::id(), "SigIgn:", *signal));
    let traps: String = all.iter().map(|s| format!("trap 'echo got {0}' {0}; ", s.as_raw())).collect();
    // A shell runs its traps while it waits.
    let script = format!("{traps} echo ready; while ! test -e go; do sleep 0.02 & wait $!; done; exit 0");
    let job = Run::start(bench.exec(&["kind=opaque,binding=none,env=T"], &[], &script));
    job.until("ready");
    for round in 0..3 {
        for &signal in &all {
            job.signal(signal);
            let line = job.line();
            assert_eq!(line, format!("got {}", signal.as_raw()), "round {round}");
        }
    }
    std::fs::write(bench.path("go"), "").expect("written");
    assert_eq!(job.end().code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_before_the_command_starts_completes_the_task_and_starts_nothing() {
    let mut world = World::new().await;
    let bench = Bench::new(&world).await;
    // Nobody answers: the connection stands and nothing comes over it.
    bench.door.shut();
    let job = Run::start(bench.exec(&[], &[], "touch ran"));
    until("a listener for signals", async || has(job.pid(), "SigCgt:", Signal::TERM).then_some(())).await;
    job.signal(Signal::TERM);
    let said = job.end();
    assert!(said.code == 128 + 15 && said.errors.contains("interrupted"), "{said:?}");
    assert!(!bench.path("ran").exists());
    assert!(world.process.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminals_interrupt_reaches_the_command_once() {
    let world = World::new().await;
    let bench = Bench::new(&world).await;
    let may = std::process::Command::new("script").args(["-qec", "true", "/dev/null"]).stdin(Stdio::null()).output();
    if !may.is_ok_and(|done| done.status.success()) || has(std::process::id(), "SigIgn:", Signal::INT) {
        eprintln!("skipped: there is no `script`, it cannot make a terminal, or interrupts are ignored here");
        return;
    }
    // A terminal shows keys and errors as well, so what counts goes to a file.
    let script = "trap 'echo got >> heard' INT; echo ready > heard; \
                  while ! test -e go; do sleep 0.02; done; echo over >> heard; exit 4";
    let exec = bench.exec(&[], &[], script);
    let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().expect("UTF-8").replace('\'', r"'\''"));
    let words: Vec<String> = std::iter::once(exec.get_program()).chain(exec.get_args()).map(quoted).collect();
    std::fs::write(bench.path("run.sh"), format!("exec {}", words.join(" "))).expect("written");
    let mut command = std::process::Command::new("script");
    command.args(["-qefc", "exec sh run.sh", "/dev/null"]).current_dir(bench.folder.path());
    let (job, mut keys) = Run::with_keys(command);
    let heard = async |wanted: &str| {
        let all = async || std::fs::read_to_string(bench.path("heard")).ok().filter(|text| text.ends_with(wanted));
        until(wanted, all).await
    };
    heard("ready\n").await;
    std::io::Write::write_all(&mut keys, b"\x03").expect("typed");
    heard("got\n").await;
    // Passed on a second time it would come before this.
    std::fs::write(bench.path("go"), "").expect("written");
    assert_eq!(heard("over\n").await, "ready\ngot\nover\n");
    let said = job.end();
    assert_eq!(said.code, 4, "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nohup_ignores_stays_ignored() {
    let world = World::new().await;
    let bench = Bench::new(&world).await;
    let mut command = std::process::Command::new("nohup");
    let exec = bench.exec(&[], &[], "echo ready; while ! test -e go; do sleep 0.02; done; exit 4");
    command.arg(exec.get_program()).args(exec.get_args()).current_dir(bench.folder.path());
    let job = Run::start(command);
    job.until("ready");
    job.signal(Signal::HUP);
    std::fs::write(bench.path("go"), "").expect("written");
    assert_eq!(job.end().code, 4);
    assert_eq!(all_over(&world).await, [pb::EndReason::Completed]);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_the_first_process_it_reaps_orphans() {
    let world = World::new().await;
    let bench = Bench::new(&world).await;
    let may = std::process::Command::new("unshare").args(["--pid", "--fork", "true"]).output();
    if !may.is_ok_and(|done| done.status.success()) {
        eprintln!("skipped: this user may not make a process namespace");
        return;
    }
    // Orphans that end at once, while the command goes on.
    let script =
        "for i in 1 2 3; do (sh -c 'exit 0' &); done; echo ready; while ! test -e go; do sleep 0.02; done; exit 5";
    let exec = bench.exec(&[], &[], script);
    let mut command = std::process::Command::new("unshare");
    command.args(["--pid", "--fork", "--"]).arg(exec.get_program()).args(exec.get_args());
    command.current_dir(bench.folder.path());
    let job = Run::start(command);
    job.until("ready");
    let [first] = children(job.pid()).try_into().expect("one child: exec");
    until("no zombies", async || {
        let dead = children(first).into_iter().filter(|pid| state(*pid).is_none_or(|state| state == 'Z')).count();
        (dead == 0 && !children(first).is_empty()).then_some(())
    })
    .await;
    std::fs::write(bench.path("go"), "").expect("written");
    assert_eq!(job.end().code, 5);
}

/// Whether a mask of a process has a signal: `SigCgt:` of those with a handler, `SigIgn:` of those ignored.
fn has(pid: u32, mask: &str, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix(mask)).unwrap_or("0");
    u64::from_str_radix(mask.trim(), 16).expect("a mask") >> (signal.as_raw() - 1) & 1 == 1
}

fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn state(pid: u32) -> Option<char> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ")?.1.chars().next()
}
