//! `mayfly job start`: begins to hold a task for the steps that follow.
//!
//! The holder is a process of its own session. Until this one has told everything that is to be told it hangs on a pipe
//! from it: whatever ends this process before that ends the task too.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
};

use clap::Args;

use super::{
    control::{Answer, Ask, Started, ask},
    env_file::{EnvFile, EnvFormat, masks},
    holder,
    runner::Process,
    state,
};
use crate::cli::{
    cell::Fields,
    exec::{ask::AskArgs, identity::Chosen, need::Job, runtime},
    failure::{Exit, Failure, Outcome},
    session::Session,
};

/// Arguments of `job start`.
#[derive(Args, Clone, Debug)]
pub struct StartArgs {
    #[command(flatten)]
    pub(super) ask: AskArgs,
    #[command(flatten)]
    pub(super) state: StateArgs,
    /// File to append the variables to: `$GITHUB_ENV`, `$BASH_ENV`, or one for steps to read with `.`; what was added is
    /// taken away at the end.
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// How variables are written. Default: GitHub's form for `$GITHUB_ENV`, else the shell's.
    #[arg(long, value_enum, value_name = "FORM", requires = "env_file")]
    env_format: Option<EnvFormat>,
    /// First print `::add-mask::` lines, with which GitHub's runner masks the secrets in its log.
    #[arg(long)]
    add_masks: bool,
    /// The process that this job ends with. Default: the CI system's runner or agent above this one, when one is found.
    #[arg(long, value_name = "PID")]
    runner_pid: Option<i32>,
    /// Go on with the task that the job before handed on with `job finish --hand-on`, instead of opening one.
    #[arg(long, conflicts_with_all = ["job", "tenant", "partner", "purpose", "parent", "deadline", "approval", "credentials", "dir"])]
    take_over: bool,
    /// Be the holder itself.
    #[arg(long, hide = true)]
    as_holder: bool,
}

/// Where it is written down which job is held.
#[derive(Args, Clone, Debug)]
pub struct StateArgs {
    /// File that says which job is held, for `finish`; no secret is in it. Default: one in memory, named after the job of
    /// the CI system.
    #[arg(long, value_name = "FILE", env = "MAYFLY_JOB_STATE", hide_env_values = true)]
    state: Option<PathBuf>,
}

impl StateArgs {
    /// The file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let path = self.state.clone().unwrap_or_else(state::usual);
        std::path::absolute(&path).unwrap_or(path)
    }
}

impl StartArgs {
    /// Runs until the job is held, or, as the holder, until it is over.
    #[must_use]
    pub fn run(&self, session: &Session) -> ExitCode {
        // No other process of this user reads the keys in our memory, and no core file holds them. Where the system
        // cannot do that, we are as other programs are.
        let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
        let ended = if self.as_holder { self.hold(session) } else { self.start(session) };
        ended.unwrap_or_else(|failure| {
            // Nothing can be told where stderr is closed.
            let _ = writeln!(io::stderr(), "{}", failure.report());
            failure.exit().into()
        })
    }

    /// The job as it is asked for, as whom was chosen.
    pub(super) fn job(&self, chosen: &Chosen) -> Outcome<Job> {
        let mut job = self.ask.job()?;
        chosen.unbind(&mut job);
        let lost = job.needs.iter().find(|need| !need.ways.iter().all(state::survives));
        match lost {
            None => Ok(job),
            Some(need) => Err(Failure::Usage(format!(
                "`fd` of `{}` is for the one command of exec: later steps find a file, env or endpoint",
                need.name
            ))),
        }
    }

    /// The process that the job ends with.
    pub(super) fn runner(&self) -> Outcome<Option<Process>> {
        self.runner_pid.map_or_else(|| Ok(Process::runner()), |id| Process::of(id).map(Some))
    }

    pub(super) fn env_file(&self) -> Option<EnvFile> {
        self.env_file.as_deref().map(|path| EnvFile::new(path, self.env_format))
    }

    fn hold(&self, session: &Session) -> Outcome<ExitCode> {
        let runtime = runtime()?;
        let ended = runtime.block_on(holder::life(self, session));
        // Calls that are on their way to a broker that is gone are not waited for.
        runtime.shutdown_background();
        ended.map(|()| Exit::Ok.into())
    }

    fn start(&self, session: &Session) -> Outcome<ExitCode> {
        if self.take_over {
            return self.take_over(session).map(|()| Exit::Ok.into());
        }
        // What is wrong with the arguments is said before anything is started.
        self.job(&Chosen::of(session, self.ask.id_token_file.as_deref()))?;
        let program = std::env::current_exe().map_err(|error| Failure::io("find this program", error))?;
        let mut command = Command::new(program);
        command.args(std::env::args_os().skip(1)).arg("--as-holder");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| Failure::io("start the holder", error))?;
        match heard(&mut child)? {
            Some(answer) => {
                self.tell(session, &answer)?;
                // Until it has this the holder ends with us.
                let go = child.stdin.take().map_or(Ok(()), |mut pipe| pipe.write_all(GO));
                go.map_err(|error| Failure::io("let the holder go on", error))?;
                Ok(Exit::Ok.into())
            }
            // It said why.
            None => {
                let status = child.wait().map_err(|error| Failure::io("wait for the holder", error))?;
                let code = status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0);
                Ok(code.map_or_else(|| Exit::Internal.into(), ExitCode::from))
            }
        }
    }

    /// Takes a task over from the job before, on this machine.
    fn take_over(&self, session: &Session) -> Outcome {
        let path = self.state.path();
        let left = state::read(&path)?;
        let left = left.ok_or_else(|| Failure::Negative(format!("{} says of no job that is held", path.display())))?;
        let ours = Ask::TakeOver { runner: self.runner()?, env_file: self.env_file() };
        let asked = runtime()?.block_on(ask(&left.folder, &ours, HOLDER));
        let answer = asked.map_err(|_| Failure::Negative("nobody holds that task any more".into()))?;
        match answer.error {
            Some(error) => Err(Failure::Negative(error)),
            None => self.tell(session, &answer),
        }
    }

    /// Masks before all else.
    fn tell(&self, session: &Session, answer: &Answer) -> Outcome {
        if self.add_masks {
            answer.secrets.iter().flat_map(|secret| masks(secret)).try_for_each(|mask| session.output.line(&mask))?;
        }
        let Started { task_id, directory, endpoint, deadline } = answer.started.clone().unwrap_or_default();
        let fields = Fields::new().text("task_id", &task_id).text("deadline", &deadline);
        let fields = fields.text("directory", &directory).text("endpoint", &endpoint);
        session.output.one(&fields.text("state", &self.state.path().display().to_string()))
    }
}

/// What the holder says when everything is there; `None` when it ended instead.
fn heard(child: &mut Child) -> Outcome<Option<Answer>> {
    let Some(output) = child.stdout.take() else { return Ok(None) };
    let mut line = zeroize::Zeroizing::new(String::with_capacity(64 * 1024));
    let read = BufReader::new(output.take(MOST)).read_line(&mut line);
    read.map_err(|error| Failure::io("listen to the holder", error))?;
    if line.is_empty() {
        return Ok(None);
    }
    let answer = serde_json::from_str(&line).map_err(|error| Failure::Internal(format!("the holder said: {error}")))?;
    Ok(Some(answer))
}

/// What the holder waits for.
pub const GO: &[u8] = b"go\n";
/// How long a holder may take to answer.
pub const HOLDER: std::time::Duration = std::time::Duration::from_secs(15);
const MOST: u64 = 4 * 1024 * 1024;
