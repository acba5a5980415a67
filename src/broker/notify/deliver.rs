//! Delivering what waits: each way out at its own pace, with a back-off on the broker's time. At least once; given up
//! after a while, which is an event.

use prost::Message as _;

use super::{Notifier, collect::failed_event};
use crate::{
    broker::Broker,
    ledger::{NoticeCommit, NoticeMarks, Refused},
    model::{Chain, Timestamp, Topic, secret},
    notify::{Channel, DeliveryError, Item, Message, Outlet},
    pb, records,
    sink::backoff,
};

/// How an attempt ended.
enum Attempt {
    Delivered,
    /// The message waits no more.
    GivenUp,
    /// The others may be tried all the same.
    Refused,
    /// Nothing gets through now.
    Stuck,
}

impl Broker {
    /// Tries what waits for a way out when its time has come: alarms first, also those that come meanwhile; each oldest first.
    ///
    /// # Errors
    /// When the store failed. What was delivered then may be delivered again.
    pub async fn deliver_due(&self, outlet: &Outlet) -> Result<(), Refused> {
        let Some(notifier) = self.notifier.get() else { return Ok(()) };
        let name = outlet.name();
        let state = notifier.change(&name, |state| state.clone());
        if state.waiting == 0 || state.due > self.now() {
            return Ok(());
        }
        let (mut marks, mut failed) = (state.marks, 0);
        'round: loop {
            let (urgency, (rows, next)) = self.ledger.next_notices(&name, &marks, ROWS)?;
            if rows.is_empty() && next.is_none() {
                if marks == NoticeMarks::default() {
                    // What is left cannot be read, and was set aside.
                    notifier.change(&name, |state| state.waiting = 0);
                }
                marks = NoticeMarks::default();
                break;
            }
            for (key, record) in rows {
                marks.of(urgency).clone_from(&key);
                match self.attempt(notifier, outlet, key, record).await? {
                    Attempt::Delivered | Attempt::GivenUp => {}
                    Attempt::Refused => failed += 1,
                    Attempt::Stuck => {
                        failed += 1;
                        marks = NoticeMarks::default();
                        break 'round;
                    }
                }
                if failed >= REFUSED_MOST {
                    break 'round;
                }
            }
            if let Some(next) = next {
                *marks.of(urgency) = next;
            }
        }
        let now = self.now();
        notifier.change(&name, |state| {
            state.marks = marks;
            state.failures = if failed == 0 { 0 } else { state.failures.saturating_add(1) };
            state.due = if failed == 0 { now } else { now.after(backoff::up_to(PAUSE_MOST, state.failures, random())) };
        });
        Ok(())
    }

    async fn attempt(
        &self,
        notifier: &Notifier,
        outlet: &Outlet,
        key: Vec<u8>,
        record: records::NoticeRecord,
    ) -> Result<Attempt, Refused> {
        let now = self.now();
        let given_up = Timestamp::from_millis(record.created).after(notifier.config.give_up) <= now;
        // Nothing is removed on a time that nobody has confirmed.
        if given_up && !self.ledger.holds().in_doubt() {
            self.give_up(notifier, outlet, key, &record, now).await?;
            return Ok(Attempt::GivenUp);
        }
        match outlet.deliver(&message(&record), now).await {
            Ok(()) => {
                let change = |record: &mut records::OutletRecord| {
                    *record = records::OutletRecord {
                        last_success: now.millis(),
                        failing_since: 0,
                        last_error: String::new(),
                        delivered: record.delivered + 1,
                        given_up: record.given_up,
                    };
                };
                let commit = NoticeCommit { done: vec![key], now, ..NoticeCommit::default() };
                self.settle(notifier, outlet, commit, change).await?;
                notifier.count(outlet, "mayfly_notify_delivered_total", 1);
                Ok(Attempt::Delivered)
            }
            Err(error) => {
                self.failed(notifier, outlet, &error, now).await?;
                Ok(if error.is_of_message() { Attempt::Refused } else { Attempt::Stuck })
            }
        }
    }

    async fn failed(
        &self,
        notifier: &Notifier,
        outlet: &Outlet,
        error: &DeliveryError,
        now: Timestamp,
    ) -> Result<(), Refused> {
        let text: String = Chain(error).to_string().chars().take(ERROR_MAX).collect();
        tracing::warn!(route = outlet.route, channel = outlet.channel.word(), error = text, "an owner was not told");
        notifier.count(outlet, "mayfly_notify_failures_total", 1);
        let name = outlet.name();
        let is_first = notifier.change(&name, |state| {
            state.record.last_error = text;
            let is_first = state.record.failing_since == 0;
            if is_first {
                state.record.failing_since = now.millis();
            }
            is_first
        });
        if !is_first {
            return Ok(());
        }
        let record = notifier.change(&name, |state| state.record.clone());
        let commit = NoticeCommit { outlets: vec![(name, record)], now, ..NoticeCommit::default() };
        self.ledger.step_notices(commit).await.map(drop)
    }

    async fn give_up(
        &self,
        notifier: &Notifier,
        outlet: &Outlet,
        key: Vec<u8>,
        record: &records::NoticeRecord,
        now: Timestamp,
    ) -> Result<(), Refused> {
        let mut event = failed_event(&outlet.name(), now);
        event.reason = notifier.change(&outlet.name(), |state| state.record.last_error.clone());
        let facts = [("owner", record.owner.as_str()), ("kind", &record.kind), ("message", &record.id)];
        event.details.extend(facts.iter().map(|(name, value)| format!("{name}={value}")));
        event.details.extend([format!("events={}", record.count), "messages=1".to_owned()]);
        let commit = NoticeCommit { done: vec![key], events: vec![event], now, ..NoticeCommit::default() };
        self.settle(notifier, outlet, commit, |record| record.given_up += 1).await?;
        notifier.count(outlet, "mayfly_notify_given_up_total", 1);
        Ok(())
    }

    /// Removes what waits no more and writes how the way out stands, in one commit.
    async fn settle(
        &self,
        notifier: &Notifier,
        outlet: &Outlet,
        mut commit: NoticeCommit,
        change: impl FnOnce(&mut records::OutletRecord),
    ) -> Result<(), Refused> {
        let name = outlet.name();
        let mut record = notifier.change(&name, |state| state.record.clone());
        change(&mut record);
        commit.outlets = vec![(name.clone(), record.clone())];
        self.ledger.step_notices(commit).await?;
        notifier.change(&name, |state| {
            state.record = record;
            state.waiting = state.waiting.saturating_sub(1);
        });
        Ok(())
    }
}

fn message(record: &records::NoticeRecord) -> Message {
    let events = record.events.iter().filter_map(|bytes| pb::Event::decode(bytes.as_slice()).ok());
    let events: Vec<pb::Event> = events.collect();
    Message {
        id: record.id.clone(),
        kind: record.kind.clone(),
        topic: events.first().and_then(|event| Topic::of(&event.kind, &event.details)),
        owner: record.owner.clone(),
        created: Timestamp::from_millis(record.created),
        count: record.count,
        items: events.iter().map(Item::of).collect(),
    }
}

/// Keeps ways out apart; without entropy they wait alike.
pub(super) fn random() -> u64 {
    let mut bytes = [0; 8];
    match secret::fill(&mut bytes) {
        Ok(()) => u64::from_be_bytes(bytes),
        Err(secret::EntropyUnavailable) => 0,
    }
}

impl Channel {
    /// The channel as the wire has it.
    pub(super) fn code(self) -> i32 {
        match self {
            Self::Webhook => pb::NotifyChannel::Webhook.into(),
            Self::Mail => pb::NotifyChannel::Mail.into(),
        }
    }
}

/// Rows read at a time.
const ROWS: usize = 16;
/// Messages of one round that the other side refuses for themselves; the next round goes on behind them.
const REFUSED_MOST: usize = 10;
/// The longest pause between rounds that failed, in milliseconds.
const PAUSE_MOST: u64 = 600_000;
const ERROR_MAX: usize = 300;
