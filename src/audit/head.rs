//! One stream under verification: what checkpoints say of it, and how far its events were followed.

use std::collections::BTreeMap;

use super::{
    chain,
    finding::{Finding, FindingKind},
    verify::Findings,
};
use crate::{
    model::Digest,
    pb::{Event, StreamHead},
};

/// What is known of one stream.
#[derive(Debug)]
pub(super) struct Head {
    stream: String,
    /// Sequence to hash and checkpoint number, as trusted checkpoints state them.
    stated: BTreeMap<u64, (Digest, u64)>,
    /// The first event that retention left, as the newest checkpoint states it.
    first_kept: u64,
    last: Option<Link>,
    gaps: Vec<(u64, u64)>,
    repeat: Option<Repeat>,
    /// Whether a checkpoint disagreed already: one finding tells where, the rest follows from it.
    disagreed: bool,
}

/// The event reached.
#[derive(Clone, Copy, Debug)]
struct Link {
    sequence: u64,
    hash: Digest,
}

/// A run of events that were seen before, as at-least-once delivery leaves them.
///
/// The run is harmless when its own chain leads to the very hash that was reached before: the hash commits to all
/// events before it.
#[derive(Clone, Copy, Debug)]
struct Repeat {
    from: u64,
    last: Link,
}

impl Head {
    pub(super) fn new(stream: &str) -> Self {
        Self {
            stream: stream.to_owned(),
            stated: BTreeMap::new(),
            first_kept: 1,
            last: None,
            gaps: Vec::new(),
            repeat: None,
            disagreed: false,
        }
    }

    /// Takes what a trusted checkpoint states.
    pub(super) fn state(&mut self, head: &StreamHead, checkpoint: u64, findings: &mut Findings) {
        let Some(hash) = chain::digest(&head.hash) else {
            let why = format!("checkpoint {checkpoint} states no hash");
            return findings.push(self.found(FindingKind::Changed, head.sequence, why));
        };
        if let Some((&reached, &(stated, earlier))) = self.stated.last_key_value() {
            if head.sequence < reached {
                let why = format!("checkpoint {earlier} saw {reached} events, the later checkpoint {checkpoint} fewer");
                findings.push(self.found(FindingKind::Truncated, head.sequence.saturating_add(1), why));
            } else if head.sequence == reached && stated != hash {
                let why = format!("checkpoints {earlier} and {checkpoint} state different hashes");
                findings.push(self.found(FindingKind::Changed, reached, why));
            }
        }
        self.first_kept = self.first_kept.max(head.first_sequence);
        self.stated.insert(head.sequence, (hash, checkpoint));
        self.thin();
    }

    /// Follows one event.
    pub(super) fn event(&mut self, event: &Event, findings: &mut Findings) {
        let sequence = event.sequence;
        let (Some(previous), Some(hash)) = (chain::digest(&event.previous_hash), chain::digest(&event.hash)) else {
            findings.push(self.found(FindingKind::Changed, sequence, "a hash is missing"));
            return self.advance_without_hash(sequence, findings);
        };
        let sound = chain::hash(previous, &chain::canonical(event)) == hash;
        if !sound {
            findings.push(self.found(FindingKind::Changed, sequence, "the content does not have the hash it carries"));
        }
        let link = Link { sequence, hash };
        match self.last {
            None => self.begin(previous, link, findings),
            Some(last) if sequence > last.sequence => {
                self.end_repeat(findings);
                if sequence - last.sequence > 1 {
                    self.gaps.push((last.sequence + 1, sequence - 1));
                } else if previous != last.hash {
                    let why = "it does not continue the event before, so one of the two differs from what was written";
                    findings.push(self.found(FindingKind::Changed, sequence, why));
                }
                self.last = Some(link);
            }
            Some(last) => return self.behind(last, previous, link, findings),
        }
        self.compare(link, findings);
    }

    /// Goes on behind a page that could not be read.
    pub(super) fn skip(&mut self, first: u64, last: u64, after: Option<Digest>, findings: &mut Findings) {
        match self.last {
            None if first > self.first_kept => findings.push(self.removed(self.first_kept, first - 1)),
            Some(reached) if first > reached.sequence.saturating_add(1) => {
                self.gaps.push((reached.sequence + 1, first - 1));
            }
            None | Some(_) => {}
        }
        if let Some(hash) = after {
            self.last = Some(Link { sequence: last, hash });
        }
    }

    /// Says what is gone, now that no event follows.
    pub(super) fn finish(mut self, findings: &mut Findings) {
        self.end_repeat(findings);
        for (first, last) in std::mem::take(&mut self.gaps) {
            findings.push(self.removed(first, last));
        }
        let Some((&stated, &(_, checkpoint))) = self.stated.last_key_value() else {
            return;
        };
        match self.last {
            None if stated >= self.first_kept => {
                let why = format!("checkpoint {checkpoint} saw {stated} events, and there are none");
                findings.push(self.found(FindingKind::Missing, self.first_kept, why));
            }
            Some(last) if last.sequence < stated => {
                let why = format!("checkpoint {checkpoint} saw {stated} events");
                findings.push(self.found(FindingKind::Truncated, last.sequence + 1, why));
            }
            None | Some(_) => {}
        }
    }

    /// Whether any event or unreadable page was seen.
    pub(super) fn seen(&self) -> bool {
        self.last.is_some()
    }

    fn begin(&mut self, previous: Digest, link: Link, findings: &mut Findings) {
        if link.sequence > self.first_kept {
            findings.push(self.removed(self.first_kept, link.sequence - 1));
        } else if link.sequence <= 1 && previous != chain::GENESIS {
            findings.push(self.found(FindingKind::Changed, link.sequence, "the first event names one before it"));
        }
        // Where a checkpoint still knows the event before the first one kept, the link to it must hold.
        if let Some((hash, checkpoint)) = link.sequence.checked_sub(1).and_then(|before| self.stated.get(&before))
            && *hash != previous
        {
            let why = format!("it does not continue the event that checkpoint {checkpoint} states");
            findings.push(self.found(FindingKind::Changed, link.sequence, why));
        }
        self.last = Some(link);
    }

    /// An event with a sequence that was passed already.
    fn behind(&mut self, last: Link, previous: Digest, link: Link, findings: &mut Findings) {
        if self.fill_gap(link.sequence) {
            let why = format!("it stands behind event {}", last.sequence);
            findings.push(self.found(FindingKind::Reordered, link.sequence, why));
            return self.compare(link, findings);
        }
        let continues = self
            .repeat
            .filter(|run| run.last.sequence.checked_add(1) == Some(link.sequence) && run.last.hash == previous);
        let run = match continues {
            Some(run) => Repeat { last: link, ..run },
            None => {
                self.end_repeat(findings);
                Repeat { from: link.sequence, last: link }
            }
        };
        let arrived = link.sequence == last.sequence;
        self.repeat = if arrived && link.hash == last.hash { None } else { Some(run) };
        if arrived {
            self.end_repeat(findings);
        }
    }

    fn end_repeat(&mut self, findings: &mut Findings) {
        if let Some(run) = self.repeat.take() {
            let why = format!("events {} to {} come again, and not as before", run.from, run.last.sequence);
            findings.push(self.found(FindingKind::Reordered, run.from, why));
        }
    }

    fn advance_without_hash(&mut self, sequence: u64, findings: &mut Findings) {
        match self.last {
            None if sequence > self.first_kept => findings.push(self.removed(self.first_kept, sequence - 1)),
            Some(last) if sequence > last.sequence.saturating_add(1) => {
                self.gaps.push((last.sequence + 1, sequence - 1));
            }
            None | Some(_) => {}
        }
        // The next event's link is compared with zeros and reported too, which is right: it cannot be confirmed.
        if self.last.is_none_or(|last| sequence > last.sequence) {
            self.last = Some(Link { sequence, hash: chain::GENESIS });
        }
    }

    fn compare(&mut self, link: Link, findings: &mut Findings) {
        if self.disagreed {
            return;
        }
        if let Some(&(stated, checkpoint)) = self.stated.get(&link.sequence)
            && stated != link.hash
        {
            self.disagreed = true;
            let since = self.stated.range(..link.sequence).next_back().map_or(self.first_kept, |(at, _)| at + 1);
            let why = format!(
                "recomputed: checkpoint {checkpoint} states another hash for event {}, so one of the events {since} to \
                 {0} was changed",
                link.sequence
            );
            findings.push(self.found(FindingKind::Changed, since, why));
        }
    }

    /// Takes `sequence` out of the gaps; whether it was in one.
    fn fill_gap(&mut self, sequence: u64) -> bool {
        let Some(at) = self.gaps.iter().position(|&(first, last)| (first..=last).contains(&sequence)) else {
            return false;
        };
        let (first, last) = self.gaps.remove(at);
        if sequence > first {
            self.gaps.push((first, sequence - 1));
        }
        if sequence < last {
            self.gaps.push((sequence + 1, last));
        }
        true
    }

    /// Keeps the newest heads and every second older one: enough to locate, and bounded.
    fn thin(&mut self) {
        if self.stated.len() <= MAX_STATED {
            return;
        }
        let newest = self.stated.last_key_value().map(|(at, _)| *at);
        let mut keep = false;
        self.stated.retain(|at, _| {
            keep = !keep;
            keep || Some(*at) == newest
        });
    }

    fn removed(&self, first: u64, last: u64) -> Finding {
        self.found(FindingKind::Removed, first, format!("events {first} to {last} are gone"))
    }

    fn found(&self, kind: FindingKind, sequence: u64, why: impl Into<String>) -> Finding {
        Finding::new(kind, &self.stream, sequence, why)
    }
}

/// Heads kept for one stream.
const MAX_STATED: usize = 64;
