//! The audit chain: hashing, pages, checkpoints, verification and the form that leaves the host. Pure; knows no store.

pub mod chain;
pub mod checkpoint;
pub mod export;
pub mod finding;
mod head;
pub mod page;
pub mod time;
pub mod verify;

pub use finding::{Finding, FindingKind};
pub use verify::{Report, Start, Verifier};
