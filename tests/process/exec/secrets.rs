use std::{os::unix::fs::PermissionsExt, path::Path};

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
    // Exec's own environment and memory are not for others of this user.
    let own = std::fs::metadata(format!("/proc/{}/environ", job.pid())).expect("there");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&own), 0);
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
