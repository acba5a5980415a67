//! How a command fails, what it says then, and its exit code.

use std::{error::Error, fmt::Write as _, io, path::Path, process::ExitCode};

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::client::{self, CallError, ConnectError, UnusableFile};

use super::cell::printable;

/// What a command comes to.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The broker answered with a status other than OK, or could not be asked.
    #[error("{}", said(.0))]
    Rpc(Box<Status>),
    /// The arguments do not fit together, or to what they name.
    #[error("{0}")]
    Usage(String),
    /// The answer is no: nothing visible has this name, or a request would be refused.
    #[error("{0}")]
    Negative(String),
    /// No connection to the broker.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A file of the identity cannot be used.
    #[error(transparent)]
    Identity(#[from] UnusableFile),
    /// A check was made and came out badly.
    #[error("{0}")]
    CheckFailed(String),
    /// Reading or writing failed on this side.
    #[error("cannot {what}")]
    Io {
        /// Verb and object.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Pieces that a job needs, each with its name and why it is not there.
    #[error("{} of what is needed cannot be had", .0.len())]
    Missing(Vec<(String, Self)>),
    /// What should not happen, on either side.
    #[error("{0}")]
    Internal(String),
    /// Nobody reads stdout any more; not an error.
    #[error("stdout was closed")]
    StdoutClosed,
}

/// The exit codes, as the help text lists them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    /// Done.
    Ok,
    /// The broker refused.
    Refused,
    /// Wrong usage.
    Usage,
    /// The broker cannot be reached.
    Unreachable,
    /// A check failed.
    CheckFailed,
    /// Something that should not happen.
    Internal,
}

impl Failure {
    /// An input or output error; a closed stdout is told apart where it is written to.
    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    /// A file that cannot be read or written.
    pub fn file(verb: &str, path: &Path, source: io::Error) -> Self {
        Self::io(format!("{verb} {}", path.display()), source)
    }

    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Rpc(status) if client::unreachable(status) => Exit::Unreachable,
            Self::Rpc(status) => of_code(status.code()),
            Self::Negative(_) => Exit::Refused,
            Self::Usage(_) | Self::Identity(_) => Exit::Usage,
            Self::Connect(ConnectError::Unreachable { .. }) => Exit::Unreachable,
            Self::Connect(
                ConnectError::NoRoots
                | ConnectError::NoCertificate
                | ConnectError::NoKey
                | ConnectError::UnusableIdentity(_)
                | ConnectError::ServerName(_),
            ) => Exit::Usage,
            Self::CheckFailed(_) => Exit::CheckFailed,
            Self::Missing(pieces) => pieces.first().map_or(Exit::Internal, |(_, failure)| failure.exit()),
            Self::Io { .. } | Self::Internal(_) => Exit::Internal,
            Self::StdoutClosed => Exit::Ok,
        }
    }

    /// The lines for stderr: what, the reason code, what to do next.
    #[must_use]
    pub fn report(&self) -> String {
        if let Self::Missing(pieces) = self {
            let said = |(name, failure): &(String, Self)| {
                let report = failure.report();
                format!("error: {}: {}", printable(name), report.strip_prefix("error: ").unwrap_or(&report))
            };
            return pieces.iter().map(said).collect::<Vec<_>>().join("\n");
        }
        let mut text = format!("error: {}", printable(&chain(self)));
        if let Self::Rpc(status) = self
            && let Some(reason) = client::reason(status)
        {
            if reason == "TRUST_MAP_INVALID" {
                let problems = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
                for problem in problems {
                    let _ = write!(text, "\n  {} ({})", printable(&problem.description), printable(&problem.field));
                }
            }
            let _ = write!(text, "\nreason: {}", printable(&reason));
        }
        if let Some(next) = self.next() {
            let _ = write!(text, "\nnext: {next}");
        }
        text
    }

    fn next(&self) -> Option<&'static str> {
        match self {
            Self::Rpc(status) if client::unreachable(status) => Some(NEXT_UNREACHABLE),
            Self::Rpc(status) => next_of(status),
            Self::Connect(ConnectError::Unreachable { .. }) => Some(NEXT_UNREACHABLE),
            Self::Connect(
                ConnectError::NoRoots
                | ConnectError::NoCertificate
                | ConnectError::NoKey
                | ConnectError::UnusableIdentity(_)
                | ConnectError::ServerName(_),
            ) => Some("check --ca, --cert, --key, --identity and --server-name"),
            Self::Identity(UnusableFile::Exposed { .. }) => Some("make it yours alone: chmod 600 FILE"),
            Self::Identity(
                UnusableFile::Unreadable { .. } | UnusableFile::Irregular { .. } | UnusableFile::TooLarge { .. },
            ) => Some("name the files with --ca, --cert and --key, or their folder with --identity"),
            Self::Usage(_) => Some("`mayfly help COMMAND` shows the arguments and examples"),
            Self::Negative(_)
            | Self::CheckFailed(_)
            | Self::Missing(_)
            | Self::Io { .. }
            | Self::Internal(_)
            | Self::StdoutClosed => None,
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Rpc(Box::new(status))
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Connect(error) => error.into(),
            CallError::Identity(error) => error.into(),
            CallError::Refused(status) => Self::Rpc(status),
            CallError::Handover(error) => Self::io("hand the credential over", error),
            CallError::Config(text) => Self::Usage(text),
            CallError::Incomplete(_) | CallError::Key(_) | CallError::Ephemeral(_) => Self::Internal(chain(&error)),
        }
    }
}

impl Exit {
    /// The number that the process ends with.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Refused => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::CheckFailed => 4,
            Self::Internal => 5,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

fn of_code(code: Code) -> Exit {
    match code {
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled => Exit::Refused,
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => Exit::Internal,
    }
}

fn next_of(status: &Status) -> Option<&'static str> {
    match status.code() {
        Code::Unauthenticated => Some("show a client certificate: --identity DIR, or --cert FILE --key FILE"),
        Code::PermissionDenied => {
            Some("`mayfly explain` says which check refuses, and an admin can widen the trust map")
        }
        Code::Unimplemented => Some("this listener does not offer the service; use one that names it"),
        Code::ResourceExhausted | Code::Unavailable => Some("try again in a few seconds"),
        Code::Aborted => Some("something changed meanwhile; try again"),
        Code::Internal | Code::Unknown | Code::DataLoss => Some("the daemon's log has the cause"),
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::DeadlineExceeded
        | Code::Cancelled => None,
    }
}

/// The status's own words; its code where it has none.
fn said(status: &Status) -> String {
    if status.message().is_empty() { status.code().description().to_owned() } else { status.message().to_owned() }
}

/// The error and its causes, each said once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            let _ = write!(text, ": {words}");
        }
        cause = error.source();
    }
    text
}

const NEXT_UNREACHABLE: &str = "check --server, and that the daemon runs and listens there";

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    fn refused(code: Code, reason: &str) -> Failure {
        Status::with_error_details(code, "no", ErrorDetails::with_error_info(reason, "mayfly", HashMap::new())).into()
    }

    #[test]
    fn each_kind_of_failure_has_its_exit_code() {
        let check = |failure: Failure, want: u8| assert_eq!(failure.exit().number(), want, "{failure:?}");
        check(refused(Code::PermissionDenied, "GRANT_EXPIRED"), 1);
        check(refused(Code::Unavailable, "CLOCK_UNCONFIRMED"), 1);
        check(Status::not_found("x").into(), 1);
        check(Failure::Negative("x".into()), 1);
        check(Failure::Usage("x".into()), 2);
        check(ConnectError::NoRoots.into(), 2);
        check(UnusableFile::Exposed { path: "k".into(), mode: 0o644 }.into(), 2);
        check(Status::unavailable("x").into(), 3);
        check(Status::from_error(Box::new(io::Error::other("x"))).into(), 3);
        check(Failure::CheckFailed("x".into()), 4);
        check(Status::internal("x").into(), 5);
        check(Failure::io("write", io::Error::other("x")), 5);
        check(Failure::StdoutClosed, 0);
    }

    #[test]
    fn a_report_says_what_the_reason_and_what_next() {
        let report = refused(Code::Unauthenticated, "NO_PROOF").report();
        let lines: Vec<_> = report.lines().collect();
        assert_eq!(lines[..2], ["error: no", "reason: NO_PROOF"]);
        assert!(lines[2].starts_with("next: ") && lines[2].contains("--identity"));
    }

    #[test]
    fn a_report_cannot_steer_the_terminal() {
        assert!(!Failure::from(Status::not_found("a\u{1b}[2Jb\u{9b}c")).report().contains(['\u{1b}', '\u{9b}']));
    }

    #[test]
    fn causes_are_said_once() {
        let report = Failure::file("read", Path::new("x"), io::Error::other("disk on fire")).report();
        assert_eq!(report, "error: cannot read x: disk on fire");
    }
}
