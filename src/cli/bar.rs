//! `mayfly bar` and `mayfly lift`.

use clap::{Args, Subcommand};

use crate::pb;

use super::{
    arg::LimitArgs,
    cell::Fields,
    failure::{Failure, Outcome},
    page,
    render::revocation::scope_text,
    scope::ScopeArgs,
    session::Session,
};

/// Forbids issuing and renewing in a scope until it is lifted.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, after_help = BAR_HELP)]
pub struct BarArgs {
    #[command(subcommand)]
    command: Option<BarCommand>,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Also suspend what lives, until it is lifted.
    #[arg(long)]
    suspend: bool,
    /// Why, for the audit.
    #[arg(long)]
    reason: Option<String>,
}

/// What else there is to do with bars.
#[derive(Clone, Debug, Subcommand)]
pub enum BarCommand {
    /// Lists bars in force, in scope order.
    List(LimitArgs),
}

impl BarArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        if let Some(BarCommand::List(limit)) = self.command {
            return list(session, limit).await;
        }
        let scope = self.scope.required()?;
        let reason = self.reason.ok_or_else(|| Failure::Usage("say why with --reason".into()))?;
        let request = pb::BarRequest { scope: Some(scope.clone()), suspend: self.suspend, reason };
        let reply = session.admin().await?.bar(request).await?.into_inner();
        session.output.one(&outcome(&scope, reply.changed, reply.revision.as_ref()))
    }
}

/// Lifts a bar and a quarantine. What was suspended lives again, if its time has not run out.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  mayfly lift partner acme/globex --reason 'incident 4711 closed'")]
pub struct LiftArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Leave a bar as it is, and lift a quarantine only.
    #[arg(long)]
    quarantine: bool,
    /// Why, for the audit.
    #[arg(long)]
    reason: String,
}

impl LiftArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        let scope = self.scope.required()?;
        let request =
            pb::LiftRequest { scope: Some(scope.clone()), reason: self.reason, only_quarantine: self.quarantine };
        let reply = session.admin().await?.lift(request).await?.into_inner();
        session.output.one(&outcome(&scope, reply.changed, reply.revision.as_ref()))
    }
}

pub(super) fn outcome(scope: &pb::Scope, changed: bool, revision: Option<&pb::Revision>) -> Fields {
    Fields::new().text("scope_text", &scope_text(scope)).flag("changed", changed).revision("revision", revision)
}

async fn list(session: &Session, limit: LimitArgs) -> Outcome {
    let client = session.admin().await?;
    let bars = page::collect(session, limit.limit, |page| {
        let mut client = client.clone();
        async move {
            let reply = client.list_bars(pb::ListBarsRequest { page: Some(page) }).await?.into_inner();
            Ok((reply.bars, reply.next_page_token))
        }
    });
    session.output.list(&bars.await?)
}

const BAR_HELP: &str = "\
Examples:
  # quarantine: nothing new, and what lives is held
  mayfly bar partner acme/globex --suspend --reason 'incident 4711'
  mayfly bar list";
