//! `mayfly task hold`.

use std::time::Duration;

use clap::Args;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::{client::unreachable, model::TaskId, pb};

use super::{
    cell::Fields,
    failure::{Failure, Outcome},
    render::word,
    session::Session,
    task,
};

/// Arguments of `task hold`.
#[derive(Args, Clone, Debug)]
pub struct HoldArgs {
    /// The task to keep alive, 24 hex digits.
    #[arg(value_name = "TASK")]
    task: TaskId,
    /// Complete the task when this command is interrupted or terminated, instead of leaving it to its grace time.
    #[arg(long)]
    complete_on_exit: bool,
}

/// How one stream came to its end.
enum Parted {
    /// The task has ended.
    Ended(pb::HoldTaskResponse),
    /// Somebody stopped this command.
    Stopped,
    /// The connection broke.
    Broken(Status),
}

impl HoldArgs {
    /// Keeps the task until it ends or somebody stops this command; resumes a broken stream within the grace time.
    pub(super) async fn run(self, session: &Session) -> Outcome {
        let id = self.task.to_string();
        let mut stop = Stop::listen()?;
        let mut grace = FIRST_GRACE;
        let mut give_up = Instant::now();
        loop {
            match hold(session, &id, &mut stop, &mut grace, &mut give_up).await? {
                Parted::Ended(last) => {
                    let why = word::end_reason(last.end_reason);
                    return session.output.one(&Fields::new().text("task_id", &id).text("end_reason", &why));
                }
                Parted::Stopped if self.complete_on_exit => return task::complete(session, &id).await,
                Parted::Stopped => {
                    session.output.remark(&format!("left; the task ends in {} s unless held again", grace.as_secs()));
                    return Ok(());
                }
                Parted::Broken(status) if Instant::now() >= give_up => return Err(status.into()),
                Parted::Broken(_) => {
                    session.output.remark("the connection broke; trying again");
                    tokio::select! {
                        () = sleep_until(Instant::now() + RETRY) => {}
                        () = stop.asked() => return Ok(()),
                    }
                }
            }
        }
    }
}

/// Holds over one stream. Moves `give_up` on with every answer.
async fn hold(
    session: &Session,
    id: &str,
    stop: &mut Stop,
    grace: &mut Duration,
    give_up: &mut Instant,
) -> Outcome<Parted> {
    let (beats, outgoing) = mpsc::channel(4);
    let first = pb::HoldTaskRequest { task_id: id.to_owned() };
    beats.send(first).await.map_err(|_| Failure::Internal("the heartbeat channel is closed".into()))?;
    let opened = match session.broker().await {
        Ok(mut client) => client.hold_task(ReceiverStream::new(outgoing)).await,
        // Within the grace time a broker that restarts is no reason to give up.
        Err(Failure::Connect(_)) if Instant::now() < *give_up => Err(Status::unavailable("the broker is away")),
        Err(failure) => return Err(failure),
    };
    let mut incoming = match opened {
        Ok(reply) => reply.into_inner(),
        Err(status) => return parted(status),
    };
    let mut next_beat = Instant::now() + FIRST_BEAT;
    loop {
        tokio::select! {
            () = stop.asked() => return Ok(Parted::Stopped),
            () = sleep_until(next_beat) => {
                next_beat = Instant::now() + FIRST_BEAT;
                // A full channel means that a beat is on its way already.
                let _ = beats.try_send(pb::HoldTaskRequest::default());
            }
            answer = answer(&mut incoming) => match answer {
                Ok(last) if last.end_reason != 0 => return Ok(Parted::Ended(last)),
                Ok(answer) => {
                    *grace = Duration::from_secs(answer.grace_seconds.into());
                    *give_up = Instant::now() + *grace;
                    // Thrice within the time asked for, so that one lost beat is forgiven.
                    next_beat = Instant::now() + Duration::from_secs(answer.heartbeat_seconds.max(1).into()) / 3;
                }
                Err(status) => return parted(status),
            },
        }
    }
}

/// A stream that ends without a last word broke.
async fn answer(incoming: &mut Streaming<pb::HoldTaskResponse>) -> Result<pb::HoldTaskResponse, Status> {
    incoming.message().await?.ok_or_else(|| Status::unavailable("the broker closed the stream"))
}

/// A broken connection may be resumed; a refusal stands.
fn parted(status: Status) -> Outcome<Parted> {
    if unreachable(&status) { Ok(Parted::Broken(status)) } else { Err(status.into()) }
}

/// Ctrl-C and SIGTERM.
pub(super) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// Listens from now on, instead of dying from them.
    pub(super) fn listen() -> Outcome<Self> {
        let on = |kind| signal(kind).map_err(|error| Failure::io("listen for signals", error));
        Ok(Self { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())? })
    }

    /// Returns when one has come.
    pub(super) async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

const FIRST_GRACE: Duration = Duration::from_secs(10);
const FIRST_BEAT: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(500);
