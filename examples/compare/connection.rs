//! Connections to an OpenBao that stay open: TLS 1.3 and HTTP/1.1, or HTTP/2.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::bytes::Bytes;
use rustls::pki_types::{CertificateDer, ServerName};
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;
use tonic::Status;

use crate::support::{Fallible, tls_client};

/// Where the server is, and how to speak with it.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub roots: Vec<CertificateDer<'static>>,
    pub http2: bool,
}

/// One open connection. Clones share it.
#[derive(Clone)]
pub struct Connection {
    sender: Sender,
    address: Arc<str>,
}

#[derive(Clone)]
enum Sender {
    /// One exchange at a time.
    One(Arc<Mutex<http1::SendRequest<Body>>>),
    Two(http2::SendRequest<Body>),
}

/// One call as it is sent again and again.
#[derive(Clone)]
pub struct Call {
    pub method: Method,
    /// Below `/v1/`.
    pub path: Arc<str>,
    /// Sent as `X-Vault-Token` when not empty.
    pub token: Arc<str>,
    pub body: Bytes,
}

/// A whole reply.
pub struct Reply {
    pub status: StatusCode,
    pub body: Bytes,
}

// === impl Target ===

impl Target {
    /// Opens a connection and waits until TLS is up.
    pub async fn dial(&self) -> Fallible<Connection> {
        let mut config = tls_client(&self.roots, None)?;
        config.alpn_protocols = vec![if self.http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::IpAddress(self.address.ip().into());
        let stream = TokioIo::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?);
        // The tasks end with the connection; what breaks it is seen by the next call.
        let sender = if self.http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            tokio::spawn(connection);
            Sender::Two(sender)
        } else {
            let (sender, connection) = http1::handshake(stream).await?;
            tokio::spawn(connection);
            Sender::One(Arc::new(Mutex::new(sender)))
        };
        Ok(Connection { sender, address: self.address.to_string().into() })
    }
}

// === impl Connection ===

impl Connection {
    /// Makes a call and returns whatever the server says to it.
    pub async fn call(&self, call: &Call) -> Result<Reply, Status> {
        let broken = |error: &dyn std::error::Error| Status::unavailable(format!("{}: {error}", call.path));
        let mut request = Request::builder().method(&call.method).header(CONTENT_TYPE, "application/json");
        request = match &self.sender {
            Sender::One(_) => request.uri(format!("/v1/{}", call.path)).header(HOST, &*self.address),
            Sender::Two(_) => request.uri(format!("https://{}/v1/{}", self.address, call.path)),
        };
        if !call.token.is_empty() {
            request = request.header("x-vault-token", &*call.token);
        }
        let request = request.body(Body::from(call.body.clone())).map_err(|error| broken(&error))?;
        let (status, body) = match &self.sender {
            Sender::One(sender) => {
                let mut sender = sender.lock().await;
                sender.ready().await.map_err(|error| broken(&error))?;
                read(sender.send_request(request).await.map_err(|error| broken(&error))?).await
            }
            Sender::Two(sender) => {
                let mut sender = sender.clone();
                sender.ready().await.map_err(|error| broken(&error))?;
                read(sender.send_request(request).await.map_err(|error| broken(&error))?).await
            }
        };
        Ok(Reply { status, body: body.map_err(|error| broken(&error))? })
    }

    /// Makes a call that must succeed, and decodes the reply.
    pub async fn must<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Status> {
        self.call(call).await?.succeeded(call)?.decode()
    }
}

// === impl Call ===

impl Call {
    /// A POST of a JSON body.
    pub fn post(path: &str, token: &str, body: &serde_json::Value) -> Self {
        Self { method: Method::POST, path: path.into(), token: token.into(), body: body.to_string().into() }
    }

    /// A GET.
    pub fn get(path: &str, token: &str) -> Self {
        Self { method: Method::GET, path: path.into(), token: token.into(), body: Bytes::new() }
    }
}

// === impl Reply ===

impl Reply {
    /// Fails with what the server said unless it agreed.
    pub fn succeeded(self, call: &Call) -> Result<Self, Status> {
        if self.status.is_success() {
            return Ok(self);
        }
        let said = String::from_utf8_lossy(&self.body).chars().take(200).collect::<String>();
        Err(Status::unknown(format!("{}: {}: {said}", call.path, self.status)))
    }

    /// Decodes a JSON body.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Status> {
        serde_json::from_slice(&self.body).map_err(|error| Status::internal(format!("an unexpected reply: {error}")))
    }
}

/// Reads a reply to its end.
async fn read(reply: http::Response<hyper::body::Incoming>) -> (StatusCode, Result<Bytes, axum::Error>) {
    let (head, body) = reply.into_parts();
    (head.status, to_bytes(Body::new(body), REPLY_LIMIT).await)
}

const REPLY_LIMIT: usize = 64 << 20;
