//! Live leases per scope, by the minute they expire in: quotas without a scan.

use std::collections::{BTreeMap, HashMap};

use crate::model::ScopeId;

/// Live leases per scope. A lease counts until the minute of its expiry is over, or until it ends before.
#[derive(Debug, Default)]
pub struct Counts {
    scopes: HashMap<ScopeId, BTreeMap<u32, u32>>,
}

impl Counts {
    /// Leases of `scope` that expire in `minute_now` or later.
    #[must_use]
    pub fn live(&self, scope: ScopeId, minute_now: u32) -> u64 {
        let Some(minutes) = self.scopes.get(&scope) else { return 0 };
        minutes.range(minute_now..).map(|(_, &count)| u64::from(count)).sum()
    }

    /// Leases of `scope` that expire in `minute`.
    #[must_use]
    pub fn at(&self, scope: ScopeId, minute: u32) -> u32 {
        self.scopes.get(&scope).and_then(|minutes| minutes.get(&minute)).copied().unwrap_or_default()
    }

    /// The last minute that a live lease of `scope` expires in.
    #[must_use]
    pub fn latest(&self, scope: ScopeId, minute_now: u32) -> Option<u32> {
        self.scopes.get(&scope)?.range(minute_now..).next_back().map(|(&minute, _)| minute)
    }

    /// Sets one bucket.
    pub fn set(&mut self, scope: ScopeId, minute: u32, count: u32) {
        if count > 0 {
            self.scopes.entry(scope).or_default().insert(minute, count);
        } else if let Some(minutes) = self.scopes.get_mut(&scope) {
            minutes.remove(&minute);
            if minutes.is_empty() {
                self.scopes.remove(&scope);
            }
        }
    }

    /// Buckets whose minute is over.
    #[must_use]
    pub fn stale(&self, minute_now: u32, most: usize) -> Vec<(ScopeId, u32)> {
        let minutes = self
            .scopes
            .iter()
            .flat_map(|(&scope, minutes)| minutes.range(..minute_now).map(move |(&minute, _)| (scope, minute)));
        minutes.take(most).collect()
    }
}
