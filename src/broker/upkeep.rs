//! What runs by itself: time, sweeping, walks behind cuts, checkpoints, retention, key rings, gauges.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    Broker, event, gauges,
    refusal::Refusal,
    rings::KeyUse,
    time::{Observation, Start},
};
use crate::{
    identity::Caller,
    ledger::{CheckpointDraft, CutDraft, CutRow, Hold, Refused, keys::StreamId},
    mint::audit_key::AuditKey,
    model::{EndReason, Scope, TenantNumber, Timestamp, Ttl, time::SKEW},
    pb,
    policy::Role,
};

/// Starts everything that runs by itself, until `stop`. Await the set to know that it has ended.
///
/// # Errors
/// When the audit key does not open.
pub fn start(broker: &Arc<Broker>, stop: &CancellationToken) -> Result<JoinSet<()>, Refusal> {
    let audit_key = Arc::new(broker.audit_key()?);
    for work in WORKS {
        metrics::counter!("mayfly_background_failures_total", "work" => work).increment(0);
    }
    super::policies::begin_counting();
    super::sign_in::begin_counting();
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(broker).watch_holds(stop.clone()));
    let resumed = Arc::clone(broker);
    tasks.spawn(async move {
        if let Err(error) = resumed.resume_holds().await {
            tracing::error!(%error, "held tasks could not be read; they last until their deadlines");
        }
    });
    every(&mut tasks, broker, stop, OBSERVE, |broker| async move { broker.observe_time().await });
    every(&mut tasks, broker, stop, SWEEP, |broker| async move { told("sweep", broker.sweep_all().await) });
    every(&mut tasks, broker, stop, LAPSE, |broker| async move { told("pickups", broker.lapse_pickups().await) });
    every(&mut tasks, broker, stop, WALK, |broker| async move { told("walk", broker.walk_cuts().await) });
    let retaining = Arc::clone(&audit_key);
    every(&mut tasks, broker, stop, CHECKPOINT, move |broker| {
        let audit_key = Arc::clone(&audit_key);
        async move { told("checkpoint", broker.checkpoint(audit_key).await) }
    });
    every(&mut tasks, broker, stop, RETAIN, move |broker| {
        let audit_key = Arc::clone(&retaining);
        async move { told("retention", broker.trim_audit(&audit_key).await) }
    });
    every(&mut tasks, broker, stop, STEP_RINGS, |broker| async move { broker.step_rings(broker.now()).await });
    every(&mut tasks, broker, stop, KEEP, |broker| async move { told("keep", broker.tend().await) });
    every(&mut tasks, broker, stop, WRITE_USES, |broker| async move {
        told("uses", broker.write_uses().await.map(|_| ()));
        told("uses", broker.write_last_uses(false).await);
    });
    every(&mut tasks, broker, stop, GAUGES, |broker| async move { broker.show_gauges() });
    Ok(tasks)
}

impl Broker {
    /// Acts on what the clock and the store said at the start. Nothing may be issued before.
    ///
    /// # Errors
    /// When the store failed: then the daemon must not start.
    pub async fn settle_start(&self, start: Start) -> Result<(), Refusal> {
        let now = self.now();
        let behind = match start {
            Start::Behind => true,
            Start::Continues => false,
            Start::Jumped => {
                self.ledger.holds().set(Hold::Clock);
                self.ledger.note_act(vec![event::own("clock.jumped", now)], now).await?;
                tracing::error!("the clock is far past the last time known; confirm it with `mayfly time confirm`");
                false
            }
        };
        let (kind, reason) = match (behind, self.ledger.doubt) {
            (true, _) => ("clock.behind", "the clock is behind the last time known"),
            (false, Some(doubt)) if self.ledger.holds().has(Hold::Restored) => ("store.restored", doubt),
            (false, Some(doubt)) => ("store.doubted", doubt),
            (false, None) => return Ok(()),
        };
        tracing::error!(reason, "everything that was issued ends");
        let mut ends = event::own(kind, now);
        reason.clone_into(&mut ends.reason);
        let draft = CutDraft {
            scope: Scope::Everything,
            why: EndReason::Revoked,
            bar: false,
            operator: "broker".to_owned(),
            reason: reason.to_owned(),
            covers_until: self.ledger.opened_mark.max(now).after(LONGEST_TASK + Ttl::MAX.duration() + SKEW),
            event: ends,
            now,
            resets_time: behind,
        };
        self.ledger.cut(draft).await?;
        Ok(())
    }

    /// Takes the wall clock as it is, on an operator's word, so that issuing goes on.
    ///
    /// # Errors
    /// When the operator's time is another than the clock's, the clock is behind the broker's time, or the caller is no
    /// admin of everything.
    pub async fn confirm_time(
        &self,
        caller: &Caller,
        request: pb::ConfirmTimeRequest,
    ) -> Result<pb::ConfirmTimeResponse, Refusal> {
        let operator = self.operator(caller)?;
        operator.require(Role::Admin)?;
        operator.require_everywhere()?;
        if !(1..=REASON_BYTES).contains(&request.reason.len()) {
            return Err(Refusal::invalid("reason", "must have 1 to 512 bytes"));
        }
        let believed = request.now.ok_or_else(|| Refusal::invalid("now", "must be set: the time it is"))?;
        let (believed, wall, now) = (event::unstamp(&believed), self.time.wall(), self.now());
        let apart = believed.since(wall).max(wall.since(believed));
        if apart > CONFIRM_WITHIN {
            return Err(Refusal::invalid("now", format!("is not what the broker's clock says: {wall}; set the clock")));
        }
        if now.since(wall) > CONFIRM_BEHIND {
            // Going back would revive what has expired: a start does so, after ending everything.
            let problem = format!("lies before the broker's time {now}; set the clock or restart the broker");
            return Err(Refusal::invalid("now", problem));
        }
        let at = wall.max(now);
        let mut confirmed = event::by(caller, operator.actor(), "clock.confirmed", at);
        confirmed.reason = request.reason;
        let receipt = self.ledger.note_act(vec![confirmed], at).await?;
        if wall > now {
            self.time.confirm();
        }
        self.ledger.holds().clear(Hold::Clock);
        let revision = pb::Revision { incarnation: receipt.incarnation(), number: receipt.number() };
        Ok(pb::ConfirmTimeResponse { revision: Some(revision) })
    }

    /// Follows the clock; a jump holds issuing until it is confirmed.
    pub async fn observe_time(&self) {
        match self.time.observe() {
            // Only an operator lifts the hold: a clock that jumps back again has not become believable.
            Observation::Steady => {}
            Observation::Behind(by) => tracing::debug!(?by, "the clock is behind; time goes on without it"),
            Observation::Jumped(by) => {
                if self.ledger.holds().has(Hold::Clock) {
                    return;
                }
                self.ledger.holds().set(Hold::Clock);
                self.show_gauges();
                tracing::error!(?by, "the clock jumped; issuing waits for `mayfly time confirm`");
                let now = self.now();
                let mut jumped = event::own("clock.jumped", now);
                jumped.details = vec![format!("seconds={}", by.as_secs())];
                told("clock", self.ledger.note_act(vec![jumped], now).await.map(|_| ()));
            }
        }
    }

    /// Removes what ended long enough ago, unless the clock is in doubt, and notes how late it is.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn sweep_all(&self) -> Result<(), Refused> {
        let now = self.now();
        let log_kept_from = self.log_kept_from(now)?;
        loop {
            let report = self.ledger.sweep(now.before(self.settings.ended_lease_kept), now, log_kept_from).await?;
            metrics::counter!("mayfly_swept_total").increment(report.removed);
            if !report.more {
                metrics::gauge!("mayfly_sweep_at_seconds").set(gauges::at(now));
                return Ok(());
            }
            tokio::time::sleep(PACE).await;
        }
    }

    /// Goes on with the walks behind cuts.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn walk_cuts(&self) -> Result<(), Refused> {
        let mut after = Vec::new();
        loop {
            let (cuts, next) = self.ledger.cuts(&after, PAGE)?;
            for cut in cuts.iter().filter(|cut| cut.scope.is_some() && !cut.record.done) {
                self.walk_cut(cut).await?;
            }
            let Some(next) = next else { return Ok(()) };
            after = next;
        }
    }

    async fn walk_cut(&self, cut: &CutRow) -> Result<(), Refused> {
        let tenant = cut.scope.as_ref().and_then(|scope| self.tenant_of(scope));
        let (mut walked, mut ended) = (cut.record.walked, cut.record.ended);
        loop {
            let report = self.ledger.walk(cut.id, cut.number, tenant).await?;
            metrics::counter!("mayfly_cleanup_walked_total").increment(report.walked.saturating_sub(walked));
            metrics::counter!("mayfly_cleanup_ended_total").increment(report.ended.saturating_sub(ended));
            if report.done {
                return Ok(());
            }
            (walked, ended) = (report.walked, report.ended);
            tokio::time::sleep(PACE).await;
        }
    }

    /// Signs where the audit's streams stand.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn checkpoint(&self, key: Arc<AuditKey>) -> Result<(), Refused> {
        let (key_id, public_key) = (key.key_id(), *key.public_key());
        let sign = Arc::new(move |message: &[u8]| key.sign(message));
        self.ledger.checkpoint(CheckpointDraft { key_id, public_key, sign, now: self.now() }).await?;
        Ok(())
    }

    /// Removes audit events that are older than they are kept, and that every sink has acknowledged.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn trim_audit(&self, key: &Arc<AuditKey>) -> Result<(), Refused> {
        if self.ledger.holds().in_doubt() {
            return Ok(());
        }
        let mut before = self.now().before(self.settings.audit_kept);
        if let Some(acknowledged) = self.ships.acknowledged_by_all()
            && let Some(waits) = self.ledger.log_after(acknowledged, 1)?.first()
        {
            // An event is a little older than its commit.
            before = before.min(waits.at.before(COMMIT_MOST));
        }
        // Said, then signed, and only then removed.
        let trimmed = self.trim_streams(before).await?;
        if trimmed.is_empty() {
            return Ok(());
        }
        self.checkpoint(Arc::clone(key)).await?;
        for id in trimmed {
            while self.ledger.drop_trimmed(id).await? > 0 {
                tokio::time::sleep(PACE).await;
            }
        }
        Ok(())
    }

    /// Says of every stream where it begins; those of which something lies before that.
    async fn trim_streams(&self, before: Timestamp) -> Result<Vec<StreamId>, Refused> {
        let (mut trimmed, mut after) = (Vec::new(), Vec::new());
        loop {
            let (streams, next) = self.ledger.streams(&after, PAGE)?;
            for (id, _) in streams {
                let mut report = self.ledger.trim_stream(id, before).await?;
                while report.more {
                    tokio::time::sleep(PACE).await;
                    report = self.ledger.trim_stream(id, before).await?;
                }
                trimmed.extend(Some(id).filter(|_| report.pending));
            }
            let Some(next) = next else { return Ok(trimmed) };
            after = next;
        }
    }

    fn log_kept_from(&self, now: Timestamp) -> Result<u64, Refused> {
        let kept = self.ledger.log_before(now.before(self.settings.audit_kept))?;
        let waits = self.ships.acknowledged_by_all().map_or(u64::MAX, |acknowledged| acknowledged + 1);
        Ok(kept.min(waits))
    }

    /// The key that signs checkpoints.
    ///
    /// # Errors
    /// When it is missing or does not open.
    pub fn audit_key(&self) -> Result<AuditKey, Refusal> {
        let ring = self.rings.ring(&self.ledger, TenantNumber::BROKER)?;
        let row = ring.of(KeyUse::Audit).next().ok_or(Refusal::Unavailable("the audit key is missing"))?;
        let private = self.rings.private(row, None)?;
        AuditKey::from_pkcs8(private.expose()).map_err(Refusal::fault)
    }

    /// Live leases of every tenant.
    #[must_use]
    pub fn live_leases(&self, now: Timestamp) -> u64 {
        let tenants = self.registry.names("", None, usize::MAX).into_iter();
        tenants.map(|(name, _)| self.ledger.live(&Scope::Tenant(name), now)).sum()
    }
}

fn every<F: Future<Output = ()> + Send + 'static>(
    tasks: &mut JoinSet<()>,
    broker: &Arc<Broker>,
    stop: &CancellationToken,
    period: Duration,
    act: impl Fn(Arc<Broker>) -> F + Send + 'static,
) {
    let (broker, stop) = (Arc::clone(broker), stop.clone());
    tasks.spawn(async move {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = act(Arc::clone(&broker)) => {}
            }
        }
    });
}

/// Background work is tried again at its next turn.
fn told<E: std::fmt::Display>(what: &'static str, result: Result<(), E>) {
    if let Err(error) = result {
        metrics::counter!("mayfly_background_failures_total", "work" => what).increment(1);
        tracing::warn!(%error, what, "background work was put off");
    }
}

/// What may be put off, as the metric names it.
const WORKS: [&str; 8] = ["sweep", "walk", "checkpoint", "retention", "clock", "keep", "uses", "pickups"];
const LAPSE: Duration = Duration::from_secs(5);
const KEEP: Duration = Duration::from_secs(5);
const WRITE_USES: Duration = Duration::from_secs(60);
const OBSERVE: Duration = Duration::from_secs(1);
const SWEEP: Duration = Duration::from_secs(10);
const WALK: Duration = Duration::from_secs(2);
const CHECKPOINT: Duration = Duration::from_secs(10);
const RETAIN: Duration = Duration::from_secs(3_600);
const STEP_RINGS: Duration = Duration::from_secs(60);
const GAUGES: Duration = Duration::from_secs(5);
/// Between pages of background work.
const PACE: Duration = Duration::from_millis(2);
const PAGE: usize = 512;
const COMMIT_MOST: Duration = Duration::from_secs(60);
/// The longest deadline of a task.
const LONGEST_TASK: Duration = Duration::from_secs(86_400);
const REASON_BYTES: usize = 512;
const CONFIRM_WITHIN: Duration = Duration::from_secs(60);
const CONFIRM_BEHIND: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
