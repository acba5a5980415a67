//! `mayfly task`.

use clap::{Args, Subcommand};

use crate::{
    model::{ApprovalId, PartnerName, Purpose, TaskId, TenantName, WorkloadName},
    pb,
};

use super::{
    arg::{self, KindArg, LimitArgs, StandingArg},
    cell::{Fields, Record},
    failure::Outcome,
    hold::HoldArgs,
    intent::IntentArgs,
    issue::text,
    page,
    session::Session,
};

/// Opens, keeps, completes and shows tasks.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = TASK_HELP)]
pub enum TaskCommand {
    /// Opens a task: everything issued under it ends with it.
    Open(Box<OpenArgs>),
    /// Keeps a task alive until this command ends.
    Hold(HoldArgs),
    /// Ends a task, its child tasks and every lease under them. Ending twice is not an error.
    Complete(CompleteArgs),
    /// Lists tasks (operators).
    List(ListArgs),
    /// Shows one task and its leases (operators).
    Show(ShowArgs),
}

impl TaskCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::Open(args) => args.run(session).await,
            Self::Hold(args) => args.run(session).await,
            Self::Complete(args) => complete(session, &args.task.to_string()).await,
            Self::List(args) => args.run(session).await,
            Self::Show(args) => args.run(session).await,
        }
    }
}

/// Arguments of `task open`.
#[derive(Args, Clone, Debug)]
pub struct OpenArgs {
    /// The tenant to act in.
    #[arg(long)]
    tenant: TenantName,
    /// The partner that acts.
    #[arg(long)]
    partner: PartnerName,
    /// Why, as the grant lists it.
    #[arg(long)]
    purpose: Purpose,
    /// The task this one dies with.
    #[arg(long, value_name = "ID")]
    parent: Option<TaskId>,
    /// With --parent: the workload that shall act in it; the caller when left out.
    #[arg(long, value_name = "WORKLOAD", requires = "parent")]
    for_workload: Option<WorkloadName>,
    #[command(flatten)]
    within: WithinArgs,
    /// When it ends by itself, as in 1h; the grant's longest when left out.
    #[arg(long, value_parser = arg::seconds, value_name = "TTL")]
    deadline: Option<u32>,
    /// Announces `task hold`: without it the task ends within the grace time.
    #[arg(long)]
    hold: bool,
    #[command(flatten)]
    intent: IntentArgs,
    /// The approval to use, where the grant needs one (`mayfly approval request`).
    #[arg(long, value_name = "ID")]
    approval: Option<ApprovalId>,
    /// Makes a retry safe: the same key and request answer with the first task.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    idempotency_key: String,
    /// Where people see the job that the task is for: shown to whoever is told of what it left behind.
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
    job_url: String,
}

/// What is allowed in the task and below it at most.
#[derive(Args, Clone, Debug)]
pub struct WithinArgs {
    /// Only credentials for this audience, or for all below `.../*`, in the task and below it. Repeat for more.
    #[arg(long, value_name = "AUDIENCE")]
    limit_audience: Vec<String>,
    /// Only credentials that allow this action, likewise.
    #[arg(long, value_name = "ACTION")]
    limit_action: Vec<String>,
    /// Only credentials of this kind, likewise.
    #[arg(long, value_enum, value_name = "KIND")]
    limit_kind: Vec<KindArg>,
    /// No credential that lives longer, likewise.
    #[arg(long, value_parser = arg::seconds, value_name = "TTL")]
    limit_ttl: Option<u32>,
}

impl WithinArgs {
    fn wire(&self) -> Option<pb::TaskLimits> {
        let limits = pb::TaskLimits {
            audiences: self.limit_audience.clone(),
            actions: self.limit_action.clone(),
            kinds: self.limit_kind.iter().map(|kind| pb::CredentialKind::from(*kind).into()).collect(),
            ttl_max_seconds: self.limit_ttl.unwrap_or(0),
        };
        (limits != pb::TaskLimits::default()).then_some(limits)
    }
}

impl OpenArgs {
    async fn run(self, session: &Session) -> Outcome {
        let request = pb::OpenTaskRequest {
            tenant: self.tenant.to_string(),
            partner: self.partner.to_string(),
            purpose: self.purpose.to_string(),
            parent_task_id: text(self.parent.as_ref()),
            deadline_seconds: self.deadline.unwrap_or(0),
            task_type: self.intent.task_type(),
            parameters: self.intent.parameters(),
            idempotency_key: self.idempotency_key,
            hold: self.hold,
            job_url: self.job_url,
            approval_id: text(self.approval.as_ref()),
            for_workload: text(self.for_workload.as_ref()),
            limits: self.within.wire(),
        };
        let reply = session.broker().await?.open_task(request).await?.into_inner();
        session.output.one(&reply.task.unwrap_or_default().fields())
    }
}

/// Arguments of `task complete`.
#[derive(Args, Clone, Debug)]
pub struct CompleteArgs {
    /// The task to end, 24 hex digits.
    #[arg(value_name = "TASK")]
    task: TaskId,
}

/// Completes a task and says whether that ended it.
///
/// # Errors
/// When the broker refuses.
pub async fn complete(session: &Session, task_id: &str) -> Outcome {
    let request = pb::CompleteTaskRequest { task_id: task_id.to_owned() };
    let reply = session.broker().await?.complete_task(request).await?.into_inner();
    session.output.one(
        &Fields::new()
            .text("task_id", task_id)
            .flag("ended_now", reply.ended_now)
            .revision("revision", reply.revision.as_ref()),
    )
}

/// Arguments of `task list`.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// Only this tenant's.
    #[arg(long)]
    tenant: Option<TenantName>,
    /// Only this partner's.
    #[arg(long)]
    partner: Option<PartnerName>,
    /// Only those that this workload opened.
    #[arg(long)]
    workload: Option<WorkloadName>,
    /// Only those that are so.
    #[arg(long, value_enum)]
    standing: Option<StandingArg>,
    /// Only those whose job was gone before it completed them; `mayfly events list --kind task.abandoned` goes further back.
    #[arg(long, conflicts_with = "standing")]
    abandoned: bool,
    #[command(flatten)]
    limit: LimitArgs,
}

impl ListArgs {
    async fn run(self, session: &Session) -> Outcome {
        let request = pb::ListTasksRequest {
            page: None,
            tenant: text(self.tenant.as_ref()),
            partner: text(self.partner.as_ref()),
            workload: text(self.workload.as_ref()),
            standing: arg::standing(self.standing),
            abandoned: self.abandoned,
        };
        session.output.list(&tasks(session, request, self.limit.limit).await?)
    }
}

async fn tasks(session: &Session, request: pb::ListTasksRequest, limit: u32) -> Outcome<Vec<pb::Task>> {
    let client = session.admin().await?;
    page::collect(session, limit, |page| {
        let (mut client, request) = (client.clone(), pb::ListTasksRequest { page: Some(page), ..request.clone() });
        async move {
            let reply = client.list_tasks(request).await?.into_inner();
            Ok((reply.tasks, reply.next_page_token))
        }
    })
    .await
}

/// Arguments of `task show`.
#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// The task, 24 hex digits.
    #[arg(value_name = "TASK")]
    task: TaskId,
}

impl ShowArgs {
    async fn run(self, session: &Session) -> Outcome {
        let id = self.task.to_string();
        let reply = session.admin().await?.get_task(pb::GetTaskRequest { task_id: id.clone() }).await?.into_inner();
        let task = reply.task.unwrap_or_default();
        let request = pb::ListLeasesRequest { task_id: id, ..pb::ListLeasesRequest::default() };
        let leases = super::lease::leases(session, request, 1000).await?;
        session.output.one(&task.fields().records("leases", leases.iter().map(Record::fields).collect()))
    }
}

const TASK_HELP: &str = "\
Examples:
  mayfly task open --tenant acme --partner globex --purpose deploy --deadline 30m
  mayfly task open --tenant acme --partner globex --purpose deploy --task-type release --parameter ticket=INC-4711
  mayfly task hold 4000000100c0ffee00c0ffee --complete-on-exit
  mayfly task complete 4000000100c0ffee00c0ffee
  mayfly task list --tenant acme --standing live
  mayfly task list --abandoned";
