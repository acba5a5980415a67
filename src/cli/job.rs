//! `mayfly job`, and the job file: what each job of a repository needs.

mod file;
mod lint;

use clap::Subcommand;

use super::{failure::Outcome, session::Session};

pub use file::{FILE, read};

/// Checks job files.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = JOB_HELP)]
pub enum JobCommand {
    /// Checks a job file, and with an operator's identity whether the trust map would allow what its jobs ask for.
    /// Nothing is issued. Exit code 4 when something would be refused.
    Lint(lint::LintArgs),
}

impl JobCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When the file is wrong, or the broker would refuse a job of it.
    pub async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::Lint(args) => args.run(session).await,
        }
    }
}

const JOB_HELP: &str = "\
A job file says what each job of a repository needs:

  [job.deploy]
  tenant = \"acme\"
  partner = \"globex\"
  purpose = \"deploy\"
  deadline = \"30m\"

  [[job.deploy.credential]]
  name = \"api\"
  kind = \"jwt\"
  audience = \"https://api.acme.example\"
  actions = [\"deploy:write\"]
  ttl = \"5m\"
  file = \"token\"

Examples:
  mayfly job lint --offline
  mayfly job lint --job deploy --workload ci-runner";
