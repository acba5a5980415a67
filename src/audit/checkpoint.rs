//! Checkpoints: signed statements of where every changed stream stands, that can leave the host.

use prost::Message;
use prost_types::Timestamp;

use super::chain;
use crate::{
    model::Digest,
    pb::{Checkpoint, Revision, StreamHead},
};

/// What a checkpoint states, before it is signed.
#[derive(Clone, Debug)]
pub struct Statement {
    /// From 1, without gaps.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// What the ledger had published.
    pub revision: Revision,
    /// Streams that moved since the checkpoint before, in any order.
    pub heads: Vec<StreamHead>,
    /// The hash of the checkpoint before; [`chain::GENESIS`] for the first.
    pub previous: Digest,
}

impl Statement {
    /// Sorts the heads, computes root and hash, and has the hash signed (Ed25519, RFC 8032).
    pub fn sign(mut self, key_id: &str, public_key: &[u8; 32], sign: impl Fn(&[u8]) -> [u8; 64]) -> Checkpoint {
        self.heads.sort_by(|a, b| a.stream.cmp(&b.stream));
        let mut checkpoint = Checkpoint {
            number: self.number,
            at: Some(self.at),
            revision: Some(self.revision),
            merkle_root: merkle_root(&self.heads).0.to_vec(),
            heads: self.heads,
            previous_hash: self.previous.0.to_vec(),
            key_id: key_id.to_owned(),
            public_key: public_key.to_vec(),
            ..Checkpoint::default()
        };
        let hash = hash(&checkpoint);
        checkpoint.hash = hash.0.to_vec();
        checkpoint.signature = sign(&hash.0).to_vec();
        checkpoint
    }
}

/// What a checkpoint's `hash` must be: SHA-256 over a label, number, time, revision, Merkle root and previous hash,
/// each of fixed length, numbers big-endian.
#[must_use]
pub fn hash(checkpoint: &Checkpoint) -> Digest {
    let at = checkpoint.at.unwrap_or_default();
    let revision = checkpoint.revision.unwrap_or_default();
    Digest::of_parts(&[
        LABEL,
        &checkpoint.number.to_be_bytes(),
        &at.seconds.to_be_bytes(),
        &at.nanos.to_be_bytes(),
        &revision.incarnation.to_be_bytes(),
        &revision.number.to_be_bytes(),
        &padded(&checkpoint.merkle_root),
        &padded(&checkpoint.previous_hash),
    ])
}

/// The Merkle root over heads in their order (RFC 6962 section 2.1; a leaf is a head's protobuf encoding).
#[must_use]
pub fn merkle_root(heads: &[StreamHead]) -> Digest {
    let mut level: Vec<Digest> = heads.iter().map(|head| Digest::of_parts(&[&[LEAF], &head.encode_to_vec()])).collect();
    if level.is_empty() {
        return Digest::of(b"");
    }
    // Pairing from the left and carrying an odd last node up gives the tree of RFC 6962: its left subtrees are full.
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => Digest::of_parts(&[&[NODE], &left.0, &right.0]),
                [alone, ..] => *alone,
                [] => chain::GENESIS,
            })
            .collect();
    }
    level.first().copied().unwrap_or(chain::GENESIS)
}

/// Why a checkpoint, looked at alone, is not what it claims; `None` when it is.
///
/// `verify(public key, message, signature)` checks Ed25519. Whether the key is trusted is the caller's to decide.
pub fn fault(checkpoint: &Checkpoint, verify: impl Fn(&[u8], &[u8], &[u8]) -> bool) -> Option<&'static str> {
    let lengths = [&checkpoint.hash, &checkpoint.merkle_root, &checkpoint.previous_hash, &checkpoint.public_key];
    if lengths.iter().any(|field| field.len() != 32) || checkpoint.signature.len() != 64 {
        return Some("a hash, key or signature has a wrong length");
    }
    if checkpoint.at.is_none() || checkpoint.revision.is_none() {
        return Some("its time or revision is missing");
    }
    if !checkpoint.heads.is_sorted_by(|a, b| a.stream < b.stream) {
        return Some("its streams are not in order");
    }
    if merkle_root(&checkpoint.heads).0 != *checkpoint.merkle_root {
        return Some("its Merkle root is not that of its streams");
    }
    if hash(checkpoint).0 != *checkpoint.hash {
        return Some("its hash is not that of its content");
    }
    if !verify(&checkpoint.public_key, &checkpoint.hash, &checkpoint.signature) {
        return Some("its signature does not hold");
    }
    None
}

/// A field of another length can only come from damage; [`fault`] names it before the hash counts.
fn padded(field: &[u8]) -> [u8; 32] {
    field.try_into().unwrap_or([0xff; 32])
}

const LABEL: &[u8] = b"mayfly audit checkpoint v1\0";
const LEAF: u8 = 0;
const NODE: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    /// The recursive definition of RFC 6962 section 2.1, as a reference.
    fn by_the_book(heads: &[StreamHead]) -> Digest {
        match heads {
            [] => Digest::of(b""),
            [one] => Digest::of_parts(&[&[0], &one.encode_to_vec()]),
            many => {
                let mut k = 1;
                while k * 2 < many.len() {
                    k *= 2;
                }
                let (left, right) = many.split_at(k);
                Digest::of_parts(&[&[1], &by_the_book(left).0, &by_the_book(right).0])
            }
        }
    }

    fn heads(n: u64) -> Vec<StreamHead> {
        (0..n).map(|i| StreamHead { stream: format!("t/{i:03}"), sequence: i, ..StreamHead::default() }).collect()
    }

    #[test]
    fn the_root_is_that_of_rfc_6962_for_every_small_size() {
        for n in 0..70 {
            assert_eq!(merkle_root(&heads(n)), by_the_book(&heads(n)), "{n} heads");
        }
    }

    #[test]
    fn each_signed_field_is_under_the_hash() {
        let statement = Statement {
            number: 3,
            at: Timestamp { seconds: 7, nanos: 8 },
            revision: Revision { incarnation: 1, number: 2 },
            heads: heads(3),
            previous: Digest([9; 32]),
        };
        let good = statement.sign("k", &[1; 32], |_| [5; 64]);
        let accept = |_: &[u8], _: &[u8], _: &[u8]| true;
        assert_eq!(fault(&good, accept), None);
        let spoil: [fn(&mut Checkpoint); 6] = [
            |c| c.number += 1,
            |c| c.at = Some(Timestamp { seconds: 7, nanos: 9 }),
            |c| c.revision = Some(Revision { incarnation: 1, number: 3 }),
            |c| c.heads[1].sequence += 1,
            |c| c.previous_hash = vec![8; 32],
            |c| c.heads.swap(0, 1),
        ];
        for change in spoil {
            let mut bad = good.clone();
            change(&mut bad);
            assert!(fault(&bad, accept).is_some(), "{bad:?}");
        }
        assert!(fault(&good, |_, _, _| false).is_some());
    }
}
