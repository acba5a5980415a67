//! What the feed has said so far, applied exactly as the broker does.

use std::collections::HashMap;

use crate::{
    model::{ScopeId, Timestamp, time::SKEW},
    pb::{Revision, RevocationEvent, RevocationKind, WatchRevocationsResponse},
};

/// Whether a credential stands, as far as the feed tells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FeedStanding {
    /// Nothing against it.
    Live,
    /// Held by a bar; may come back.
    Suspended,
    /// Cut.
    Ended,
    /// Its decision was made in another incarnation of the store, of which this feed says nothing.
    OtherIncarnation,
    /// The feed's beginning is not complete yet, or the decision is older than what is remembered: a cut may have been
    /// missed.
    NotCovered,
}

/// Why a message of the feed cannot be applied. All that was known is dropped, so that nothing passes for current.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FeedError {
    /// A revision is missing, or is not of the feed's incarnation.
    #[error("a revision is missing or does not fit")]
    Revision,
    /// The message's revision is below the last one.
    #[error("the feed went back")]
    Backwards,
    /// An event of unknown kind or with a scope id that is none.
    #[error("an event cannot be read")]
    Event,
}

/// Cuts and suspensions of one incarnation.
///
/// A feed that began without a revision to resume after tells first of everything that still matters; once a message
/// said that this is complete, every decision of the incarnation is covered, and until then none is.
#[derive(Debug, Default)]
pub struct Revocations {
    known: Option<Known>,
    heard: Option<Timestamp>,
}

#[derive(Debug)]
struct Known {
    incarnation: u64,
    /// Whether everything that still matters was told.
    complete: bool,
    /// Decisions at this number or later are covered then; above zero only if there was too much to remember.
    from: u64,
    number: u64,
    cuts: HashMap<ScopeId, Cut>,
    suspended: HashMap<ScopeId, Option<Timestamp>>,
    pruned: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct Cut {
    number: u64,
    covers_until: Option<Timestamp>,
}

impl Revocations {
    /// The revision to resume the feed after; `None` starts anew.
    ///
    /// A beginning that broke off before it was complete is dropped: only a new one says when it is.
    #[must_use]
    pub fn resume_after(&mut self) -> Option<Revision> {
        if self.known.as_ref().is_some_and(|known| !known.complete) {
            self.reset();
        }
        self.known.as_ref().map(|known| Revision { incarnation: known.incarnation, number: known.number })
    }

    /// When a message was last applied.
    #[must_use]
    pub fn last_heard(&self) -> Option<Timestamp> {
        self.heard
    }

    /// Cuts and suspensions remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.as_ref().map_or(0, |known| known.cuts.len() + known.suspended.len())
    }

    /// Whether none is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets everything, as when the broker says that the revision to resume after is gone.
    ///
    /// Nothing is covered from then on, until the new feed's beginning is complete.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Applies the next message of the feed.
    ///
    /// # Errors
    /// When it makes no sense after the ones before; start anew then.
    pub fn apply(&mut self, message: &WatchRevocationsResponse, now: Timestamp) -> Result<(), FeedError> {
        let applied = self.try_apply(message, now);
        match applied {
            Ok(()) => self.heard = Some(now),
            Err(_) => self.reset(),
        }
        applied
    }

    /// How a credential with these scopes, decided at `basis` (incarnation, number), stands.
    #[must_use]
    pub fn standing(&self, scopes: &[ScopeId], basis: (u64, u64)) -> FeedStanding {
        let Some(known) = &self.known else {
            return FeedStanding::NotCovered;
        };
        let (incarnation, number) = basis;
        if incarnation != known.incarnation {
            return FeedStanding::OtherIncarnation;
        }
        if scopes.iter().any(|scope| known.cuts.get(scope).is_some_and(|cut| cut.number > number)) {
            return FeedStanding::Ended;
        }
        if !known.complete || number < known.from {
            return FeedStanding::NotCovered;
        }
        if scopes.iter().any(|scope| known.suspended.contains_key(scope)) {
            return FeedStanding::Suspended;
        }
        FeedStanding::Live
    }

    fn try_apply(&mut self, message: &WatchRevocationsResponse, now: Timestamp) -> Result<(), FeedError> {
        let revision = message.revision.ok_or(FeedError::Revision)?;
        let known = self.known.get_or_insert_with(|| Known::begin(revision, now));
        if revision.incarnation != known.incarnation {
            return Err(FeedError::Revision);
        }
        if revision.number < known.number {
            return Err(FeedError::Backwards);
        }
        for event in &message.events {
            known.take(event)?;
        }
        known.number = revision.number;
        // A resumed feed does not say it again.
        known.complete |= message.complete;
        known.prune(now);
        if known.cuts.len() + known.suspended.len() > MAX_REMEMBERED {
            // Full is not a reason to forget one cut: everything decided so far counts as unknown instead.
            *known = Known {
                complete: known.complete,
                from: revision.number,
                number: revision.number,
                ..Known::begin(revision, now)
            };
        }
        Ok(())
    }
}

impl Known {
    fn begin(revision: Revision, now: Timestamp) -> Self {
        Self {
            incarnation: revision.incarnation,
            complete: false,
            from: 0,
            number: revision.number,
            cuts: HashMap::new(),
            suspended: HashMap::new(),
            pruned: now,
        }
    }

    fn take(&mut self, event: &RevocationEvent) -> Result<(), FeedError> {
        let revision = event.revision.filter(|at| at.incarnation == self.incarnation).ok_or(FeedError::Revision)?;
        let scope = ScopeId::from_slice(&event.scope_id).ok_or(FeedError::Event)?;
        let covers_until = match &event.covers_until {
            None => None,
            Some(at) => Some(
                Timestamp::from_seconds(u64::try_from(at.seconds).or(Err(FeedError::Event))?)
                    .after(std::time::Duration::from_secs(1)),
            ),
        };
        match RevocationKind::try_from(event.kind).or(Err(FeedError::Event))? {
            RevocationKind::Unspecified => return Err(FeedError::Event),
            RevocationKind::Cut => {
                let cut = self.cuts.entry(scope).or_insert(Cut { number: revision.number, covers_until });
                // Of two cuts the higher counts, and is remembered for as long as the longer-lived.
                cut.number = cut.number.max(revision.number);
                cut.covers_until = longer(cut.covers_until, covers_until);
            }
            RevocationKind::Suspend => {
                let kept = self.suspended.entry(scope).or_insert(covers_until);
                *kept = longer(*kept, covers_until);
            }
            RevocationKind::Lift => {
                self.suspended.remove(&scope);
            }
        }
        Ok(())
    }

    /// Forgets what can concern no credential any more, at most once a minute.
    fn prune(&mut self, now: Timestamp) {
        if now.minute() == self.pruned.minute() {
            return;
        }
        self.pruned = now;
        let still = |until: Option<Timestamp>| until.is_none_or(|until| now <= until.after(SKEW));
        self.cuts.retain(|_, cut| still(cut.covers_until));
        self.suspended.retain(|_, until| still(*until));
    }
}

/// The later of two ends, where `None` is never.
fn longer(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    a.zip(b).map(|(a, b)| a.max(b))
}

/// Cuts and suspensions remembered at most; some 100 bytes each.
const MAX_REMEMBERED: usize = 1_000_000;

#[cfg(test)]
mod tests;
