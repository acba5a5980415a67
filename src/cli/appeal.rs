//! `mayfly appeal`: asking that a suspension be lifted, and answering.

use clap::{Args, Subcommand};

use crate::{model::TenantName, pb};

use super::{
    arg::LimitArgs,
    cell::{Fields, Record},
    failure::{Failure, Outcome},
    issue::text,
    page,
    render::revocation::scope_text,
    scope::ScopeArgs,
    session::Session,
};

/// Asks that a suspension be lifted, and answers those who ask.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = HELP)]
pub enum AppealCommand {
    /// Asks that a suspension be lifted: as an operator, or with --own as the workload.
    File(FileArgs),
    /// Lists appeals that wait, and those that were refused (operators).
    List(ListArgs),
    /// Grants an appeal, which lifts what it is against (admins).
    Grant(AnswerArgs),
    /// Refuses an appeal (admins).
    Refuse(AnswerArgs),
}

/// Arguments of `appeal file`.
#[derive(Args, Clone, Debug)]
pub struct FileArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Which suspension, where there are several: `quarantine`, `attestation overdue`, `transfer pending`, `owner left`,
    /// `dormant` or `velocity`.
    #[arg(long, value_name = "WORDS", default_value = "", hide_default_value = true)]
    cause: String,
    /// As the workload that holds the task, or that the grant names.
    #[arg(long)]
    own: bool,
    /// Why it should be lifted, for those who answer and for the audit.
    #[arg(long)]
    reason: String,
}

/// Arguments of `appeal list`.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// Only this tenant's.
    #[arg(long)]
    tenant: Option<TenantName>,
    /// Only those that wait for an answer.
    #[arg(long)]
    open: bool,
    #[command(flatten)]
    limit: LimitArgs,
}

/// Arguments of `appeal grant` and `appeal refuse`.
#[derive(Args, Clone, Debug)]
pub struct AnswerArgs {
    /// The appeal, 24 hex digits.
    #[arg(value_name = "APPEAL")]
    appeal: String,
    /// Why, for who filed it and for the audit.
    #[arg(long)]
    reason: String,
}

impl AppealCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::File(args) => args.run(session).await,
            Self::List(args) => args.run(session).await,
            Self::Grant(args) => args.answer(session, true).await,
            Self::Refuse(args) => args.answer(session, false).await,
        }
    }
}

impl FileArgs {
    async fn run(self, session: &Session) -> Outcome {
        let scope = self.scope.required()?;
        let (appeal, changed) = if self.own {
            let request = own(&scope, self.cause, self.reason)?;
            let reply = session.broker().await?.appeal(request).await?.into_inner();
            (reply.appeal, reply.changed)
        } else {
            let request = pb::FileAppealRequest { scope: Some(scope), cause: self.cause, reason: self.reason };
            let reply = session.admin().await?.file_appeal(request).await?.into_inner();
            (reply.appeal, reply.changed)
        };
        session.output.one(&appeal.unwrap_or_default().fields().flag("changed", changed))
    }
}

/// What a workload can appeal for.
fn own(scope: &pb::Scope, cause: String, reason: String) -> Outcome<pb::AppealRequest> {
    match pb::ScopeKind::try_from(scope.kind) {
        Ok(pb::ScopeKind::Task) => {
            Ok(pb::AppealRequest { task_id: scope.task_id.clone(), cause, reason, ..Default::default() })
        }
        Ok(pb::ScopeKind::Grant) => {
            let (tenant, grant) = (scope.tenant.clone(), scope.grant.clone());
            Ok(pb::AppealRequest { tenant, grant, cause, reason, ..Default::default() })
        }
        _ => Err(Failure::Usage(
            "a workload appeals for a task or a grant of its own: task ID, or grant TENANT/GRANT".into(),
        )),
    }
}

impl ListArgs {
    async fn run(self, session: &Session) -> Outcome {
        let client = session.admin().await?;
        let appeals = page::collect(session, self.limit.limit, |page| {
            let mut client = client.clone();
            let tenant = text(self.tenant.as_ref());
            let request = pb::ListAppealsRequest { page: Some(page), tenant, only_open: self.open };
            async move {
                let reply = client.list_appeals(request).await?.into_inner();
                Ok((reply.appeals, reply.next_page_token))
            }
        });
        session.output.list(&appeals.await?)
    }
}

impl AnswerArgs {
    async fn answer(self, session: &Session, granted: bool) -> Outcome {
        let (appeal_id, reason) = (self.appeal, self.reason);
        let request = pb::AnswerAppealRequest { appeal_id: appeal_id.clone(), granted, reason };
        let reply = session.admin().await?.answer_appeal(request).await?.into_inner();
        let fields = Fields::new().text("appeal_id", &appeal_id).flag("granted", granted);
        session.output.one(&fields.revision("revision", reply.revision.as_ref()))
    }
}

impl Record for pb::Appeal {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("APPEAL", "appeal_id"),
        ("STANDING", "standing"),
        ("SCOPE", "scope_text"),
        ("CAUSE", "cause"),
        ("SUSPENDED BY", "suspended_by"),
        ("FILED BY", "appellant"),
        ("FILED", "filed"),
        ("REASON", "reason"),
        ("ANSWER", "answer"),
    ];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("appeal_id", &self.appeal_id)
            .text("standing", &self.standing)
            .text("scope_text", &self.scope.as_ref().map(scope_text).unwrap_or_default())
            .text("cause", &self.cause)
            .text("tenant", &self.tenant)
            .text("partner", &self.partner)
            .text("appellant", &self.appellant)
            .text("reason", &self.reason)
            .time("filed", self.filed.as_ref())
            .time("suspended", self.suspended.as_ref())
            .text("suspended_by", &self.suspended_by)
            .text("suspended_for", &self.suspended_for)
            .time("answered", self.answered.as_ref())
            .text("answered_by", &self.answered_by)
            .text("answer", &self.answer)
    }
}

const HELP: &str = "\
An appeal gives nothing: who may lift is told, and answers. What an attestation or a new owner lifts is answered by that.
Nobody answers his own. After a refusal the same suspension can be appealed against again a day later.

Examples:
  mayfly appeal file task 400000010000000000000001 --own --reason 'a release of forty packages, not a loop'
  mayfly appeal list --open
  mayfly appeal grant 00c0ffee00c0ffee00c0ffee --reason 'seen the release plan'";
