//! Every reader of bytes that an outsider can write: what fuzz/ drives without end, tests/edges.rs drives for a moment.
//!
//! Wrong is a panic, a promise of a reader that does not hold, or that a sound server says that it is to blame.

#![allow(dead_code, unused_imports, reason = "each target uses one")]

mod credentials;
mod documents;
mod kept;
mod served;
mod wire;

pub use credentials::{certificate, claims, csr, identity_token, presented, stamp, token};
pub use documents::{config, files, policies, trust};
pub use kept::{anchor, audit_export, backup, row};
pub use served::{METHODS, connection, http, message, replay, restart};
pub use wire::{authority, endpoint};
