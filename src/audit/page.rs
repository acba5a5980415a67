//! Pages: the events of one stream in one commit, as the ledger keeps them.
//!
//! ```text
//! before --hash(event 1)--> h1 --hash(event 2)--> h2 ... = after      only `before` and `after` are stored
//! ```
//!
//! A page stores canonical bytes only, so each event is encoded once and hashed once. The hashes between are computed
//! anew on every read, and must lead from `before` to `after`.

use super::{
    chain,
    finding::{Finding, FindingKind},
};
use crate::{model::Digest, pb::Event, records::AuditPage};

/// Encodes and chains events onto the hash `before`; returns what a page stores, and the hash after the last.
///
/// The hashes that the events may hold already are left out.
#[must_use]
pub fn append<'a>(events: impl IntoIterator<Item = &'a Event>, before: Digest) -> (Vec<Vec<u8>>, Digest) {
    let mut after = before;
    let stored = events
        .into_iter()
        .map(|event| {
            let bytes = chain::encode_stored(event);
            after = chain::hash(after, &bytes);
            bytes
        })
        .collect();
    (stored, after)
}

/// Reads a page whose first event has the sequence `first_sequence`, and computes the hashes of its events.
///
/// # Errors
/// The first thing found wrong: an event that cannot be read, one in another place than its sequence says, one of
/// another stream than the first, or hashes that do not lead to the page's `after`. The last can only be located to the
/// page, since the hashes between are not stored.
pub fn read(record: &AuditPage, first_sequence: u64) -> Result<Vec<Event>, Finding> {
    let changed = |stream: &str, at: u64, why: &str| Finding::new(FindingKind::Changed, stream, at, why);
    let Some(before) = chain::digest(&record.before) else {
        return Err(changed("", first_sequence, "the page has no hash before its first event"));
    };
    let mut events: Vec<Event> = Vec::with_capacity(record.events.len());
    let mut after = before;
    for (sequence, bytes) in (first_sequence..).zip(&record.events) {
        let stream = events.first().map_or("", |first| first.stream.as_str());
        let Some(mut event) = chain::decode_stored(bytes) else {
            return Err(changed(stream, sequence, "the event cannot be read"));
        };
        if !events.is_empty() && event.stream != stream {
            return Err(changed(stream, sequence, "the event names another stream"));
        }
        if event.sequence != sequence {
            let why = format!("the event stored here says that it is number {}", event.sequence);
            return Err(Finding::new(FindingKind::Reordered, &event.stream, sequence, why));
        }
        let hash = chain::hash(after, bytes);
        chain::set_hashes(&mut event, after, hash);
        after = hash;
        events.push(event);
    }
    if record.after != after.0 {
        let (stream, last) = events.last().map_or(("", first_sequence), |last| (last.stream.as_str(), last.sequence));
        let why = format!("one of the events {first_sequence} to {last} differs from what was stored");
        return Err(changed(stream, first_sequence, &why));
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audit::chain::GENESIS;

    fn events(first: u64, reasons: &[String]) -> Vec<Event> {
        (first..)
            .zip(reasons)
            .map(|(sequence, reason)| Event {
                stream: "acme/zeta".into(),
                sequence,
                reason: reason.clone(),
                ..Event::default()
            })
            .collect()
    }

    fn page(events: &[Event], before: Digest) -> AuditPage {
        let (stored, after) = append(events, before);
        AuditPage { events: stored, before: before.0.to_vec(), after: after.0.to_vec(), revision: 1 }
    }

    proptest! {
        #[test]
        fn a_page_reads_back_as_sealing_event_by_event_would_write_it(reasons in prop::collection::vec(".*", 0..8)) {
            let mut sealed = events(5, &reasons);
            let record = page(&sealed, GENESIS);
            let mut previous = GENESIS;
            for event in &mut sealed {
                previous = chain::seal_event(event, previous);
            }
            prop_assert_eq!(&record.after, &previous.0.to_vec());
            prop_assert_eq!(read(&record, 5), Ok(sealed));
        }

        #[test]
        fn a_flipped_bit_anywhere_in_a_page_is_noticed(event in 0_usize..3, at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let mut record = page(&events(1, &["a".into(), "b".into(), "c".into()]), GENESIS);
            let bytes = &mut record.events[event];
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(read(&record, 1).is_err());
        }
    }

    #[test]
    fn swapped_events_are_located() {
        let mut record = page(&events(1, &["a".into(), "b".into(), "c".into()]), GENESIS);
        record.events.swap(1, 2);
        let finding = read(&record, 1).expect_err("swapped");
        assert_eq!((finding.kind, finding.sequence), (FindingKind::Reordered, 2));
    }
}
