//! Why a batch was not acknowledged. No variant carries a token, a query or a line.

use std::{io, time::Duration};

/// Why a batch was not acknowledged, or a sink could not be built.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The system refused a step.
    #[error("could not {doing}")]
    Io {
        /// The step, for people.
        doing: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No acknowledgement in time.
    #[error("no acknowledgement within {} ms", .0.as_millis())]
    Deadline(Duration),
    /// The path is not a regular file.
    #[error("the path is not a regular file")]
    NotAFile,
    /// The receiver answered with a status other than 2xx.
    #[error("the receiver answered with status {0}")]
    Status(u16),
    /// The request failed on its way; the address is left out.
    #[error("the request failed")]
    Request(#[source] reqwest::Error),
    /// Root certificates, client certificate or key cannot be used.
    #[error("the tls settings cannot be used")]
    Tls(#[source] rustls::Error),
    /// The server's name is neither a DNS name nor an address.
    #[error("the server name is not valid")]
    ServerName,
    /// The address is not an `https` URL without user and password.
    #[error("the address is not an https url without credentials")]
    Url,
    /// The bearer token's file is empty, too long or holds what no header may.
    #[error("the token file does not hold a usable token")]
    Token,
}

impl SinkError {
    /// For `map_err`: what was being done.
    pub(super) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}
