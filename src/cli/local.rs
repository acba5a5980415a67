//! Commands that act on this machine instead of asking a broker: the daemon and its data folder.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::{model::OperatorName, server};

use super::{
    failure::{Failure, Outcome},
    output::Output,
};

/// Commands of the host.
#[derive(Clone, Debug, Subcommand)]
pub enum LocalCommand {
    Serve(ServeArgs),
    Init(InitArgs),
    AdoptRoot(AdoptRootArgs),
    /// Looks after the store.
    #[command(subcommand)]
    Store(StoreCommand),
}

/// Runs the daemon until it is told to stop.
#[derive(Args, Clone, Debug)]
#[command(after_help = SERVE_HELP)]
pub struct ServeArgs {
    /// The server's configuration, TOML.
    #[arg(long, value_name = "FILE", required_unless_present = "dev")]
    pub config: Option<PathBuf>,
    /// Make everything that is missing in a data folder, and listen on loopback only. Not for production.
    #[arg(long, conflicts_with = "config")]
    pub dev: bool,
    /// With --dev: the data folder.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA, conflicts_with = "config")]
    pub data: PathBuf,
    /// With --dev: the TLS port; 0 takes a free one and prints it.
    #[arg(long, default_value_t = DEFAULT_PORT, conflicts_with = "config")]
    pub port: u16,
}

/// Makes a data folder: seal key, root, issuing and tenant CAs, first operator certificate and a commented
/// configuration.
#[derive(Args, Clone, Debug)]
#[command(after_help = INIT_HELP)]
pub struct InitArgs {
    /// The data folder; must be empty or absent.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// The SPIFFE trust domain that tenants' domains lie under.
    #[arg(long, value_name = "NAME", default_value = "mayfly.internal")]
    pub trust_domain: String,
    /// Make no root: print a PKCS #10 request for the issuing CA, to be signed elsewhere and brought back with
    /// `adopt-root`.
    #[arg(long)]
    pub external_root: bool,
}

/// Brings in the issuing certificate that an outside root signed after `init --external-root`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  mayfly adopt-root --data /var/lib/mayfly --chain issuing-chain.pem")]
pub struct AdoptRootArgs {
    /// The data folder.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// The signed issuing certificate and its issuers up to the root, PEM.
    #[arg(long, value_name = "FILE")]
    pub chain: PathBuf,
}

/// What there is to do with a store while no daemon runs on it.
#[derive(Clone, Debug, Subcommand)]
pub enum StoreCommand {
    /// Reads every row, and says which cannot be read or were edited. Exit code 4 when there are any.
    Check(StoreArgs),
}

/// Arguments of `store check`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  mayfly store check --config /etc/mayfly/mayfly.toml")]
pub struct StoreArgs {
    /// The server's configuration, TOML.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Makes an operator's certificate on the host, from the seal key, when no admin certificate is left. Loudly audited.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  mayfly operator recover root-admin --config /etc/mayfly/mayfly.toml --out ./admin")]
pub struct RecoverArgs {
    /// The operator, as the trust map names it.
    pub name: OperatorName,
    /// The server's configuration, TOML.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Folder for `key.pem`, `cert.pem` and `ca.pem`.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

impl LocalCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When it cannot do what was asked.
    pub fn run(self, output: &Output) -> Outcome {
        match self {
            Self::Serve(args) => server::serve(&args).map_err(failed),
            Self::Init(args) => output.line(server::init(&args).map_err(failed)?.trim_end()),
            Self::AdoptRoot(args) => server::adopt_root(&args).map_err(failed),
            Self::Store(StoreCommand::Check(args)) => check(output, &args),
        }
    }
}

/// Runs `operator recover`, a variant of [`super::operator::OperatorCommand`].
///
/// # Errors
/// When the certificate cannot be made.
pub fn recover(args: &RecoverArgs) -> Outcome {
    server::recover_operator(args).map_err(failed)
}

fn check(output: &Output, args: &StoreArgs) -> Outcome {
    let findings = server::check_store(args).map_err(failed)?;
    findings.iter().try_for_each(|finding| output.line(finding))?;
    match findings.len() {
        0 => Ok(()),
        count => Err(Failure::CheckFailed(format!("{count} rows are damaged or were edited"))),
    }
}

fn failed(error: impl std::error::Error) -> Failure {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    Failure::Internal(causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}")))
}

const DEFAULT_DATA: &str = "./mayfly-data";
const DEFAULT_PORT: u16 = 7443;

const SERVE_HELP: &str = "\
Examples:
  mayfly serve --dev
  mayfly serve --config /etc/mayfly/mayfly.toml";

const INIT_HELP: &str = "\
Examples:
  mayfly init --data /var/lib/mayfly --trust-domain mayfly.example
  mayfly init --data /var/lib/mayfly --external-root > issuing.csr";
