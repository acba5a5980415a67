//! Measures the real daemon: `cargo run --release --example load -- SCENARIO`.
//!
//! Each scenario starts the release binary on a temporary folder, with TLS and a durable store, and drives it from
//! this process over mutually authenticated connections. Client and daemon share the machine's cores, so a rate is
//! that of both together. Build the daemon first: `cargo build --release`.
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

mod abuse;
mod all;
mod exec;
mod expiry;
mod introspect;
mod issue;
mod limits;
mod plot;
mod program;
mod report;
mod revoke;
mod rig;
mod series;
mod size;
mod soak;
#[path = "../support/mod.rs"]
mod support;
mod trust_map;
mod usage;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use report::Report;
use support::Fallible;

/// As the daemon's, so that this side of the measurement takes no more of the cores than it must.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the daemon beside it in the target folder.
#[derive(Clone, Debug, Parser)]
#[command(name = "load")]
pub struct Options {
    /// What to measure.
    #[arg(value_enum)]
    scenario: Scenario,
    /// Callers that each wait for a reply before they ask again.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    callers: u16,
    /// How long each measurement lasts.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=3600))]
    seconds: u16,
    /// Live leases to fill the store with.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20_000_000))]
    leases: Option<u32>,
    /// The store engine: `fjall`, `sled` or `memory`.
    #[arg(long)]
    engine: Option<String>,
    /// Of `soak`: leases a second, as far as the machine gets.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Of `soak`: draw the curves into this SVG file.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Of `abuse`: only the rows whose name holds this, as in `streams` or `tenant-flood`; a wrong name lists them.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Let every tenant have policies of its own, and all of them a guardrail.
    #[arg(long)]
    policies: bool,
    /// Print JSON lines also on a terminal.
    #[arg(long)]
    json: bool,
}

/// One row of the table of aims each, and `limits` beside them.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Scenario {
    /// Durable leased tokens.
    IssueJwt,
    /// The same while leases expire at the rate they are issued.
    IssueJwtChurn,
    /// Durable leased certificates from a prepared request.
    SignX509,
    /// Questions of a resource server.
    Introspect,
    /// One lease: from the call to the first refusal.
    RevokeOne,
    /// A partner with many leases: from the call to the first refusal of the last sample.
    RevokePartner,
    /// Memory and disk per live lease.
    Footprint,
    /// From kill -9 to the first successful issue.
    Restart,
    /// Latency at a fixed rate while the number of live leases grows.
    Growth,
    /// Foreground latency while 20,000 leases expire in one second.
    ExpiryStorm,
    /// 4,000 tenants and 100,000 grants: one grant changed, and issue meanwhile.
    TrustMap,
    /// What the machine allows: bare calls, signatures, commits.
    Limits,
    /// A command within a task with three credentials: from exec's start to the command's first output.
    Exec,
    /// Churn at a steady rate for as long as `--seconds`: fails when memory or open files grow.
    Soak,
    /// Load beyond capacity: attacks of every kind beside a foreground; fails when a bound is broken.
    Abuse,
    /// Everything at modest sizes, and a table beside the aims.
    All,
}

// === impl Options ===

impl Options {
    fn callers(&self) -> usize {
        usize::from(self.callers)
    }

    fn window(&self) -> Duration {
        Duration::from_secs(u64::from(self.seconds))
    }

    /// Whether an attack of this name is asked for.
    fn wants(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|part| name.contains(part))
    }

    fn leases_or(&self, default: u32) -> u32 {
        self.leases.unwrap_or(default)
    }
}

fn main() -> Fallible<()> {
    let options = Options::parse();
    program::drive(run(&options))
}

async fn run(options: &Options) -> Fallible<()> {
    let mut report = Report::new(options.json || !std::io::stdout().is_terminal());
    if options.scenario == Scenario::All {
        return all::run(options, &mut report).await;
    }
    measure(options.scenario, options, &mut report).await?;
    report.headline();
    Ok(())
}

async fn measure(scenario: Scenario, options: &Options, report: &mut Report) -> Fallible<()> {
    match scenario {
        Scenario::IssueJwt => issue::jwt(options, report).await,
        Scenario::IssueJwtChurn => issue::jwt_churn(options, report).await,
        Scenario::SignX509 => issue::x509(options, report).await,
        Scenario::Introspect => introspect::run(options, report).await,
        Scenario::RevokeOne => revoke::one(options, report).await,
        Scenario::RevokePartner => revoke::partner(options, report).await,
        Scenario::Footprint => size::footprint(options, report).await,
        Scenario::Restart => size::restart(options, report).await,
        Scenario::Growth => size::growth(options, report).await,
        Scenario::ExpiryStorm => expiry::run(options, report).await,
        Scenario::TrustMap => trust_map::run(options, report).await,
        Scenario::Limits => limits::run(options, report).await,
        Scenario::Exec => exec::run(options, report).await,
        Scenario::Soak => soak::run(options, report).await,
        Scenario::Abuse => Box::pin(abuse::run(options, report)).await,
        Scenario::All => Ok(()),
    }
}
