//! Cuts and bars wider than a task, in memory: one entry a scope.

use std::collections::HashMap;

use crate::model::{EndReason, ScopeId, Standing, Suspension, Suspensions, Timestamp};

/// What is known of one scope.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ScopeState {
    /// Revision of its latest cut; 0 for none.
    pub cut: u64,
    /// When that was, by the broker's clock; of several cuts the latest time.
    pub cut_at: Timestamp,
    /// What the cut makes of a lease.
    pub why: Option<EndReason>,
    /// Whether the clean-up behind the cut is finished.
    pub cleaned: bool,
    /// Revision of its bar; 0 for none.
    pub bar: u64,
    /// Whether the bar also suspends what lives.
    pub suspend: bool,
    /// Why it is suspended, beside its bar.
    pub held: Suspensions,
    /// Revision of the latest of these.
    pub held_at: u64,
    /// Revision at which the trust map last changed it; 0 when that is long ago.
    pub changed: u64,
    /// When it changed.
    pub changed_at: Timestamp,
}

impl ScopeState {
    /// Whether nothing may begin in it.
    #[must_use]
    pub fn is_barred(&self) -> bool {
        self.bar > 0 || !self.held.is_empty()
    }

    /// Whether what lives in it is suspended.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        (self.bar > 0 && self.suspend) || !self.held.is_empty()
    }
}

/// Every scope that something is known of.
#[derive(Clone, Debug, Default)]
pub struct Book {
    scopes: HashMap<ScopeId, ScopeState>,
}

impl Book {
    /// What is known of a scope.
    #[must_use]
    pub fn state(&self, scope: ScopeId) -> ScopeState {
        self.scopes.get(&scope).copied().unwrap_or_default()
    }

    /// Replaces what is known of a scope.
    pub fn set(&mut self, scope: ScopeId, state: ScopeState) {
        if state == ScopeState::default() {
            self.scopes.remove(&scope);
        } else {
            self.scopes.insert(scope, state);
        }
    }

    /// The standing that cuts and bars leave to something with these scopes, decided at `basis`.
    #[must_use]
    pub fn standing(&self, scopes: &[ScopeId], basis: u64) -> Standing {
        if self.scopes.is_empty() {
            return Standing::Live;
        }
        scopes.iter().filter_map(|scope| self.scopes.get(scope)).fold(Standing::Live, |standing, state| {
            standing.and(if state.cut > basis {
                Standing::Ended(state.why.unwrap_or(EndReason::Revoked))
            } else if state.is_suspended() {
                Standing::Suspended
            } else {
                Standing::Live
            })
        })
    }

    /// Whether any of the scopes is barred.
    #[must_use]
    pub fn barred(&self, scopes: &[ScopeId]) -> bool {
        scopes.iter().any(|&scope| self.state(scope).is_barred())
    }

    /// Scopes that are suspended now, with the revision of their bar.
    #[must_use]
    pub fn suspensions(&self) -> Vec<(ScopeId, u64)> {
        let suspended = self.scopes.iter().filter(|(_, state)| state.is_suspended());
        let since = |state: &ScopeState| if state.suspend { state.bar.max(state.held_at) } else { state.held_at };
        suspended.map(|(&scope, state)| (scope, since(state))).collect()
    }

    /// Scopes that are suspended for a reason.
    #[must_use]
    pub fn held_for(&self, cause: Suspension) -> Vec<ScopeId> {
        let held = self.scopes.iter().filter(|(_, state)| state.held.has(cause));
        held.map(|(&scope, _)| scope).collect()
    }

    /// Loses every cut: a bug that simulations put in on purpose.
    #[cfg(test)]
    pub fn forget_cuts(&mut self) {
        self.scopes.values_mut().for_each(|state| state.cut = 0);
    }

    /// Scopes with a cut.
    #[must_use]
    pub fn cuts(&self) -> usize {
        self.scopes.values().filter(|state| state.cut > 0).count()
    }

    /// Scopes with a cut whose clean-up is not finished.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.scopes.values().filter(|state| state.cut > 0 && !state.cleaned).count()
    }

    /// Scopes with a bar or suspended for another reason.
    #[must_use]
    pub fn bars(&self) -> usize {
        self.scopes.values().filter(|state| state.is_barred()).count()
    }
}
