//! `mayfly explain`.

use clap::Args;

use crate::{model::WorkloadName, pb};

use super::{
    cell::{Record, printable},
    failure::{Failure, Outcome},
    issue::WantedArgs,
    output::Format,
    session::Session,
};

/// Says why a request would be allowed or refused now, without issuing. Exit code 1 when it would be refused.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXPLAIN_HELP)]
pub struct ExplainArgs {
    /// The workload that would ask.
    #[arg(long)]
    workload: WorkloadName,
    #[command(flatten)]
    wanted: WantedArgs,
}

impl ExplainArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses to say, and when the request would be refused.
    pub async fn run(self, session: &Session) -> Outcome {
        let request = self.wanted.request();
        let request = pb::ExplainRequest {
            tenant: request.tenant.clone(),
            partner: request.partner.clone(),
            workload: self.workload.to_string(),
            request: Some(request),
        };
        let reply = session.admin().await?.explain(request).await?.into_inner();
        match session.output.format() {
            Format::Json => session.output.one(&reply.fields())?,
            Format::Table => reply.steps.iter().try_for_each(|step| session.output.line(&printable(step)))?,
        }
        if reply.allowed {
            if session.output.format() == Format::Table {
                session.output.line(&format!("allowed by {} for {} s", printable(&reply.grant), reply.ttl_seconds))?;
            }
            return Ok(());
        }
        Err(Failure::Negative(format!("would be refused: {}", reply.reason)))
    }
}

const EXPLAIN_HELP: &str = "\
Example:
  mayfly explain --tenant acme --partner globex --workload ci-runner --purpose deploy --kind jwt \\
      --audience https://api.acme.example --action deploy:write";
