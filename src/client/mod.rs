//! What a workload, a resource server or the command line links to reach a broker: one TLS or Unix-socket connection,
//! tasks that are held and completed, credentials that renew themselves, and typed refusals. Knows no store and no
//! server.

mod address;
mod advice;
mod ambient;
mod backoff;
mod connection;
mod credential;
mod ephemeral;
mod federated;
mod hold;
mod identity;
mod key;
mod link;
pub mod pem;
mod refusal;
mod renewing;
mod task;

pub use address::{Address, InvalidAddress};
pub use advice::{Advice, CallError};
pub use ambient::{Ambient, Platform, Source, ambient};
pub use backoff::{Backoff, random};
pub use connection::{ClientConfig, ConnectError, Connection};
pub use credential::{Body, Credential, Wanted};
pub use ephemeral::NoEphemeralKey;
pub use federated::{FederatedCalls, NotCarried, TASK_METADATA};
pub use hold::Holding;
pub use identity::{Identity, UnusableFile, read_ca, read_key};
pub use key::Key;
pub use link::{Calls, Client, Config, Link};
pub use refusal::{DOMAIN, reason, unreachable};
pub use renewing::Renewing;
pub use task::{Task, Work};
