//! `mayfly job`: a task that is held beside the steps of a CI job; and the job file: what each job of a repository needs.

mod control;
mod env_file;
pub(super) mod file;
mod finish;
mod holder;
mod lint;
mod runner;
mod start;
mod state;

use clap::Subcommand;

use super::{
    failure::{Failure, Outcome},
    session::Session,
};

pub use file::{FILE, read};
pub use state::sweep;

/// Holds a task for the steps of a CI job; checks job files.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = JOB_HELP)]
pub enum JobCommand {
    /// Opens a task, fetches what the job needs, and holds and renews it in a process of its own until `finish`, until the
    /// runner's process is gone, or until its deadline. Should anything be missing, nothing is left of it.
    Start(Box<start::StartArgs>),
    /// Completes the task and takes away what was written. Finishing twice is no error; when the holder was killed the task
    /// ends by its grace time, and what it wrote is taken away all the same.
    Finish(finish::FinishArgs),
    /// Prints `::add-mask::` lines for the credentials as they are now: GitHub's runner learns of successors only so.
    AddMask(finish::AddMaskArgs),
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
            // It makes a runtime of its own, after what has to come before any.
            Self::Start(_) => Err(Failure::Internal("job start is not run like other commands".into())),
            Self::Finish(args) => args.run(session).await,
            Self::AddMask(args) => args.run(session).await,
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
  # what `deploy` needs, for all steps that follow
  mayfly job start --job deploy --env-file job.env
  mayfly job finish

  mayfly job lint --offline
  mayfly job lint --job deploy --workload ci-runner";
