//! The action's own download: what is fetched runs only when its digest is the one that the action pins.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use mayfly::{client::pem, pb};
use ring::digest::{SHA256, digest};
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::github::{Job, action_folder, github, tokens};
use crate::process::exec::rig::all_over;

/// A place for releases, over TLS: what each path answers, head and body.
async fn site(ca: &Path, pages: impl FnOnce(&str) -> BTreeMap<&'static str, (String, Vec<u8>)>) -> String {
    let key = rcgen::KeyPair::generate().expect("key");
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("names");
    let certificate = params.self_signed(&key).expect("signed");
    std::fs::write(ca, pem::encode(pem::CERTIFICATE, certificate.der()).as_bytes()).expect("written");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).expect("a key"))
        .expect("fits");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://localhost:{}", listener.local_addr().expect("bound").port());
    let pages = pages(&url);
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut tls) = acceptor.accept(stream).await else { continue };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && tls.read_buf(&mut head).await.is_ok_and(|count| count > 0) {}
            let head = String::from_utf8_lossy(&head).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default();
            let absent = ("404 Not Found\r\n".to_owned(), Vec::new());
            let (status, body) = pages.get(path).unwrap_or(&absent);
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}Content-Length: {length}\r\nConnection: close\r\n\r\n");
            let _ = tls.write_all(&[answer.as_bytes(), body].concat()).await;
            let _ = tls.shutdown().await;
        }
    });
    url
}

fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_downloaded_runs_only_with_the_digest_that_the_action_pins() {
    let setting = github().await;
    let mut job = Job::new(&setting, tokens(&setting, 1)).await;
    let (ran, ca) = (job.work.path("work/ran"), job.work.path("work/site.pem"));
    let good = format!("#!/bin/sh\nexec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_mayfly"));
    let evil = format!("#!/bin/sh\ntouch '{}'\nexec '{}' \"$@\"\n", ran.display(), env!("CARGO_BIN_EXE_mayfly"));
    let url = site(&ca, |url| {
        let page = |text: &str| ("200 OK\r\n".to_owned(), text.as_bytes().to_vec());
        let moved = |to: &str| (format!("302 Found\r\nLocation: {to}\r\n"), Vec::new());
        BTreeMap::from([
            ("/good", page(&good)),
            ("/evil", page(&evil)),
            ("/moved", moved(&format!("{url}/good"))),
            ("/moved-to-evil", moved("/evil")),
            ("/out-of-tls", moved(&format!("{}/good", url.replace("https", "http")))),
            ("/round", moved("/round")),
        ])
    })
    .await;
    // A copy of the action that knows releases of ours.
    job.action = job.work.path("work/action");
    std::fs::create_dir(&job.action).expect("made");
    for entry in std::fs::read_dir(action_folder()).expect("listed").flatten().filter(|entry| entry.path().is_file()) {
        std::fs::copy(entry.path(), job.action.join(entry.file_name())).expect("copied");
    }
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    let pinned = sha256(good.as_bytes());
    let release = |path: &str, digest: &str| {
        let mut platforms = serde_json::Map::new();
        platforms.insert(format!("linux-{arch}"), json!({ "url": format!("{url}{path}"), "sha256": digest }));
        serde_json::Value::Object(platforms)
    };
    let known = json!({
        "1.0.0": release("/moved", &pinned),
        "1.0.1": release("/evil", &pinned),
        "1.0.2": release("/moved-to-evil", &pinned),
        "1.0.3": release("/out-of-tls", &pinned),
        "1.0.4": release("/round", &pinned),
        "1.0.5": release("/absent", &pinned),
        "1.0.6": release("/good", ""),
        "1.0.7": { "plan9-x64": {} },
    });
    std::fs::write(job.action.join("digests.json"), known.to_string()).expect("written");
    let main = |version: &str, more: &[(&str, &str)]| {
        let inputs = [&[("path", ""), ("version", version)][..], more].concat();
        let mut command = job.action("main.js", &inputs)?;
        command.env("NODE_EXTRA_CA_CERTS", &ca);
        Some(job.run(command))
    };

    for (version, said) in [
        ("1.0.1", "it is not run"),
        ("1.0.2", "it is not run"),
        ("1.0.3", "is not https"),
        ("1.0.4", "leads on too often"),
        ("1.0.5", "answers 404"),
        ("1.0.6", "nothing is downloaded without one"),
        ("1.0.7", "nothing is downloaded without one"),
        ("9.9.9", "nothing is downloaded without one"),
        ("__proto__", "nothing is downloaded without one"),
        ("", "is missing"),
    ] {
        let Some(refused) = main(version, &[]) else { return };
        assert!(refused.code == 1 && refused.out.contains(said), "{version}: {refused:?}");
        assert!(job.file("state").is_empty() && job.work.left_behind().is_empty(), "{version}: something is left");
    }
    // One that is on the runner already, with a digest that it has not.
    let there = [("path", env!("CARGO_BIN_EXE_mayfly")), ("sha256", &pinned)];
    let refused = main("", &there).expect("node");
    assert!(refused.code == 1 && refused.out.contains("does not have the digest"), "{refused:?}");
    assert!(!ran.exists() && job.holder().is_none());

    let said = main("1.0.0", &[]).expect("node");
    assert!(said.code == 0 && job.holder().is_some(), "{said:?}");
    assert_eq!(job.run(job.action("post.js", &[]).expect("node")).code, 0);
    assert_eq!(all_over(&setting.world).await, [pb::EndReason::Completed]);
    // The runner empties this folder after the job; no secret is in it.
    assert!(job.work.left_behind().iter().all(|path| path.join("mayfly").exists()), "{:?}", job.work.left_behind());
    assert!(!ran.exists());
}
