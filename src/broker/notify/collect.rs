//! From the audit to notifications that wait. What is read, what waits and how far it was read are one commit.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::atomic::Ordering,
};

use prost::Message as _;

use super::{KEPT_FOR_ALARMS, Notifier, WAITING_MOST, position, read};
use crate::{
    broker::{Broker, Refusal, event, trail},
    ledger::{
        LogRow, NoticeCommit, Refused,
        keys::{self, Urgency},
    },
    model::{Digest, Timestamp, Topic, id::hex},
    pb, records,
};

/// What is told together: route, owner and kind of events, and whether it is about attestations.
type Together = (usize, String, String, Topic);

impl Broker {
    /// Reads what the audit says since the last time, and puts what concerns somebody where it waits to be delivered.
    ///
    /// # Errors
    /// When the store failed: the same is read again the next time, and nothing is told twice.
    pub async fn collect_notices(&self) -> Result<(), Refusal> {
        let Some(notifier) = self.notifier.get() else { return Ok(()) };
        loop {
            let from = read(notifier);
            let rows = self.ledger.log_after(from, COMMITS)?;
            let Some(last) = rows.last() else {
                // The first position is written, so that a crash right after does not leave a gap.
                return self.write_position(notifier, from, FIRST).await;
            };
            let (mut until, mut drafts) = (last.number, BTreeMap::new());
            for row in &rows {
                self.collect_commit(notifier, row, &mut drafts)?;
                if drafts.len() >= TOGETHER_MOST {
                    until = row.number;
                    break;
                }
                tokio::task::consume_budget().await;
            }
            if drafts.is_empty() {
                notifier.read_until.store(until, Ordering::Relaxed);
                self.write_position(notifier, until, LAG).await?;
            } else {
                self.queue(notifier, drafts, until).await?;
            }
        }
    }

    fn collect_commit(
        &self,
        notifier: &Notifier,
        row: &LogRow,
        drafts: &mut BTreeMap<Together, records::NoticeRecord>,
    ) -> Result<(), Refusal> {
        for (stream, first) in &row.notable {
            for event in trail::page_events(&self.ledger, stream, *first)? {
                let Some(topic) = Topic::of(&event.kind, &event.details) else { continue };
                for recipient in self.recipients(notifier, &event, topic)? {
                    let key = (recipient.route, recipient.owner.clone(), event.kind.clone(), topic);
                    add(drafts.entry(key), &event, &recipient.owner, self.ledger.basis().0);
                }
            }
        }
        Ok(())
    }

    /// One commit: what waits now, and that it was read.
    async fn queue(
        &self,
        notifier: &Notifier,
        drafts: BTreeMap<Together, records::NoticeRecord>,
        until: u64,
    ) -> Result<(), Refusal> {
        let now = self.now();
        let mut commit = position(until, now);
        let mut added: BTreeMap<String, usize> = BTreeMap::new();
        let mut lost: BTreeMap<String, u64> = BTreeMap::new();
        for ((route, _, _, topic), mut record) in drafts {
            record.created = now.millis();
            // Whoever can make others of these must not keep an alarm from being told.
            let (most, urgency) = if topic == Topic::Alarm {
                (WAITING_MOST, Urgency::First)
            } else {
                (WAITING_MOST - KEPT_FOR_ALARMS, Urgency::Then)
            };
            let Some(route) = notifier.config.routes.get(route) else { continue };
            for outlet in notifier.outlets_of(&route.name) {
                let name = outlet.name();
                let count = added.entry(name.clone()).or_default();
                if notifier.change(&name, |state| state.waiting) + *count >= most {
                    *lost.entry(name).or_default() += 1;
                    continue;
                }
                *count += 1;
                let index = u16::try_from(commit.queued.len()).unwrap_or(u16::MAX);
                commit.queued.push((keys::notice(&name, urgency, until, index), record.clone()));
            }
        }
        for (name, count) in &lost {
            let mut record = notifier.change(name, |state| state.record.clone());
            record.given_up += count;
            commit.outlets.push((name.clone(), record));
            let mut failed = failed_event(name, now);
            failed.reason = "too many wait already".to_owned();
            failed.details.push(format!("messages={count}"));
            commit.events.push(failed);
        }
        let outlets = commit.outlets.clone();
        self.ledger.step_notices(commit).await?;
        for (name, record) in outlets {
            notifier.change(&name, |state| state.record = record);
        }
        for (name, count) in added {
            notifier.change(&name, |state| state.waiting += count);
        }
        for outlet in &notifier.outlets {
            notifier.count(outlet, "mayfly_notify_given_up_total", lost.get(&outlet.name()).copied().unwrap_or(0));
        }
        notifier.read_until.store(until, Ordering::Relaxed);
        notifier.written_until.store(until, Ordering::Relaxed);
        Ok(())
    }

    async fn write_position(&self, notifier: &Notifier, until: u64, lag: u64) -> Result<(), Refusal> {
        let written = notifier.written_until.load(Ordering::Relaxed);
        if written > 0 && until.saturating_sub(written) < lag {
            return Ok(());
        }
        self.ledger.step_notices(position(until, self.now())).await?;
        notifier.written_until.store(until, Ordering::Relaxed);
        Ok(())
    }

    /// Removes what waits for routes that the config does not have any more, with an event for each, and reminders for dates
    /// that are past.
    ///
    /// # Errors
    /// When the store failed.
    pub(super) async fn forget_gone_outlets(&self) -> Result<(), Refused> {
        let Some(notifier) = self.notifier.get() else { return Ok(()) };
        let known: Vec<String> = notifier.outlets.iter().map(|outlet| outlet.name()).collect();
        let now = self.now();
        let mut after = Vec::new();
        loop {
            let (rows, next) = self.ledger.notices("", &after, COMMITS)?;
            let mut gone: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
            for (key, _) in rows {
                let name = keys::notice_outlet(&key).unwrap_or_default().to_owned();
                if !known.contains(&name) {
                    gone.entry(name).or_default().push(key);
                }
            }
            if !gone.is_empty() {
                let mut commit = NoticeCommit { now, ..NoticeCommit::default() };
                for (name, keys) in gone {
                    let mut failed = failed_event(&name, now);
                    failed.reason = "the route is not configured any more".to_owned();
                    failed.details.push(format!("messages={}", keys.len()));
                    commit.events.push(failed);
                    commit.done.extend(keys);
                }
                self.ledger.step_notices(commit).await?;
            }
            let Some(next) = next else { break };
            after = next;
        }
        let forgotten: Vec<String> = self.ledger.outlets()?.into_iter().filter(|name| !known.contains(name)).collect();
        if !forgotten.is_empty() {
            self.ledger.step_notices(NoticeCommit { forgotten, now, ..NoticeCommit::default() }).await?;
        }
        for some in self.ledger.reminders_before(now)?.chunks(COMMITS) {
            self.ledger.step_notices(NoticeCommit { done: some.to_vec(), now, ..NoticeCommit::default() }).await?;
        }
        Ok(())
    }
}

/// Adds an event to what is told with it.
fn add(draft: Entry<'_, Together, records::NoticeRecord>, event: &pb::Event, owner: &str, incarnation: u64) {
    let record = draft.or_insert_with(|| {
        let place = [&incarnation.to_be_bytes()[..], &event.sequence.to_be_bytes(), event.stream.as_bytes(), &[0]];
        let id = Digest::of_parts(&[&place.concat(), owner.as_bytes(), &[0], event.kind.as_bytes()]);
        let id = format!("msg_{}", hex(id.0.get(..16).unwrap_or_default()));
        records::NoticeRecord { id, kind: event.kind.clone(), owner: owner.to_owned(), ..Default::default() }
    });
    record.count += 1;
    if record.events.len() < LISTED {
        record.events.push(event.encode_to_vec());
    }
}

/// The event of what is not told, of an outlet named `ROUTE/CHANNEL`.
pub(super) fn failed_event(outlet: &str, now: Timestamp) -> pb::Event {
    let (route, channel) = outlet.split_once('/').unwrap_or((outlet, ""));
    let mut failed = event::own("notify.failed", now);
    failed.details = vec![format!("route={route}"), format!("channel={channel}")];
    failed
}

/// Commits read at a time.
const COMMITS: usize = 1_000;
/// Messages of one commit.
const TOGETHER_MOST: usize = 500;
/// Events that one message lists.
const LISTED: usize = 20;
/// How far the written position may be behind when there is nothing to tell.
const LAG: u64 = 10_000;
/// A position that was never written is, whatever it is.
const FIRST: u64 = u64::MAX;
