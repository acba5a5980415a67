//! Keys, and what the daemon thinks of itself.

use std::time::Duration;

use crate::{
    broker::{
        Broker, Refusal,
        event::stamp,
        rings::{KeyRow, KeyUse},
        view,
    },
    identity::Caller,
    ledger::Hold,
    mint::{
        keyring::{self, KeyFacts, KeyState, RingPolicy, Step},
        signing::Algorithm,
    },
    model::{Scope, TenantNumber, Timestamp},
    pb,
    policy::Role,
};

impl Broker {
    /// Every key of a ring but the wrapping key, as the wire has it.
    ///
    /// # Errors
    /// When the store failed.
    pub fn key_views(&self, number: TenantNumber, tenant: &str, now: Timestamp) -> Result<Vec<pb::Key>, Refusal> {
        let ring = self.rings.ring(&self.ledger, number)?;
        let rows = ring.rows.iter().filter(|row| row.key_use != KeyUse::Wrapping);
        let view = |row: &KeyRow| {
            let facts: Vec<KeyFacts> = ring.of(row.key_use).map(KeyRow::facts).collect();
            let policy = match row.key_use {
                KeyUse::Token => Some(&self.settings.token_ring),
                KeyUse::Ca => Some(&self.settings.ca_ring),
                KeyUse::Issuing | KeyUse::Root | KeyUse::Audit | KeyUse::Wrapping => None,
            };
            let record = &row.record;
            let is_cut = self.ledger.scope(Scope::SigningKey(record.key_id.clone()).id()).cut > 0;
            let state = if is_cut { KeyState::Cut } else { KeyState::from_code(record.state) };
            pb::Key {
                key_id: record.key_id.clone(),
                tenant: tenant.to_owned(),
                r#use: row.key_use.word().to_owned(),
                algorithm: Algorithm::from_code(record.algorithm).map_or("", Algorithm::name).to_owned(),
                state: state.word().to_owned(),
                created: Some(stamp(Timestamp::from_millis(record.created))),
                state_since: Some(stamp(Timestamp::from_millis(record.state_since))),
                next_step: policy.and_then(|policy| next_step(&facts, policy, &record.key_id, now)).map(stamp),
            }
        };
        Ok(rows.map(view).collect())
    }

    /// What the daemon thinks of itself. Leases are counted within the operator's scope.
    ///
    /// # Errors
    /// When the caller is no operator.
    pub async fn get_status(
        &self,
        caller: &Caller,
        _request: pb::GetStatusRequest,
    ) -> Result<pb::GetStatusResponse, Refusal> {
        let now = self.now();
        let operator = self.operator(caller)?;
        operator.require(Role::Auditor)?;
        let names = self.registry.names("", None, usize::MAX).into_iter().map(|(name, _)| name);
        let live = names.filter(|name| operator.tenants.includes(name)).map(|name| self.live_in(&operator, &name, now));
        let live_leases = live.sum();
        let (cuts, bars) = self.ledger.cuts_and_bars();
        Ok(pb::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: Some(view::revision(self.ledger.basis())),
            engine: self.ledger.engine_name().to_owned(),
            started: Some(stamp(self.settings.started)),
            now: Some(stamp(now)),
            held: self.ledger.holds().first().map_or("", hold_word).to_owned(),
            live_leases,
            cuts: u64::try_from(cuts).unwrap_or(u64::MAX),
            bars: u64::try_from(bars).unwrap_or(u64::MAX),
            set_aside: self.ledger.aside().total(),
            sinks: self.sink_statuses()?,
            disk_bytes: self.ledger.usage().disk_bytes,
            holds: u32::try_from(self.holds.streams()).unwrap_or(u32::MAX),
            watchers: self.watchers.load(std::sync::atomic::Ordering::Relaxed),
            unreadable_policies: self.unreadable_policies(&operator),
        })
    }
}

fn hold_word(hold: Hold) -> &'static str {
    match hold {
        Hold::Clock => "clock jump",
        Hold::StoreFailed => "store failed",
        Hold::StoreFull => "disk full",
        Hold::Unanchored => "anchor not writable",
        Hold::Restored => "restored",
        Hold::PutBack => "older than its anchor",
        Hold::AnchorLost => "anchor lost",
    }
}

/// When the next step of a key is due, to the minute: asked of the function that takes the steps, so that the two cannot
/// differ. `None` when none is due within ten years.
fn next_step(facts: &[KeyFacts], policy: &RingPolicy, key_id: &str, now: Timestamp) -> Option<Timestamp> {
    let at = |minutes: u64| now.after(Duration::from_secs(minutes * 60));
    let due = |minutes: u64| {
        keyring::next_steps(facts, policy, at(minutes)).iter().any(|step| match step {
            Step::Prepare => false,
            Step::Activate(id) | Step::Retire(id) | Step::Destroy(id) => id == key_id,
        })
    };
    let (mut low, mut high) = (0, TEN_YEARS_MINUTES);
    if !due(high) {
        return None;
    }
    while low < high {
        let middle = low + (high - low) / 2;
        if due(middle) { high = middle } else { low = middle + 1 }
    }
    Some(at(low))
}

const TEN_YEARS_MINUTES: u64 = 10 * 366 * 24 * 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_step_of_a_standby_is_when_the_active_key_is_old_enough() {
        let hours = |n: u64| Duration::from_secs(n * 3600);
        let policy = RingPolicy::new(hours(1), hours(24), hours(2)).unwrap();
        let fact = |id: &str, state, since| KeyFacts { key_id: id.into(), state, since };
        let start = Timestamp::from_seconds(1_000_000_020);
        let ring = [fact("a", KeyState::Active, start), fact("b", KeyState::Prepared, start)];
        let due = Some(start.after(hours(24)));
        assert_eq!(next_step(&ring, &policy, "b", start.after(hours(3))), due);
        assert_eq!(next_step(&ring, &policy, "a", start.after(hours(3))), due);
        assert_eq!(next_step(&ring[..1], &policy, "a", start), None);
    }
}
