//! `mayfly exec`: a command within a task, with the credentials that it needs.
//!
//! In order: descriptors are taken, signals listened to, the task is opened and held, everything that the job needs is
//! fetched and handed over, the child runs, the task is completed. Nothing starts when a piece is missing, and every way
//! out but a kill completes the task; after a kill the hold breaks and the broker ends it.

mod child;
pub mod endpoint;
mod hand;
mod identity;
mod mask;
pub mod need;
mod place;
mod prepare;
mod pump;
mod run;
mod signals;

use std::{
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use tokio::runtime::Runtime;

use crate::model::{PartnerName, Purpose, TaskId, TenantName};

use super::{
    arg,
    cell::printable,
    failure::{Failure, Outcome},
    intent::IntentArgs,
    job,
    session::Session,
};

use child::OWN;
use identity::{Chosen, Who};
use need::{Job, Need};

/// Runs a command within a task: everything it needs is fetched before it starts, renewed while it runs, and dead when
/// it has ended.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXEC_HELP)]
pub struct ExecArgs {
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
    /// A credential as `key=value` pairs with commas between: `name`, `kind`, `audience`, `action`, `dns-name`, `ttl`,
    /// `grant`, `binding`, and where it goes: `env`, `file`, `fd`, `endpoint`. Repeat for more.
    #[arg(long = "credential", value_name = "SPEC", value_parser = Need::parse)]
    credentials: Vec<Need>,
    /// Put `***` in the place of secrets in the command's output. It is then no terminal to the command.
    #[arg(long)]
    mask: bool,
    /// How long to wait for a broker that is away before the command starts.
    #[arg(long, value_parser = arg::seconds, value_name = "TIME", default_value = "30s")]
    wait: u32,
    /// When the task ends first (revoked, deadline): how long the command has after SIGTERM before SIGKILL.
    #[arg(long, value_parser = arg::seconds, value_name = "TIME", default_value = "10s")]
    kill_after: u32,
    /// Folder to make the private folder in. Default: XDG_RUNTIME_DIR, /dev/shm or the folder for temporary files.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Come with the identity token in this file, instead of what the place where this runs gives.
    #[arg(long, value_name = "FILE")]
    id_token_file: Option<PathBuf>,
    /// The audience of identity tokens, as the broker's config has it for the issuer. Default: the broker's URL.
    #[arg(long, value_name = "AUDIENCE", env = "MAYFLY_AUDIENCE", hide_env_values = true)]
    id_token_audience: Option<String>,
    /// Leave the command the variables with which it could get this identity itself.
    #[arg(long)]
    keep_ambient: bool,
    /// Say which identities were found here and which one would be used; run nothing.
    #[arg(long)]
    explain_identity: bool,
    /// The command and its arguments.
    #[arg(last = true, required_unless_present = "explain_identity", value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// How exec came to its end.
struct Ended {
    code: u8,
    /// What to tell beside the code.
    why: Option<String>,
}

impl ExecArgs {
    /// Runs to the end of the command and says the exit code.
    #[must_use]
    pub fn run(&self, session: &Session) -> ExitCode {
        let ended = self.start(session).unwrap_or_else(|failure| Ended { code: OWN, why: Some(failure.report()) });
        if let Some(why) = ended.why {
            // Nothing can be told where stderr is closed.
            let _ = writeln!(io::stderr(), "{why}");
        }
        ended.code.into()
    }

    fn start(&self, session: &Session) -> Outcome<Ended> {
        // No other process of this user reads the keys in our memory, and no core file holds them. Where the system
        // cannot do that, we are as other programs are.
        let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
        let chosen = Chosen::of(session, self.id_token_file.as_deref());
        if self.explain_identity {
            return self.explain(session, &chosen);
        }
        let mut job = self.job()?;
        chosen.unbind(&mut job);
        let descriptors = hand::Descriptors::take(&job.needs)?;
        let runtime = runtime()?;
        let ended = runtime.block_on(run::life(self, session, &chosen, &job, &descriptors));
        // Calls that are on their way to a broker that is gone are not waited for.
        runtime.shutdown_background();
        ended
    }

    /// What was found and chosen, and what the token says.
    fn explain(&self, session: &Session, chosen: &Chosen) -> Outcome<Ended> {
        chosen.explain().iter().try_for_each(|line| session.output.line(&printable(line)))?;
        if let Some(Who::Federated(ambient)) = &chosen.who {
            let token = runtime()?.block_on(identity::token(ambient, &self.audience(session)))?;
            let claims = identity::claims(&token).map(|claims| claims.to_string());
            let claims = claims.unwrap_or_else(|| "not readable: it is no JWT".into());
            session.output.line(&format!("claims: {}", printable(&claims)))?;
        }
        match &chosen.who {
            Some(_) => Ok(Ended { code: 0, why: None }),
            None => Ok(Ended { code: OWN, why: None }),
        }
    }

    fn audience(&self, session: &Session) -> String {
        self.id_token_audience.clone().unwrap_or_else(|| session.global().server.to_string())
    }

    /// The job as flags and file say it together.
    fn job(&self) -> Outcome<Job> {
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
        set(&mut work.task_type, self.intent.task_type.as_ref());
        work.parameters.extend(self.intent.parameters());
        job.mask |= self.mask;
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

fn runtime() -> Outcome<Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::io("start the runtime", error))
}

fn set(field: &mut String, flag: Option<&impl ToString>) {
    if let Some(value) = flag {
        *field = value.to_string();
    }
}

/// The exit code of wrong usage, when `arguments` are those of exec: not one that a command could have ended with.
#[must_use]
pub fn usage_code(arguments: &[OsString]) -> Option<u8> {
    let own = arguments.iter().skip(1).take_while(|argument| *argument != "--");
    own.into_iter().any(|argument| argument == "exec").then_some(OWN)
}

const EXEC_HELP: &str = "\
Files and the endpoint are renewed while the command runs; what went into the environment or a descriptor is not. The
environment is the weakest place: every process below inherits it. Beside the credentials the command finds MAYFLY_TASK_ID,
MAYFLY_DIR (the private folder), MAYFLY_FILE_NAME (where a file is) and MAYFLY_ENDPOINT (the socket: GET /NAME).

Exit codes: the command's own, or 128 and the signal that ended it. 125: exec failed, or the task ended before the command;
126: the command cannot be run; 127: there is no such command.

Examples:
  # a token in a file that is always fresh
  mayfly exec --tenant acme --partner globex --purpose deploy \\
      --credential name=api,kind=jwt,audience=https://api.acme.example,action=deploy:write,file=token -- ./deploy.sh

  # what the job file of this repository says of `deploy`
  mayfly exec --job deploy --mask -- make deploy";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_usage_of_exec_has_a_code_of_its_own() {
        let code = |line: &str| usage_code(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert_eq!(code("mayfly exec --colour red -- ls"), Some(OWN));
        assert_eq!(code("mayfly --server x exec"), Some(OWN));
        assert_eq!(code("mayfly issue --kind jwt"), None);
        assert_eq!(code("mayfly issue -- exec"), None);
        assert_eq!(code("exec"), None);
    }
}
