//! What a failed call asks of its caller.

use std::{error::Error, io, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{ConnectError, NoEphemeralKey, UnusableFile, refusal};

/// What to do after a failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Advice {
    /// The same call may succeed later: not before this time has passed.
    Again(Duration),
    /// The proof is not good any more: come with a new one.
    ProveAnew,
    /// The task or lease is over for good.
    Over,
    /// The same call will not succeed by itself: the request or the trust map has to change.
    Stop,
}

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A file of the identity cannot be used.
    #[error(transparent)]
    Identity(#[from] UnusableFile),
    /// The broker refused, or the connection broke.
    #[error("{}", refusal::said(.0))]
    Refused(Box<Status>),
    /// The broker's answer lacks what it must have.
    #[error("the broker sent no {0}")]
    Incomplete(&'static str),
    /// What to connect with cannot be found out any more.
    #[error("{0}")]
    Config(String),
    /// No key could be made.
    #[error("cannot make a key")]
    Key(#[source] rcgen::Error),
    /// No key for this run could be made.
    #[error(transparent)]
    Ephemeral(#[from] NoEphemeralKey),
    /// A new credential could not be handed over.
    #[error("cannot hand the credential over")]
    Handover(#[source] io::Error),
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

impl CallError {
    /// What to do now.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            Self::Connect(ConnectError::Unreachable { source, .. }) if distrusts(source) => Advice::Stop,
            Self::Connect(ConnectError::Unreachable { .. }) => Advice::Again(Duration::ZERO),
            Self::Connect(
                ConnectError::NoRoots
                | ConnectError::NoCertificate
                | ConnectError::NoKey
                | ConnectError::UnusableIdentity(_)
                | ConnectError::ServerName(_),
            )
            | Self::Identity(_)
            | Self::Incomplete(_)
            | Self::Config(_)
            | Self::Key(_)
            | Self::Ephemeral(_)
            | Self::Handover(_) => Advice::Stop,
            Self::Refused(status) => of_status(status),
        }
    }
}

/// What to do about a status.
#[must_use]
pub fn of_status(status: &Status) -> Advice {
    if refusal::unreachable(status) {
        return Advice::Again(Duration::ZERO);
    }
    match refusal::reason(status).as_deref() {
        Some("UNAVAILABLE" | "IDENTITY_ISSUER_UNAVAILABLE" | "ISSUING_HELD" | "TOO_MANY_REQUESTS") => {
            Advice::Again(status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap_or(Duration::ZERO))
        }
        Some("TASK_ENDED" | "LEASE_ENDED") => Advice::Over,
        Some("UNPROVEN" | "IDENTITY_TOKEN_EXPIRED") => Advice::ProveAnew,
        Some(_) => Advice::Stop,
        None if status.code() == Code::Unauthenticated => Advice::ProveAnew,
        None => Advice::Stop,
    }
}

/// Whether a TLS handshake failed for what this side thinks of the other's certificate: waiting does not mend that.
fn distrusts(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            if matches!(inner.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))) {
                return true;
            }
            let inner: &(dyn Error + 'static) = inner;
            cause = inner.source();
            continue;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;
    use crate::client::DOMAIN;

    fn refused(reason: &str, retry: Option<Duration>) -> Status {
        let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
        details.set_retry_info(retry);
        Status::with_error_details(Code::Unavailable, "no", details)
    }

    #[test]
    fn each_failure_says_what_would_mend_it() {
        let check = |status: Status, want| assert_eq!(CallError::from(status).advice(), want);
        check(Status::unavailable("x"), Advice::Again(Duration::ZERO));
        check(refused("ISSUING_HELD", None), Advice::Again(Duration::ZERO));
        check(refused("IDENTITY_ISSUER_UNAVAILABLE", None), Advice::Again(Duration::ZERO));
        let second = Duration::from_secs(1);
        check(refused("TOO_MANY_REQUESTS", Some(second)), Advice::Again(second));
        check(refused("TASK_ENDED", None), Advice::Over);
        check(refused("UNPROVEN", None), Advice::ProveAnew);
        check(refused("IDENTITY_TOKEN_EXPIRED", None), Advice::ProveAnew);
        check(refused("GRANT_EXPIRED", None), Advice::Stop);
        check(Status::permission_denied("x"), Advice::Stop);
    }

    #[test]
    fn a_broker_with_a_foreign_certificate_is_not_waited_for() {
        let wrong = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        assert!(distrusts(&io::Error::new(io::ErrorKind::InvalidData, wrong)));
        assert!(!distrusts(&io::Error::from(io::ErrorKind::ConnectionRefused)));
        let theirs = rustls::Error::AlertReceived(rustls::AlertDescription::HandshakeFailure);
        assert!(!distrusts(&io::Error::new(io::ErrorKind::InvalidData, theirs)));
    }
}
