//! Whether the audit that follows a backup is whole.
//!
//! The anchor notes a hash over all audit up to its revision, and a backup has the same hash up to its own. So whoever
//! holds both can hash on from the one through the events in between, and arrives at the other only when none of them is
//! missing, changed or added:
//!
//! ```text
//! backup's hash --events of commit n, n+1, ...--> the hash that the anchor notes
//! ```
//!
//! What was acknowledged as an end (a revocation, a bar, an act of an operator) is never behind the anchor. What is
//! behind it was issuing of its last second, or was never acknowledged.

use std::collections::BTreeMap;

use super::file::Contents;
use crate::{
    audit::chain,
    ledger::{Head, Mark, anchor::Found, audit_hash, keys::StreamId, stream_id, stream_name},
    model::Digest,
    pb,
};

/// Where a backup leaves its streams.
pub type Heads = BTreeMap<String, Head>;

/// How the end of an audit stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum End {
    /// Nothing up to the anchor's revision is missing, changed or added.
    Proven(Mark),
    /// That cannot be shown; says why, for people.
    Unproven(String),
}

impl End {
    /// Whether it is whole.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        matches!(self, Self::Proven(_))
    }
}

/// Judges what is newer than a backup by the anchor. `newer` is in the order in which a sink or an export writes it:
/// each stream in its own order, events perhaps more than once.
#[must_use]
pub fn end<'a>(
    contents: &Contents,
    heads: &Heads,
    newer: impl IntoIterator<Item = &'a pb::Event>,
    anchor: &Found,
) -> End {
    let mark = match anchor {
        Found::Mark(mark) => *mark,
        Found::Absent => {
            return End::Unproven("there is no anchor, and nothing else notes where the audit ended".into());
        }
        Found::Damaged(why) => return End::Unproven(format!("the anchor cannot be used: {why}")),
    };
    let (incarnation, number) = contents.revision;
    if mark.incarnation != incarnation {
        let between = "the store was restored or put back between the two";
        let (its, ours) = (mark.incarnation, incarnation);
        return End::Unproven(format!("the anchor is of incarnation {its:016x}, the backup of {ours:016x}: {between}"));
    }
    if mark.number < number {
        let why =
            format!("the anchor notes revision {}, and the backup is of {number}: it is an older copy", mark.number);
        return End::Unproven(why);
    }
    let mut tail = Tail { reached: heads.clone(), commits: BTreeMap::new(), taken: BTreeMap::new(), last: number };
    let up_to = |event: &&pb::Event| {
        event.revision.is_some_and(|at| at.incarnation == incarnation && at.number > number && at.number <= mark.number)
    };
    for event in newer.into_iter().filter(up_to) {
        if let Err(why) = tail.follow(event) {
            return End::Unproven(why);
        }
    }
    if tail.hashed_on(contents.audit_head) == mark.audit_head {
        return End::Proven(mark);
    }
    let last = tail.last;
    End::Unproven(format!(
        "the events up to revision {last} do not lead to what the anchor notes at revision {}: some are missing",
        mark.number
    ))
}

/// Events that follow a backup, as far as they were looked at.
struct Tail {
    reached: Heads,
    /// Where each commit leaves the streams that it writes to.
    commits: BTreeMap<u64, BTreeMap<StreamId, Head>>,
    taken: BTreeMap<(StreamId, u64), Digest>,
    last: u64,
}

impl Tail {
    /// Takes the next event of its stream.
    fn follow(&mut self, event: &pb::Event) -> Result<(), String> {
        let reached = self.reached.entry(event.stream.clone()).or_default();
        let (name, sequence) = (&event.stream, event.sequence);
        let id = stream_id(&event.tenant, &event.partner);
        if sequence <= reached.sequence {
            // A sink gets things again after a failure; then they are the same.
            let claimed = Digest::from_slice(&event.previous_hash).unwrap_or_default();
            let is_same = self.taken.get(&(id, sequence)) == Some(&chain::hash(claimed, &chain::canonical(event)));
            let told = || format!("event {sequence} of {name} is there twice, and once otherwise");
            return if is_same { Ok(()) } else { Err(told()) };
        }
        if sequence > reached.sequence.saturating_add(1) {
            let (from, to) = (reached.sequence.saturating_add(1), sequence.saturating_sub(1));
            return Err(format!("events {from} to {to} of {name} are missing"));
        }
        let hash = chain::hash(reached.hash, &chain::canonical(event));
        if hash.0 != *event.hash || stream_name(&event.tenant, &event.partner) != *name {
            return Err(format!("event {sequence} of {name} is not the one that follows event {}", reached.sequence));
        }
        *reached = Head { sequence, hash };
        let number = event.revision.unwrap_or_default().number;
        self.last = self.last.max(number);
        self.commits.entry(number).or_default().insert(id, *reached);
        self.taken.insert((id, sequence), hash);
        Ok(())
    }

    /// The hash over all audit, as the ledger makes it with each commit.
    fn hashed_on(&self, from: Digest) -> Digest {
        self.commits.values().flatten().fold(from, |head, (stream, page)| audit_hash(head, stream, *page))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::{export, page},
        broker::{Broker, event, testing::founded},
        model::Timestamp,
    };

    /// A store with a backup's view of it, all that follows, and what its anchor would note.
    struct Past {
        contents: Contents,
        heads: Heads,
        newer: Vec<pb::Event>,
        mark: Mark,
    }

    fn heads(events: &[pb::Event]) -> Heads {
        let head = |event: &pb::Event| Head {
            sequence: event.sequence,
            hash: Digest::from_slice(&event.hash).expect("sealed"),
        };
        events.iter().map(|event| (event.stream.clone(), head(event))).collect()
    }

    fn all(broker: &Broker) -> Vec<pb::Event> {
        let mut events = Vec::new();
        for row in broker.ledger.log_after(0, usize::MAX).expect("reads") {
            for (stream, first) in &row.pages {
                let pages = broker.ledger.audit_pages(stream, *first, 1).expect("reads");
                let (at, record) = pages.into_iter().next().expect("a page");
                events.extend(page::read(&record.expect("reads"), at).expect("is whole"));
            }
        }
        events
    }

    /// Events of a few streams in a few commits, several of one stream in some of them.
    async fn past() -> Past {
        let (broker, _) = founded().await;
        let note = |broker: &Broker, kind: &str, tenants: &[&str]| {
            let now = broker.now();
            let event = |tenant: &&str| pb::Event { tenant: (*tenant).to_owned(), ..event::own(kind, now) };
            let events = tenants.iter().map(event).collect();
            let ledger = std::sync::Arc::clone(&broker.ledger);
            async move { ledger.note_act(events, now).await.expect("notes") }
        };
        note(&broker, "test.before", &["acme", "beta"]).await;
        let stood = broker.ledger.stored_mark().expect("reads");
        let heads = heads(&all(&broker));
        note(&broker, "test.one", &["acme", "acme", "beta"]).await;
        note(&broker, "test.two", &["gamma", "", "acme"]).await;
        note(&broker, "test.three", &["acme"]).await;
        let mark = broker.ledger.stored_mark().expect("reads");
        let newer = all(&broker).into_iter();
        let newer = newer.filter(|event| event.revision.expect("has one").number > stood.number).collect();
        let contents = Contents {
            revision: (stood.incarnation, stood.number),
            audit_head: stood.audit_head,
            created: Timestamp::from_millis(1),
            ..Contents::default()
        };
        Past { contents, heads, newer, mark }
    }

    impl Past {
        fn judged(&self, newer: &[pb::Event], anchor: &Found) -> End {
            end(&self.contents, &self.heads, newer, anchor)
        }
    }

    #[tokio::test]
    async fn the_whole_audit_reaches_the_anchor_in_any_order_of_streams_and_with_repetitions() {
        let past = past().await;
        assert_eq!(past.newer.len(), 7);
        let (proven, anchor) = (End::Proven(past.mark), Found::Mark(past.mark));
        assert_eq!(past.judged(&past.newer, &anchor), proven);
        let mut by_stream = past.newer.clone();
        by_stream.sort_by(|a, b| (&b.stream, a.sequence).cmp(&(&a.stream, b.sequence)));
        assert_eq!(past.judged(&by_stream, &anchor), proven, "as an export has them");
        let again = [&past.newer[..5], &past.newer[2..]].concat();
        assert_eq!(past.judged(&again, &anchor), proven, "as a sink has them that failed once");
        let lines: Vec<_> = past.newer.iter().map(|event| export::event_line(event).expect("line")).collect();
        let read = |line: &String| match export::parse(line.as_bytes()).expect("reads") {
            export::Item::Event(event) => *event,
            export::Item::Checkpoint(_) => panic!("an event"),
        };
        let read: Vec<_> = lines.iter().map(read).collect();
        assert_eq!(past.judged(&read, &anchor), proven, "through a file");
    }

    #[tokio::test]
    async fn an_audit_without_any_one_event_or_with_one_changed_does_not_reach_the_anchor() {
        let past = past().await;
        let anchor = Found::Mark(past.mark);
        for at in 0..past.newer.len() {
            let without = [&past.newer[..at], &past.newer[at + 1..]].concat();
            assert!(!past.judged(&without, &anchor).is_proven(), "event {at} was left out");
            assert!(!past.judged(&past.newer[..at], &anchor).is_proven(), "it ends before event {at}");
            let mut changed = past.newer.clone();
            changed[at].reason = "otherwise".into();
            assert!(!past.judged(&changed, &anchor).is_proven(), "event {at} was changed");
            // And its whole stream chained anew.
            let (stream, mut before) = (changed[at].stream.clone(), None);
            for event in changed.iter_mut().filter(|event| event.stream == stream) {
                let known = past.heads.get(&stream).map_or(chain::GENESIS, |head| head.hash);
                before = Some(chain::seal_event(event, before.unwrap_or(known)));
            }
            assert!(!past.judged(&changed, &anchor).is_proven(), "event {at} and what follows was made anew");
        }
        let mut twice = past.newer.clone();
        twice.push(pb::Event { reason: "otherwise".into(), ..past.newer[3].clone() });
        assert!(!past.judged(&twice, &anchor).is_proven(), "one is there again, otherwise");
        let mut more = past.newer.clone();
        let last = past.newer.last().expect("some").clone();
        let mut forged = pb::Event { sequence: last.sequence + 1, ..last.clone() };
        chain::seal_event(&mut forged, Digest::from_slice(&last.hash).expect("sealed"));
        more.push(forged);
        assert!(!past.judged(&more, &anchor).is_proven(), "one was added at the anchor's revision");
    }

    #[tokio::test]
    async fn what_is_behind_the_anchor_is_no_proof_against_it_and_a_stream_of_its_own_cannot_be_put_in() {
        let past = past().await;
        let anchor = Found::Mark(past.mark);
        let mut beyond = past.newer.clone();
        let mut next = past.newer.last().expect("some").clone();
        (next.sequence, next.revision) =
            (next.sequence + 1, next.revision.map(|at| pb::Revision { number: at.number + 1, ..at }));
        let hash = Digest::from_slice(&past.newer.last().expect("some").hash).expect("sealed");
        chain::seal_event(&mut next, hash);
        beyond.push(next);
        assert!(past.judged(&beyond, &anchor).is_proven());
        let mut foreign =
            pb::Event { stream: "delta/-".into(), sequence: 1, tenant: "delta".into(), ..past.newer[0].clone() };
        chain::seal_event(&mut foreign, chain::GENESIS);
        let added = [std::slice::from_ref(&foreign), &past.newer[..]].concat();
        assert!(!past.judged(&added, &anchor).is_proven());
    }

    #[tokio::test]
    async fn without_an_anchor_of_this_very_history_nothing_is_proven_and_the_reason_is_said() {
        let past = past().await;
        let mark = past.mark;
        for (anchor, says) in [
            (Found::Absent, "no anchor"),
            (Found::Damaged("it is no text"), "it is no text"),
            (Found::Mark(Mark { incarnation: !mark.incarnation, ..mark }), "of incarnation"),
            (Found::Mark(Mark { number: past.contents.revision.1 - 1, ..mark }), "older copy"),
            (Found::Mark(Mark { audit_head: Digest::of(b"other"), ..mark }), "some are missing"),
        ] {
            let End::Unproven(why) = past.judged(&past.newer, &anchor) else { panic!("{anchor:?} proves nothing") };
            assert!(why.contains(says), "{why}");
        }
        // Nothing happened after the backup: then nothing is needed to show it.
        let still = Mark { number: past.contents.revision.1, audit_head: past.contents.audit_head, ..mark };
        assert!(past.judged(&[], &Found::Mark(still)).is_proven());
    }

    #[tokio::test]
    async fn of_all_parts_of_an_audit_only_the_whole_reaches_the_anchor() {
        let past = past().await;
        let whole = (1_u32 << past.newer.len()) - 1;
        for kept in 0..=whole {
            let some = past.newer.iter().enumerate().filter(|(at, _)| kept & (1 << at) != 0);
            let some: Vec<_> = some.map(|(_, event)| event.clone()).collect();
            assert_eq!(past.judged(&some, &Found::Mark(past.mark)).is_proven(), kept == whole, "{kept:b}");
        }
    }
}
