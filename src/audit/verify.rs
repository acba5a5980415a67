//! Verifies an audit trail as it streams by, and locates what is wrong.
//!
//! Checkpoints come first, then events, each stream's in order: `Verifier` -> [`Verifier::events`] -> `EventVerifier`.
//! Memory grows with the number of streams and checkpoints, not of events. The hash that the newest checkpoint states
//! for a stream vouches for every event before it; older ones only help to say where.
//!
//! Not promised: that events behind the newest checkpoint are complete; nothing signed speaks of them yet.

use std::collections::BTreeMap;

use super::{
    chain, checkpoint,
    finding::{Finding, FindingKind},
    head::Head,
    page,
};
use crate::{
    model::Digest,
    pb::{Checkpoint, Event, VerifyEventsResponse},
    records::AuditPage,
};

/// Where the series of checkpoints must begin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Start {
    /// With number 1.
    Genesis,
    /// With the one that retention left, known by number and hash from elsewhere.
    At {
        /// Its number.
        number: u64,
        /// Its hash.
        hash: Digest,
    },
    /// With whichever comes first: a missing beginning goes unnoticed.
    AsGiven,
}

/// Which streams the trail must hold, of those that checkpoints name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Coverage {
    /// All.
    All,
    /// Those of one tenant, by name.
    Tenant(String),
    /// One stream, as `tenant/partner`.
    Stream(String),
}

impl Coverage {
    fn holds(&self, stream: &str) -> bool {
        match self {
            Self::All => true,
            Self::Tenant(tenant) => stream.split_once('/').is_some_and(|(head, _)| head == tenant),
            Self::Stream(only) => stream == only,
        }
    }
}

/// What verification saw.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// Streams with events.
    pub streams: u64,
    /// Events, repeated ones included.
    pub events: u64,
    /// Checkpoints, repeated ones included.
    pub checkpoints: u64,
    /// What is wrong; empty when all is well. At most [`MAX_FINDINGS`].
    pub findings: Vec<Finding>,
    /// Findings beyond the limit.
    pub more_findings: u64,
}

impl From<Report> for VerifyEventsResponse {
    fn from(report: Report) -> Self {
        Self {
            streams: report.streams,
            events: report.events,
            checkpoints: report.checkpoints,
            findings: report.findings.into_iter().map(Into::into).collect(),
        }
    }
}

/// Findings up to a limit.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<Finding>,
    more: u64,
}

impl Findings {
    pub(super) fn push(&mut self, finding: Finding) {
        if self.list.len() < MAX_FINDINGS {
            self.list.push(finding);
        } else {
            self.more += 1;
        }
    }
}

/// The first phase: takes checkpoints.
#[derive(Debug)]
pub struct Verifier<V> {
    start: Start,
    coverage: Coverage,
    trusted: Vec<[u8; 32]>,
    verify: V,
    heads: BTreeMap<String, Head>,
    hashes: BTreeMap<u64, Digest>,
    /// Number of the newest, and its hash unless it was damaged.
    last: Option<(u64, Option<Digest>)>,
    seen: u64,
    findings: Findings,
}

impl<V: Fn(&[u8], &[u8], &[u8]) -> bool> Verifier<V> {
    /// `trusted` are the public keys that may sign checkpoints; when empty, the first checkpoint's key is taken as
    /// given. `verify(public key, message, signature)` checks Ed25519.
    pub fn new(start: Start, coverage: Coverage, trusted: Vec<[u8; 32]>, verify: V) -> Self {
        Self {
            start,
            coverage,
            trusted,
            verify,
            heads: BTreeMap::new(),
            hashes: BTreeMap::new(),
            last: None,
            seen: 0,
            findings: Findings::default(),
        }
    }

    /// Takes the next checkpoint. One that was seen already, unchanged, is harmless.
    pub fn checkpoint(&mut self, checkpoint: &Checkpoint) {
        self.seen += 1;
        let number = checkpoint.number;
        let hash = chain::digest(&checkpoint.hash);
        if let Some(earlier) = self.hashes.get(&number) {
            if hash != Some(*earlier) {
                self.found(number, "another checkpoint has the same number");
            }
            return;
        }
        if let Some(why) = self.distrust(checkpoint) {
            self.found(number, why);
            self.follow(number, None, None);
            return;
        }
        self.follow(number, chain::digest(&checkpoint.previous_hash), hash);
        self.hashes.extend(hash.map(|hash| (number, hash)));
        for head in checkpoint.heads.iter().filter(|head| self.coverage.holds(&head.stream)) {
            let of_stream = self.heads.entry(head.stream.clone()).or_insert_with(|| Head::new(&head.stream));
            of_stream.state(head, number, &mut self.findings);
        }
    }

    /// Reports something that should be a checkpoint or event and cannot be read, by its line or place, from 1.
    pub fn unreadable(&mut self, line: u64) {
        self.findings.push(Finding::new(FindingKind::Changed, "", line, format!("line {line} cannot be read")));
    }

    /// Goes on to the events, once every checkpoint was given.
    #[must_use]
    pub fn events(mut self) -> EventVerifier {
        if let (None, Start::At { number, .. }) = (self.last, self.start) {
            self.found(number, "no checkpoint is there");
        }
        EventVerifier { heads: self.heads, findings: self.findings, checkpoints: self.seen, events: 0 }
    }

    fn distrust(&mut self, checkpoint: &Checkpoint) -> Option<&'static str> {
        if let Some(why) = checkpoint::fault(checkpoint, &self.verify) {
            return Some(why);
        }
        if self.trusted.is_empty() {
            self.trusted.extend(<[u8; 32]>::try_from(checkpoint.public_key.as_slice()));
        }
        let known = self.trusted.iter().any(|key| *key == *checkpoint.public_key);
        (!known).then_some("it is signed with a key that is not trusted")
    }

    /// Checks number and link against the checkpoint before.
    fn follow(&mut self, number: u64, previous: Option<Digest>, hash: Option<Digest>) {
        match (self.last, self.start) {
            (None, Start::Genesis) if number > 1 => self.gap(1, number - 1),
            (None, Start::Genesis) => {
                if previous.is_some_and(|previous| previous != chain::GENESIS) {
                    self.found(number, "the first checkpoint names one before it");
                }
            }
            (None, Start::At { number: first, .. }) if number > first => self.gap(first, number - 1),
            (None, Start::At { hash: expected, number: first }) => {
                if number == first && hash.is_some_and(|hash| hash != expected) {
                    self.found(number, "it is not the checkpoint that retention left");
                }
            }
            (None, Start::AsGiven) => {}
            (Some((last, _)), _) if number <= last => {
                return self.found(number, "it stands behind a later checkpoint");
            }
            (Some((last, _)), _) if number > last + 1 => self.gap(last + 1, number - 1),
            (Some((_, before)), _) => {
                // A damaged checkpoint was reported itself; its successor's link cannot be judged.
                if let (Some(previous), Some(before)) = (previous, before)
                    && previous != before
                {
                    self.found(number, "it does not continue the checkpoint before");
                }
            }
        }
        self.last = Some((number, hash));
    }

    fn gap(&mut self, first: u64, last: u64) {
        self.found(first, &format!("checkpoints {first} to {last} are gone"));
    }

    fn found(&mut self, number: u64, why: &str) {
        self.findings.push(Finding::new(FindingKind::Checkpoint, "", number, why));
    }
}

/// The second phase: takes events and whole pages, and compares them with what the checkpoints said.
#[derive(Debug)]
pub struct EventVerifier {
    heads: BTreeMap<String, Head>,
    findings: Findings,
    checkpoints: u64,
    events: u64,
}

impl EventVerifier {
    /// Follows one event that carries its hashes. Streams may be mixed; within one, order counts.
    pub fn event(&mut self, event: &Event) {
        self.events += 1;
        head(&mut self.heads, &event.stream).event(event, &mut self.findings);
    }

    /// Follows one stored page of `stream`.
    pub fn page(&mut self, stream: &str, record: &AuditPage, first_sequence: u64) {
        match page::read(record, first_sequence) {
            Ok(events) => {
                for event in &events {
                    if event.stream == stream {
                        self.event(event);
                    } else {
                        let why = format!("the event stored here is of stream {}", event.stream);
                        self.findings.push(Finding::new(FindingKind::Changed, stream, event.sequence, why));
                    }
                }
            }
            Err(finding) => {
                let count = u64::try_from(record.events.len()).unwrap_or(u64::MAX);
                let last = first_sequence.saturating_add(count.saturating_sub(1));
                self.events = self.events.saturating_add(count);
                self.findings.push(Finding { stream: stream.to_owned(), ..finding });
                let after = chain::digest(&record.after);
                head(&mut self.heads, stream).skip(first_sequence, last, after, &mut self.findings);
            }
        }
    }

    /// Reports a line or row that cannot be read, by its place, from 1; `stream` may be empty.
    pub fn unreadable(&mut self, stream: &str, place: u64) {
        self.findings.push(Finding::new(FindingKind::Changed, stream, place, "the row cannot be read"));
    }

    /// Says what is wrong, now that no event follows.
    #[must_use]
    pub fn finish(mut self) -> Report {
        let streams = self.heads.values().filter(|head| head.seen()).count();
        for head in self.heads.into_values() {
            head.finish(&mut self.findings);
        }
        Report {
            streams: u64::try_from(streams).unwrap_or(u64::MAX),
            events: self.events,
            checkpoints: self.checkpoints,
            findings: self.findings.list,
            more_findings: self.findings.more,
        }
    }
}

fn head<'a>(heads: &'a mut BTreeMap<String, Head>, stream: &str) -> &'a mut Head {
    heads.entry(stream.to_owned()).or_insert_with(|| Head::new(stream))
}

/// Findings kept; the rest is counted.
pub const MAX_FINDINGS: usize = 1000;

#[cfg(test)]
mod tests;
