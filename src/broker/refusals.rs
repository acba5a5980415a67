//! Refusals in the audit: the first of each minute one by one, the rest as a count. Nobody waits for them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Broker, event, refusal::Refusal, who::Workload};
use crate::{
    identity::Caller,
    model::{TenantName, Timestamp},
    pb,
};

/// Refusals of this minute, by stream: tenants of proven callers, and one for everyone else.
#[derive(Debug, Default)]
pub struct RefusalLog {
    streams: Mutex<HashMap<String, Minute>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Minute {
    minute: u32,
    told: u32,
    untold: u64,
}

/// What to do with one more refusal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    /// Tell it, and that so many before it went untold.
    Tell { untold: u64 },
    /// Only count it.
    Count,
}

impl RefusalLog {
    /// Whether one more of this minute may be told in a stream of their own.
    pub(super) fn tells(&self, stream: &str, now: Timestamp) -> bool {
        matches!(self.judge(stream, now), Verdict::Tell { .. })
    }

    fn judge(&self, stream: &str, now: Timestamp) -> Verdict {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if streams.len() >= STREAMS_MOST && !streams.contains_key(stream) {
            return Verdict::Count;
        }
        let state = streams.entry(stream.to_owned()).or_default();
        let untold = if state.minute == now.minute() {
            0
        } else {
            std::mem::replace(state, Minute { minute: now.minute(), ..Minute::default() }).untold
        };
        if state.told < TOLD_A_MINUTE {
            state.told += 1;
            return Verdict::Tell { untold };
        }
        state.untold += 1;
        Verdict::Count
    }
}

impl Broker {
    /// Notes a refusal. Of proven callers in their tenant's stream, of others in the broker's own.
    pub(super) fn refused(
        &self,
        caller: &Caller,
        workload: Option<&Workload>,
        tenant: &TenantName,
        kind: &str,
        why: &Refusal,
        now: Timestamp,
    ) {
        if let (Some(workload), Refusal::Denied(denied)) = (workload, why) {
            self.note_policy(&workload.tenant, denied);
        }
        let stream = workload.map_or("", |_| tenant.as_str());
        let actor = workload.map_or_else(|| "unknown".to_owned(), Workload::actor);
        self.tell_refused(stream, event::by(caller, actor, kind, now), why, now, |event| match workload {
            Some(workload) => {
                event.tenant = tenant.to_string();
                event.workload = workload.name.to_string();
            }
            // The tenant is the caller's claim only.
            None => event.details.push(format!("claimed_tenant={tenant}")),
        });
    }

    /// Notes a refusal of somebody who is known, with what it was about, in a stream's share of what is told.
    pub(super) fn tell_refused(
        &self,
        stream: &str,
        mut event: pb::Event,
        why: &Refusal,
        now: Timestamp,
        about: impl FnOnce(&mut pb::Event),
    ) {
        if matches!(why, Refusal::Busy { .. } | Refusal::Fault(_) | Refusal::Unavailable(_) | Refusal::Held(_)) {
            return;
        }
        let Verdict::Tell { untold } = self.refusals.judge(stream, now) else { return };
        event.decision = event::REFUSED.into();
        event.reason = why.reason().to_owned();
        event.details.push(why.to_string());
        if let Refusal::Denied(denied) = why
            && let Some(policy) = denied.policy()
        {
            event.policies.clone_from(&policy.policies);
            event.policy_set = policy.set.to_string();
            event.grant = policy.grant.as_ref().map(ToString::to_string).unwrap_or_default();
            event.details.push(format!("action={}", policy.action.word()));
            event.details.extend(Some(&policy.audience).filter(|a| !a.is_empty()).map(|a| format!("audience={a}")));
            event.details.extend(policy.errors.iter().map(|error| format!("error={error}")));
        }
        if untold > 0 {
            event.details.push(format!("untold_before={untold}"));
        }
        about(&mut event);
        self.note_later(vec![event], now);
    }

    /// Writes events without anyone waiting for them; dropped when the lane is full.
    pub(super) fn note_later(&self, events: Vec<pb::Event>, now: Timestamp) {
        let ledger = Arc::clone(&self.ledger);
        tokio::spawn(async move {
            if let Err(error) = ledger.note(events, now).await {
                tracing::warn!(%error, "an event of a refusal was not written");
            }
        });
    }
}

/// Refusals that a stream tells in a minute.
const TOLD_A_MINUTE: u32 = 20;
/// Streams with refusals of their own.
const STREAMS_MOST: usize = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_minute_are_told_and_the_rest_counted() {
        let log = RefusalLog::default();
        let minute = |m: u64| Timestamp::from_seconds(m * 60);
        for _ in 0..TOLD_A_MINUTE {
            assert_eq!(log.judge("t", minute(1)), Verdict::Tell { untold: 0 });
        }
        assert_eq!(log.judge("t", minute(1)), Verdict::Count);
        assert_eq!(log.judge("t", minute(1)), Verdict::Count);
        assert_eq!(log.judge("other", minute(1)), Verdict::Tell { untold: 0 });
        assert_eq!(log.judge("t", minute(2)), Verdict::Tell { untold: 2 });
    }
}
