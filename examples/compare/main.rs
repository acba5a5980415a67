//! Measures an OpenBao as `load` measures Mayfly: `scripts/compare-openbao` runs both, in turns.
//!
//! Each scenario starts the given binary on a temporary folder, with TLS, raft storage and a file audit device, and
//! drives it from this process over connections that stay open. Callers, loops and statistics are those of `load`.
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

mod connection;
mod issue;
#[path = "../load/program.rs"]
mod program;
#[path = "../load/report.rs"]
#[allow(dead_code, reason = "shared with `load`")]
mod report;
mod revoke;
mod rig;
#[path = "../load/series.rs"]
#[allow(dead_code, reason = "shared with `load`")]
mod series;
mod server;
mod size;
#[path = "../support/mod.rs"]
mod support;
#[path = "../load/usage.rs"]
mod usage;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use report::Report;
use support::Fallible;

/// As the load tool's, so that the callers of both cost alike.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures an OpenBao and prints JSON lines.
#[derive(Clone, Debug, Parser)]
#[command(name = "compare")]
pub struct Options {
    /// What to measure.
    #[arg(value_enum)]
    scenario: Scenario,
    /// The server's binary.
    #[arg(long)]
    bao: PathBuf,
    /// Callers that each wait for a reply before they ask again.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    callers: u16,
    /// How long each measurement lasts.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=3600))]
    seconds: u16,
    /// Live leases to fill the store with.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    leases: u32,
    /// Give up waiting for a revoked partner's tokens to be refused after so many seconds.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u16).range(1..=3600))]
    limit_seconds: u16,
    /// Speak HTTP/2 over 16 connections instead of HTTP/1.1 over one each caller.
    #[arg(long)]
    http2: bool,
    /// Have a partner's leases revoked within the call, one after the other, instead of by the background workers.
    #[arg(long)]
    sync: bool,
}

/// Named as the scenarios of `load`, of which these are the counterparts.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Scenario {
    /// Tokens by JWT login: `auth/jwt/login`.
    IssueJwt,
    /// Tokens for a caller that has proven itself before: `auth/token/create`.
    IssueToken,
    /// Leased certificates from a prepared request: `pki/sign`.
    SignX509,
    /// Questions of a resource server: `auth/token/lookup`.
    Introspect,
    /// One token: from the call to the first refusal.
    RevokeOne,
    /// All tokens of a login mount: `sys/leases/revoke-prefix`.
    RevokePartner,
    /// Memory and disk per live lease, then from kill -9 to the first successful login.
    Full,
}

// === impl Options ===

impl Options {
    fn callers(&self) -> usize {
        usize::from(self.callers)
    }

    fn window(&self) -> Duration {
        Duration::from_secs(u64::from(self.seconds))
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(u64::from(self.limit_seconds))
    }
}

fn main() -> Fallible<()> {
    let options = Options::parse();
    program::drive(run(&options))
}

async fn run(options: &Options) -> Fallible<()> {
    let mut report = Report::new(true);
    match options.scenario {
        Scenario::IssueJwt => issue::jwt(options, &mut report).await,
        Scenario::IssueToken => issue::token(options, &mut report).await,
        Scenario::SignX509 => issue::x509(options, &mut report).await,
        Scenario::Introspect => issue::introspect(options, &mut report).await,
        Scenario::RevokeOne => revoke::one(options, &mut report).await,
        Scenario::RevokePartner => revoke::partner(options, &mut report).await,
        Scenario::Full => size::full(options, &mut report).await,
    }
}
