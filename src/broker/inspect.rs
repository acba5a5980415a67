//! Looking: lists of what an operator's scope reaches. Nothing here writes.

mod drift;
mod edges;
mod inventory;
mod issuers;
mod lease;
mod revocation;
mod status;
mod trust;
