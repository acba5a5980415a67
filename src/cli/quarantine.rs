//! `mayfly quarantine`.

use clap::Args;

use crate::pb;

use super::{arg, cell::Fields, failure::Outcome, render::revocation::scope_text, scope::ScopeArgs, session::Session};

/// Suspends what lives in a scope, and forbids issuing and renewing in it, for a time.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct QuarantineArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// For how long: 1m to 30d.
    #[arg(long = "for", value_parser = arg::seconds, value_name = "TIME")]
    duration: u32,
    /// Lift it by itself when its time is over. Else it alarms then, and stays closed.
    #[arg(long)]
    auto_lift: bool,
    /// Why, for the audit.
    #[arg(long)]
    reason: String,
}

impl QuarantineArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        let scope = self.scope.required()?;
        let request = pb::QuarantineRequest {
            scope: Some(scope.clone()),
            duration_seconds: self.duration,
            auto_lift: self.auto_lift,
            reason: self.reason,
        };
        let reply = session.admin().await?.quarantine(request).await?.into_inner();
        session.output.one(
            &Fields::new()
                .text("scope_text", &scope_text(&scope))
                .time("until", reply.until.as_ref())
                .flag("auto_lift", self.auto_lift)
                .flag("changed", reply.changed)
                .revision("revision", reply.revision.as_ref()),
        )
    }
}

const HELP: &str = "\
Nothing ends: `mayfly lift` undoes it, and what has not run out by then lives again. `mayfly bar list` shows what is in
quarantine, until when, and whose time is over.

Examples:
  mayfly quarantine partner acme/globex --for 4h --reason 'odd traffic, asked the vendor'
  mayfly quarantine workload acme/ci-runner --for 30m --auto-lift --reason 'while the image is rebuilt'";
