//! When signing keys are made, used, retired and destroyed: a pure function.

use std::time::Duration;

use crate::model::Timestamp;

/// Where a signing key stands.
///
/// ```text
/// Prepared --> Active --> Retired --> (destroyed)
///     |          |           |
///     +----------+-----------+----> Cut --> (destroyed)
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum KeyState {
    /// Published, not signing yet: it stands by.
    Prepared,
    /// Published and signing.
    Active,
    /// Published for what it signed.
    Retired,
    /// Distrusted: no longer published.
    Cut,
}

impl KeyState {
    /// The number in records.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Prepared => 1,
            Self::Active => 2,
            Self::Retired => 3,
            Self::Cut => 4,
        }
    }

    /// From a record's number; one that is unknown counts as cut.
    #[must_use]
    pub fn from_code(code: u32) -> Self {
        match code {
            1 => Self::Prepared,
            2 => Self::Active,
            3 => Self::Retired,
            _ => Self::Cut,
        }
    }

    /// The word for people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Cut => "cut",
        }
    }

    /// Whether key sets hold it.
    #[must_use]
    pub fn is_published(self) -> bool {
        match self {
            Self::Prepared | Self::Active | Self::Retired => true,
            Self::Cut => false,
        }
    }
}

/// What is known of one key of a ring.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyFacts {
    /// Its name.
    pub key_id: String,
    /// Where it stands.
    pub state: KeyState,
    /// Since when.
    pub since: Timestamp,
}

/// How long each state lasts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RingPolicy {
    publish_before: Duration,
    active_for: Duration,
    retire_keep: Duration,
}

/// The times do not fit together.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "keys would rotate every {active_for:?}, before a successor was published for {publish_before:?}; rotate later"
)]
pub struct RotatesTooFast {
    /// How long a key signs.
    pub active_for: Duration,
    /// How long it is published before.
    pub publish_before: Duration,
}

impl RingPolicy {
    /// `publish_before` is at least the max-age of key sets; `retire_keep` at least the longest life of a credential
    /// and the skew forgiven by verifiers.
    ///
    /// # Errors
    /// When keys would rotate faster than they can be published.
    pub fn new(publish_before: Duration, active_for: Duration, retire_keep: Duration) -> Result<Self, RotatesTooFast> {
        if active_for <= publish_before {
            return Err(RotatesTooFast { active_for, publish_before });
        }
        Ok(Self { publish_before, active_for, retire_keep })
    }

    /// How long a key is published before it signs.
    #[must_use]
    pub fn publish_before(&self) -> Duration {
        self.publish_before
    }

    /// How long a key signs.
    #[must_use]
    pub fn active_for(&self) -> Duration {
        self.active_for
    }

    /// How long a key is published after it has signed.
    #[must_use]
    pub fn retire_keep(&self) -> Duration {
        self.retire_keep
    }
}

/// One thing to do, in the order given.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Step {
    /// Make a key and publish it.
    Prepare,
    /// Sign with this key from now on.
    Activate(String),
    /// Stop signing with this key.
    Retire(String),
    /// Forget this key, private half and all.
    Destroy(String),
}

/// What to do now so that there is one active key and one standing by.
///
/// Laws, each with a test: steps never leave a ring without an active key when it had one; a key is published for
/// `publish_before` before it signs, unless nothing else can sign (a new ring, or a cut of the active key); a retired
/// key stays published for `retire_keep`. A step back of the clock only delays. `now` must be confirmed time: the
/// caller does not ask while time is in doubt.
///
/// All steps of one answer belong into one commit.
#[must_use]
pub fn next_steps(keys: &[KeyFacts], policy: &RingPolicy, now: Timestamp) -> Vec<Step> {
    let mut steps = Vec::new();
    let old_enough = |key: &KeyFacts, age: Duration| now >= key.since.after(age);
    // Of several active keys, as a damaged store may have, the newest goes on.
    let active = in_state(keys, KeyState::Active).max_by_key(|key| (key.since, &key.key_id));
    let standby = in_state(keys, KeyState::Prepared).min_by_key(|key| (key.since, &key.key_id));
    let successor = standby.filter(|standby| match active {
        Some(active) => old_enough(active, policy.active_for) && old_enough(standby, policy.publish_before),
        None => true,
    });
    if let Some(successor) = successor {
        steps.push(Step::Activate(successor.key_id.clone()));
    }
    let signs_on = successor.or(active);
    steps.extend(
        in_state(keys, KeyState::Active)
            .filter(|key| signs_on.is_some_and(|on| on.key_id != key.key_id))
            .map(|key| Step::Retire(key.key_id.clone())),
    );
    let standing_by = in_state(keys, KeyState::Prepared).count() - usize::from(successor.is_some());
    if standing_by == 0 {
        steps.push(Step::Prepare);
    }
    steps.extend(
        keys.iter()
            .filter(|key| match key.state {
                KeyState::Retired | KeyState::Cut => old_enough(key, policy.retire_keep),
                KeyState::Prepared | KeyState::Active => false,
            })
            .map(|key| Step::Destroy(key.key_id.clone())),
    );
    steps
}

/// The key that signs.
#[must_use]
pub fn active(keys: &[KeyFacts]) -> Option<&KeyFacts> {
    in_state(keys, KeyState::Active).max_by_key(|key| (key.since, &key.key_id))
}

/// The keys of the published key set.
pub fn published(keys: &[KeyFacts]) -> impl Iterator<Item = &KeyFacts> {
    keys.iter().filter(|key| key.state.is_published())
}

fn in_state(keys: &[KeyFacts], state: KeyState) -> impl Iterator<Item = &KeyFacts> {
    keys.iter().filter(move |key| key.state == state)
}

#[cfg(test)]
mod tests;
