//! Streams of sealed chunks: any changed bit, and any chunk left out, repeated, moved or cut off, is found.

use ring::aead;

use crate::{mint::SecretBytes, model::Secret};

/// Seals chunk after chunk (AES-256-GCM).
///
/// The nonce of a chunk is its number, from 0; its associated data is the stream's preamble, its number and whether it is
/// the last. This is the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár: CRYPTO 2015). One key seals one
/// stream, so no nonce comes twice.
pub struct Sealer(Chunks);

/// Opens what a [`Sealer`] sealed, chunk after chunk.
pub struct Opener(Chunks);

struct Chunks {
    key: aead::LessSafeKey,
    preamble: Vec<u8>,
    next: u64,
    is_over: bool,
}

/// Why a chunk was not sealed or opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StreamError {
    /// Changed, moved, cut off, or sealed under another key.
    #[error("chunk {0} does not open: it was changed, moved or cut off, or the seal key is another")]
    DoesNotOpen(u64),
    /// Something follows the last chunk.
    #[error("something follows the last chunk")]
    PastTheEnd,
}

impl Sealer {
    pub(super) fn new(key: &Secret<32>, preamble: &[u8]) -> Self {
        Self(Chunks::new(key, preamble))
    }

    /// Seals the next chunk; after the last one there is no other.
    ///
    /// # Errors
    /// [`StreamError::PastTheEnd`].
    pub fn seal(&mut self, plaintext: &[u8], is_last: bool) -> Result<Vec<u8>, StreamError> {
        let (number, nonce, associated) = self.0.next(is_last)?;
        let mut sealed = Vec::with_capacity(plaintext.len() + super::TAG_BYTES);
        sealed.extend(plaintext);
        let tag = self.0.key.seal_in_place_separate_tag(nonce, associated, &mut sealed);
        // Fails only for plaintexts beyond 64 GiB.
        let tag = tag.map_err(|ring::error::Unspecified| StreamError::DoesNotOpen(number))?;
        sealed.extend(tag.as_ref());
        Ok(sealed)
    }
}

impl Opener {
    pub(super) fn new(key: &Secret<32>, preamble: &[u8]) -> Self {
        Self(Chunks::new(key, preamble))
    }

    /// Opens the next chunk; `is_last` is what the stream claims of it.
    ///
    /// # Errors
    /// When it is not the very chunk that was sealed here.
    pub fn open(&mut self, mut sealed: Vec<u8>, is_last: bool) -> Result<SecretBytes, StreamError> {
        let (number, nonce, associated) = self.0.next(is_last)?;
        let opened = self.0.key.open_in_place(nonce, associated, &mut sealed);
        let length = opened.map_err(|ring::error::Unspecified| StreamError::DoesNotOpen(number))?.len();
        sealed.truncate(length);
        Ok(SecretBytes::new(sealed))
    }
}

impl Chunks {
    #[expect(clippy::expect_used, reason = "the type says 32 bytes, which is what AES-256 takes")]
    fn new(key: &Secret<32>, preamble: &[u8]) -> Self {
        let key = aead::UnboundKey::new(&aead::AES_256_GCM, key.expose()).expect("32 bytes");
        Self { key: aead::LessSafeKey::new(key), preamble: preamble.to_vec(), next: 0, is_over: false }
    }

    fn next(&mut self, is_last: bool) -> Result<(u64, aead::Nonce, aead::Aad<Vec<u8>>), StreamError> {
        if self.is_over {
            return Err(StreamError::PastTheEnd);
        }
        let number = self.next;
        self.next = number.wrapping_add(1);
        self.is_over = is_last;
        let mut nonce = [0; aead::NONCE_LEN];
        nonce.iter_mut().rev().zip(number.to_le_bytes()).for_each(|(to, from)| *to = from);
        let mut associated = self.preamble.clone();
        associated.extend(number.to_be_bytes());
        associated.push(u8::from(is_last));
        Ok((number, aead::Nonce::assume_unique_for_key(nonce), aead::Aad::from(associated)))
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(..)")
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opener(..)")
    }
}

/// Length of a stream's salt.
pub const SALT_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::{
        super::{Seal, SealKey},
        *,
    };

    const SALT: [u8; SALT_BYTES] = [7; SALT_BYTES];

    fn sealed(seal: &Seal) -> Vec<Vec<u8>> {
        let mut sealer = seal.sealer(&SALT, b"preamble");
        [(&b"first"[..], false), (b"second", false), (b"", true)]
            .into_iter()
            .map(|(text, is_last)| sealer.seal(text, is_last).expect("seals"))
            .collect()
    }

    fn opens(seal: &Seal, salt: &[u8; SALT_BYTES], preamble: &[u8], chunks: &[(Vec<u8>, bool)]) -> bool {
        let mut opener = seal.opener(salt, preamble);
        chunks.iter().all(|(chunk, is_last)| opener.open(chunk.clone(), *is_last).is_ok())
    }

    #[test]
    fn what_is_opened_is_what_was_sealed_and_nothing_beside() {
        let seal = Seal::new(&SealKey::random().expect("entropy"));
        let mut opener = seal.opener(&SALT, b"preamble");
        let chunks = sealed(&seal).into_iter().zip([false, false, true]);
        let opened: Vec<Vec<u8>> =
            chunks.map(|(chunk, is_last)| opener.open(chunk, is_last).expect("opens").expose().to_vec()).collect();
        assert_eq!(opened, [&b"first"[..], b"second", b""]);
    }

    #[test]
    fn equal_chunks_are_sealed_under_different_nonces_and_nothing_after_the_last() {
        let seal = Seal::new(&SealKey::random().expect("entropy"));
        let mut sealer = seal.sealer(&SALT, b"preamble");
        let [one, two] = [false, true].map(|is_last| sealer.seal(&[0; 64], is_last).expect("seals"));
        // With one nonce for both they would be the same key stream.
        assert_ne!(one[..64], two[..64]);
        assert_eq!(sealer.seal(b"more", true), Err(StreamError::PastTheEnd));
        let mut opener = seal.opener(&SALT, b"preamble");
        opener.open(one, false).expect("opens");
        opener.open(two.clone(), true).expect("opens");
        assert_eq!(opener.open(two, true).expect_err("past the end"), StreamError::PastTheEnd);
    }

    #[test]
    fn a_stream_opens_only_whole_in_order_and_unchanged() {
        let seal = Seal::new(&SealKey::random().expect("entropy"));
        let [first, second, last] = <[Vec<u8>; 3]>::try_from(sealed(&seal)).expect("three");
        let whole = [(first.clone(), false), (second.clone(), false), (last.clone(), true)];
        assert!(opens(&seal, &SALT, b"preamble", &whole));
        let broken = [
            ("reordered", vec![(second.clone(), false), (first.clone(), false)]),
            ("left out", vec![(first.clone(), false), (last.clone(), true)]),
            ("repeated", vec![(first.clone(), false), (first.clone(), false)]),
            ("cut off, and called whole", vec![(first.clone(), false), (second.clone(), true)]),
            ("not ended", vec![(first.clone(), false), (second, false), (last.clone(), false)]),
            ("goes on", [whole.to_vec(), vec![(last, true)]].concat()),
        ];
        for (defect, chunks) in broken {
            assert!(!opens(&seal, &SALT, b"preamble", &chunks), "{defect}");
        }
        for bit in 0..first.len() * 8 {
            let mut changed = first.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!opens(&seal, &SALT, b"preamble", &[(changed, false)]), "bit {bit}");
        }
        assert!(!opens(&seal, &[8; SALT_BYTES], b"preamble", &whole), "another salt");
        assert!(!opens(&seal, &SALT, b"preambles", &whole), "another preamble");
        assert!(!opens(&Seal::new(&SealKey::random().expect("entropy")), &SALT, b"preamble", &whole), "another key");
    }
}
