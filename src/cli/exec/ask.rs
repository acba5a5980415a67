//! What is asked for, and as whom: the flags that `exec` and `job start` have in common.

use std::path::PathBuf;

use clap::Args;

use super::need::{self, Job, Need};
use crate::{
    cli::{
        arg,
        failure::{Failure, Outcome},
        intent::IntentArgs,
        job,
        session::Session,
    },
    client::ambient_job_url,
    model::{ApprovalId, PartnerName, Purpose, TaskId, TenantName},
};

/// A task, its credentials, and who opens it.
#[derive(Args, Clone, Debug)]
pub struct AskArgs {
    /// A job of the job file, which says what follows; flags beside it count before the file.
    #[arg(long, value_name = "NAME")]
    job: Option<String>,
    /// The job file.
    #[arg(long, short, value_name = "FILE", default_value = job::FILE)]
    file: PathBuf,
    /// The tenant to act in.
    #[arg(long)]
    tenant: Option<TenantName>,
    /// The partner that acts.
    #[arg(long)]
    partner: Option<PartnerName>,
    /// Why, as the grant lists it.
    #[arg(long)]
    purpose: Option<Purpose>,
    /// The task that this one dies with.
    #[arg(long, value_name = "ID")]
    parent: Option<TaskId>,
    /// When the task ends by itself, as in 1h, and the command with it; the grant's longest when left out.
    #[arg(long, value_parser = arg::seconds, value_name = "TTL")]
    deadline: Option<u32>,
    #[command(flatten)]
    intent: IntentArgs,
    /// The approval that the task uses, where a grant needs one (`mayfly approval request`). It is good for one task, so it is
    /// named here and not in the job file.
    #[arg(long, value_name = "ID")]
    approval: Option<ApprovalId>,
    /// A credential as `key=value` pairs with commas between: `name`, `kind`, `audience`, `action`, `dns-name`, `ttl`,
    /// `grant`, `binding`, or `secret` for a static secret, and where it goes: `env`, `file`, `fd`, `endpoint`. Repeat for more.
    #[arg(long = "credential", value_name = "SPEC", value_parser = Need::parse)]
    credentials: Vec<Need>,
    /// How long to wait at the start for a broker that is away.
    #[arg(long, value_parser = arg::seconds, value_name = "TIME", default_value = "30s")]
    pub wait: u32,
    /// Folder to make the private folder in. Default: XDG_RUNTIME_DIR, /dev/shm or the folder for temporary files.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Come with the identity token in this file, instead of what the place where this runs gives.
    #[arg(long, value_name = "FILE")]
    pub id_token_file: Option<PathBuf>,
    /// The audience of identity tokens, as the broker's config has it for the issuer. Default: the broker's URL.
    #[arg(long, value_name = "AUDIENCE", env = "MAYFLY_AUDIENCE", hide_env_values = true)]
    id_token_audience: Option<String>,
}

impl AskArgs {
    /// The audience to ask identity tokens for.
    #[must_use]
    pub fn audience(&self, session: &Session) -> String {
        self.id_token_audience.clone().unwrap_or_else(|| session.global().server.to_string())
    }

    /// The job as flags and file say it together.
    ///
    /// # Errors
    /// What is missing or wrong, all at once.
    pub fn job(&self) -> Outcome<Job> {
        let mut job = match &self.job {
            Some(name) => job::read(&self.file)?.named(name)?,
            None => Job::default(),
        };
        let work = &mut job.work;
        set(&mut work.tenant, self.tenant.as_ref());
        set(&mut work.partner, self.partner.as_ref());
        set(&mut work.purpose, self.purpose.as_ref());
        set(&mut work.parent_task_id, self.parent.as_ref());
        work.deadline_seconds = self.deadline.unwrap_or(work.deadline_seconds);
        work.job_url = ambient_job_url(|name| std::env::var(name).ok());
        set(&mut work.approval_id, self.approval.as_ref());
        set(&mut work.task_type, self.intent.task_type.as_ref());
        work.parameters.extend(self.intent.parameters());
        job.needs.extend(self.credentials.iter().cloned());
        let missing =
            [("--tenant", &job.work.tenant), ("--partner", &job.work.partner), ("--purpose", &job.work.purpose)];
        let mut wrong: Vec<String> = missing
            .iter()
            .filter(|(_, value)| value.is_empty())
            .map(|(flag, _)| format!("{flag} is missing"))
            .collect();
        wrong.extend(need::clashes(&job.needs).into_iter().map(|(_, field, problem)| format!("`{field}`: {problem}")));
        if wrong.is_empty() { Ok(job) } else { Err(Failure::Usage(wrong.join("; "))) }
    }
}

fn set(field: &mut String, flag: Option<&impl ToString>) {
    if let Some(value) = flag {
        *field = value.to_string();
    }
}
