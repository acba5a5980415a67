//! What binds one event to the one before it.
//!
//! The canonical bytes of an event are its protobuf encoding without `hash` and `previous_hash`. prost writes fields in
//! the order of their numbers and leaves defaults out, and [`Event`] holds no map field, so the encoding is
//! deterministic. The hash of an event is `SHA-256(0x00 || previous hash || canonical bytes)`.

use prost::Message;

use crate::{model::Digest, pb::Event};

/// The hash before the first event of a stream.
pub const GENESIS: Digest = Digest([0; 32]);

/// The bytes that are hashed and stored: the event without its hashes.
#[must_use]
pub fn canonical(event: &Event) -> Vec<u8> {
    if event.hash.is_empty() && event.previous_hash.is_empty() {
        return event.encode_to_vec();
    }
    let bare = Event { hash: Vec::new(), previous_hash: Vec::new(), ..event.clone() };
    bare.encode_to_vec()
}

/// The hash of an event with these canonical bytes that follows one with the hash `previous`.
#[must_use]
pub fn hash(previous: Digest, canonical: &[u8]) -> Digest {
    Digest::of_parts(&[&[EVENT], &previous.0, canonical])
}

/// Chains an event to the one before: fills `previous_hash` and `hash`, and returns the latter.
pub fn seal_event(event: &mut Event, previous: Digest) -> Digest {
    event.hash.clear();
    event.previous_hash.clear();
    let hash = hash(previous, &event.encode_to_vec());
    set_hashes(event, previous, hash);
    hash
}

/// An event as a page stores it: its canonical bytes, since the hashes follow from the page.
#[must_use]
pub fn encode_stored(event: &Event) -> Vec<u8> {
    canonical(event)
}

/// The inverse of [`encode_stored`]; the hashes are empty.
///
/// `None` for bytes that are no event, or are not exactly what [`encode_stored`] would write: unknown fields and
/// doubled ones would otherwise vanish unseen.
#[must_use]
pub fn decode_stored(bytes: &[u8]) -> Option<Event> {
    let event = Event::decode(bytes).ok()?;
    (canonical(&event) == bytes).then_some(event)
}

/// Sets both hashes of an event.
pub(super) fn set_hashes(event: &mut Event, previous: Digest, hash: Digest) {
    event.previous_hash = previous.0.to_vec();
    event.hash = hash.0.to_vec();
}

/// A hash field as a digest; `None` unless it has 32 bytes.
pub(super) fn digest(field: &[u8]) -> Option<Digest> {
    Digest::from_slice(field)
}

/// Sets event hashes apart from those of Merkle nodes and checkpoints.
const EVENT: u8 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealing_does_not_depend_on_hashes_set_before() {
        let mut fresh = Event { stream: "a/b".into(), sequence: 1, ..Event::default() };
        let mut dirty = Event { hash: vec![1; 32], previous_hash: vec![2; 32], ..fresh.clone() };
        assert_eq!(canonical(&fresh), canonical(&dirty));
        assert_eq!(seal_event(&mut fresh, GENESIS), seal_event(&mut dirty, GENESIS));
        assert_eq!(fresh, dirty);
        assert_eq!(fresh.previous_hash, GENESIS.0);
    }

    #[test]
    fn the_hash_covers_the_event_before() {
        let event = Event { sequence: 2, ..Event::default() };
        assert_ne!(hash(GENESIS, &canonical(&event)), hash(Digest([1; 32]), &canonical(&event)));
    }

    #[test]
    fn stored_bytes_with_an_unknown_field_are_refused() {
        let event = Event { stream: "a/b".into(), sequence: 9, ..Event::default() };
        let mut bytes = encode_stored(&event);
        assert_eq!(decode_stored(&bytes), Some(event));
        // Field 100, varint 1.
        bytes.extend([0xa0, 0x06, 0x01]);
        assert_eq!(decode_stored(&bytes), None);
    }
}
