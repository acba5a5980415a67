//! The revocation feed: what still matters, then everything as it happens.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{broadcast::error::RecvError, mpsc},
    time::Instant,
};

use super::{Broker, event::stamp, refusal::Refusal, view};
use crate::{
    identity::Caller,
    ledger::Published,
    model::{TenantName, Timestamp},
    pb, records,
};

impl Broker {
    /// Streams every end and suspension from a revision on.
    ///
    /// # Errors
    /// When the caller is no resource server, or the revision is gone.
    pub async fn watch_revocations(
        self: &Arc<Self>,
        caller: &Caller,
        request: pb::WatchRevocationsRequest,
    ) -> Result<mpsc::Receiver<Result<pb::WatchRevocationsResponse, Refusal>>, Refusal> {
        let tenant: Option<TenantName> =
            if request.tenant.is_empty() { None } else { Some(view::id("tenant", &request.tenant)?) };
        may_watch(self, caller, tenant.as_ref())?;
        // Subscribed before anything is read, so that nothing falls between.
        let live = self.ledger.subscribe();
        let (incarnation, published) = self.ledger.basis();
        let after = match request.after {
            None => None,
            Some(after) if after.incarnation == incarnation && self.is_resumable(after.number, published)? => {
                Some(after.number)
            }
            Some(_) => return Err(Refusal::RevisionGone),
        };
        let (to, messages) = mpsc::channel(BUFFER);
        let watch = Watch {
            broker: Arc::clone(self),
            caller: caller.clone(),
            tenant,
            to,
            incarnation,
            sent: after.unwrap_or(0),
            complete: after.is_none(),
            looked: Instant::now(),
        };
        tokio::spawn(watch.run(live, published));
        Ok(messages)
    }

    fn is_resumable(&self, after: u64, published: u64) -> Result<bool, Refusal> {
        Ok((self.ledger.feed_floor()?..=published).contains(&after))
    }
}

fn may_watch(broker: &Broker, caller: &Caller, tenant: Option<&TenantName>) -> Result<(), Refusal> {
    if broker.checker(caller, tenant)?.is_empty() {
        return Err(Refusal::Unproven("only registered resource servers and operators may watch"));
    }
    Ok(())
}

struct Watch {
    broker: Arc<Broker>,
    caller: Caller,
    tenant: Option<TenantName>,
    to: mpsc::Sender<Result<pb::WatchRevocationsResponse, Refusal>>,
    incarnation: u64,
    /// Everything up to here was sent.
    sent: u64,
    complete: bool,
    /// When it was last looked whether the caller may still watch.
    looked: Instant,
}

impl Watch {
    async fn run(self, live: tokio::sync::broadcast::Receiver<Arc<Published>>, published: u64) {
        let watchers = Arc::clone(&self.broker.watchers);
        watchers.fetch_add(1, Ordering::Relaxed);
        self.follow(live, published).await;
        watchers.fetch_sub(1, Ordering::Relaxed);
    }

    async fn follow(mut self, mut live: tokio::sync::broadcast::Receiver<Arc<Published>>, published: u64) {
        if self.catch_up(published).await.is_none() {
            return;
        }
        loop {
            let next = tokio::time::timeout(HEARTBEAT, live.recv()).await;
            let going = match next {
                Err(_quiet) => {
                    let number = self.broker.ledger.basis().1;
                    self.catch_up(number).await
                }
                Ok(Ok(commit)) if commit.number <= self.sent || commit.feed.is_empty() => Some(()),
                Ok(Ok(commit)) => {
                    let events = commit.feed.iter().map(|record| self.event(commit.number, record)).collect();
                    self.send(commit.number, events).await
                }
                Ok(Err(RecvError::Lagged(_))) => {
                    let number = self.broker.ledger.basis().1;
                    self.catch_up(number).await
                }
                Ok(Err(RecvError::Closed)) => None,
            };
            if going.is_none() || self.is_turned_away().await {
                return;
            }
        }
    }

    /// Looks now and then whether the caller may still watch: its certificate's lease may have ended, or the trust map
    /// names it no more. It is told why.
    async fn is_turned_away(&mut self) -> bool {
        if self.looked.elapsed() < LOOK {
            return false;
        }
        self.looked = Instant::now();
        let refusal = match may_watch(&self.broker, &self.caller, self.tenant.as_ref()) {
            Ok(()) => return false,
            Err(refusal) => refusal,
        };
        let _gone = self.to.send(Err(refusal)).await;
        true
    }

    /// Sends what the feed holds up to `until`, page by page, and where that leads.
    async fn catch_up(&mut self, until: u64) -> Option<()> {
        let complete = std::mem::replace(&mut self.complete, false);
        if complete && self.sent == 0 && self.suspensions().await.is_none() {
            return None;
        }
        loop {
            let rows = match self.broker.ledger.feed_after(self.sent, PAGE) {
                Ok(rows) => rows,
                Err(refused) => {
                    let _gone = self.to.send(Err(refused.into())).await;
                    return None;
                }
            };
            // A revision is sent whole: the last one of a full page may go on in the next.
            let full = rows.len() == PAGE;
            let last = rows.last().map(|(number, _)| *number);
            let cut = last.filter(|_| full && rows.first().map(|(n, _)| *n) != last);
            let take = rows.iter().filter(|(number, _)| *number <= until && cut.is_none_or(|cut| *number < cut));
            let events: Vec<_> = take.map(|(number, record)| self.event(*number, record)).collect();
            let reached = events.iter().filter_map(|event| event.revision).map(|revision| revision.number).max();
            if !full {
                self.complete = complete;
                return self.send(until.max(self.sent), events).await;
            }
            self.send(reached?, events).await?;
        }
    }

    /// Suspensions in force, however old; the feed tells of the ends.
    async fn suspensions(&mut self) -> Option<()> {
        let covers_until = Timestamp::from_millis(u64::MAX >> 12).millis();
        let of = |scope: &crate::model::ScopeId| records::FeedRecord {
            kind: i32::from(pb::RevocationKind::Suspend).unsigned_abs(),
            scope_id: scope.as_bytes().to_vec(),
            covers_until,
        };
        let suspended = self.broker.ledger.suspensions();
        let events: Vec<_> = suspended.iter().map(|(scope, number)| self.event(*number, &of(scope))).collect();
        if events.is_empty() {
            return Some(());
        }
        self.send(0, events).await
    }

    async fn send(&mut self, number: u64, events: Vec<pb::RevocationEvent>) -> Option<()> {
        self.sent = number;
        let revision = Some(pb::Revision { incarnation: self.incarnation, number });
        let message = pb::WatchRevocationsResponse { revision, events, complete: self.complete };
        self.to.send(Ok(message)).await.ok()
    }

    fn event(&self, number: u64, record: &records::FeedRecord) -> pb::RevocationEvent {
        pb::RevocationEvent {
            kind: i32::try_from(record.kind).unwrap_or(0),
            scope_id: record.scope_id.clone(),
            revision: Some(pb::Revision { incarnation: self.incarnation, number }),
            covers_until: Some(stamp(Timestamp::from_millis(record.covers_until))),
        }
    }
}

/// Messages that a slow watcher may leave unread before the stream waits for it.
const BUFFER: usize = 4;
/// Feed rows in one message.
const PAGE: usize = 1_000;
/// How often a quiet stream says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How often it is looked whether a watcher may still watch; where nothing happens, with each heartbeat.
const LOOK: Duration = Duration::from_secs(1);
