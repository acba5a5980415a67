//! A Unix socket from which the job takes credentials that are always fresh, by HTTP.
//!
//! `GET /NAME` answers with the token, or a certificate with its key in PEM; `GET /NAME?format=json` says it in JSON, with
//! the time of its end; `GET /` lists the names. Only processes of the same user are answered.

use std::{fmt, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinHandle,
    time::timeout,
};
use zeroize::Zeroizing;

use super::hand;
use crate::{
    cli::cell::rfc3339,
    client::{Body, Credential, Renewing},
};

/// The socket, until this is dropped.
pub struct Endpoint(JoinHandle<()>);

/// Credentials by name.
pub type Served = Vec<(String, Arc<Renewing>)>;

impl Endpoint {
    /// Serves at `folder/`[`SOCKET`].
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn open(folder: &Path, served: Served) -> io::Result<Self> {
        let path = folder.join(SOCKET);
        let listener = UnixListener::bind(&path)?;
        // The folder is closed to others as it is.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self(tokio::spawn(serve(listener, Arc::new(served)))))
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").finish_non_exhaustive()
    }
}

async fn serve(listener: UnixListener, served: Arc<Served>) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let served = Arc::clone(&served);
                tokio::spawn(async move {
                    // Whoever is slow or goes away gets nothing.
                    let _ = timeout(PATIENCE * 2, answer(stream, &served)).await;
                    drop(permit);
                });
            }
            // Out of descriptors, most likely: those that are served give theirs back.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn answer(mut stream: UnixStream, served: &Served) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    if stream.peer_cred()?.uid() != own {
        return Ok(());
    }
    let mut head = Vec::with_capacity(1024);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() >= HEAD_MOST || stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let text = String::from_utf8_lossy(&head);
    let mut words = text.lines().next().unwrap_or_default().split(' ');
    let reply = match (words.next(), words.next()) {
        (Some("GET"), Some(target)) => find(target, served).await,
        (Some(_), Some(_)) => Reply::new("405 Method Not Allowed", "text/plain", "only GET\n"),
        _ => Reply::new("400 Bad Request", "text/plain", "no request\n"),
    };
    stream.write_all(&reply.bytes()).await?;
    stream.shutdown().await
}

struct Reply {
    status: &'static str,
    kind: &'static str,
    /// More header lines.
    more: String,
    body: Zeroizing<Vec<u8>>,
}

impl Reply {
    fn new(status: &'static str, kind: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, kind, more: String::new(), body: Zeroizing::new(body.into()) }
    }

    fn bytes(&self) -> Zeroizing<Vec<u8>> {
        let Self { status, kind, more, body } = self;
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n{more}\
             Connection: close\r\n\r\n",
            body.len()
        );
        let mut all = Zeroizing::new(Vec::with_capacity(head.len() + body.len()));
        all.extend_from_slice(head.as_bytes());
        all.extend_from_slice(body);
        all
    }
}

async fn find(target: &str, served: &Served) -> Reply {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let name = path.trim_start_matches('/');
    if name.is_empty() {
        let names: Vec<&str> = served.iter().map(|(name, _)| name.as_str()).collect();
        return Reply::new("200 OK", "application/json", format!("{}\n", json!({ "credentials": names })));
    }
    let Some((_, renewing)) = served.iter().find(|(known, _)| known == name) else {
        return Reply::new("404 Not Found", "text/plain", "no credential of this name; `GET /` lists them\n");
    };
    let Some(credential) = renewing.live(PATIENCE).await else {
        let more = "Retry-After: 1\r\n".to_owned();
        let gone = "it has ended and the broker gave no other; the task may be over\n";
        return Reply { more, ..Reply::new("503 Service Unavailable", "text/plain", gone) };
    };
    let expires = credential.lease.expires.as_ref().map(rfc3339).unwrap_or_default();
    if query == "format=json" {
        return Reply::new("200 OK", "application/json", json(name, &credential, &expires));
    }
    let reply = Reply::new("200 OK", "text/plain", hand::stream(&credential).as_slice());
    Reply { more: format!("Mayfly-Expires: {expires}\r\n"), ..reply }
}

fn json(name: &str, credential: &Credential, expires: &str) -> String {
    let about = match &credential.body {
        Body::Token(token) => json!({ "name": name, "expires": expires, "token": token.as_str() }),
        Body::Certificate { chain_pem, key_pem, roots_pem, spiffe_id } => json!({
            "name": name, "expires": expires, "spiffe_id": spiffe_id,
            "certificate_pem": chain_pem, "key_pem": key_pem.as_str(), "ca_pem": roots_pem,
        }),
        Body::Secret { name: secret, version, value } => match str::from_utf8(value) {
            Ok(text) => json!({
                "name": name, "expires": expires, "secret": secret, "version": version, "value": text,
            }),
            Err(_) => json!({
                "name": name, "expires": expires, "secret": secret, "version": version,
                "value_base64": STANDARD.encode(value.as_slice()),
            }),
        },
    };
    format!("{about}\n")
}

/// Its name in the private folder.
pub const SOCKET: &str = "endpoint.sock";
const AT_ONCE: usize = 64;
const HEAD_MOST: usize = 8 * 1024;
/// How long a credential that has ended is waited for.
const PATIENCE: Duration = Duration::from_secs(15);
