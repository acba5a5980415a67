//! HTTP/2 frames by hand (RFC 9113), for what no honest client sends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Fallible, Identity, tls_client};

/// One HTTP/2 connection of which the caller writes every frame.
pub struct Frames {
    stream: TlsStream<TcpStream>,
    path: &'static str,
}

/// What a connection came to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Answered {
    /// Streams that were reset, by any reason.
    pub resets: usize,
    /// Of these, streams refused unseen (`REFUSED_STREAM`).
    pub refused: usize,
    /// Pings that were answered.
    pub pongs: usize,
    /// The reason of the GOAWAY, if one came.
    pub goaway: Option<u32>,
    /// The peer closed the connection.
    pub closed: bool,
}

// === impl Frames ===

impl Frames {
    /// Begins a connection; its requests are for `path`.
    pub async fn open(
        address: SocketAddr,
        roots: &[CertificateDer<'static>],
        identity: Option<&Identity>,
        path: &'static str,
    ) -> Fallible<Self> {
        let mut config = tls_client(roots, identity)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tcp = TcpStream::connect(address).await?;
        let name = ServerName::IpAddress(address.ip().into());
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
        Ok(Self { stream, path })
    }

    /// Sends frames as they are.
    pub async fn send(&mut self, bytes: &[u8]) -> Fallible<()> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    /// A request's headers; its body stays open. The number of a client's stream is odd.
    pub fn request(&self, number: u32) -> Vec<u8> {
        frame(HEADERS, END_HEADERS, number, &self.fields())
    }

    /// Takes a request back.
    pub fn reset(number: u32) -> Vec<u8> {
        frame(RST_STREAM, 0, number, &8_u32.to_be_bytes())
    }

    /// A question whether the other end is there.
    pub fn ping() -> Vec<u8> {
        frame(PING, 0, 0, &[0; 8])
    }

    /// A request with `bytes` of headers, over as many frames as it takes.
    pub fn huge_request(&self, number: u32, bytes: usize) -> Vec<u8> {
        let mut sent = frame(HEADERS, 0, number, &self.fields());
        let mut block = Vec::new();
        while block.len() < 16_000 {
            field(&mut block, "x-filler", &"f".repeat(100));
        }
        for _ in 0..bytes.div_ceil(block.len()) {
            sent.extend(frame(CONTINUATION, 0, number, &block));
        }
        sent.extend(frame(CONTINUATION, END_HEADERS, number, &[]));
        sent
    }

    /// Reads until the connection ends or nothing more comes for `patience`.
    pub async fn answered(&mut self, patience: Duration) -> Answered {
        self.answered_until(patience, |_| false).await
    }

    /// The same, or until `enough` came.
    pub async fn answered_until(&mut self, patience: Duration, enough: impl Fn(&Answered) -> bool) -> Answered {
        let mut answered = Answered::default();
        loop {
            if enough(&answered) {
                return answered;
            }
            match tokio::time::timeout(patience, self.next()).await {
                Err(_quiet) => return answered,
                Ok(Err(_gone)) => return Answered { closed: true, ..answered },
                Ok(Ok((RST_STREAM, payload))) => {
                    answered.resets += 1;
                    answered.refused += usize::from(payload == 7_u32.to_be_bytes());
                }
                Ok(Ok((PING, _))) => answered.pongs += 1,
                Ok(Ok((GOAWAY, payload))) => {
                    let code = payload.get(4..8).and_then(|code| code.try_into().ok());
                    answered.goaway = code.map(u32::from_be_bytes);
                }
                Ok(Ok(_)) => {}
            }
        }
    }

    async fn next(&mut self) -> Fallible<(u8, Vec<u8>)> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length)?];
        self.stream.read_exact(&mut payload).await?;
        Ok((head[3], payload))
    }

    fn fields(&self) -> Vec<u8> {
        let mut block = Vec::new();
        let fields = [
            (":method", "POST"),
            (":scheme", "https"),
            (":path", self.path),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        for (name, value) in fields {
            field(&mut block, name, value);
        }
        block
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Literal, without indexing (RFC 7541 section 6.2.2); texts are shorter than 127 bytes.
fn field(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        block.push(u8::try_from(text.len().min(126)).unwrap_or(0));
        block.extend(text.bytes().take(126));
    }
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
