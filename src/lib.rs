//! Mayfly: a credential broker that mints task-scoped, minutes-long tokens and certificates per partner and tenant.
//!
//! The daemon is the `mayfly` binary. As a library this crate has three faces, each behind a feature: `client` for
//! workloads, `verifier` for resource servers, and `server`, which is the daemon itself. ARCHITECTURE.md draws the layers.

#[cfg(feature = "server")]
pub mod api;
#[cfg(feature = "server")]
pub mod audit;
#[cfg(feature = "server")]
pub mod broker;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "connection")]
pub mod client;
#[cfg(feature = "server")]
pub mod config;
mod generated;
#[cfg(feature = "server")]
pub mod identity;
#[cfg(feature = "server")]
pub mod issuers;
#[cfg(feature = "server")]
pub mod ledger;
#[cfg(feature = "server")]
pub mod mint;
pub mod model;
#[cfg(feature = "server")]
pub mod notify;
#[cfg(feature = "server")]
pub mod policy;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "cli")]
pub mod settings;
#[cfg(feature = "server")]
#[cfg(test)]
mod simulation;
#[cfg(feature = "server")]
pub mod sink;
#[cfg(feature = "server")]
pub mod telemetry;
#[cfg(feature = "verifier")]
pub mod verifier;
mod wire;

pub use generated::pb;
#[cfg(feature = "server")]
pub use generated::{foreign, records};
