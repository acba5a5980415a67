use std::{
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::rig::{Bench, Run, content, run};
use crate::process::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_where_it_was_asked_for_and_nowhere_else() {
    let mut world = World::configured("[telemetry]\nlog = \"trace\"\n").await;
    let bench = Bench::new(&world).await;
    let credentials = [
        "name=a,kind=opaque,binding=none,env=T",
        "name=b,kind=opaque,binding=none,file=token",
        "name=c,kind=opaque,binding=none,fd=63",
        "name=d,kind=x509,file=tls,env=TLS",
    ];
    let script = "cat /dev/fd/63 > fd; printf %s \"$T\" > env; printf %s \"$TLS_KEY\" > key; echo \"$MAYFLY_DIR\"; \
                  (echo x > /dev/fd/63) 2>/dev/null && exit 9; while ! test -e go; do sleep 0.05; done";
    let mut command = bench.exec(&credentials, &[], script);
    command.env("RUST_LOG", "trace");
    let job = Run::start(command);
    let folder = job.line();
    let folder = Path::new(&folder);
    let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(folder), mode(&folder.join("token")), mode(&folder.join("tls/key.pem"))), (0o700, 0o600, 0o600));
    assert!(folder.starts_with("/dev/shm") || !Path::new("/dev/shm").exists(), "{folder:?}");
    let key = content(&bench.path("key")).await;
    assert_eq!(key.trim(), content(&folder.join("tls/key.pem")).await.trim());
    let secrets = [
        content(&bench.path("env")).await,
        content(&folder.join("token")).await,
        content(&bench.path("fd")).await,
        key.lines().nth(1).expect("a line").to_owned(),
    ];
    for secret in &secrets {
        assert!(secret.trim().len() > 20, "too short to look for");
        for process in std::fs::read_dir("/proc").expect("listed").flatten() {
            let arguments = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&arguments).contains(secret.trim()), "in {:?}", process.path());
        }
    }
    let exec_environment = std::fs::read(format!("/proc/{}/environ", job.pid())).unwrap_or_default();
    std::fs::write(bench.path("go"), "").expect("written");
    let said = job.end();
    assert_eq!(said.code, 0, "{said:?}");
    assert!(world.process.stop().success());
    for secret in &secrets {
        let secret = secret.trim();
        assert!(!said.errors.contains(secret) && !world.process.log().contains(secret));
        assert!(!String::from_utf8_lossy(&exec_environment).contains(secret));
    }
    assert!(!folder.exists());
}

/// Root reads everything, so where the tests are root's this is about another user.
#[tokio::test(flavor = "multi_thread")]
async fn other_processes_of_the_same_user_do_not_read_execs_memory_and_descriptors() {
    let world = World::new().await;
    let bench = Bench::new(&world).await;
    let is_root = rustix::process::geteuid().is_root();
    let same_user = |mut command: Command| {
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    };
    let mut program = PathBuf::from(env!("CARGO_BIN_EXE_mayfly"));
    if is_root {
        // The tests' build may lie where others do not get.
        program = bench.path("mayfly");
        std::fs::copy(env!("CARGO_BIN_EXE_mayfly"), &program).expect("copied");
        for path in ["", "cert.pem", "key.pem", "ca.pem", "mayfly"] {
            std::os::unix::fs::chown(bench.path(path), Some(NOBODY), Some(NOBODY)).expect("given away");
        }
    }
    let script = "echo $$ > pid; while ! test -e go; do sleep 0.05; done";
    let exec = bench.exec(&["kind=opaque,binding=none,env=T", "name=b,kind=opaque,binding=none,fd=63"], &[], script);
    let mut command = Command::new(program);
    command.args(exec.get_args()).current_dir(bench.folder.path());
    let job = Run::start(same_user(command));
    let child = content(&bench.path("pid")).await.trim().to_owned();
    // What such a process finds; `mem` is not opened for the child either where ptrace is restricted.
    let finds = |pid: &str| {
        let mut look = Command::new("sh");
        look.args([
            "-c",
            "cd /proc/$0 && for file in environ fd/63 maps; do cat $file >/dev/null 2>&1 && echo $file; done",
            pid,
        ]);
        run(same_user(look)).out
    };
    assert!(finds(&child).contains("environ"), "it finds nothing anywhere");
    assert_eq!(finds(&job.pid().to_string()), "");
    std::fs::write(bench.path("go"), "").expect("written");
    assert_eq!(job.end().code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn masked_output_shows_no_secret_however_it_is_written() {
    let world = World::new().await;
    let bench = Bench::new(&world).await;
    let credentials = ["name=a,kind=opaque,binding=none,env=T", "name=k,kind=x509,env=TLS"];
    let script = "printf %s \"$T\" > token; echo \"plain $T end\"; echo \"to errors $T end\" >&2; \
                  printf %s \"in $(printf %s \"$T\" | cut -c1-9)\"; sleep 0.3; printf '%s end\\n' \"$(printf %s \"$T\" | cut -c10-)\"; \
                  echo \"once $(printf %s \"user:$T\" | base64 -w 0) end\"; printf %s \"user:$T\" | base64 -w 20; \
                  echo \"twice $(printf %s \"$T\" | base64 -w 0 | base64 -w 0) end\"; \
                  echo \"$TLS_KEY\"; echo 'an innocent line'; exit 8";
    let said = run(bench.exec(&credentials, &["--mask"], script));
    assert_eq!(said.code, 8, "{said:?}");
    let token = content(&bench.path("token")).await;
    let (out, errors) = (&said.out, &said.errors);
    for line in ["plain *** end", "in *** end", "***", "an innocent line"] {
        assert!(out.lines().any(|shown| shown == line), "{line}: {said:?}");
    }
    assert!(errors.contains("to errors *** end"), "{said:?}");
    assert!(out.lines().any(|line| line.starts_with("once ") && line.contains("***") && line.len() < 30), "{said:?}");
    assert!(out.lines().any(|line| line.starts_with("twice ") && line.contains("***") && line.len() < 30), "{said:?}");
    let once = STANDARD.encode(format!("user:{token}"));
    for part in [&token[4..20], &once[12..30]] {
        assert!(!out.contains(part) && !errors.contains(part), "{said:?}");
    }
    // And without being asked nothing is changed.
    let said = run(bench.exec(&credentials, &[], "printf %s \"$T\" > token; echo \"plain $T end\""));
    assert_eq!(said.out, format!("plain {} end", content(&bench.path("token")).await));
}

/// The user of those who have no files.
const NOBODY: u32 = 65_534;
