//! Keeps a task: one stream after the other, for as long as the task lives.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Advice, Backoff, CallError, Link, link::Client, refusal};
use crate::pb;

/// What is known of a task that is held.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Holding {
    /// No stream has been answered yet.
    Starting,
    /// The stream stands.
    Held,
    /// The stream broke and is being resumed; the reason of the last failure is for people.
    Broken(String),
    /// The task is over; nothing under it can be used any more.
    Over(pb::EndReason),
}

/// Holds a task until it is over.
pub(super) struct Holder {
    pub(super) link: Arc<Link>,
    pub(super) task_id: String,
    pub(super) said: watch::Sender<Holding>,
}

/// How one stream came to its end.
enum Parted {
    Over(pb::EndReason),
    Broken(CallError),
}

impl Holder {
    /// Returns when the task is over.
    pub(super) async fn run(self) {
        let mut backoff = Backoff::new(FIRST_PAUSE, UNKNOWN_PAUSE);
        loop {
            let parted = self.one_stream(&mut backoff).await;
            let error = match parted {
                Parted::Over(why) => {
                    self.said.send_replace(Holding::Over(why));
                    return;
                }
                Parted::Broken(error) => error,
            };
            tracing::debug!(task = %self.task_id, %error, "a hold broke; resuming it");
            // A stream that stood is asked for once more, over a new connection; what is refused there stays refused.
            let stood = *self.said.borrow() == Holding::Held;
            if error.advice() == Advice::ProveAnew && !stood && self.link.goes_on_by_key() {
                self.said.send_replace(Holding::Over(pb::EndReason::Unspecified));
                return;
            }
            let least = match error.advice() {
                Advice::Again(least) => least,
                Advice::ProveAnew | Advice::Over | Advice::Stop => Duration::ZERO,
            };
            self.said.send_replace(Holding::Broken(error.to_string()));
            sleep(backoff.pause().max(least)).await;
        }
    }

    async fn one_stream(&self, backoff: &mut Backoff) -> Parted {
        let client = match self.link.client().await {
            Ok(client) => client,
            Err(error) => return Parted::Broken(error),
        };
        let parted = self.over(&client, backoff).await;
        if matches!(parted, Parted::Broken(_)) {
            self.link.lost(&client).await;
        }
        parted
    }

    /// Holds over one connection.
    async fn over(&self, client: &Client, backoff: &mut Backoff) -> Parted {
        let (beats, outgoing) = mpsc::channel(4);
        // There is room for the first.
        let _sent = beats.try_send(pb::HoldTaskRequest { task_id: self.task_id.clone() });
        let mut broker = client.broker.clone();
        let opened = timeout(PATIENCE, broker.hold_task(ReceiverStream::new(outgoing))).await;
        let mut incoming = match opened {
            Ok(Ok(reply)) => reply.into_inner(),
            Ok(Err(status)) => return parted(status),
            Err(_) => return parted(silent()),
        };
        let (mut next_beat, mut patience) = (Instant::now() + PATIENCE, Instant::now() + PATIENCE);
        loop {
            tokio::select! {
                () = sleep_until(next_beat) => {
                    next_beat = Instant::now() + PATIENCE;
                    // A full channel means that a beat is on its way already.
                    let _full = beats.try_send(pb::HoldTaskRequest::default());
                }
                () = sleep_until(patience) => return parted(silent()),
                answer = answer(&mut incoming) => match answer {
                    Ok(last) if last.end_reason != 0 => return Parted::Over(last.end_reason()),
                    Ok(answer) => {
                        backoff.succeeded();
                        // So often that a few attempts may fail, and no more often: others come back as well.
                        let grace = Duration::from_secs(answer.grace_seconds.into());
                        backoff.limit((grace / 4).clamp(FIRST_PAUSE, LONGEST_PAUSE));
                        // It was carried before.
                        let _fits = self.link.go_on_with(&self.task_id, true);
                        self.said.send_if_modified(|said| std::mem::replace(said, Holding::Held) != Holding::Held);
                        let every = Duration::from_secs(answer.heartbeat_seconds.max(1).into());
                        // Thrice within the time asked for, so that one lost beat is forgiven.
                        next_beat = Instant::now() + every / 3;
                        patience = Instant::now() + every * 2 + every / 3;
                    }
                    Err(status) => return parted(status),
                },
            }
        }
    }
}

/// A stream that ends without a last word broke.
async fn answer(incoming: &mut Streaming<pb::HoldTaskResponse>) -> Result<pb::HoldTaskResponse, Status> {
    incoming.message().await?.ok_or_else(|| Status::unavailable("the broker closed the stream"))
}

/// A task that is not there any more, or not ours any more, is over; all else may be mended.
fn parted(status: Status) -> Parted {
    match refusal::reason(&status).as_deref() {
        Some("TASK_ENDED") => Parted::Over(ended(&status)),
        Some("NOT_FOUND") => Parted::Over(pb::EndReason::Unspecified),
        Some(_) | None => Parted::Broken(status.into()),
    }
}

/// Why the task ended, as a refusal tells.
fn ended(status: &Status) -> pb::EndReason {
    let why = refusal::detail(status, "why").unwrap_or_default();
    pb::EndReason::from_str_name(&format!("END_REASON_{}", why.to_ascii_uppercase())).unwrap_or_default()
}

fn silent() -> Status {
    Status::deadline_exceeded("the broker does not answer")
}

/// How long a broker may take for a first answer.
const PATIENCE: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// While the grace time is not known.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic::Code;
    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;
    use crate::client::DOMAIN;

    fn refused(code: Code, reason: &str) -> Status {
        let why = HashMap::from([("why".to_owned(), "revoked".to_owned())]);
        Status::with_error_details(code, "no", ErrorDetails::with_error_info(reason, DOMAIN, why))
    }

    #[test]
    fn only_a_task_that_is_over_is_given_up() {
        let over = |status| match parted(status) {
            Parted::Over(why) => Some(why),
            Parted::Broken(_) => None,
        };
        assert_eq!(over(refused(Code::FailedPrecondition, "TASK_ENDED")), Some(pb::EndReason::Revoked));
        assert_eq!(over(refused(Code::NotFound, "NOT_FOUND")), Some(pb::EndReason::Unspecified));
        assert_eq!(over(refused(Code::Unauthenticated, "UNPROVEN")), None);
        assert_eq!(over(refused(Code::Unavailable, "UNAVAILABLE")), None);
        // Not the broker's word.
        assert_eq!(over(Status::not_found("a proxy's page")), None);
    }
}
