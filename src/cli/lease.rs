//! `mayfly lease`.

use clap::{Args, Subcommand};
use prost_types::Timestamp;

use crate::{
    model::{GrantName, LeaseId, PartnerName, TaskId, TenantName, WorkloadName},
    pb,
};

use super::{
    arg::{self, KindArg, LimitArgs, StandingArg},
    cell::Record,
    failure::{Failure, Outcome},
    issue::text,
    page,
    session::Session,
};

/// Lists and shows leases.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = LEASE_HELP)]
pub enum LeaseCommand {
    /// Lists leases.
    List(Box<ListArgs>),
    /// Shows one lease and the event of its issue; ended ones too, for as long as the audit keeps them.
    Show(ShowArgs),
}

impl LeaseCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::List(args) => args.run(session).await,
            Self::Show(args) => show(session, &args.lease.to_string()).await,
        }
    }
}

/// Arguments of `lease list`.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// Only this tenant's.
    #[arg(long)]
    tenant: Option<TenantName>,
    /// Only this partner's.
    #[arg(long)]
    partner: Option<PartnerName>,
    /// Only those of this grant.
    #[arg(long)]
    grant: Option<GrantName>,
    /// Only those of this workload.
    #[arg(long)]
    workload: Option<WorkloadName>,
    /// Only those of this task.
    #[arg(long, value_name = "ID")]
    task: Option<TaskId>,
    /// Only those of this form.
    #[arg(long, value_enum)]
    kind: Option<KindArg>,
    /// Only those that are so.
    #[arg(long, value_enum)]
    standing: Option<StandingArg>,
    /// Only those issued before.
    #[arg(long, value_parser = arg::time, value_name = "TIME")]
    issued_before: Option<Timestamp>,
    #[command(flatten)]
    limit: LimitArgs,
}

impl ListArgs {
    async fn run(self, session: &Session) -> Outcome {
        let request = pb::ListLeasesRequest {
            page: None,
            tenant: text(self.tenant.as_ref()),
            partner: text(self.partner.as_ref()),
            grant: text(self.grant.as_ref()),
            workload: text(self.workload.as_ref()),
            task_id: text(self.task.as_ref()),
            kind: arg::kind(self.kind),
            standing: arg::standing(self.standing),
            issued_before: self.issued_before,
        };
        session.output.list(&leases(session, request, self.limit.limit).await?)
    }
}

/// Arguments of `lease show`.
#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// The lease, 40 hex digits: a token's `jti`, a certificate's serial number.
    #[arg(value_name = "LEASE")]
    lease: LeaseId,
}

async fn show(session: &Session, id: &str) -> Outcome {
    let request = pb::IdentifyRequest { found: id.to_owned() };
    let reply = session.admin().await?.identify(request).await?.into_inner();
    match &reply.lease {
        None => Err(Failure::Negative(format!("no lease {id} that you may see"))),
        Some(lease) => {
            session.output.one(&lease.fields().record("issued_event", reply.issued.as_ref().map(Record::fields)))
        }
    }
}

/// The leases that `request` describes, over all its pages.
///
/// # Errors
/// When the broker refuses.
pub async fn leases(session: &Session, request: pb::ListLeasesRequest, limit: u32) -> Outcome<Vec<pb::Lease>> {
    let client = session.admin().await?;
    page::collect(session, limit, |page| {
        let (mut client, request) = (client.clone(), pb::ListLeasesRequest { page: Some(page), ..request.clone() });
        async move {
            let reply = client.list_leases(request).await?.into_inner();
            Ok((reply.leases, reply.next_page_token))
        }
    })
    .await
}

const LEASE_HELP: &str = "\
Examples:
  mayfly lease list --partner globex --standing live
  mayfly lease list --tenant acme --output json --limit 0 | jq -r .lease_id
  mayfly lease show 4000000100c0ffee00c0ffee0000000000000001";
