//! The life of one run: from the task's opening to its completion.

use std::{
    ffi::OsStr,
    io,
    pin::pin,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::Signal;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use super::{
    Ended, ExecArgs,
    child::{OWN, Running, code_of, of_signal},
    hand::{Descriptors, Written},
    identity::Chosen,
    need::Job,
    place::Place,
    prepare::{Prepared, needs_place, prepare},
    pump::Pumps,
    signals::{Heard, Signals},
};
use crate::{
    cli::{
        failure::{Failure, Outcome},
        render::word,
        session::Session,
    },
    client::{CallError, Holding, TOKEN_VARIABLES, Task},
    pb,
};

/// Opens the task, runs the command within it, completes it.
///
/// # Errors
/// When the command was not started; the task, if there was one, is completed all the same.
pub(super) async fn life(
    args: &ExecArgs,
    session: &Session,
    chosen: &Chosen,
    job: &Job,
    descriptors: &Descriptors,
) -> Outcome<Ended> {
    let mut signals = Signals::listen()?;
    let (patience, mut early) = (seconds(args.ask.wait), Vec::new());
    let audience = args.ask.audience(session);
    let link = tokio::select! {
        link = chosen.link(session, &audience) => link?,
        signal = signals.fatal(&mut early) => return Ok(interrupted(signal)),
    };
    let opened = tokio::select! {
        opened = Task::open(link, &job.work, patience) => opened.map_err(|error| missing("the task", error))?,
        // Should it be opened all the same, nobody holds it: it ends within the grace time.
        signal = signals.fatal(&mut early) => return Ok(interrupted(signal)),
    };
    let mut pumps = Pumps::new();
    let written = Written::default();
    let life = Life { args, session, job, descriptors, written: &written };
    let ended = life.within(&opened, &mut signals, early, &mut pumps).await;
    written.remove();
    let mut late = Vec::new();
    let mut completion = pin!(opened.complete(COMPLETION));
    let completed = tokio::select! {
        completed = &mut completion => completed.map(drop),
        // Asked to hurry: a broker that is there needs no longer, and without it the hold breaks, which ends the task too.
        _ = signals.fatal(&mut late) => timeout(HURRIED, completion).await.map_or(Ok(()), |completed| completed.map(drop)),
    };
    if let Err(error) = completed {
        session.output.remark(&format!("the task could not be completed and ends by itself: {error}"));
    }
    // Its last output goes out when nothing under the task lives any more; a reader may take its time, but not forever.
    tokio::select! {
        _drained = tokio::task::spawn_blocking(|| pumps.finish()) => {}
        _ = signals.fatal(&mut late) => {}
    }
    ended
}

/// What a run is made of.
struct Life<'a> {
    args: &'a ExecArgs,
    session: &'a Session,
    job: &'a Job,
    descriptors: &'a Descriptors,
    written: &'a Written,
}

impl Life<'_> {
    /// All that happens while the task is open.
    async fn within(
        &self,
        task: &Task,
        signals: &mut Signals,
        mut early: Vec<Heard>,
        pumps: &mut Pumps,
    ) -> Outcome<Ended> {
        let Self { args, job, descriptors, written, .. } = self;
        // Removed when nobody writes to it any more: after what was prepared.
        let place = needs_place(job).then(|| Place::make(args.ask.dir.as_deref())).transpose()?;
        let folder = place.as_ref().map(Place::path);
        let prepared = tokio::select! {
            prepared = prepare(task, job, descriptors, written, folder, seconds(args.ask.wait)) => prepared?,
            signal = signals.fatal(&mut early) => return Ok(interrupted(signal)),
        };
        descriptors.let_inherit().map_err(|error| Failure::io("hand the descriptors over", error))?;
        let mut command = self.command(&prepared);
        let (running, mut child) = match Running::start(&mut command) {
            Ok(started) => started,
            Err(error) => return Ok(not_started(args, &error)),
        };
        if let Some(output) = child.stdout.take() {
            pumps.carry(output, io::stdout(), Arc::clone(&prepared.patterns));
        }
        if let Some(errors) = child.stderr.take() {
            pumps.carry(errors, io::stderr(), Arc::clone(&prepared.patterns));
        }
        early.into_iter().for_each(|heard| heard.pass_on(running.pid));
        let ended = attend(&running, signals, task.holding(), seconds(args.kill_after), self.session).await;
        Ok(ended)
    }

    fn command(&self, prepared: &Prepared) -> Command {
        let mut words = self.args.command.iter();
        let mut command = Command::new(words.next().map_or(OsStr::new(""), |word| word));
        command.args(words);
        if !self.args.keep_ambient {
            // Whoever was chosen: with these the command could take on another identity of this place.
            TOKEN_VARIABLES.iter().for_each(|name| {
                command.env_remove(name);
            });
        }
        for (name, value) in &prepared.variables {
            command.env(name, value.as_str());
        }
        if self.job.mask {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        command
    }
}

/// Waits for the child; passes signals on; ends it when its task is over.
async fn attend(
    running: &Running,
    signals: &mut Signals,
    mut holding: watch::Receiver<Holding>,
    kill_after: Duration,
    session: &Session,
) -> Ended {
    let mut over: Option<(String, Instant)> = None;
    loop {
        let kill_at = over.as_ref().map_or_else(far, |(_, at)| *at);
        tokio::select! {
            heard = signals.next() => {
                if heard.is_child() {
                    if let Some(code) = running.reap() {
                        return last(code, over.map(|(why, _)| why));
                    }
                } else {
                    heard.pass_on(running.pid);
                }
            }
            why = task_over(&mut holding), if over.is_none() => {
                let why = format!("the task is over ({}): its credentials are dead", word_of(why));
                session.output.remark(&format!("{why}; ending the command"));
                running.signal(Signal::TERM);
                over = Some((why, Instant::now() + kill_after));
            }
            () = sleep_until(kill_at), if over.is_some() => {
                running.signal(Signal::KILL);
                over = over.map(|(why, _)| (why, far()));
            }
        }
    }
}

/// Returns when the task is over, and why.
pub async fn task_over(holding: &mut watch::Receiver<Holding>) -> pb::EndReason {
    loop {
        if let Holding::Over(why) = &*holding.borrow_and_update() {
            return *why;
        }
        if holding.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// A command that ended well after its task had ended did not end well.
fn last(code: u8, over: Option<String>) -> Ended {
    match over {
        Some(why) if code == 0 => Ended { code: OWN, why: Some(format!("error: {why}")) },
        Some(_) | None => Ended { code, why: None },
    }
}

fn not_started(args: &ExecArgs, error: &io::Error) -> Ended {
    let name = args.command.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    Ended { code: code_of(error), why: Some(format!("error: cannot run `{name}`: {error}")) }
}

fn interrupted(signal: i32) -> Ended {
    Ended { code: of_signal(signal), why: Some("error: interrupted before the command was started".into()) }
}

/// A piece that cannot be had.
pub fn missing(what: &str, error: CallError) -> Failure {
    Failure::Missing(vec![(what.to_owned(), error.into())])
}

/// An end's reason for people.
#[must_use]
pub fn word_of(why: pb::EndReason) -> String {
    let word = word::end_reason(why.into());
    if word.is_empty() { "it is not there any more".to_owned() } else { word }
}

fn seconds(count: u32) -> Duration {
    Duration::from_secs(count.into())
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(86_400 * 365)
}

/// How long a broker that is away is told of the end. It ends the task by itself later on.
pub const COMPLETION: Duration = Duration::from_secs(5);
const HURRIED: Duration = Duration::from_millis(500);
