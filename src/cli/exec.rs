//! `mayfly exec`: a command within a task, with the credentials that it needs.
//!
//! In order: descriptors are taken, signals listened to, the task is opened and held, everything that the job needs is
//! fetched and handed over, the child runs, the task is completed. Nothing starts when a piece is missing, and every way
//! out but a kill completes the task; after a kill the hold breaks and the broker ends it.

pub mod ask;
mod child;
pub mod endpoint;
pub mod hand;
pub mod identity;
mod mask;
pub mod need;
pub mod place;
pub mod prepare;
mod pump;
pub mod run;
pub mod signals;

use std::{
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

use clap::Args;
use tokio::runtime::Runtime;

use super::{
    arg,
    cell::printable,
    failure::{Failure, Outcome},
    session::Session,
};

use ask::AskArgs;
use child::OWN;
use identity::{Chosen, Who};

/// Runs a command within a task: everything it needs is fetched before it starts, renewed while it runs, and dead when
/// it has ended.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXEC_HELP)]
pub struct ExecArgs {
    #[command(flatten)]
    ask: AskArgs,
    /// Put `***` in the place of secrets in the command's output. It is then no terminal to the command.
    #[arg(long)]
    mask: bool,
    /// When the task ends first (revoked, deadline): how long the command has after SIGTERM before SIGKILL.
    #[arg(long, value_parser = arg::seconds, value_name = "TIME", default_value = "10s")]
    kill_after: u32,
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
        let chosen = Chosen::of(session, self.ask.id_token_file.as_deref());
        if self.explain_identity {
            return self.explain(session, &chosen);
        }
        let mut job = self.ask.job()?;
        job.mask |= self.mask;
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
            let token = runtime()?.block_on(identity::token(ambient, &self.ask.audience(session)))?;
            let claims = identity::claims(&token).map(|claims| claims.to_string());
            let claims = claims.unwrap_or_else(|| "not readable: it is no JWT".into());
            session.output.line(&format!("claims: {}", printable(&claims)))?;
        }
        match &chosen.who {
            Some(_) => Ok(Ended { code: 0, why: None }),
            None => Ok(Ended { code: OWN, why: None }),
        }
    }
}

/// One for a single life; what it waits for at the end is up to who uses it.
///
/// # Errors
/// When the system has no room for it.
pub fn runtime() -> Outcome<Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::io("start the runtime", error))
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
