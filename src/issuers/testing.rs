//! An issuer on loopback, over real HTTPS, that answers as a test says. Names nothing of the library, so that tests of the
//! program use the same file.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// What is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    Body(String),
    /// A status, with a body.
    Said(u16, String),
    /// A status, with a `location`.
    Status(u16, String),
    /// A body without an end.
    Endless,
    /// The connection is closed.
    Nothing,
}

/// A running issuer; gone when it is dropped.
pub struct LocalIssuer {
    /// `https://localhost:PORT`.
    pub url: String,
    /// The root of its certificate.
    pub ca_pem: String,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    discovery: Mutex<Answer>,
    keys: Mutex<Answer>,
    /// Requests for the key set.
    asked: AtomicUsize,
    /// Where set, requests for the key set wait for it.
    gate: Mutex<Option<Arc<Notify>>>,
    /// What other places answer.
    others: Mutex<BTreeMap<String, Answer>>,
    /// What was sent to them.
    sent: Mutex<Vec<(String, String)>>,
}

impl LocalIssuer {
    /// Serves a key set.
    pub async fn start(keys: &Value) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("certificate");
        let key = made.signing_key.serialize_der().try_into().expect("key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_no_client_auth();
        let config = config.with_single_cert(vec![made.cert.der().clone()], key).expect("certificate and key");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("https://localhost:{}", listener.local_addr().expect("address").port());
        let shared = Arc::new(Shared {
            discovery: Mutex::new(Answer::Body(discovery(&url, &format!("{url}/keys")))),
            keys: Mutex::new(Answer::Body(keys.to_string())),
            asked: AtomicUsize::new(0),
            gate: Mutex::default(),
            others: Mutex::default(),
            sent: Mutex::default(),
        });
        let serving = tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), Arc::clone(&shared)));
        Self { url, ca_pem: made.cert.pem(), shared, serving }
    }

    /// From now on discovery answers so.
    pub fn discovers(&self, answer: Answer) {
        *self.shared.discovery.lock().expect("lock") = answer;
    }

    /// From now on the key set is this.
    pub fn has(&self, answer: Answer) {
        *self.shared.keys.lock().expect("lock") = answer;
    }

    /// From now on a place answers so.
    pub fn answers(&self, path: &str, answer: Answer) {
        self.shared.others.lock().expect("lock").insert(path.to_owned(), answer);
    }

    /// Forgets what was sent.
    pub fn forget(&self) {
        self.shared.sent.lock().expect("lock").clear();
    }

    /// The last body that was sent to a place.
    pub fn sent(&self, path: &str) -> Option<String> {
        let sent = self.shared.sent.lock().expect("lock");
        sent.iter().rev().find(|(to, _)| to == path).map(|(_, body)| body.clone())
    }

    /// How often the key set was asked for.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// Requests for the key set wait until the gate is told once for each.
    pub fn wait_at(&self, gate: &Arc<Notify>) {
        *self.shared.gate.lock().expect("lock") = Some(Arc::clone(gate));
    }
}

impl Drop for LocalIssuer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A discovery document.
pub fn discovery(issuer: &str, keys: &str) -> String {
    json!({ "issuer": issuer, "jwks_uri": keys, "id_token_signing_alg_values_supported": ["RS256"] }).to_string()
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else { return };
        tokio::spawn(answer(socket, acceptor.clone(), Arc::clone(&shared)));
    }
}

async fn answer(socket: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let Ok(mut stream) = acceptor.accept(socket).await else { return };
    let mut text = Vec::new();
    while !text.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut chunk = [0; 2_048];
        match stream.read(&mut chunk).await {
            Ok(count) if count > 0 => text.extend_from_slice(&chunk[..count]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&text).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let said = if path == "/keys" {
        shared.asked.fetch_add(1, Ordering::SeqCst);
        let gate = shared.gate.lock().expect("lock").clone();
        if let Some(gate) = gate {
            gate.notified().await;
        }
        shared.keys.lock().expect("lock").clone()
    } else if path == "/.well-known/openid-configuration" {
        shared.discovery.lock().expect("lock").clone()
    } else {
        let begin = text.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
        let lower = head.to_ascii_lowercase();
        let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.trim().parse().ok());
        while text.len() < begin + length.unwrap_or(0_usize) {
            let mut chunk = [0; 2_048];
            match stream.read(&mut chunk).await {
                Ok(count) if count > 0 => text.extend_from_slice(&chunk[..count]),
                _ => return,
            }
        }
        let body = String::from_utf8_lossy(&text[begin..]).into_owned();
        shared.sent.lock().expect("lock").push((path.to_owned(), body));
        let answer = shared.others.lock().expect("lock").get(path).cloned();
        answer.unwrap_or_else(|| Answer::Status(404, String::new()))
    };
    let head = |status: u16, more: &str| format!("HTTP/1.1 {status} X\r\nconnection: close\r\n{more}\r\n");
    // The client may have had enough.
    let _ = match said {
        Answer::Body(body) => {
            let text = head(200, &format!("content-length: {}\r\n", body.len())) + &body;
            stream.write_all(text.as_bytes()).await
        }
        Answer::Said(status, body) => {
            let text = head(status, &format!("content-length: {}\r\n", body.len())) + &body;
            stream.write_all(text.as_bytes()).await
        }
        Answer::Status(status, location) => {
            let text = head(status, &format!("content-length: 0\r\nlocation: {location}\r\n"));
            stream.write_all(text.as_bytes()).await
        }
        Answer::Endless => {
            let mut sent = stream.write_all(head(200, "").as_bytes()).await;
            while sent.is_ok() {
                sent = stream.write_all(&[b' '; 16_384]).await;
            }
            Ok(())
        }
        Answer::Nothing => Ok(()),
    };
    let _ = stream.shutdown().await;
}
