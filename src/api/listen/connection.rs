//! One connection: what is spoken on it, its limits, and its end.

use std::{
    convert::Infallible,
    future::poll_fn,
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
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::{
    Edge, EdgeLimits, Link, Peer,
    credit::Credit,
    gathered::Turn,
    message::Message,
    pace::{Pace, Paced},
    turned_away,
};

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Protocol {
    Http1,
    Http2,
    /// To be seen from the first bytes.
    Either,
}

/// Serves one connection to its end; `over` cuts it off.
pub(super) async fn serve<I>(
    io: I,
    link: Link,
    protocol: Protocol,
    router: Router,
    edge: &Edge,
    over: &CancellationToken,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let anonymous = link.is_anonymous();
    let Ok(_share) = anonymous.then(|| Arc::clone(&edge.anonymous).try_acquire_owned()).transpose() else {
        return turned_away("anonymous_full");
    };
    let credit = edge.credits.of(&link, edge.clock.wall());
    let connected = credit.clone().map(Credit::connected);
    if matches!(connected, Some(None)) {
        return turned_away("caller_full");
    }
    let entry = edge.connections.enter(&link);
    let pace = Pace::default();
    let peer = Arc::new(Peer::new(link, entry.cut.clone(), pace.clone()));
    let asked = Arc::new(AtomicBool::new(false));
    let (seen, asker, patience) = (Arc::clone(&asked), credit.clone(), edge.limits.handshake);
    let service = service_fn(move |mut request: Request<Incoming>| {
        seen.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(Arc::clone(&peer));
        let (parts, body) = request.into_parts();
        let body = Message::new(body, parts.uri.path(), &parts.headers, asker.clone(), patience);
        let request = Request::from_parts(parts, body);
        let mut router = router.clone();
        // INVARIANT: a router is always ready.
        async move { answer(&mut router, request).await }
    });
    let builder = builder(protocol, &edge.limits);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(Paced::new(io, pace.clone(), credit)), service));
    let mut first = pin!(sleep(edge.limits.first_request));
    let (mut stopping, mut waiting, mut turn) = (false, anonymous, Turn::default());
    loop {
        let one_turn = poll_fn(|cx| {
            pace.begin();
            turn.poll(cx, connection.as_mut())
        });
        tokio::select! {
            outcome = one_turn => {
                if let Err(error) = outcome {
                    tracing::debug!(error = %error, "a connection ended early");
                }
                return;
            }
            () = entry.cut.cancelled() => return,
            () = over.cancelled() => return,
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

async fn answer(router: &mut Router, request: Request<Message<Incoming>>) -> Result<Response, Infallible> {
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
