//! What the examples share: a development daemon of their own, identities for its callers, and connections to it.
//!
//! A real workload needs only the connection: its identity comes from its platform, and its trust map from a git
//! repository.
#![allow(dead_code, unused_imports, reason = "each example uses a part of it")]

mod daemon;
mod dial;
mod frames;
mod identity;
mod spiffe;
mod stage;
mod trust;

pub use daemon::{Daemon, Launch, binary};
pub use dial::{dial, store, tls_client};
pub use frames::{Answered, Frames};
pub use identity::{Authority, Identity, certificates, signing_request};
pub use spiffe::{SpiffeServer, spiffe_id};
pub use stage::Stage;
pub use trust::{Grant, Trust, apply};

/// An example's result: whatever went wrong is printed and ends it with exit code 1.
pub type Fallible<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
