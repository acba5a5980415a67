//! Why a server does not start.

use std::{io, net::SocketAddr, path::PathBuf};

use crate::{
    api::{
        listen::{BindError, TlsError},
        routes,
    },
    broker::{Refusal, people::PeopleError},
    identity::AuthorityError,
    issuers::IssuersError,
    ledger::{OpenError, Refused, engine::EngineError},
    mint::{keyring::RotatesTooFast, seal::SealKeyError, x509::NotIssued},
    notify::OutletError,
};

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The data folder is another process's.
    #[error("{} is in use by another mayfly; stop it, or give another data_dir", .0.display())]
    InUse(PathBuf),
    /// The data folder cannot be used.
    #[error("cannot use the data folder {}", .0.display())]
    Folder(PathBuf, #[source] io::Error),
    /// There is nothing to look after.
    #[error("{} holds no store; give the data_dir of one, or make one with `mayfly init`", .0.display())]
    NoStore(PathBuf),
    /// A restore into the data folder has not ended.
    #[error("{} is half restored; remove it and restore again", .0.display())]
    HalfRestored(PathBuf),
    /// There is no seal key.
    #[error(transparent)]
    Seal(#[from] SealKeyError),
    /// systemd gave no credentials.
    #[error("there is no systemd credential `{0}`; add LoadCredential= to the unit")]
    NoCredential(String),
    /// The engine is not built in.
    #[error("this mayfly was built without the store engine `{0}`")]
    NoEngine(&'static str),
    /// The engine failed.
    #[error("the store cannot be opened")]
    Engine(#[from] EngineError),
    /// The ledger does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Reading the trust map failed.
    #[error(transparent)]
    Ledger(#[from] Refused),
    /// A use case of the start failed.
    #[error("the broker cannot begin")]
    Broker(#[from] Refusal),
    /// The chain of a root elsewhere is no good.
    #[error("the chain cannot be adopted")]
    Adopt(#[source] Refusal),
    /// An issuer of identity tokens.
    #[error(transparent)]
    Issuers(#[from] IssuersError),
    /// Where people sign in, or who tells of them.
    #[error(transparent)]
    People(#[from] PeopleError),
    /// Key lives do not fit.
    #[error(transparent)]
    Rotation(#[from] RotatesTooFast),
    /// There is no issuing CA yet.
    #[error("there is no issuing CA; bring one in with `mayfly adopt-root`")]
    NoCa,
    /// The server's certificate was not made.
    #[error("the server's certificate cannot be made")]
    Certificate(#[from] NotIssued),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The client CAs cannot be used.
    #[error(transparent)]
    Authorities(#[from] AuthorityError),
    /// A listener.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Threads.
    #[error("cannot start threads")]
    Threads(#[source] io::Error),
    /// The metrics port.
    #[error("cannot listen on {0} for metrics")]
    Metrics(SocketAddr, #[source] io::Error),
    /// An audit sink.
    #[error("the audit sink `{0}` cannot be used")]
    Sink(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// A route of notifications.
    #[error("the route `{0}` of notifications cannot be used")]
    Notify(String, #[source] OutletError),
    /// The descriptors for reflection.
    #[error("the contract's descriptors cannot be read")]
    Reflection(#[from] routes::DescriptorError),
}
