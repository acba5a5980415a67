//! The holder's life: from the opening of a job's task to its completion, beside the steps of the job.

use std::{
    io::{self, Write},
    os::fd::AsFd,
    time::Duration,
};

use rustix::{process::setsid, stdio};
use tokio::{
    net::{UnixStream, unix::pipe},
    time::{Instant, sleep_until},
};
use zeroize::Zeroizing;

use super::{
    control::{Answer, Ask, Control, Started, answer, line},
    env_file::EnvFile,
    runner::Process,
    start::{GO, StartArgs},
    state::{Left, State},
};
use crate::{
    cli::{
        cell::rfc3339,
        exec::{
            endpoint::SOCKET,
            hand::{Descriptors, Variables, Written},
            identity::Chosen,
            need::Job,
            place::Place,
            prepare::{Prepared, prepare},
            run::{COMPLETION, missing, task_over, word_of},
            signals::Signals,
        },
        failure::{Failure, Outcome},
        session::Session,
    },
    client::Task,
};

/// Who is waited for until the job's steps may begin.
struct Starter(pipe::Receiver);

/// What ends a job that is held.
enum End {
    /// Somebody asked for it, and waits.
    Finish(UnixStream),
    /// The task is over.
    Over(String),
    /// A signal, the runner's end, or a task that was handed on and that nobody took.
    Left,
}

struct Holder<'a> {
    args: &'a StartArgs,
    job: &'a Job,
    place: &'a Place,
    control: &'a Control,
    runner: Option<Process>,
    signals: Signals,
    starter: Starter,
}

/// Holds a job until it is over.
///
/// # Errors
/// When it could not begin; then nothing of it is left.
pub async fn life(args: &StartArgs, session: &Session) -> Outcome {
    // The step's end, its terminal and its process group are nothing to us.
    setsid().map_err(|error| Failure::io("leave the step's session", error.into()))?;
    let starter = Starter::of_stdin().map_err(|error| Failure::io("listen to who started this", error))?;
    let signals = Signals::listen()?;
    let chosen = Chosen::of(session, args.ask.id_token_file.as_deref());
    let job = args.job(&chosen)?;
    // Looked up before all else: one that goes while the job begins is not overlooked.
    let runner = args.runner()?;
    let place = Place::make(args.ask.dir.as_deref())?;
    let control = Control::open(place.path()).map_err(|error| Failure::io("open the holder's socket", error))?;
    let env_file = args.env_file();
    let left = Left::of(&job, place.path(), env_file.clone())?;
    let mut state = State::claim(&args.state.path(), left)?;
    let holder = Holder { args, job: &job, place: &place, control: &control, runner, signals, starter };
    let ended = holder.run(session, &chosen, env_file, &mut state).await;
    if ended.is_err() {
        state.wipe();
    }
    ended
}

impl Holder<'_> {
    async fn run(
        mut self,
        session: &Session,
        chosen: &Chosen,
        env_file: Option<EnvFile>,
        state: &mut State,
    ) -> Outcome {
        let audience = self.args.ask.audience(session);
        let open = async {
            let link = chosen.link(session, &audience).await?;
            let patience = Duration::from_secs(self.args.ask.wait.into());
            Task::open(link, &self.job.work, patience).await.map_err(|error| missing("the task", error))
        };
        let task = tokio::select! {
            task = open => task?,
            // Should it be opened all the same, nobody holds it: it ends within the grace time.
            () = interrupted(&mut self.signals, &mut self.starter) => return Err(stopped()),
        };
        let written = Written::default();
        let began = self.within(&task, env_file, state, &written).await;
        // Before the broker is told: that may take a while.
        written.remove();
        match &began {
            Ok(End::Over(why)) => state.over(why),
            Ok(End::Finish(_) | End::Left) | Err(_) => state.wipe(),
        }
        let completed = task.complete(COMPLETION).await;
        match began? {
            End::Over(_) | End::Left => {}
            End::Finish(asker) => {
                let said = match completed {
                    Ok(ended_now) => Answer { ended_now, ..Answer::default() },
                    Err(error) => Answer { error: Some(error.to_string()), ..Answer::default() },
                };
                answer(asker, &said).await;
            }
        }
        Ok(())
    }

    /// All that happens while the task is open.
    async fn within(
        &mut self,
        task: &Task,
        env_file: Option<EnvFile>,
        state: &mut State,
        written: &Written,
    ) -> Outcome<End> {
        state.opened(task.id())?;
        let (none, patience) = (Descriptors::default(), Duration::from_secs(self.args.ask.wait.into()));
        let prepared = tokio::select! {
            prepared = prepare(task, self.job, &none, written, Some(self.place.path()), patience) => prepared?,
            () = interrupted(&mut self.signals, &mut self.starter) => return Err(stopped()),
        };
        if let Some(file) = &env_file {
            file.write(&prepared.variables)?;
        }
        let secrets = prepared.first.iter().map(|credential| credential.expose_secret().to_owned().into()).collect();
        let started = self.started(task, &prepared);
        self.starter.tell(&Answer { secrets, started: Some(started), ..Answer::default() })?;
        tokio::select! {
            is_told = self.starter.lets_go() => if !is_told { return Err(stopped()) },
            () = told_to_end(&mut self.signals) => return Err(stopped()),
        }
        // A step ends when nobody has its output open any more.
        silent().map_err(|error| Failure::io("let go of the step's output", error))?;
        self.hold(task, &prepared, state).await
    }

    /// Until something ends it.
    async fn hold(&mut self, task: &Task, prepared: &Prepared, state: &mut State) -> Outcome<End> {
        let mut holding = task.holding();
        let deadline = Instant::now() + life_of(task);
        // While it is handed on: until when.
        let mut handed: Option<Instant> = None;
        loop {
            let (ask, asker) = tokio::select! {
                why = task_over(&mut holding) => return Ok(End::Over(word_of(why))),
                () = sleep_until(deadline) => return Ok(End::Over("expired".into())),
                () = told_to_end(&mut self.signals) => return Ok(End::Left),
                () = gone(self.runner), if handed.is_none() => return Ok(End::Left),
                () = sleep_until(handed.unwrap_or(deadline)), if handed.is_some() => return Ok(End::Left),
                asked = self.control.asked() => asked,
            };
            let said = match ask {
                Ask::Finish => return Ok(End::Finish(asker)),
                Ask::Secrets => Answer { secrets: secrets(prepared), ..Answer::default() },
                // Whatever runs in the job can ask for this.
                Ask::HandOn { seconds } if seconds > HAND_ON_MOST => refused("a job is handed on within an hour"),
                Ask::HandOn { seconds } => {
                    handed = Some(Instant::now() + Duration::from_secs(seconds.into()));
                    Answer::default()
                }
                Ask::TakeOver { .. } if handed.is_none() => refused("its job has not handed it on"),
                Ask::TakeOver { runner: next, env_file } => match taken_over(prepared, state, env_file) {
                    Ok(()) => {
                        (self.runner, handed) = (next, None);
                        let started = Some(self.started(task, prepared));
                        Answer { secrets: secrets(prepared), started, ..Answer::default() }
                    }
                    Err(failure) => refused(&failure.to_string()),
                },
            };
            answer(asker, &said).await;
        }
    }

    fn started(&self, task: &Task, prepared: &Prepared) -> Started {
        let folder = self.place.path();
        let has_endpoint = prepared.variables.iter().any(|(name, _)| name == "MAYFLY_ENDPOINT");
        let endpoint = if has_endpoint { folder.join(SOCKET).display().to_string() } else { String::new() };
        let deadline = task.opened.deadline.as_ref().map(rfc3339).unwrap_or_default();
        Started { task_id: task.id().to_owned(), directory: folder.display().to_string(), endpoint, deadline }
    }
}

impl Starter {
    fn of_stdin() -> io::Result<Self> {
        let stdin = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Self(pipe::Receiver::from_owned_fd(stdin)?))
    }

    fn tell(&self, answer: &Answer) -> Outcome {
        let text = Zeroizing::new(serde_json::to_string(answer).map_err(|error| Failure::Internal(error.to_string()))?);
        let mut out = io::stdout().lock();
        let told = out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
        told.map_err(|error| Failure::io("tell that everything is there", error))
    }

    /// Returns when it lets us go on without it; false when it ended instead.
    async fn lets_go(&mut self) -> bool {
        let word = line(&mut self.0).await;
        word.is_ok_and(|word| GO.strip_suffix(b"\n") == Some(word.as_slice()))
    }
}

/// Returns when the job is not to begin any more.
async fn interrupted(signals: &mut Signals, starter: &mut Starter) {
    tokio::select! {
        () = told_to_end(signals) => {}
        // Nothing is said before it was told that everything is there: this is its end.
        _ = starter.lets_go() => {}
    }
}

async fn told_to_end(signals: &mut Signals) {
    // There is no child that the others would be for.
    let _ = signals.fatal(&mut Vec::new()).await;
}

/// Another job's process, and where to tell it what lies where. Secrets of the environment stay with the first one.
fn taken_over(prepared: &Prepared, state: &mut State, env_file: Option<EnvFile>) -> Outcome {
    let Some(file) = env_file else { return Ok(()) };
    state.adds(&file)?;
    let places: Variables =
        prepared.variables.iter().filter(|(name, _)| name.starts_with("MAYFLY_")).cloned().collect();
    file.write(&places)
}

fn secrets(prepared: &Prepared) -> Vec<Zeroizing<String>> {
    prepared.renewed.iter().map(|renewing| renewing.current().expose_secret().to_owned().into()).collect()
}

fn refused(why: &str) -> Answer {
    Answer { error: Some(why.to_owned()), ..Answer::default() }
}

fn stopped() -> Failure {
    Failure::Negative("interrupted before the job was held".into())
}

async fn gone(runner: Option<Process>) {
    match runner {
        Some(runner) => runner.gone(LOOK).await,
        None => std::future::pending().await,
    }
}

/// From its opening to its deadline by the broker's clock.
fn life_of(task: &Task) -> Duration {
    let seconds = |time: &Option<prost_types::Timestamp>| time.as_ref().map_or(0, |time| time.seconds);
    let life = seconds(&task.opened.deadline).saturating_sub(seconds(&task.opened.opened));
    Duration::from_secs(u64::try_from(life).unwrap_or(0))
}

/// Nothing of the step stays open here.
fn silent() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    stdio::dup2_stdin(&null)?;
    stdio::dup2_stdout(&null)?;
    stdio::dup2_stderr(&null)?;
    Ok(())
}

/// Seconds that a holder waits for the next job at most.
const HAND_ON_MOST: u32 = 3_600;
/// How often it is looked whether the runner is there.
const LOOK: Duration = Duration::from_millis(500);
