//! Audit events on their way to sinks: in order, at least once, each sink at its own pace.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Broker, event, refusal::Refusal};
use crate::{
    audit::{
        export::{checkpoint_line, event_line},
        page,
    },
    ledger::{LogRow, Refused},
    model::{Timestamp, secret},
    pb,
    sink::{AnySink, SinkError, SinkEvent, backoff},
};

/// How far each sink is.
#[derive(Debug, Default)]
pub struct Ships(RwLock<BTreeMap<String, Ship>>);

#[derive(Clone, Debug, Default)]
struct Ship {
    acknowledged: u64,
    last_error: String,
}

/// Why a round of shipping ended early. The position stays where it was.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    /// The sink did not acknowledge.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The ledger did not answer.
    #[error(transparent)]
    Ledger(#[from] Refused),
}

/// What was read for one batch.
struct Load {
    events: Vec<SinkEvent>,
    until: u64,
}

impl Ships {
    /// The last revision that every sink has acknowledged; `None` without sinks.
    #[must_use]
    pub fn acknowledged_by_all(&self) -> Option<u64> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().map(|ship| ship.acknowledged).min()
    }

    fn note(&self, name: &str, change: impl FnOnce(&mut Ship)) {
        let mut ships = self.0.write().unwrap_or_else(PoisonError::into_inner);
        change(ships.entry(name.to_owned()).or_default());
    }
}

impl Broker {
    /// How far audit sinks are.
    ///
    /// # Errors
    /// When the store failed.
    pub fn sink_statuses(&self) -> Result<Vec<pb::SinkStatus>, Refusal> {
        Ok(self.sink_positions()?.into_iter().map(|(status, _)| status).collect())
    }

    /// How far audit sinks are, and since when the oldest commit waits that one has not taken; `None` when none waits.
    ///
    /// # Errors
    /// When the store failed.
    pub(super) fn sink_positions(&self) -> Result<Vec<(pb::SinkStatus, Option<Timestamp>)>, Refusal> {
        let ships = self.ships.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        let number = self.ledger.basis().1;
        let status = |(name, ship): (String, Ship)| {
            // Revisions without events, as the acknowledgement itself makes one, leave nothing to ship.
            let waits = self.ledger.log_after(ship.acknowledged, 1)?.first().map(|row| row.at);
            let behind = if waits.is_some() { number.saturating_sub(ship.acknowledged) } else { 0 };
            let last_error = ship.last_error;
            Ok((pb::SinkStatus { name, acknowledged: ship.acknowledged, behind, last_error }, waits))
        };
        ships.into_iter().map(status).collect()
    }

    /// Ships to a sink what it has not acknowledged, until nothing is left; returns how many lines.
    ///
    /// # Errors
    /// When the sink or the ledger failed: nothing of the last batch counts as shipped.
    pub async fn ship_all(&self, sink: &mut AnySink) -> Result<u64, ShipError> {
        let name = sink.name().to_owned();
        let mut shipped = 0;
        let mut checkpoint = 0;
        loop {
            let acknowledged = self.ledger.acknowledged(&name)?.unwrap_or(0);
            self.ships.note(&name, |ship| ship.acknowledged = acknowledged);
            let Some(load) = self.load(acknowledged, &mut checkpoint)? else { return Ok(shipped) };
            for batch in load.events.chunks(BATCH) {
                sink.ship(batch).await?;
                shipped += u64::try_from(batch.len()).unwrap_or(u64::MAX);
            }
            self.ledger.acknowledge(name.clone(), load.until).await?;
            self.ships.note(&name, |ship| {
                ship.acknowledged = load.until;
                ship.last_error.clear();
            });
        }
    }

    /// Whole commits after a revision, up to about one batch, and the checkpoints made among them.
    fn load(&self, after: u64, checkpoint: &mut u64) -> Result<Option<Load>, Refused> {
        let mut load = Load { events: Vec::new(), until: after };
        for row in self.ledger.log_after(after, COMMITS)? {
            if load.events.len() >= BATCH {
                break;
            }
            self.load_commit(&row, &mut load.events)?;
            load.until = row.number;
        }
        if load.until == after {
            return Ok(None);
        }
        for made in self.ledger.checkpoints(*checkpoint, COMMITS)? {
            // A checkpoint is written by the commit after the revision that it is about.
            let commit = made.revision.map_or(0, |revision| revision.number + 1);
            if commit > load.until {
                break;
            }
            *checkpoint = made.number;
            if commit > after {
                let at = made.at.as_ref().map(event::unstamp).unwrap_or_default();
                push(&mut load.events, made.revision, at, checkpoint_line(&made));
            }
        }
        Ok(Some(load))
    }

    fn load_commit(&self, row: &LogRow, lines: &mut Vec<SinkEvent>) -> Result<(), Refused> {
        let revision = Some(pb::Revision { incarnation: self.ledger.basis().0, number: row.number });
        for (stream, first) in &row.pages {
            let pages = self.ledger.audit_pages(stream, *first, 1)?;
            // Removed for its age: it had been shipped, or no sink was there.
            let Some((_, record)) = pages.into_iter().find(|(begins, _)| begins == first) else { continue };
            // Whoever verifies what the sink holds finds the gap.
            let Some(record) = record else { continue };
            match page::read(&record, *first) {
                Ok(events) => {
                    for event in events {
                        let at = event.at.as_ref().map(event::unstamp).unwrap_or_default();
                        push(lines, event.revision.or(revision), at, event_line(&event));
                    }
                }
                Err(finding) => tracing::error!(?finding, "an audit page was changed and is not shipped"),
            }
        }
        Ok(())
    }

    async fn ship_until_stopped(self: Arc<Self>, mut sink: AnySink, stop: CancellationToken) {
        let name = sink.name().to_owned();
        let mut failures: u32 = 0;
        loop {
            let wait = tokio::select! {
                () = stop.cancelled() => return,
                shipped = self.ship_all(&mut sink) => match shipped {
                    Ok(_) => {
                        failures = 0;
                        PACE
                    }
                    Err(error) => {
                        failures = failures.saturating_add(1);
                        let text = chain(&error);
                        tracing::warn!(sink = name, error = text, failures, "audit events could not be shipped");
                        self.ships.note(&name, |ship| ship.last_error = text);
                        backoff::delay(failures, random())
                    }
                },
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

/// Ships to every sink, one task each, until `stop`.
#[must_use]
pub fn start(broker: &Arc<Broker>, sinks: Vec<AnySink>, stop: &CancellationToken) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for sink in sinks {
        let acknowledged = broker.ledger.acknowledged(sink.name()).ok().flatten().unwrap_or(0);
        broker.ships.note(sink.name(), |ship| ship.acknowledged = acknowledged);
        tasks.spawn(Arc::clone(broker).ship_until_stopped(sink, stop.clone()));
    }
    tasks
}

fn push(
    lines: &mut Vec<SinkEvent>,
    revision: Option<pb::Revision>,
    at: Timestamp,
    line: Result<String, crate::audit::export::ExportError>,
) {
    match line {
        Ok(json_line) => lines.push(SinkEvent { revision: revision.unwrap_or_default(), at, json_line }),
        Err(error) => tracing::error!(%error, "an audit event has no line and is not shipped"),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Keeps sinks apart; without entropy they wait alike.
fn random() -> u64 {
    let mut bytes = [0; 8];
    match secret::fill(&mut bytes) {
        Ok(()) => u64::from_be_bytes(bytes),
        Err(secret::EntropyUnavailable) => 0,
    }
}

/// Lines in one batch.
const BATCH: usize = 500;
/// Commits read for one batch.
const COMMITS: usize = 500;
/// How long events may wait for others before they are shipped.
const PACE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        broker::testing::founded,
        sink::{FileSink, FileSinkConfig},
    };

    fn file(path: std::path::PathBuf) -> AnySink {
        AnySink::File(FileSink::new(FileSinkConfig { name: "f".into(), path, deadline: Duration::from_secs(20) }))
    }

    #[tokio::test]
    async fn every_event_is_shipped_once_and_in_order() {
        let (broker, _) = founded().await;
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("audit.jsonl");
        let mut sink = file(path.clone());
        let first = broker.ship_all(&mut sink).await.expect("ships");
        assert!(first > 0);
        assert_eq!(broker.ship_all(&mut sink).await.expect("ships"), 0);
        let now = broker.now();
        let events = (0..700).map(|n| event::own(&format!("test.{n}"), now)).collect();
        broker.ledger.note(events, now).await.expect("notes");
        assert_eq!(broker.ship_all(&mut sink).await.expect("ships"), 700);
        let text = std::fs::read_to_string(&path).expect("file");
        let kinds: Vec<&str> = text.lines().filter(|line| line.contains("\"test.")).collect();
        assert_eq!(kinds.len(), 700);
        assert!(kinds.iter().enumerate().all(|(n, line)| line.contains(&format!("\"test.{n}\""))));
        assert_eq!(broker.sink_statuses().expect("reads")[0].behind, 0);
    }

    #[tokio::test]
    async fn a_sink_that_fails_keeps_its_position_and_goes_on_from_there() {
        let (broker, _) = founded().await;
        let folder = tempfile::tempdir().expect("folder");
        let mut broken = file(folder.path().join("missing/audit.jsonl"));
        assert!(broker.ship_all(&mut broken).await.is_err());
        assert_eq!(broker.ledger.acknowledged("f").expect("reads"), None);
        assert!(broker.sink_statuses().expect("reads")[0].behind > 0);
        std::fs::create_dir(folder.path().join("missing")).expect("folder");
        assert!(broker.ship_all(&mut broken).await.expect("ships") > 0);
        assert_eq!(broker.ships.acknowledged_by_all(), broker.ledger.acknowledged("f").expect("reads"));
    }
}
