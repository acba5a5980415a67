//! What a resource server links: it checks tokens and certificates offline and follows the revocation feed.
//!
//! ```text
//! GetTrustBundle   --> TrustBundle --\
//!                                     OfflineVerifier --check_token, check_certificate--> who, for what, until when
//! WatchRevocations --> Revocations --/
//! ```
//!
//! Everything unknown refuses: a stale feed, a stale bundle, a feed whose beginning is not complete. For the last,
//! [`TokenRefusal::NotCovered`] says that `Introspect` can still answer. Only [`Freshness::KeySetOnly`] does without the
//! feed, and then a revoked credential works until it expires.
//!
//! `crypto.rs` is the one file here that knows ring. jsonwebtoken parses headers and key sets; its own verification is
//! not used, since it needs a provider that is global to the process, which a library must not claim.

mod bundle;
mod certificate;
mod crypto;
mod follow;
mod offline;
mod revocations;
mod token;

pub use bundle::{BundleError, TrustBundle};
pub use certificate::{CertificateRefusal, VerifiedCertificate};
pub use follow::follow;
pub use offline::{Freshness, OfflineVerifier, Unusable};
pub use revocations::{FeedError, FeedStanding, Revocations};
pub use token::{TokenRefusal, VerifiedToken};
