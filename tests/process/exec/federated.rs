use std::{
    io::{Read, Write},
    net::TcpListener,
};

use mayfly::pb;

use super::rig::{Bench, Run, all_over, content, tasks};
use crate::{
    process::{
        federated::Setting,
        rig::until,
        world::{TENANTS, introspect},
    },
    signer::AUDIENCE,
};

/// A runner's service that gives one identity token after the other, as GitHub's does.
pub fn runner(tokens: Vec<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/token?api-version=2", listener.local_addr().expect("bound"));
    std::thread::spawn(move || {
        for token in tokens {
            let (mut stream, _) = listener.accept().expect("a request");
            let _ = stream.read(&mut [0; 4096]);
            let body = format!("{{\"value\":\"{token}\"}}");
            let _ =
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        }
    });
    url
}

/// An exec as a job of GitHub's, without a certificate.
fn job(bench: &Bench, url: &str, credentials: &[&str], script: &str) -> Run {
    started(url, bench, &bench.exec(credentials, &[], script))
}

/// The same, of one that is put together already.
pub fn started(url: &str, bench: &Bench, exec: &std::process::Command) -> Run {
    let mut arguments: Vec<_> = exec.get_args().collect();
    let at = arguments.iter().position(|argument| *argument == "--identity").expect("named");
    arguments.drain(at..at + 2);
    let mut command = std::process::Command::new(exec.get_program());
    command.args(arguments);
    command.current_dir(bench.folder.path()).env("MAYFLY_CA", bench.path("ca.pem"));
    command.env("MAYFLY_AUDIENCE", AUDIENCE).env("GITHUB_ACTIONS", "true");
    command.env("ACTIONS_ID_TOKEN_REQUEST_URL", url).env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "runners-own");
    Run::start(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_an_identity_token_has_all_it_needs_and_lives_through_a_restart() {
    let mut setting = Setting::new().await;
    let bench = Bench::new(&setting.world).await;
    let token = setting.signer.rs256(&setting.claims());
    let url = runner(vec![token.clone(), token.clone()]);
    let credentials = ["name=a,kind=opaque,ttl=3s,file=token", "name=b,kind=jwt,env=T", "name=c,kind=x509,endpoint"];
    let script = "test -n \"$T\" || exit 9; test -z \"$ACTIONS_ID_TOKEN_REQUEST_TOKEN$ACTIONS_ID_TOKEN_REQUEST_URL\" || exit 8; \
                  echo \"$MAYFLY_FILE_A\"; while ! test -e go; do sleep 0.05; done; exit 5";
    let run = job(&bench, &url, &credentials, script);
    let file = std::path::PathBuf::from(run.line());
    let first = content(&file).await;
    assert_eq!(tasks(&setting.world).await.first().expect("a task").workload, "job");

    setting.world.process.kill();
    bench.door.shut();
    setting.world.restart().await;
    bench.door.open(&setting.world);
    // Renewed by the task's key: the token is spent.
    let next = until("a successor", async || Some(content(&file).await).filter(|now| *now != first)).await;
    let mut verifier = setting.world.verifier(TENANTS[0]).await;
    let presented = pb::introspect_request::Credential::Token(next);
    assert!(introspect(&mut verifier, presented).await.active);

    // Whoever else comes with the token gets nothing.
    let thief = job(&bench, &url, &[], "touch stolen").end();
    assert!(thief.code == 125 && thief.errors.contains("IDENTITY_TOKEN_SPENT"), "{thief:?}");
    assert!(!bench.path("stolen").exists() && !thief.errors.contains(&token));

    std::fs::write(bench.path("go"), "").expect("written");
    let said = run.end();
    assert!(said.code == 5 && said.errors.is_empty(), "{said:?}");
    assert_eq!(all_over(&setting.world).await, [pb::EndReason::Completed]);
    assert!(!setting.world.process.log().contains(&token));
}

/// A socket has no key that could go on in the token's place.
#[tokio::test(flavor = "multi_thread")]
async fn over_a_socket_the_token_stays_the_proof_and_then_its_successor() {
    let folder = tempfile::tempdir().expect("folder");
    let (socket, file) = (folder.path().join("m.sock"), folder.path().join("id-token"));
    let listener = format!("reuse = \"until-expiry\"\n[[listener]]\nunix = {socket:?}\nservices = [\"broker\"]\n");
    let mut setting = Setting::with(&listener).await;
    std::fs::write(&file, setting.token(crate::signer::github, "first")).expect("written");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mayfly"));
    command.current_dir(folder.path()).args(["exec", "--server", &format!("unix://{}", socket.display())]);
    command.arg("--id-token-file").arg(&file).args([
        "--tenant",
        "alpha",
        "--partner",
        "courier",
        "--purpose",
        "report",
    ]);
    let audience = crate::process::world::audience("alpha");
    command.arg(format!("--credential=audience={audience},action=read,kind=opaque,ttl=3s,file=token"));
    let script = "echo \"$MAYFLY_FILE_CREDENTIAL\"; while ! test -e go; do sleep 0.05; done; exit 5";
    let run = Run::start({
        command.args(["--", "sh", "-c", script]);
        command
    });
    let token = std::path::PathBuf::from(run.line());
    let read = || std::fs::read_to_string(&token).expect("there");
    // Renewed while it is held, by a user who is no workload here.
    let first = read();
    until("a successor", async || (read() != first).then_some(())).await;

    // The platform renews its token; a new connection comes with that.
    std::fs::write(&file, setting.token(crate::signer::github, "second")).expect("written");
    setting.world.process.kill();
    setting.world.restart().await;
    let before = read();
    until("a successor", async || (read() != before).then_some(())).await;
    let events =
        pb::ListEventsRequest { kind_prefix: "lease.issued".into(), tenant: "alpha".into(), ..Default::default() };
    let events = setting.world.admin().await.list_events(events).await.expect("listed").into_inner().events;
    let proofs: std::collections::BTreeSet<_> = events.iter().map(|event| event.proof.clone()).collect();
    assert!(proofs.len() == 2 && events.iter().all(|event| event.actor == "workload:job"), "{events:?}");

    std::fs::write(folder.path().join("go"), "").expect("written");
    let said = run.end();
    assert!(said.code == 5 && said.errors.is_empty(), "{said:?}");
    assert_eq!(all_over(&setting.world).await, [pb::EndReason::Completed]);
}
