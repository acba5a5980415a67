//! What a workload does over its connection: opens a task, holds it, obtains credentials and renews them.

mod advice;
mod ambient;
mod backoff;
mod credential;
mod ephemeral;
mod hold;
mod key;
mod link;
mod renewing;
mod task;

use super::{ClientConfig, ConnectError, Connection, FederatedCalls, Identity, UnusableFile, pem, refusal};

pub use advice::{Advice, CallError};
pub use ambient::{Ambient, Platform, Source, TOKEN_VARIABLES, ambient, ambient_job_url};
pub use backoff::{Backoff, random};
pub use credential::{Body, Credential, Wanted};
pub use ephemeral::NoEphemeralKey;
pub use hold::Holding;
pub use key::Key;
pub use link::{Calls, Client, Config, Link};
pub use renewing::Renewing;
pub use task::{Task, Work};
