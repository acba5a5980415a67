//! Gauges of what the broker knows by itself, renewed every few seconds.

use super::Broker;
use crate::{
    ledger::{Hold, engine::Table},
    mint::x509::CaKey,
    model::{Suspension, TenantNumber, Timestamp},
};

impl Broker {
    /// Shows how things stand: all of it is in memory, or one row away.
    pub(super) fn show_gauges(&self) {
        let now = self.now();
        let built = [("version", env!("CARGO_PKG_VERSION")), ("engine", self.ledger.engine_name())];
        metrics::gauge!("mayfly_build_info", &built).set(1.0);
        metrics::gauge!("mayfly_started_seconds").set(at(self.settings.started));
        metrics::gauge!("mayfly_revision").set(wide(self.ledger.basis().1));
        metrics::gauge!("mayfly_live_leases").set(wide(self.live_leases(now)));
        metrics::gauge!("mayfly_holds").set(wide(self.holds.streams()));
        for hold in Hold::ALL {
            let holds = self.ledger.holds().has(hold);
            metrics::gauge!("mayfly_held", "reason" => word(hold)).set(f64::from(u8::from(holds)));
        }
        let wall = self.time.wall();
        metrics::gauge!("mayfly_clock_ahead_seconds")
            .set(now.since(wall).as_secs_f64() - wall.since(now).as_secs_f64());
        self.show_ledger();
        self.show_sinks(now);
        self.show_authorities();
        if let Some(notifier) = self.notifier.get() {
            notifier.show_gauges();
        }
    }

    fn show_ledger(&self) {
        let (ends, begins, background) = self.ledger.depths();
        for (lane, depth) in [("end", ends), ("begin", begins), ("background", background)] {
            metrics::gauge!("mayfly_lane_depth", "lane" => lane).set(wide(depth));
        }
        let (cuts, bars) = self.ledger.cuts_and_bars();
        metrics::gauge!("mayfly_cuts").set(wide(cuts));
        metrics::gauge!("mayfly_bars").set(wide(bars));
        for cause in Suspension::ALL {
            let held = self.ledger.held_for(cause).len();
            metrics::gauge!("mayfly_suspended_scopes", "reason" => cause.words()).set(wide(held));
        }
        metrics::gauge!("mayfly_lapsed_quarantines").set(wide(self.lapsed_quarantines()));
        metrics::gauge!("mayfly_cleanup_pending_cuts").set(wide(self.ledger.pending_cuts()));
        let usage = self.ledger.usage();
        metrics::gauge!("mayfly_store_disk_bytes").set(wide(usage.disk_bytes));
        metrics::gauge!("mayfly_store_buffered_bytes").set(wide(usage.buffered_bytes));
        for table in Table::ALL {
            let rows = self.ledger.aside().in_table(table);
            metrics::gauge!("mayfly_set_aside_rows", "table" => table.name()).set(wide(rows));
        }
        metrics::gauge!("mayfly_checkpoint_waiting_streams").set(wide(self.ledger.unsigned_streams()));
        // A store that cannot be read shows as such; the last known time stays.
        if let Ok(Some(signed)) = self.ledger.last_checkpoint() {
            metrics::gauge!("mayfly_checkpoint_at_seconds").set(at(signed));
        }
    }

    fn show_sinks(&self, now: Timestamp) {
        for (sink, waits) in self.sink_positions().unwrap_or_default() {
            let waited = waits.map_or(0.0, |since| now.since(since).as_secs_f64());
            metrics::gauge!("mayfly_sink_waiting_seconds", "sink" => sink.name.clone()).set(waited);
            metrics::gauge!("mayfly_sink_behind_revisions", "sink" => sink.name.clone()).set(wide(sink.behind));
            let failing = f64::from(u8::from(!sink.last_error.is_empty()));
            metrics::gauge!("mayfly_sink_failing", "sink" => sink.name.clone()).set(failing);
            metrics::gauge!("mayfly_sink_acknowledged_revision", "sink" => sink.name).set(wide(sink.acknowledged));
        }
    }

    fn show_authorities(&self) {
        let ring = self.rings.ring(&self.ledger, TenantNumber::BROKER).ok();
        if let Some(ca) = ring.and_then(|ring| ring.ca.clone()) {
            show_end("issuing", ca.not_after());
        }
        let roots = self.roots().unwrap_or_default();
        if let Some(end) = roots.iter().filter_map(|root| CaKey::end_of(root)).min() {
            show_end("root", end);
        }
    }
}

/// Shows when the authorities of a kind end: of several the first.
pub(super) fn show_end(authority: &'static str, end: Timestamp) {
    metrics::gauge!("mayfly_authority_end_seconds", "authority" => authority).set(at(end));
}

/// A point in time as gauges have it: seconds since 1970.
pub(super) fn at(time: Timestamp) -> f64 {
    wide(time.seconds())
}

/// Gauges are floats; beyond 2^53 they are rounded.
#[expect(clippy::cast_precision_loss, reason = "see above")]
pub(super) fn wide(count: impl TryInto<u64>) -> f64 {
    count.try_into().unwrap_or(u64::MAX) as f64
}

fn word(hold: Hold) -> &'static str {
    match hold {
        Hold::Clock => "clock",
        Hold::StoreFailed => "store_failed",
        Hold::StoreFull => "store_full",
        Hold::Unanchored => "unanchored",
        Hold::Restored => "restored",
        Hold::PutBack => "put_back",
        Hold::AnchorLost => "anchor_lost",
    }
}
