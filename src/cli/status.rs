//! `mayfly status` and `mayfly time`.

use clap::{Args, Subcommand};
use prost_types::Timestamp;

use crate::pb;

use super::{
    arg,
    cell::{Fields, Record},
    failure::Outcome,
    session::Session,
};

/// Shows what the daemon thinks of itself.
///
/// # Errors
/// When the broker refuses.
pub async fn run(session: &Session) -> Outcome {
    let status = session.admin().await?.get_status(pb::GetStatusRequest {}).await?.into_inner();
    session.output.one(&status.fields())
}

/// The daemon's clock.
#[derive(Clone, Debug, Subcommand)]
pub enum TimeCommand {
    /// Confirms the clock after a jump, so that issuing goes on.
    Confirm(ConfirmArgs),
}

/// Arguments of `time confirm`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  mayfly time confirm --now 2026-11-22T08:00:00Z --reason 'NTP was down, clock checked'"
)]
pub struct ConfirmArgs {
    /// The time it is, from a clock other than the daemon's; refused when that differs by more than 60 seconds.
    #[arg(long, value_parser = arg::time, value_name = "TIME")]
    now: Timestamp,
    /// Why, for the audit.
    #[arg(long)]
    reason: String,
}

impl TimeCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        let Self::Confirm(args) = self;
        let request = pb::ConfirmTimeRequest { now: Some(args.now), reason: args.reason };
        let reply = session.admin().await?.confirm_time(request).await?.into_inner();
        let fields = Fields::new().time("confirmed", Some(&args.now)).revision("revision", reply.revision.as_ref());
        session.output.one(&fields)
    }
}
