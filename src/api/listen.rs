//! Where connections come in: bounded, timed, each with its peer proven once and drained at the end.

use std::{convert::Infallible, fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use self::{arriving::Arriving, connection::Protocol, credit::Credits, unix_socket::SocketFile, workers::Moved};
use crate::{
    config::{Limits, Socket},
    identity::{Process, UnixProof, unix},
    model::Clock,
};

mod arriving;
mod authority;
mod connection;
mod credit;
mod frames;
mod gathered;
mod message;
mod pace;
mod peer;
mod tls;
mod unix_socket;
mod workers;

pub use authority::Mended;
pub use peer::{Connections, Link, Peer};
pub use tls::{ServerIdentity, TlsError, TlsSwap, certificates};
pub use workers::{OperatorCheck, Workers};

/// A bound socket that does not accept yet.
#[derive(Debug)]
pub struct Listener {
    socket: Bound,
    place: String,
    /// Held for its drop.
    _file: Option<SocketFile>,
}

#[derive(Debug)]
enum Bound {
    Tls(TcpListener),
    Plain(TcpListener),
    Unix(UnixListener),
}

/// Why a listener could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {place}")]
pub struct BindError {
    /// The address or path.
    pub place: String,
    /// What the system says.
    #[source]
    pub source: io::Error,
}

/// What bounds connections.
#[derive(Clone, Debug)]
pub struct EdgeLimits {
    /// Open connections over all listeners; those without a proven caller get at most half, as does one caller, and those
    /// in the TLS handshake at most a quarter, where the oldest gives way.
    pub connections: usize,
    /// HTTP/2 streams on one connection.
    pub streams_per_connection: u32,
    /// HTTP/2 frames a second of one caller that come to nothing; twice as many at once after a pause.
    pub frames_per_caller_per_second: u32,
    /// How long a TLS handshake may take, and what a request has to say.
    pub handshake: Duration,
    /// How long an anonymous connection may take to its first request.
    pub first_request: Duration,
    /// How long requests in flight may take to finish at the stop.
    pub drain: Duration,
}

impl From<&Limits> for EdgeLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            connections: limits.connections,
            streams_per_connection: limits.streams_per_connection,
            frames_per_caller_per_second: limits.frames_per_caller_per_second,
            handshake: limits.handshake,
            first_request: limits.handshake,
            drain: limits.drain,
        }
    }
}

/// What all listeners of a server share.
pub struct Edge {
    tls: Arc<TlsSwap>,
    limits: EdgeLimits,
    connections: Connections,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    workers: Workers,
    is_operator: OperatorCheck,
    federates: bool,
    all: Arc<Semaphore>,
    anonymous: Arc<Semaphore>,
    arriving: Arriving,
    credits: Credits,
}

impl Edge {
    /// Connections begin and end by these; `stop` ends every [`Listener::serve`]. `federates`: somebody may prove himself
    /// with an identity token.
    #[must_use]
    pub fn new(
        tls: Arc<TlsSwap>,
        limits: EdgeLimits,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
        workers: Workers,
        is_operator: OperatorCheck,
        federates: bool,
    ) -> Self {
        let all = limits.connections.min(Semaphore::MAX_PERMITS);
        let frames = limits.frames_per_caller_per_second;
        Self {
            tls,
            limits,
            connections: Connections::default(),
            clock,
            stop,
            workers,
            is_operator,
            federates,
            all: Arc::new(Semaphore::new(all)),
            anonymous: Arc::new(Semaphore::new((all / 2).max(1))),
            arriving: Arriving::new((all / 4).max(1)),
            credits: Credits::new(frames, (all / 2).max(1)),
        }
    }

    /// The open connections.
    #[must_use]
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// The threads that a connection is served on. Who shows no certificate that counts may still come with an identity
    /// token where any is believed, over HTTP/2 as all of gRPC.
    fn threads(&self, link: &Link, protocol: Protocol) -> &Handle {
        match (link.caller(self.clock.wall()), protocol) {
            (Ok(Some(caller)), _) if (self.is_operator)(&caller) => &self.workers.operators,
            (Ok(Some(_)), _) => &self.workers.callers,
            (Ok(None), Protocol::Http2) if self.federates => &self.workers.callers,
            (Ok(None), _) | (Err(_), _) => &self.workers.front,
        }
    }
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// What was accepted, before anything is proven.
enum Arrival {
    Tls(TcpStream, SocketAddr),
    Plain(TcpStream, SocketAddr),
    Unix(UnixStream),
}

// === impl Listener ===

impl Listener {
    /// Binds a socket. A stale Unix socket is replaced; one that somebody serves is an error.
    ///
    /// # Errors
    /// What the system says.
    pub async fn bind(socket: &Socket) -> Result<Self, BindError> {
        let place = match socket {
            Socket::Tls(address) | Socket::BehindProxy(address) => address.to_string(),
            Socket::Unix { path, mode: _ } => path.display().to_string(),
        };
        let (bound, file) = match socket {
            Socket::Tls(address) => (TcpListener::bind(address).await.map(Bound::Tls), None),
            Socket::BehindProxy(address) => (TcpListener::bind(address).await.map(Bound::Plain), None),
            Socket::Unix { path, mode } => (unix_socket::bind(path, *mode).await.map(Bound::Unix), Some(path)),
        };
        match bound {
            Ok(socket) => Ok(Self { socket, place, _file: file.map(|path| SocketFile::new(path.clone())) }),
            Err(source) => Err(BindError { place, source }),
        }
    }

    /// Where it listens; `None` on a Unix socket.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Bound::Tls(listener) | Bound::Plain(listener) => listener.local_addr().ok(),
            Bound::Unix(_) => None,
        }
    }

    /// Accepts and serves connections until the edge stops, then lets requests in flight finish within the drain time
    /// and cuts off the rest. To be run on the front threads.
    ///
    /// Handlers find an `Arc<Peer>` in the request's extensions.
    pub async fn serve(self, router: Router, edge: Arc<Edge>) {
        // Each connection holds a sender: when all are dropped, all have ended.
        let (open, mut ended) = mpsc::channel(1);
        let guests = Guests { router, edge, over: CancellationToken::new(), _open: open };
        let edge = Arc::clone(&guests.edge);
        loop {
            let arrival = tokio::select! {
                biased;
                () = edge.stop.cancelled() => break,
                arrival = self.accept() => arrival,
            };
            match arrival {
                Ok(arrival) => match Arc::clone(&edge.all).try_acquire_owned() {
                    Ok(permit) => {
                        tokio::spawn(guests.clone().welcome(arrival, permit));
                    }
                    // Turned away at once: waiting here would only hide it behind a full backlog.
                    Err(_) => turned_away("full"),
                },
                Err(error) => {
                    tracing::warn!(place = %self.place, %error, "cannot accept");
                    // Out of file descriptors, mostly: give connections time to end.
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self);
        let over = guests.over.clone();
        drop(guests);
        let all_ended = async { while ended.recv().await.is_some() {} };
        let mut all_ended = std::pin::pin!(all_ended);
        if timeout(edge.limits.drain, all_ended.as_mut()).await.is_err() {
            tracing::info!(open = edge.connections.count(), "drain time is over, cutting off the rest");
            over.cancel();
            all_ended.await;
        }
    }

    async fn accept(&self) -> io::Result<Arrival> {
        match &self.socket {
            Bound::Tls(listener) => listener.accept().await.map(|(stream, source)| Arrival::Tls(stream, source)),
            Bound::Plain(listener) => listener.accept().await.map(|(stream, source)| Arrival::Plain(stream, source)),
            Bound::Unix(listener) => listener.accept().await.map(|(stream, _)| Arrival::Unix(stream)),
        }
    }
}

/// What every connection of one listener is given.
#[derive(Clone)]
struct Guests {
    router: Router,
    edge: Arc<Edge>,
    /// Cuts off what has not ended in time.
    over: CancellationToken,
    _open: mpsc::Sender<Infallible>,
}

// === impl Guests ===

impl Guests {
    /// Proves the peer, then has it served on its threads. The permit is held to the end.
    async fn welcome(self, arrival: Arrival, permit: OwnedSemaphorePermit) {
        match arrival {
            Arrival::Tls(stream, source) => self.welcome_tls(stream, source, permit).await,
            Arrival::Plain(stream, source) => {
                let _ = stream.set_nodelay(true);
                let link = Link::Plain { source };
                connection::serve(stream, link, Protocol::Either, self.router, &self.edge, &self.over).await;
            }
            Arrival::Unix(stream) => match unix::peer(&stream) {
                Ok(proof) => self.hand_over_unix(stream, proof, permit),
                Err(error) => {
                    tracing::warn!(%error, "a Unix socket without peer credentials");
                    turned_away("unproven");
                }
            },
        }
    }

    async fn welcome_tls(self, stream: TcpStream, source: SocketAddr, permit: OwnedSemaphorePermit) {
        // Only latency is lost when the system refuses.
        let _ = stream.set_nodelay(true);
        let end = self.edge.tls.current();
        let acceptor = TlsAcceptor::from(Arc::clone(&end.config));
        let place = self.edge.arriving.enter();
        let handshake = timeout(self.edge.limits.handshake, acceptor.accept(stream));
        let stream = tokio::select! {
            () = self.edge.stop.cancelled() => return,
            () = place.lost() => return turned_away("handshakes_full"),
            outcome = handshake => match outcome {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    tracing::debug!(%source, %error, "a TLS handshake failed");
                    return turned_away("handshake");
                }
                Err(_) => return turned_away("handshake_timeout"),
            },
        };
        drop(place);
        let session = stream.get_ref().1;
        let protocol = match session.alpn_protocol() {
            Some(b"h2") => Protocol::Http2,
            Some(_) | None => Protocol::Http1,
        };
        match end.judge(session, self.edge.clock.wall()) {
            Ok(shown) => self.hand_over(stream, Link::Tls { shown, source }, protocol, permit),
            Err(error) => {
                tracing::info!(%source, %error, "a client certificate was refused");
                turned_away("certificate");
            }
        }
    }

    /// Has a connection served on the threads that are for its caller.
    fn hand_over(self, mut stream: TlsStream<TcpStream>, link: Link, protocol: Protocol, permit: OwnedSemaphorePermit) {
        let threads = self.edge.threads(&link, protocol).clone();
        threads.spawn(async move {
            // As a whole: a block takes of a value only what it names, and this one is awaited at the stop.
            let (guests, _permit) = (self, permit);
            match stream.get_ref().0.moved() {
                Ok(moved) => *stream.get_mut().0 = moved,
                Err(error) => return cannot_move(&error),
            }
            connection::serve(stream, link, protocol, guests.router.clone(), &guests.edge, &guests.over).await;
        });
    }

    fn hand_over_unix(self, stream: UnixStream, proof: UnixProof, permit: OwnedSemaphorePermit) {
        // Now, while whoever connected has hardly had the time to end.
        let process =
            Process::of(&proof).inspect_err(|why| tracing::debug!(%why, "a local caller's process is not seen"));
        let link = Link::Unix { proof, process: process.ok() };
        let threads = self.edge.threads(&link, Protocol::Either).clone();
        threads.spawn(async move {
            // As a whole: a block takes of a value only what it names, and this one is awaited at the stop.
            let (guests, _permit) = (self, permit);
            match stream.moved() {
                Ok(moved) => {
                    drop(stream);
                    let moved = Mended::new(moved);
                    connection::serve(moved, link, Protocol::Either, guests.router.clone(), &guests.edge, &guests.over)
                        .await;
                }
                Err(error) => cannot_move(&error),
            }
        });
    }
}

fn cannot_move(error: &io::Error) {
    // Out of file descriptors, mostly.
    tracing::warn!(%error, "a connection cannot be handed over");
    turned_away("full");
}

fn turned_away(reason: &'static str) {
    metrics::counter!("mayfly_connections_refused_total", "reason" => reason).increment(1);
}

/// How long accepting rests after an error.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
#[cfg(test)]
mod tests;
