//! What comes over a Unix socket before it is a request.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll, Waker},
    time::Duration,
};

use mayfly::{
    api::listen::Mended,
    cli::untrusted::{Endpoint, SOCKET},
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    runtime::Runtime,
};

/// What a client writes to a Unix socket: how it is cut, then the bytes. None is lost or added, it makes no difference how
/// they are cut, and what was mended needs no mending.
pub fn authority(bytes: &[u8]) {
    let Some((piece, bytes)) = bytes.split_first() else { return };
    let whole = mended(bytes, bytes.len().max(1));
    assert_eq!(whole.len(), bytes.len());
    assert!(mended(bytes, usize::from(*piece).max(1)) == whole, "it matters how it is cut");
    assert!(mended(&whole, bytes.len().max(1)) == whole, "it is mended twice");
}

/// What comes out when `bytes` come in by pieces.
fn mended(bytes: &[u8], piece: usize) -> Vec<u8> {
    let (mut reader, mut out) = (Mended::new(Pieces { bytes, piece }), Vec::new());
    let mut room = vec![0; 16 << 10];
    loop {
        let mut some = ReadBuf::new(&mut room);
        let polled = Pin::new(&mut reader).poll_read(&mut Context::from_waker(Waker::noop()), &mut some);
        assert!(matches!(polled, Poll::Ready(Ok(()))), "{polled:?}");
        if some.filled().is_empty() {
            return out;
        }
        out.extend_from_slice(some.filled());
    }
}

/// A connection that gives few bytes at a time.
struct Pieces<'a> {
    bytes: &'a [u8],
    piece: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (part, rest) = self.bytes.split_at(self.bytes.len().min(self.piece).min(to.remaining()));
        to.put_slice(part);
        self.bytes = rest;
        Poll::Ready(Ok(()))
    }
}

/// What a job writes to the socket from which it takes its credentials.
pub fn endpoint(bytes: &[u8]) {
    static OPEN: LazyLock<Open> = LazyLock::new(Open::new);
    let reply = exchange(&OPEN.folder.path().join(SOCKET), bytes, true);
    assert!(reply.is_empty() || reply.starts_with(b"HTTP/1.1 "), "{}", String::from_utf8_lossy(&reply));
}

struct Open {
    folder: tempfile::TempDir,
    _endpoint: Endpoint,
    _runtime: Runtime,
}

impl Open {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
        let endpoint = runtime.block_on(async { Endpoint::open(folder.path(), Vec::new()) }).expect("opens");
        Self { folder, _endpoint: endpoint, _runtime: runtime }
    }
}

/// What a server on a socket replies to these bytes and, if so, nothing after them; as much as comes within a moment.
pub(super) fn exchange(socket: &std::path::Path, bytes: &[u8], ends: bool) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).expect("a socket that is served");
    stream.set_read_timeout(Some(MOMENT)).expect("a socket");
    stream.set_write_timeout(Some(MOMENT)).expect("a socket");
    // Who is refused is not read to the end.
    let _ = stream.write_all(bytes);
    if ends {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    reply
}

const MOMENT: Duration = Duration::from_millis(200);
