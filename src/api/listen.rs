//! Where connections come in: bounded, timed, each with its peer proven once and drained at the end.

use std::{
    convert::Infallible,
    fmt,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::Request, response::Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use self::{arriving::Arriving, gathered::Turn, unix_socket::SocketFile};
use crate::{
    config::{Limits, Socket},
    identity::unix,
    model::Clock,
};

mod arriving;
mod gathered;
mod peer;
mod tls;
mod unix_socket;

pub use peer::{Connections, Link, Peer};
pub use tls::{ServerIdentity, TlsError, TlsSwap, certificates};

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
    /// Open connections over all listeners; those without a proven caller get at most half, and those in the TLS
    /// handshake at most a quarter, where the oldest gives way.
    pub connections: usize,
    /// HTTP/2 streams on one connection.
    pub streams_per_connection: u32,
    /// How long a TLS handshake may take.
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
    all: Arc<Semaphore>,
    anonymous: Arc<Semaphore>,
    arriving: Arriving,
}

impl Edge {
    /// Connections begin and end by these; `stop` ends every [`Listener::serve`].
    #[must_use]
    pub fn new(tls: Arc<TlsSwap>, limits: EdgeLimits, clock: Arc<dyn Clock>, stop: CancellationToken) -> Self {
        let all = limits.connections.min(Semaphore::MAX_PERMITS);
        Self {
            tls,
            limits,
            connections: Connections::default(),
            clock,
            stop,
            all: Arc::new(Semaphore::new(all)),
            anonymous: Arc::new(Semaphore::new((all / 2).max(1))),
            arriving: Arriving::new((all / 4).max(1)),
        }
    }

    /// The open connections.
    #[must_use]
    pub fn connections(&self) -> &Connections {
        &self.connections
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
    /// and cuts off the rest.
    ///
    /// Handlers find an `Arc<Peer>` in the request's extensions.
    pub async fn serve(self, router: Router, edge: Arc<Edge>) {
        let mut tasks = JoinSet::new();
        loop {
            let arrival = tokio::select! {
                biased;
                () = edge.stop.cancelled() => break,
                Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
                arrival = self.accept() => arrival,
            };
            match arrival {
                Ok(arrival) => match Arc::clone(&edge.all).try_acquire_owned() {
                    Ok(permit) => {
                        tasks.spawn(welcome(arrival, permit, router.clone(), Arc::clone(&edge)));
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
        let drained = timeout(edge.limits.drain, async { while tasks.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            tracing::info!(left = tasks.len(), "drain time is over, cutting off the rest");
            tasks.shutdown().await;
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

// === one connection ===

/// Proves the peer, then serves. The permit is held to the end.
async fn welcome(arrival: Arrival, permit: OwnedSemaphorePermit, router: Router, edge: Arc<Edge>) {
    let _permit = permit;
    match arrival {
        Arrival::Tls(stream, source) => welcome_tls(stream, source, router, &edge).await,
        Arrival::Plain(stream, source) => {
            let _ = stream.set_nodelay(true);
            serve_link(stream, Link::Plain { source }, Protocol::Either, router, &edge).await;
        }
        Arrival::Unix(stream) => match unix::peer(&stream) {
            Ok(proof) => serve_link(stream, Link::Unix { proof }, Protocol::Either, router, &edge).await,
            Err(error) => {
                tracing::warn!(%error, "a Unix socket without peer credentials");
                turned_away("unproven");
            }
        },
    }
}

async fn welcome_tls(stream: TcpStream, source: SocketAddr, router: Router, edge: &Edge) {
    // Only latency is lost when the system refuses.
    let _ = stream.set_nodelay(true);
    let end = edge.tls.current();
    let acceptor = TlsAcceptor::from(Arc::clone(&end.config));
    let place = edge.arriving.enter();
    let handshake = timeout(edge.limits.handshake, acceptor.accept(stream));
    let stream = tokio::select! {
        () = edge.stop.cancelled() => return,
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
    match end.judge(session, edge.clock.wall()) {
        Ok(shown) => serve_link(stream, Link::Tls { shown, source }, protocol, router, edge).await,
        Err(error) => {
            tracing::info!(%source, %error, "a client certificate was refused");
            turned_away("certificate");
        }
    }
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug)]
enum Protocol {
    Http1,
    Http2,
    /// To be seen from the first bytes.
    Either,
}

async fn serve_link<I>(io: I, link: Link, protocol: Protocol, router: Router, edge: &Edge)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let anonymous = link.is_anonymous();
    let Ok(_share) = anonymous.then(|| Arc::clone(&edge.anonymous).try_acquire_owned()).transpose() else {
        return turned_away("anonymous_full");
    };
    let entry = edge.connections.enter(&link);
    let peer = Arc::new(Peer::new(link, entry.cut.clone()));
    let asked = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&asked);
    let service = service_fn(move |mut request: Request<Incoming>| {
        seen.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(Arc::clone(&peer));
        let mut router = router.clone();
        // INVARIANT: a router is always ready.
        async move { answer(&mut router, request).await }
    });
    let builder = builder(protocol, &edge.limits);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let mut first = pin!(sleep(edge.limits.first_request));
    let (mut stopping, mut waiting, mut turn) = (false, anonymous, Turn::default());
    loop {
        tokio::select! {
            outcome = poll_fn(|context| turn.poll(context, connection.as_mut())) => {
                if let Err(error) = outcome {
                    tracing::debug!(error = %error, "a connection ended early");
                }
                return;
            }
            () = entry.cut.cancelled() => return,
            () = edge.stop.cancelled(), if !stopping => {
                // Before its first request a connection may not even have begun its protocol, and would not hear us.
                if !asked.load(Ordering::Relaxed) {
                    return;
                }
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = first.as_mut(), if waiting => {
                waiting = false;
                if !asked.load(Ordering::Relaxed) {
                    return turned_away("silent");
                }
            }
        }
    }
}

async fn answer(router: &mut Router, request: Request<Incoming>) -> Result<Response, Infallible> {
    router.call(request).await
}

fn builder(protocol: Protocol, limits: &EdgeLimits) -> auto::Builder<TokioExecutor> {
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = match protocol {
        Protocol::Http1 => builder.http1_only(),
        Protocol::Http2 => builder.http2_only(),
        Protocol::Either => builder,
    };
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(HTTP1_BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_per_connection)
        .max_header_list_size(HEADER_LIST_BYTES)
        .adaptive_window(false)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    builder
}

fn turned_away(reason: &'static str) {
    metrics::counter!("mayfly_connections_refused_total", "reason" => reason).increment(1);
}

/// How long accepting rests after an error.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long an HTTP/1 client may take to send its headers, from the last reply on.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// Bounds an HTTP/1 connection's memory and headers.
const HTTP1_BUFFER_BYTES: usize = 64 << 10;
/// Bounds HTTP/2 headers; a token of the longest kind fits.
const HEADER_LIST_BYTES: u32 = 32 << 10;
/// What a client may send on a stream before we read it.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// The same over all streams of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// How often a quiet HTTP/2 connection is asked whether it lives.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// How long it may take to answer.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
