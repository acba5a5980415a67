use prost_types::Timestamp;

use super::*;
use crate::{
    audit::{checkpoint::Statement, export},
    mint::audit_key::{self, AuditKey},
    pb::{Revision, StreamHead},
};

/// A trail of two streams with a checkpoint after every two rounds.
struct Trail {
    key: AuditKey,
    events: Vec<Event>,
    checkpoints: Vec<Checkpoint>,
}

const STREAMS: [&str; 2] = ["acme/zeta", "bolt/-"];

fn event(stream: &str, sequence: u64, reason: &str, previous: Digest) -> Event {
    let mut event = Event { stream: stream.into(), sequence, reason: reason.into(), ..Event::default() };
    chain::seal_event(&mut event, previous);
    event
}

impl Trail {
    fn of_rounds(rounds: u64) -> Self {
        let (key, _) = AuditKey::generate().expect("entropy");
        let mut trail = Self { key, events: Vec::new(), checkpoints: Vec::new() };
        for sequence in 1..=rounds {
            for stream in STREAMS {
                let previous = trail.head(stream);
                trail.events.push(event(stream, sequence, "as it was", previous));
            }
            if sequence % 2 == 0 {
                trail.checkpoint(1);
            }
        }
        trail
    }

    fn head(&self, stream: &str) -> Digest {
        let last = self.events.iter().rfind(|event| event.stream == stream);
        last.map_or(chain::GENESIS, |event| Digest::from_slice(&event.hash).expect("sealed"))
    }

    fn checkpoint(&mut self, first_sequence: u64) {
        let head = |stream: &str| StreamHead {
            stream: stream.into(),
            sequence: self.events.iter().rfind(|event| event.stream == stream).map_or(0, |event| event.sequence),
            hash: self.head(stream).0.to_vec(),
            first_sequence,
        };
        let previous =
            self.checkpoints.last().map_or(chain::GENESIS, |last| Digest::from_slice(&last.hash).expect("32"));
        let statement = Statement {
            number: u64::try_from(self.checkpoints.len()).expect("few") + 1,
            at: Timestamp { seconds: 1, nanos: 0 },
            revision: Revision { incarnation: 1, number: 1 },
            heads: STREAMS.map(head).to_vec(),
            previous,
        };
        let made = statement.sign(&self.key.key_id(), self.key.public_key(), |hash| self.key.sign(hash));
        self.checkpoints.push(made);
    }

    fn report_from(&self, start: Start) -> Report {
        let mut verifier = Verifier::new(start, Coverage::All, vec![*self.key.public_key()], audit_key::verify);
        self.checkpoints.iter().for_each(|checkpoint| verifier.checkpoint(checkpoint));
        let mut verifier = verifier.events();
        self.events.iter().for_each(|event| verifier.event(event));
        verifier.finish()
    }

    /// Kind, stream and sequence of each finding; the same from an exported file as from the messages.
    fn findings(&self) -> Vec<(FindingKind, String, u64)> {
        let report = self.report_from(Start::Genesis);
        let lines = self.events.iter().map(|event| export::event_line(event).expect("line"));
        let signed = self.checkpoints.iter().map(|checkpoint| export::checkpoint_line(checkpoint).expect("line"));
        let file = lines.chain(signed).map(|line| line + "\n").collect::<String>();
        let verifier = Verifier::new(Start::Genesis, Coverage::All, vec![*self.key.public_key()], audit_key::verify);
        let from_file = export::verify_lines(|| Ok(file.as_bytes()), verifier).expect("in memory");
        assert_eq!(report, from_file);
        report.findings.into_iter().map(|found| (found.kind, found.stream, found.sequence)).collect()
    }

    fn at(&mut self, stream: &str, sequence: u64) -> usize {
        self.events.iter().position(|event| event.stream == stream && event.sequence == sequence).expect("there")
    }
}

fn found(kind: FindingKind, sequence: u64) -> Vec<(FindingKind, String, u64)> {
    vec![(kind, STREAMS[0].to_owned(), sequence)]
}

#[test]
fn an_untouched_trail_has_no_findings() {
    let report = Trail::of_rounds(9).report_from(Start::Genesis);
    assert_eq!(report, Report { streams: 2, events: 18, checkpoints: 4, ..Report::default() });
    assert_eq!(Trail::of_rounds(9).findings(), []);
}

#[test]
fn a_changed_event_is_found_at_its_place_only() {
    let mut trail = Trail::of_rounds(8);
    let at = trail.at(STREAMS[0], 3);
    trail.events[at].reason = "as it never was".into();
    assert_eq!(trail.findings(), found(FindingKind::Changed, 3));
}

#[test]
fn a_changed_event_with_its_own_hash_recomputed_is_found_at_the_link_and_the_checkpoint() {
    let mut trail = Trail::of_rounds(8);
    let at = trail.at(STREAMS[0], 3);
    let previous = Digest::from_slice(&trail.events[at].previous_hash).expect("sealed");
    trail.events[at] = event(STREAMS[0], 3, "as it never was", previous);
    assert_eq!(trail.findings(), found(FindingKind::Changed, 4));
}

#[test]
fn a_recomputed_chain_is_found_between_two_checkpoints() {
    let mut trail = Trail::of_rounds(8);
    let at = trail.at(STREAMS[0], 5);
    let mut previous = Digest::from_slice(&trail.events[at].previous_hash).expect("sealed");
    for event in trail.events[at..].iter_mut().filter(|event| event.stream == STREAMS[0]) {
        event.reason = "as it never was".into();
        previous = chain::seal_event(event, previous);
    }
    // Checkpoints stand at 4 and 6: the change lies behind 4.
    assert_eq!(trail.findings(), found(FindingKind::Changed, 5));
}

#[test]
fn removed_events_are_found() {
    let mut trail = Trail::of_rounds(8);
    let at = trail.at(STREAMS[0], 5);
    trail.events.remove(at);
    assert_eq!(trail.findings(), found(FindingKind::Removed, 5));
    let mut trail = Trail::of_rounds(8);
    trail.events.retain(|event| event.stream != STREAMS[0] || event.sequence > 2);
    assert_eq!(trail.findings(), found(FindingKind::Removed, 1));
}

#[test]
fn reordered_events_are_found() {
    let mut trail = Trail::of_rounds(8);
    let (a, b) = (trail.at(STREAMS[0], 4), trail.at(STREAMS[0], 5));
    trail.events.swap(a, b);
    assert_eq!(trail.findings(), found(FindingKind::Reordered, 4));
}

#[test]
fn a_truncated_stream_is_found() {
    let mut trail = Trail::of_rounds(8);
    trail.events.retain(|event| event.stream != STREAMS[0] || event.sequence < 7);
    assert_eq!(trail.findings(), found(FindingKind::Truncated, 7));
}

#[test]
fn a_missing_stream_is_found() {
    let mut trail = Trail::of_rounds(8);
    trail.events.retain(|event| event.stream != STREAMS[0]);
    assert_eq!(trail.findings(), found(FindingKind::Missing, 1));
}

#[test]
fn events_shipped_twice_are_harmless_and_changed_copies_are_not() {
    let mut trail = Trail::of_rounds(8);
    let again = trail.events[6..].to_vec();
    trail.events.extend(again);
    assert_eq!(trail.findings(), []);
    let forged = event(STREAMS[0], 6, "as it never was", chain::GENESIS);
    trail.events.push(forged);
    assert_eq!(trail.findings(), found(FindingKind::Reordered, 6));
}

#[test]
fn damaged_and_missing_checkpoints_are_found() {
    type Spoil = fn(&mut Vec<Checkpoint>);
    let cases: [(u64, Spoil); 5] = [
        (2, |list| drop(list.remove(1))),
        (1, |list| drop(list.remove(0))),
        (3, |list| list[2].signature[0] ^= 1),
        (3, |list| list[2].heads[0].sequence += 1),
        (4, |list| {
            let (other, _) = AuditKey::generate().expect("entropy");
            list[3].public_key = other.public_key().to_vec();
            list[3].signature = other.sign(&list[3].hash).to_vec();
        }),
    ];
    for (number, spoil) in cases {
        let mut trail = Trail::of_rounds(8);
        spoil(&mut trail.checkpoints);
        assert_eq!(trail.findings(), [(FindingKind::Checkpoint, String::new(), number)]);
    }
}

#[test]
fn a_checkpoint_that_does_not_continue_the_one_before_is_found() {
    let mut trail = Trail::of_rounds(4);
    let last = trail.checkpoints.pop().expect("two");
    let forged = Statement {
        number: 2,
        at: last.at.expect("set"),
        revision: last.revision.expect("set"),
        heads: last.heads,
        previous: Digest([3; 32]),
    };
    trail.checkpoints.push(forged.sign("k", trail.key.public_key(), |hash| trail.key.sign(hash)));
    assert_eq!(trail.findings(), [(FindingKind::Checkpoint, String::new(), 2)]);
}

#[test]
fn what_retention_removed_is_not_missing_and_more_is() {
    let mut trail = Trail::of_rounds(8);
    trail.checkpoint(5);
    trail.events.retain(|event| event.sequence >= 5);
    assert_eq!(trail.findings(), []);
    let kept = &trail.checkpoints[3];
    let start = Start::At { number: 4, hash: Digest::from_slice(&kept.hash).expect("32") };
    trail.checkpoints.drain(..3);
    assert_eq!(trail.report_from(start).findings, []);
    assert_eq!(trail.report_from(Start::Genesis).findings.len(), 1);
    trail.events.retain(|event| event.sequence >= 6);
    let kinds: Vec<_> = trail.report_from(start).findings.iter().map(|found| (found.kind, found.sequence)).collect();
    assert_eq!(kinds, [(FindingKind::Removed, 5), (FindingKind::Removed, 5)]);
}

#[test]
fn only_the_covered_streams_must_be_there() {
    let mut trail = Trail::of_rounds(4);
    trail.events.retain(|event| event.stream == STREAMS[1]);
    let mut verifier = Verifier::new(Start::Genesis, Coverage::Tenant("bolt".into()), Vec::new(), audit_key::verify);
    trail.checkpoints.iter().for_each(|checkpoint| verifier.checkpoint(checkpoint));
    let mut verifier = verifier.events();
    trail.events.iter().for_each(|event| verifier.event(event));
    assert_eq!(verifier.finish().findings, []);
}

#[test]
fn stored_pages_verify_and_a_damaged_one_is_located_to_its_page() {
    let trail = Trail::of_rounds(8);
    let of_stream: Vec<&Event> = trail.events.iter().filter(|event| event.stream == STREAMS[0]).collect();
    let mut before = chain::GENESIS;
    let mut pages = Vec::new();
    for events in of_stream.chunks(2) {
        let (stored, after) = page::append(events.iter().copied(), before);
        let record = AuditPage { events: stored, before: before.0.to_vec(), after: after.0.to_vec(), revision: 1 };
        pages.push((events[0].sequence, record));
        before = after;
    }
    let verify = |pages: &[(u64, AuditPage)]| {
        let coverage = Coverage::Stream(STREAMS[0].into());
        let mut verifier = Verifier::new(Start::Genesis, coverage, Vec::new(), audit_key::verify);
        trail.checkpoints.iter().for_each(|checkpoint| verifier.checkpoint(checkpoint));
        let mut verifier = verifier.events();
        pages.iter().for_each(|(first, record)| verifier.page(STREAMS[0], record, *first));
        let findings = verifier.finish().findings;
        findings.into_iter().map(|found| (found.kind, found.stream, found.sequence)).collect::<Vec<_>>()
    };
    assert_eq!(verify(&pages), []);
    let mut damaged = pages.clone();
    damaged[1].1.events[1].push(0);
    assert_eq!(verify(&damaged), found(FindingKind::Changed, 4));
    let mut removed = pages.clone();
    removed.remove(2);
    assert_eq!(verify(&removed), found(FindingKind::Removed, 5));
    pages.truncate(3);
    assert_eq!(verify(&pages), found(FindingKind::Truncated, 7));
}

#[test]
fn findings_are_bounded_and_the_rest_counted() {
    let mut trail = Trail::of_rounds(2);
    let bad = Event { stream: "x/y".into(), sequence: 1, ..Event::default() };
    trail.events.extend(std::iter::repeat_n(bad, MAX_FINDINGS + 3));
    let report = trail.report_from(Start::Genesis);
    assert_eq!((report.findings.len(), report.more_findings), (MAX_FINDINGS, 3));
}
