//! `mayfly confirm`: what the daemon is in doubt about.

use clap::{Args, Subcommand};

use super::{cell::Fields, failure::Outcome, session::Session, status};
use crate::pb;

/// What there is to confirm.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfirmCommand {
    /// A store that was restored, put back, or has lost its anchor.
    Store(StoreArgs),
    /// The clock, after a jump.
    Time(status::ConfirmArgs),
}

/// Arguments of `confirm store`.
#[derive(Args, Clone, Debug)]
#[command(after_help = STORE_HELP)]
pub struct StoreArgs {
    /// The store's incarnation, 16 hex digits: the first part of the revision that `mayfly status` shows.
    #[arg(long, value_parser = incarnation, value_name = "HEX")]
    incarnation: u64,
    /// Why, for the audit.
    #[arg(long)]
    reason: String,
}

impl ConfirmCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::Store(args) => {
                let request = pb::ConfirmStoreRequest { incarnation: args.incarnation, reason: args.reason };
                let reply = session.admin().await?.confirm_store(request).await?.into_inner();
                let fields = Fields::new().flag("changed", reply.changed).revision("revision", reply.revision.as_ref());
                session.output.one(&fields)
            }
            Self::Time(args) => status::TimeCommand::Confirm(args).run(session).await,
        }
    }
}

fn incarnation(text: &str) -> Result<u64, String> {
    let wrong = "must be 16 hex digits, as in the revision that `mayfly status` shows";
    if text.len() == 16 { u64::from_str_radix(text, 16).map_err(|_| wrong.to_owned()) } else { Err(wrong.to_owned()) }
}

const STORE_HELP: &str = "\
Before: bar what was off-boarded since the backup, and apply the trust map as it should be now.

Example:
  mayfly confirm store --incarnation 9f3c0a55d1e2b847 --reason 'restored after disk loss, incident 4711'";
