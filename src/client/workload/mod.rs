//! What a workload does over its connection: opens a task, holds it, obtains credentials and renews them.

mod advice;
mod ambient;
#[cfg(feature = "reqwest")]
mod ambient_token;
mod backoff;
mod bearer;
mod credential;
mod ephemeral;
mod hold;
mod key;
mod link;
mod renewing;
#[cfg(feature = "reqwest")]
mod requests;
mod task;
mod tls;

use super::{Address, ClientConfig, ConnectError, Connection, FederatedCalls, Identity, UnusableFile, pem, refusal};

pub use advice::{Advice, CallError};
pub use ambient::{Ambient, Platform, Source, TOKEN_VARIABLES, ambient, ambient_job_url};
#[cfg(feature = "reqwest")]
pub use ambient_token::{NoToken, ambient_token, read_token};
pub use backoff::{Backoff, random};
pub use bearer::{Bearer, NoBearer};
pub use credential::{Body, Credential, Wanted};
pub use ephemeral::NoEphemeralKey;
pub use hold::Holding;
pub use key::Key;
pub use link::{Calls, Client, Config, Link};
pub use renewing::Renewing;
#[cfg(feature = "reqwest")]
pub use requests::NotSent;
pub use task::{Task, Work};
pub use tls::{LiveCertificate, NotForTls};
