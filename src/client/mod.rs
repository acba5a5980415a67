//! What a workload, a resource server or the command line links to reach a broker: one TLS or Unix-socket connection and
//! typed refusals; and for workloads, tasks that are held and completed, and credentials that renew themselves. Knows no
//! store and no server.

mod address;
mod connection;
mod federated;
mod identity;
pub mod pem;
mod refusal;
#[cfg(feature = "client")]
mod workload;

pub use address::{Address, InvalidAddress};
pub use connection::{ClientConfig, ConnectError, Connection};
pub use federated::{FederatedCalls, NotCarried, TASK_METADATA};
pub use identity::{Identity, UnusableFile, read_ca, read_key};
pub use refusal::{DOMAIN, reason, unreachable};
#[cfg(feature = "client")]
pub use workload::{
    Advice, Ambient, Backoff, Bearer, Body, CallError, Calls, Client, Config, Credential, Holding, Key, Link,
    LiveCertificate, NoBearer, NoEphemeralKey, NotForTls, Platform, Renewing, Source, TOKEN_VARIABLES, Task, Wanted,
    Work, ambient, ambient_job_url, random,
};
#[cfg(feature = "reqwest")]
pub use workload::{NoToken, NotSent, ambient_token, read_token};
