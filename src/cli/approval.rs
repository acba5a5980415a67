//! `mayfly approval`: leave to use a grant that needs other people's word.

use clap::{Args, Subcommand};

use crate::{
    model::{ApprovalId, GrantName, Purpose, TaskId, TenantName, WorkloadName},
    pb,
};

use super::{
    arg::LimitArgs,
    cell::{Fields, Record},
    failure::Outcome,
    issue::text,
    page,
    session::Session,
};

/// Asks for leave to use a grant, and gives it.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = HELP)]
pub enum ApprovalCommand {
    /// Asks for leave: as the workload that shall use it, or as an operator with --workload.
    Request(RequestArgs),
    /// Lists requests (operators).
    List(ListArgs),
    /// Shows one request.
    Show(ShowArgs),
    /// Agrees to a request (operators that its grant names).
    Approve(ApproveArgs),
    /// Denies a request, which closes it (operators that its grant names).
    Deny(DenyArgs),
    /// Takes a request back; the task that uses it ends.
    Withdraw(WithdrawArgs),
}

/// Arguments of `approval request`.
#[derive(Args, Clone, Debug)]
pub struct RequestArgs {
    /// The tenant to act in.
    #[arg(long)]
    tenant: TenantName,
    /// The grant that a refusal named.
    #[arg(long)]
    grant: GrantName,
    /// What for, as the grant lists it.
    #[arg(long)]
    purpose: Purpose,
    /// An open task that it is for; without it, for the one that is opened with it.
    #[arg(long, value_name = "ID")]
    task: Option<TaskId>,
    /// Operators: the workload that shall use it.
    #[arg(long)]
    workload: Option<WorkloadName>,
    /// Why, for those who decide and for the audit.
    #[arg(long)]
    reason: String,
}

/// Arguments of `approval list`.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// Only this tenant's.
    #[arg(long)]
    tenant: Option<TenantName>,
    /// Only those that are so: open, granted, used, denied, withdrawn, void or expired.
    #[arg(long, value_name = "WORD")]
    standing: Option<String>,
    /// Only those that wait for your word.
    #[arg(long)]
    for_me: bool,
    #[command(flatten)]
    limit: LimitArgs,
}

/// Arguments of `approval show`.
#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// The request, 24 hex digits.
    #[arg(value_name = "APPROVAL")]
    approval: ApprovalId,
    /// As the workload that it is for.
    #[arg(long)]
    own: bool,
}

/// Arguments of `approval approve`.
#[derive(Args, Clone, Debug)]
pub struct ApproveArgs {
    /// The request, 24 hex digits.
    #[arg(value_name = "APPROVAL")]
    approval: ApprovalId,
    /// For the audit.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

/// Arguments of `approval deny`.
#[derive(Args, Clone, Debug)]
pub struct DenyArgs {
    /// The request, 24 hex digits.
    #[arg(value_name = "APPROVAL")]
    approval: ApprovalId,
    /// Why, for the audit.
    #[arg(long)]
    reason: String,
}

/// Arguments of `approval withdraw`.
#[derive(Args, Clone, Debug)]
pub struct WithdrawArgs {
    /// The request, 24 hex digits.
    #[arg(value_name = "APPROVAL")]
    approval: ApprovalId,
    /// As the workload that it is for.
    #[arg(long)]
    own: bool,
    /// For the audit.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

impl ApprovalCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        let approval = match self {
            Self::List(args) => return args.run(session).await,
            Self::Request(args) => args.run(session).await?,
            Self::Show(args) => args.run(session).await?,
            Self::Approve(args) => decide(session, args.approval, true, args.reason).await?,
            Self::Deny(args) => decide(session, args.approval, false, args.reason).await?,
            Self::Withdraw(args) => args.run(session).await?,
        };
        session.output.one(&approval.unwrap_or_default().fields())
    }
}

impl RequestArgs {
    async fn run(self, session: &Session) -> Outcome<Option<pb::Approval>> {
        let (tenant, grant, purpose) = (self.tenant.to_string(), self.grant.to_string(), self.purpose.to_string());
        let (task_id, reason) = (text(self.task.as_ref()), self.reason);
        let Some(workload) = self.workload else {
            let request = pb::RequestApprovalRequest { tenant, grant, purpose, task_id, reason };
            return Ok(session.broker().await?.request_approval(request).await?.into_inner().approval);
        };
        let workload = workload.to_string();
        let request = pb::RequestApprovalForRequest { tenant, grant, purpose, workload, task_id, reason };
        Ok(session.admin().await?.request_approval_for(request).await?.into_inner().approval)
    }
}

impl ListArgs {
    async fn run(self, session: &Session) -> Outcome {
        let client = session.admin().await?;
        let approvals = page::collect(session, self.limit.limit, |page| {
            let mut client = client.clone();
            let request = pb::ListApprovalsRequest {
                page: Some(page),
                tenant: text(self.tenant.as_ref()),
                standing: self.standing.clone().unwrap_or_default(),
                for_me: self.for_me,
            };
            async move {
                let reply = client.list_approvals(request).await?.into_inner();
                Ok((reply.approvals, reply.next_page_token))
            }
        });
        session.output.list(&approvals.await?)
    }
}

impl ShowArgs {
    async fn run(self, session: &Session) -> Outcome<Option<pb::Approval>> {
        let approval_id = self.approval.to_string();
        if self.own {
            let request = pb::CheckApprovalRequest { approval_id };
            return Ok(session.broker().await?.check_approval(request).await?.into_inner().approval);
        }
        let request = pb::GetApprovalRequest { approval_id };
        Ok(session.admin().await?.get_approval(request).await?.into_inner().approval)
    }
}

impl WithdrawArgs {
    async fn run(self, session: &Session) -> Outcome<Option<pb::Approval>> {
        let (approval_id, reason) = (self.approval.to_string(), self.reason);
        if self.own {
            let request = pb::WithdrawApprovalRequest { approval_id, reason };
            return Ok(session.broker().await?.withdraw_approval(request).await?.into_inner().approval);
        }
        let request = pb::RetractApprovalRequest { approval_id, reason };
        Ok(session.admin().await?.retract_approval(request).await?.into_inner().approval)
    }
}

async fn decide(session: &Session, id: ApprovalId, approve: bool, reason: String) -> Outcome<Option<pb::Approval>> {
    let request = pb::DecideApprovalRequest { approval_id: id.to_string(), approve, reason };
    Ok(session.admin().await?.decide_approval(request).await?.into_inner().approval)
}

impl Record for pb::Approval {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("APPROVAL", "approval_id"),
        ("STANDING", "standing"),
        ("TENANT", "tenant"),
        ("GRANT", "grant"),
        ("WORKLOAD", "workload"),
        ("PURPOSE", "purpose"),
        ("ASKED BY", "asked_by"),
        ("AGREED", "agreed"),
        ("NEEDED", "needed"),
        ("WAITS UNTIL", "waits_until"),
        ("UNTIL", "until"),
        ("REASON", "reason"),
    ];

    fn fields(&self) -> Fields {
        let agreed = self.votes.iter().filter(|vote| vote.counts).count();
        let vote = |vote: &pb::ApprovalVote| {
            Fields::new().text("operator", &vote.operator).time("at", vote.at.as_ref()).flag("counts", vote.counts)
        };
        Fields::new()
            .text("approval_id", &self.approval_id)
            .text("standing", &self.standing)
            .text("tenant", &self.tenant)
            .text("partner", &self.partner)
            .text("grant", &self.grant)
            .text("workload", &self.workload)
            .text("purpose", &self.purpose)
            .text("task_id", &self.task_id)
            .text("reason", &self.reason)
            .text("asked_by", &self.asked_by)
            .time("asked", self.asked.as_ref())
            .time("waits_until", self.waits_until.as_ref())
            .number("agreed", u64::try_from(agreed).unwrap_or(u64::MAX))
            .number("needed", self.needed)
            .words("approvers", &self.approvers)
            .records("votes", self.votes.iter().map(vote).collect())
            .time("until", self.until.as_ref())
            .text("used_by_task_id", &self.used_by_task_id)
            .time("closed", self.closed.as_ref())
    }
}

const HELP: &str = "\
Where a grant needs approvals, issue and task open are refused with APPROVAL_NEEDED until enough of the operators that it
names have agreed. Nobody agrees to what he asked for, nor twice. An approval is for one task, and not for long.

Examples:
  mayfly approval request --tenant acme --grant db-admin --purpose break-glass --reason 'incident 4711'
  mayfly approval list --for-me
  mayfly approval approve 4000000100c0ffee00c0ffee --reason 'seen the incident'
  mayfly issue --approval 4000000100c0ffee00c0ffee --tenant acme --partner globex --purpose break-glass \\
      --kind jwt --audience https://db.acme.example";
