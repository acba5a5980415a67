//! Looking: lists of what an operator's scope reaches. Nothing here writes.

mod issuers;
mod lease;
mod revocation;
mod status;
mod trust;
