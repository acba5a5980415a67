//! `mayfly job lint`.

use std::path::PathBuf;

use clap::Args;

use crate::{
    cli::{
        cell::{Fields, Record},
        exec::need::Job,
        failure::{Failure, Outcome},
        render::word,
        session::Session,
    },
    model::WorkloadName,
    pb,
};

use super::file::{FILE, read};

/// Arguments of `job lint`.
#[derive(Args, Clone, Debug)]
pub struct LintArgs {
    /// The job file.
    #[arg(long, short, value_name = "FILE", default_value = FILE)]
    file: PathBuf,
    /// Only this job.
    #[arg(long, value_name = "NAME")]
    job: Option<String>,
    /// The workload that will run the jobs; counts before `workload` in the file.
    #[arg(long)]
    workload: Option<WorkloadName>,
    /// Check the file alone; the broker is not asked.
    #[arg(long, conflicts_with = "workload")]
    offline: bool,
}

/// What the broker would say to one credential of one job.
struct Verdict {
    job: String,
    credential: String,
    allowed: bool,
    reason: String,
    grant: String,
    ttl_seconds: u32,
    bound: String,
}

impl Record for Verdict {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("JOB", "job"),
        ("CREDENTIAL", "credential"),
        ("ALLOWED", "allowed"),
        ("REASON", "reason"),
        ("GRANT", "grant"),
        ("TTL", "ttl_seconds"),
    ];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("job", &self.job)
            .text("credential", &self.credential)
            .flag("allowed", self.allowed)
            .text("reason", &self.reason)
            .text("grant", &self.grant)
            .number("ttl_seconds", self.ttl_seconds)
            .text("bound", &self.bound)
    }
}

impl LintArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the file is wrong, no workload is named, or something would be refused.
    pub async fn run(self, session: &Session) -> Outcome {
        let file = read(&self.file)?;
        let jobs: Vec<(String, Job)> = match &self.job {
            Some(name) => vec![(name.clone(), file.named(name)?)],
            None => file.jobs.into_iter().collect(),
        };
        if self.offline {
            session.output.remark("the file is well-formed; the broker was not asked");
            return Ok(());
        }
        let mut verdicts = Vec::new();
        for (name, job) in &jobs {
            verdicts.extend(self.ask(session, name, job).await?);
        }
        session.output.list(&verdicts)?;
        let refused = verdicts.iter().filter(|verdict| !verdict.allowed).count();
        if refused > 0 {
            return Err(Failure::CheckFailed(format!("{refused} of {} would be refused", verdicts.len())));
        }
        Ok(())
    }

    async fn ask(&self, session: &Session, name: &str, job: &Job) -> Outcome<Vec<Verdict>> {
        let workload = self.workload.as_ref().map(ToString::to_string).or_else(|| job.workload.clone());
        let workload = workload.ok_or_else(|| {
            Failure::Usage(format!("who runs `{name}`? give --workload, or `workload` in the job; or check --offline"))
        })?;
        let mut admin = session.admin().await?;
        let mut verdicts = Vec::new();
        for need in &job.needs {
            let wanted = &need.wanted;
            let request = pb::IssueRequest {
                tenant: job.work.tenant.clone(),
                partner: job.work.partner.clone(),
                purpose: job.work.purpose.clone(),
                task_deadline_seconds: job.work.deadline_seconds,
                grant: wanted.grant.clone(),
                kind: wanted.kind.into(),
                secret: wanted.secret.clone(),
                audiences: wanted.audiences.clone(),
                actions: wanted.actions.clone(),
                dns_names: wanted.dns_names.clone(),
                ttl_seconds: wanted.ttl_seconds,
                binding: wanted.binding.into(),
                task_type: job.work.task_type.clone(),
                parameters: job.work.parameters.clone(),
                ..pb::IssueRequest::default()
            };
            let request = pb::ExplainRequest {
                tenant: job.work.tenant.clone(),
                partner: job.work.partner.clone(),
                workload: workload.clone(),
                request: Some(request),
            };
            let reply = admin.explain(request).await?.into_inner();
            verdicts.push(Verdict {
                job: name.to_owned(),
                credential: need.name.clone(),
                allowed: reply.allowed,
                bound: word::bound(reply.bound),
                reason: reply.reason,
                grant: reply.grant,
                ttl_seconds: reply.ttl_seconds,
            });
        }
        Ok(verdicts)
    }
}
