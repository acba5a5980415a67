//! What a workload, a resource server or the command line links to reach a broker: one TLS or Unix-socket connection
//! and typed refusals. Knows no store and no server.

mod address;
mod connection;
#[cfg(feature = "federated")]
mod ephemeral;
mod federated;
mod identity;
pub mod pem;
mod refusal;

pub use address::{Address, InvalidAddress};
pub use connection::{ClientConfig, ConnectError, Connection};
#[cfg(feature = "federated")]
pub use ephemeral::NoEphemeralKey;
pub use federated::{FederatedCalls, NotCarried, TASK_METADATA};
pub use identity::{Identity, UnusableFile, read_ca, read_key};
pub use refusal::{DOMAIN, reason, unreachable};
