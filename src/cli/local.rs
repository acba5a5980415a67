//! Commands that act on this machine instead of asking a broker: the daemon, its data folder and its store.

use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{Args, Subcommand, ValueEnum};

use super::{
    failure::{Failure, Outcome},
    output::Output,
};
use crate::{
    broker::time::SystemClock,
    config::{Config, Engine, Issuer},
    ledger::{OpenError, engine::Table},
    model::OperatorName,
    server::{Dev, Server, ServerError, host, prepare},
    telemetry,
};

/// Commands of the host.
#[derive(Clone, Debug, Subcommand)]
pub enum LocalCommand {
    #[allow(missing_docs, reason = "the doc of the arguments is the help text")]
    Serve(ServeArgs),
    #[allow(missing_docs, reason = "the doc of the arguments is the help text")]
    Init(InitArgs),
    #[allow(missing_docs, reason = "the doc of the arguments is the help text")]
    AdoptRoot(AdoptRootArgs),
    /// Looks after the store while no daemon runs on it.
    #[command(subcommand)]
    Store(StoreCommand),
}

/// Runs the daemon until it is told to stop (SIGTERM or SIGINT).
///
/// When it serves, it prints `ready https://ADDRESS` and `metrics http://ADDRESS` on standard output. Logs go to
/// standard error.
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
    /// With --dev: a foreign CA whose certificates workloads may prove themselves with; may be repeated.
    #[arg(long, value_name = "NAME=FILE", value_parser = client_ca, conflicts_with = "config")]
    pub client_ca: Vec<(String, PathBuf)>,
    /// With --dev: issuers of identity tokens, a TOML file of `[[issuer]]` sections as in a configuration.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub issuers: Option<PathBuf>,
    /// With --dev: the store engine.
    #[arg(long, value_enum, default_value_t = EngineArg::Fjall, conflicts_with = "config")]
    pub engine: EngineArg,
    /// With --dev: lift the limits per caller and tenant, for load tests.
    #[arg(long, conflicts_with = "config")]
    pub unlimited: bool,
}

/// A store engine.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum EngineArg {
    /// Log-structured; the default.
    Fjall,
    /// Tree per table.
    Sled,
    /// Nothing is kept.
    Memory,
}

/// Makes a data folder: root and issuing CA, first operator certificate; beside it the seal key (FOLDER.seal.key, mode
/// 0600) and a commented configuration (FOLDER.toml).
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
#[command(after_help = "Example:\n  mayfly adopt-root --config /var/lib/mayfly.toml --chain issuing-chain.pem")]
pub struct AdoptRootArgs {
    /// The server's configuration, TOML.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The signed issuing certificate first, then its issuers up to the root, PEM.
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
#[command(after_help = STORE_HELP)]
pub struct StoreArgs {
    /// The server's configuration, TOML.
    #[arg(long, value_name = "FILE", required_unless_present = "dev_data")]
    pub config: Option<PathBuf>,
    /// The data folder of `serve --dev`.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pub dev_data: Option<PathBuf>,
    /// First move journal files that keep the store from opening into `aside-N` in the store's folder. Commits after the
    /// damage are lost.
    #[arg(long)]
    pub set_journal_aside: bool,
}

/// Makes an operator's certificate on the host, from the seal key, when no admin certificate is left. Loudly audited.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  mayfly operator recover admin --config /var/lib/mayfly.toml --out ./admin")]
pub struct RecoverArgs {
    /// The operator, as the trust map names it; one that it has lost becomes an admin of everything again.
    pub name: OperatorName,
    /// The server's configuration, TOML.
    #[arg(long, value_name = "FILE", required_unless_present = "dev_data")]
    pub config: Option<PathBuf>,
    /// The data folder of `serve --dev`.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pub dev_data: Option<PathBuf>,
    /// Folder for `key.pem`, `cert.pem` and `ca.pem`; nothing in it is overwritten.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

impl LocalCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When it cannot do what was asked.
    pub async fn run(self, output: &Output) -> Outcome {
        match self {
            Self::Serve(args) => serve(args).await,
            Self::Init(args) => {
                let said = host::init(&args.data, &args.trust_domain, args.external_root).await.map_err(failed)?;
                output.line(said.trim_end())
            }
            Self::AdoptRoot(args) => {
                let chain = std::fs::read(&args.chain)
                    .map_err(|error| Failure::Usage(format!("{}: {error}", args.chain.display())))?;
                host::adopt_root(&load(&args.config)?, &chain).await.map_err(failed)
            }
            Self::Store(StoreCommand::Check(args)) => check(output, &args),
        }
    }
}

/// Runs `operator recover`.
///
/// # Errors
/// When the certificate cannot be made.
pub async fn recover(args: &RecoverArgs) -> Outcome {
    let config = config_of(args.config.as_deref(), args.dev_data.as_deref())?;
    host::recover_operator(&config, &args.name, &args.out).await.map_err(failed)
}

async fn serve(args: ServeArgs) -> Outcome {
    let dev = args.config.is_none();
    let config = match &args.config {
        Some(file) => load(file)?,
        None => prepare(&Dev {
            data: args.data.clone(),
            port: args.port,
            engine: args.engine.into(),
            client_cas: args.client_ca,
            issuers: args.issuers.as_deref().map(load_issuers).transpose()?.unwrap_or_default(),
            unlimited: args.unlimited,
        })
        .map_err(failed)?,
    };
    let metrics = telemetry::install(&config.telemetry).map_err(failed)?;
    if dev {
        tracing::warn!(
            data = %args.data.display(),
            "DEVELOPMENT MODE: the seal key lies in the data folder and everything was made by itself; not for production"
        );
    }
    let folder = config.data_dir.clone();
    let server = Server::build(config, Arc::new(SystemClock)).await.map_err(failed)?;
    if dev {
        host::dev_operator(server.broker(), &args.data).await.map_err(failed)?;
    }
    let stop = stop_signal().map_err(failed)?;
    announce(&server)?;
    let shown = metrics.clone();
    let render = Arc::new(move || {
        telemetry::show_disk(&folder);
        shown.render()
    });
    server.run_until(render, stop).await;
    let _ = tokio::task::spawn_blocking(move || metrics.close()).await;
    Ok(())
}

/// Says where the daemon serves; whoever started it may wait for these lines.
fn announce(server: &Server) -> Outcome {
    let addresses = server.addresses();
    let mut out = std::io::stdout().lock();
    let mut lines: String = addresses.listeners.iter().map(|address| format!("ready https://{address}\n")).collect();
    lines.push_str(&format!("metrics http://{}\n", addresses.metrics));
    let written = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
    // Nobody needs to read it.
    if let Err(error) = written {
        tracing::debug!(%error, "standard output is closed");
    }
    Ok(())
}

fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

fn check(output: &Output, args: &StoreArgs) -> Outcome {
    let config = config_of(args.config.as_deref(), args.dev_data.as_deref())?;
    if args.set_journal_aside {
        for path in host::set_journal_aside(&config).map_err(failed)? {
            output.line(&format!("moved aside: {}", path.display()))?;
        }
    }
    let mut seen: Option<Table> = None;
    let report = host::check_store(&config, |table, _| {
        if seen.replace(table) != Some(table) {
            output.progress(&format!("reading {}", table.name()));
        }
    })
    .map_err(failed)?;
    for (table, rows) in report.rows.iter().filter(|(_, rows)| *rows > 0) {
        output.line(&format!("{} rows in {}", rows, table.name()))?;
    }
    for row in &report.unreadable {
        output.line(&format!("{} row {}: {}", row.table.name(), row.key, row.why))?;
    }
    match report.unreadable_total {
        0 => Ok(()),
        count => Err(Failure::CheckFailed(format!("{count} rows are damaged or were edited; each counts as ended"))),
    }
}

pub(super) fn config_of(file: Option<&Path>, dev_data: Option<&Path>) -> Outcome<Config> {
    match (file, dev_data) {
        (Some(file), _) => load(file),
        (None, Some(data)) => {
            let dev = Dev {
                data: data.to_path_buf(),
                port: DEFAULT_PORT,
                engine: Engine::default(),
                client_cas: Vec::new(),
                issuers: Vec::new(),
                unlimited: false,
            };
            if !data.join("seal.key").exists() {
                return Err(Failure::Usage(format!("{} is no data folder of `serve --dev`", data.display())));
            }
            prepare(&dev).map_err(failed)
        }
        (None, None) => Err(Failure::Usage("give --config FILE".to_owned())),
    }
}

fn load_issuers(file: &Path) -> Outcome<Vec<Issuer>> {
    Config::load_issuers(file).map_err(|problems| Failure::Usage(problems.to_string()))
}

pub(super) fn load(file: &Path) -> Outcome<Config> {
    Config::load(file).map_err(|problems| Failure::Usage(problems.to_string()))
}

fn client_ca(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.to_owned(), PathBuf::from(file))),
        Some(_) | None => Err("must be NAME=FILE".to_owned()),
    }
}

pub(super) fn failed(error: impl std::error::Error + 'static) -> Failure {
    let problem = crate::model::Chain(&error).to_string();
    let error: &dyn std::error::Error = &error;
    match error.downcast_ref::<ServerError>() {
        Some(
            ServerError::InUse(_)
            | ServerError::NoStore(_)
            | ServerError::Seal(_)
            | ServerError::NoCredential(_)
            | ServerError::NoEngine(_)
            | ServerError::HalfRestored(_)
            | ServerError::Tls(_)
            | ServerError::Authorities(_)
            | ServerError::NoCa
            | ServerError::Open(OpenError::WrongSealKey | OpenError::Schema(_)),
        ) => Failure::Usage(problem),
        Some(ServerError::Adopt(refusal)) if !refusal.is_fault() => Failure::Usage(problem),
        Some(_) | None => Failure::Internal(problem),
    }
}

impl From<EngineArg> for Engine {
    fn from(engine: EngineArg) -> Self {
        match engine {
            EngineArg::Fjall => Self::Fjall,
            EngineArg::Sled => Self::Sled,
            EngineArg::Memory => Self::Memory,
        }
    }
}

const DEFAULT_DATA: &str = "./mayfly-data";
const DEFAULT_PORT: u16 = 7443;

const SERVE_HELP: &str = "\
Examples:
  mayfly serve --dev
  mayfly serve --dev --issuers github.toml
  mayfly serve --config /var/lib/mayfly.toml";

const INIT_HELP: &str = "\
Examples:
  mayfly init --data /var/lib/mayfly --trust-domain mayfly.example
  mayfly init --data /var/lib/mayfly --external-root > issuing.csr";

const STORE_HELP: &str = "\
Examples:
  mayfly store check --config /var/lib/mayfly.toml
  mayfly store check --dev-data ./mayfly-data";
