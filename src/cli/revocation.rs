//! `mayfly revocation`: cuts in force and how far their clean-up is.

use clap::{Args, Subcommand};

use crate::pb;

use super::{
    arg::{self, LimitArgs},
    cell::Record,
    failure::Outcome,
    page, revoke,
    session::Session,
};

/// Revocations.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = "Example:\n  mayfly revocation show 9f3c0a1b2c3d4e5f:41 --watch")]
pub enum RevocationCommand {
    /// Lists cuts in force, newest last.
    List(LimitArgs),
    /// Shows how far the clean-up behind a revocation is.
    Show(ShowArgs),
}

/// Arguments of `revocation show`.
#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// The revision that `revoke` printed.
    #[arg(value_parser = arg::revision, value_name = "REVISION")]
    revision: pb::Revision,
    /// Follow it until it is done.
    #[arg(long)]
    watch: bool,
}

impl RevocationCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        let mut client = session.admin().await?;
        match self {
            Self::Show(ShowArgs { revision, watch: true }) => revoke::watch(session, client, revision).await,
            Self::Show(ShowArgs { revision, watch: false }) => {
                let request = pb::GetRevocationRequest { revision: Some(revision) };
                session.output.one(&client.get_revocation(request).await?.into_inner().fields())
            }
            Self::List(limit) => {
                let revocations = page::collect(session, limit.limit, |page| {
                    let mut client = client.clone();
                    async move {
                        let request = pb::ListRevocationsRequest { page: Some(page) };
                        let reply = client.list_revocations(request).await?.into_inner();
                        Ok((reply.revocations, reply.next_page_token))
                    }
                });
                session.output.list(&revocations.await?)
            }
        }
    }
}
