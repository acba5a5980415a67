use std::path::Path;

use mayfly::pb::{self, introspect_request::Credential as Presented};

use super::rig::{Bench, Run, all_over, content};
use crate::process::{
    rig::{get, until},
    world::{World, introspect},
};

#[tokio::test(flavor = "multi_thread")]
async fn files_and_the_endpoint_outlive_the_ttl_and_the_environment_does_not() {
    let world = World::new().await;
    let bench = Bench::new(&world).await;
    let credentials = [
        "name=file,kind=opaque,binding=none,ttl=3s,file=token",
        "name=live,kind=jwt,binding=none,ttl=3s,endpoint",
        "name=tls,kind=x509,ttl=3s,file=tls",
        "name=env,kind=opaque,binding=none,ttl=3s,env=T",
    ];
    let script = "echo \"$T\" > env; echo \"$MAYFLY_FILE_FILE\"; echo \"$MAYFLY_FILE_TLS\"; echo \"$MAYFLY_ENDPOINT\"; \
                  while ! test -e go; do sleep 0.05; done";
    let job = Run::start(bench.exec(&credentials, &[], script));
    let (file, tls, endpoint) = (job.line(), job.line(), job.line());
    let active = async |token: &str| {
        let mut verifier = world.verifier("alpha").await;
        introspect(&mut verifier, Presented::Token(token.trim().into())).await.active
    };
    let env = content(&bench.path("env")).await;
    let first = content(Path::new(&file)).await;
    let certificate = content(&Path::new(&tls).join("cert.pem")).await;
    let key = content(&Path::new(&tls).join("key.pem")).await;
    let served = fetch(&endpoint, "/live").await.1;
    assert!(active(&env).await && active(&first).await && active(&served).await);

    let next = async || Some(content(Path::new(&file)).await).filter(|now| *now != first);
    let next = until("a successor in the file", next).await;
    // Whoever read the first one a moment ago can still use it.
    assert!(active(&next).await && active(&first).await);
    until("the end of the first", async || (!active(&env).await).then_some(())).await;
    assert!(!active(&first).await, "outlived its TTL");
    assert!(active(&content(Path::new(&file)).await).await);
    let served_now = fetch(&endpoint, "/live").await.1;
    assert!(served_now != served && active(&served_now).await);
    assert_ne!(content(&Path::new(&tls).join("cert.pem")).await, certificate);
    assert_eq!(content(&Path::new(&tls).join("key.pem")).await, key, "a successor has its key");

    let (head, json) = fetch(&endpoint, "/live?format=json").await;
    assert!(head.starts_with("http/1.1 200") && head.contains("no-store"), "{head}");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert!(active(json["token"].as_str().expect("a token")).await && json["expires"].is_string());
    assert!(fetch(&endpoint, "/").await.1.contains("[\"live\"]"));
    assert!(fetch(&endpoint, "/file").await.0.starts_with("http/1.1 404"));

    std::fs::write(bench.path("go"), "").expect("written");
    let last = content(Path::new(&file)).await;
    assert_eq!(job.end().code, 0);
    assert_eq!(all_over(&world).await, [pb::EndReason::Completed]);
    assert!(!active(&last).await && !active(&served_now).await, "outlived its task");
    assert!(!Path::new(&file).parent().expect("a folder").exists(), "files are left");
}

async fn fetch(endpoint: &str, path: &str) -> (String, String) {
    get(tokio::net::UnixStream::connect(endpoint).await.expect("connects"), path).await
}
