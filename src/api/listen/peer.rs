//! Who is at the other end of a connection, and the way to cut it off.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio_util::sync::CancellationToken;

use super::pace::Pace;
use crate::{
    identity::{Caller, IdentityError, PeerKey, Process, Shown, UnixProof, unix},
    model::{Digest, Timestamp},
};

/// The other end of one connection; an `Arc` of it stands in the extensions of every request.
#[derive(Debug)]
pub struct Peer {
    link: Link,
    cut: CancellationToken,
    pace: Pace,
}

/// What a connection is.
#[derive(Clone, Debug)]
pub enum Link {
    /// TLS that ends here.
    Tls {
        /// What the client showed of itself.
        shown: Shown,
        /// Where it comes from.
        source: SocketAddr,
    },
    /// Plain TCP from a proxy: anonymous whatever the proxy says.
    Plain {
        /// The proxy.
        source: SocketAddr,
    },
    /// A Unix socket.
    Unix {
        /// What the kernel says.
        proof: UnixProof,
        /// The process that connected, where it can be told apart.
        process: Option<Process>,
    },
}

impl Peer {
    pub(super) fn new(link: Link, cut: CancellationToken, pace: Pace) -> Self {
        Self { link, cut, pace }
    }

    /// It asks for more than its rate, or without a proof, and is read more slowly for a moment. Not so a proxy: others ask
    /// over the same connection.
    pub fn slow_down(&self) {
        match &self.link {
            Link::Tls { .. } | Link::Unix { .. } => self.pace.slow_down(),
            Link::Plain { .. } => (),
        }
    }

    /// What the connection is.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Who asks at `now`; `None` for who proved nothing. To be asked for every request.
    ///
    /// # Errors
    /// When the certificate is not valid any more.
    pub fn caller(&self, now: Timestamp) -> Result<Option<Caller>, IdentityError> {
        self.link.caller(now)
    }

    /// The key of the client's own, when that is what it showed.
    #[must_use]
    pub fn own_key(&self) -> Option<PeerKey> {
        match &self.link {
            Link::Tls { shown: Shown::Key(key), .. } => Some(*key),
            Link::Tls { .. } | Link::Plain { .. } | Link::Unix { .. } => None,
        }
    }

    /// Where it comes from; `None` on a Unix socket.
    #[must_use]
    pub fn source(&self) -> Option<SocketAddr> {
        match &self.link {
            Link::Tls { source, .. } | Link::Plain { source } => Some(*source),
            Link::Unix { .. } => None,
        }
    }

    /// The process that connected over a Unix socket, where it can be told apart.
    #[must_use]
    pub fn process(&self) -> Option<&Process> {
        match &self.link {
            Link::Unix { process, .. } => process.as_ref(),
            Link::Tls { .. } | Link::Plain { .. } => None,
        }
    }

    /// Cancelled when the connection is cut off or gone: long streams end then.
    #[must_use]
    pub fn cut(&self) -> &CancellationToken {
        &self.cut
    }
}

impl Link {
    /// Whether nobody proved anything on it.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        match self {
            Self::Tls { shown: Shown::Certificate(_), .. } => false,
            // A key of one's own costs nothing to make.
            Self::Tls { shown: Shown::Nothing | Shown::Key(_), .. } | Self::Plain { .. } => true,
            Self::Unix { .. } => false,
        }
    }

    /// Who is behind it at `now`.
    pub(super) fn caller(&self, now: Timestamp) -> Result<Option<Caller>, IdentityError> {
        match self {
            Self::Tls { shown: Shown::Certificate(certificate), source } => certificate.caller(*source, now).map(Some),
            Self::Tls { shown: Shown::Nothing | Shown::Key(_), .. } | Self::Plain { .. } => Ok(None),
            Self::Unix { proof, .. } => Ok(Some(unix::caller(*proof))),
        }
    }

    fn proof(&self) -> Option<Digest> {
        match self {
            Self::Tls { shown: Shown::Certificate(certificate), .. } => Some(certificate.proof().sha256),
            Self::Tls { shown: Shown::Key(key), .. } => Some(key.spki),
            Self::Tls { shown: Shown::Nothing, .. } | Self::Plain { .. } | Self::Unix { .. } => None,
        }
    }
}

/// Every open connection, by the proof it stands on.
#[derive(Clone, Debug, Default)]
pub struct Connections(Arc<Registry>);

#[derive(Debug, Default)]
struct Registry {
    by_proof: Mutex<HashMap<Digest, HashMap<u64, CancellationToken>>>,
    next: AtomicU64,
    open: AtomicU64,
}

impl Connections {
    /// Cuts off every connection that stands on this certificate, streams included; says how many.
    ///
    /// Not promised: that no new one begins. What the proof may not do any more is refused per request.
    pub fn close_proof(&self, proof: &Digest) -> usize {
        let cut = self.0.lock().remove(proof).unwrap_or_default();
        cut.values().for_each(CancellationToken::cancel);
        cut.len()
    }

    /// Open connections.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.open.load(Ordering::Relaxed)
    }

    /// Enters one connection until the entry is dropped.
    pub(super) fn enter(&self, link: &Link) -> Entry {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let (proof, cut) = (link.proof(), CancellationToken::new());
        if let Some(proof) = proof {
            self.0.lock().entry(proof).or_default().insert(number, cut.clone());
        }
        self.0.open.fetch_add(1, Ordering::Relaxed);
        metrics::gauge!("mayfly_connections").increment(1);
        Entry { registry: Arc::clone(&self.0), number, proof, cut }
    }
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, HashMap<u64, CancellationToken>>> {
        // Every change under the lock is one insert or remove, so a panic elsewhere leaves it whole.
        self.by_proof.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place in [`Connections`].
#[derive(Debug)]
pub(super) struct Entry {
    registry: Arc<Registry>,
    number: u64,
    proof: Option<Digest>,
    pub(super) cut: CancellationToken,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.cut.cancel();
        self.registry.open.fetch_sub(1, Ordering::Relaxed);
        metrics::gauge!("mayfly_connections").decrement(1);
        let Some(proof) = self.proof else { return };
        let mut by_proof = self.registry.lock();
        if let Some(same) = by_proof.get_mut(&proof) {
            same.remove(&self.number);
            if same.is_empty() {
                by_proof.remove(&proof);
            }
        }
    }
}
