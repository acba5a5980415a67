//! A loopback TLS server under the tests' control.

use std::{ops::Range, sync::Arc};

use rustls::{ServerConfig, pki_types::CertificateDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{SinkEvent, TlsTrust};
use crate::{model::Timestamp, pb::Revision};

/// Events with the numbers of the range.
pub(super) fn batch(numbers: Range<u64>) -> Vec<SinkEvent> {
    numbers
        .map(|number| SinkEvent {
            revision: Revision { incarnation: 1, number },
            at: Timestamp::from_seconds(number),
            json_line: format!("{{\"n\":{number}}}"),
        })
        .collect()
}

pub(super) struct Server {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    certificate: CertificateDer<'static>,
}

pub(super) struct Peer(TlsStream<TcpStream>);

impl Server {
    pub(super) async fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("certificate");
        let key = made.signing_key.serialize_der().try_into().expect("key");
        let certificate = made.cert.der().clone();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .expect("certificate and key");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)), certificate }
    }

    pub(super) fn port(&self) -> u16 {
        self.listener.local_addr().expect("address").port()
    }

    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    pub(super) fn trust(&self) -> TlsTrust {
        TlsTrust { roots: vec![self.certificate.clone()], identity: None }
    }

    /// Takes a connection whose handshake the client breaks off.
    pub(super) async fn accept_and_fail(&self) {
        let (socket, _) = self.listener.accept().await.expect("connection");
        assert!(self.acceptor.accept(socket).await.is_err(), "the handshake went through");
    }

    pub(super) async fn accept(&self) -> Peer {
        let (socket, _) = self.listener.accept().await.expect("connection");
        Peer(self.acceptor.accept(socket).await.expect("tls"))
    }
}

impl Peer {
    pub(super) async fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).await.expect("bytes");
        bytes
    }

    /// Head and body of an HTTP/1.1 request that says its length.
    pub(super) async fn read_request(&mut self) -> String {
        let mut text = String::new();
        loop {
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if body.len() >= length.expect("a length").parse::<usize>().expect("a number") {
                    return text;
                }
            }
            let mut chunk = [0; 4096];
            let count = self.0.read(&mut chunk).await.expect("request");
            assert_ne!(count, 0, "the request ends early: {text}");
            text.push_str(std::str::from_utf8(&chunk[..count]).expect("utf-8"));
        }
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("written");
        self.0.flush().await.expect("flushed");
    }

    pub(super) async fn close(mut self) {
        self.0.shutdown().await.expect("closed");
    }
}
