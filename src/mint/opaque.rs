//! Reference tokens: nothing to read in them; who checks one asks the broker. Normative: docs/token-format.md.

use zeroize::Zeroizing;

use super::Minted;
use crate::model::{
    LeaseId,
    secret::{self, EntropyUnavailable},
};

/// What every reference token begins with.
pub const PREFIX: &str = "mfy_";

/// Length of every reference token.
pub const TEXT_BYTES: usize = PREFIX.len() + BODY_CHARS + CHECK_CHARS;

/// The text is no reference token of ours; it was cut, mistyped or never one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a reference token is `mfy_` and 66 letters and digits with a matching checksum; paste it whole")]
pub struct Malformed;

/// Makes the reference token of `lease`, with 192 random bits.
///
/// # Errors
/// When the system has no entropy.
pub fn mint(lease: LeaseId) -> Result<Minted, EntropyUnavailable> {
    let mut raw = Zeroizing::new([0; RAW_BYTES]);
    let (head, tail) = raw.split_at_mut(LeaseId::BYTES);
    head.copy_from_slice(lease.as_bytes());
    secret::fill(tail)?;
    Ok(Minted::new(encode(&raw)))
}

/// Reads the lease out of a reference token **without verifying it**: the stored hash decides.
///
/// # Errors
/// When it has another length, prefix, alphabet or checksum.
pub fn parse(text: &str) -> Result<LeaseId, Malformed> {
    let (checked, check) = text.split_at_checked(PREFIX.len() + BODY_CHARS).ok_or(Malformed)?;
    let body = checked.strip_prefix(PREFIX).ok_or(Malformed)?;
    let raw = from_base62(body).ok_or(Malformed)?;
    if check_text(checked) != check {
        return Err(Malformed);
    }
    let (lease, _) = raw.split_at(LeaseId::BYTES);
    LeaseId::from_bytes(lease).ok_or(Malformed)
}

fn encode(raw: &[u8; RAW_BYTES]) -> String {
    let mut text = String::with_capacity(TEXT_BYTES);
    text.push_str(PREFIX);
    push_base62(raw, &mut text);
    let check = check_text(&text);
    text.push_str(&check);
    text
}

/// The number `raw` (big-endian) in [`BODY_CHARS`] digits, most significant first.
fn push_base62(raw: &[u8; RAW_BYTES], text: &mut String) {
    let mut limbs = Zeroizing::new([0_u64; LIMBS]);
    for (limb, bytes) in limbs.iter_mut().zip(raw.as_chunks::<4>().0) {
        *limb = u32::from_be_bytes(*bytes).into();
    }
    let mut digits = Zeroizing::new([0_u64; BODY_CHARS]);
    for digit in digits.iter_mut().rev() {
        let mut rest = 0;
        for limb in limbs.iter_mut() {
            let value = (rest << 32) | *limb;
            *limb = value / BASE;
            rest = value % BASE;
        }
        *digit = rest;
    }
    text.extend(digits.iter().map(|digit| digit_char(*digit)));
}

/// The inverse of [`push_base62`]; `None` for another alphabet or a number that is too great.
fn from_base62(body: &str) -> Option<Zeroizing<[u8; RAW_BYTES]>> {
    let mut limbs = Zeroizing::new([0_u64; LIMBS]);
    for b in body.bytes() {
        let mut carry = digit_value(b)?;
        for limb in limbs.iter_mut().rev() {
            let value = *limb * BASE + carry;
            *limb = value & u64::from(u32::MAX);
            carry = value >> 32;
        }
        if carry != 0 {
            return None;
        }
    }
    let mut raw = Zeroizing::new([0; RAW_BYTES]);
    for (bytes, limb) in raw.as_chunks_mut::<4>().0.iter_mut().zip(limbs.iter()) {
        *bytes = u32::try_from(*limb).ok()?.to_be_bytes();
    }
    Some(raw)
}

/// CRC-32 of what precedes, so that scanners and people see a token that was cut or mistyped. No security rests on it.
fn check_text(checked: &str) -> String {
    let mut rest = u64::from(crc32fast::hash(checked.as_bytes()));
    let mut digits = [0; CHECK_CHARS];
    for digit in digits.iter_mut().rev() {
        *digit = rest % BASE;
        rest /= BASE;
    }
    digits.into_iter().map(digit_char).collect()
}

fn digit_char(digit: u64) -> char {
    // INVARIANT: every caller gives a remainder by 62, so the fallback is never taken.
    usize::try_from(digit).ok().and_then(|at| ALPHABET.get(at)).map_or('0', |b| char::from(*b))
}

fn digit_value(b: u8) -> Option<u64> {
    match b {
        b'0'..=b'9' => Some(u64::from(b - b'0')),
        b'A'..=b'Z' => Some(u64::from(b - b'A') + 10),
        b'a'..=b'z' => Some(u64::from(b - b'a') + 36),
        _ => None,
    }
}

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BASE: u64 = 62;
const RANDOM_BYTES: usize = 24;
const RAW_BYTES: usize = LeaseId::BYTES + RANDOM_BYTES;
const LIMBS: usize = RAW_BYTES / 4;
/// 62^60 is greater than 2^352.
const BODY_CHARS: usize = 60;
/// 62^6 is greater than 2^32.
const CHECK_CHARS: usize = 6;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Digest, TaskId, TenantNumber};

    fn lease() -> LeaseId {
        LeaseId::fresh(TaskId::fresh(TenantNumber::new(3).expect("in range")).expect("entropy")).expect("entropy")
    }

    #[test]
    fn a_reference_token_says_its_lease_and_has_70_characters() {
        let lease = lease();
        let minted = mint(lease).expect("entropy");
        let text = minted.text.expose();
        assert_eq!((text.len(), TEXT_BYTES), (70, 70));
        let body = text.strip_prefix("mfy_").expect("prefix");
        assert!(body.bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_eq!(parse(text), Ok(lease));
        assert_eq!(minted.sha256, Digest::of(text.as_bytes()));
        assert!(!format!("{minted:?}").contains(body));
    }

    #[test]
    fn two_tokens_of_one_lease_differ() {
        let lease = lease();
        let (a, b) = (mint(lease).expect("entropy"), mint(lease).expect("entropy"));
        assert_ne!(a.text.expose(), b.text.expose());
    }

    #[test]
    fn a_reference_token_with_one_changed_character_is_refused() {
        let minted = mint(lease()).expect("entropy");
        let text = minted.text.expose();
        for at in 0..text.len() {
            for other in [b'0', b'z', b'-'] {
                let mut changed = text.as_bytes().to_vec();
                if changed[at] != other {
                    changed[at] = other;
                    assert_eq!(parse(std::str::from_utf8(&changed).expect("ASCII")), Err(Malformed), "at {at}");
                }
            }
        }
    }

    #[test]
    fn a_cut_or_longer_token_is_refused() {
        let minted = mint(lease()).expect("entropy");
        let text = minted.text.expose();
        assert_eq!(parse(text.split_at(69).0), Err(Malformed));
        assert_eq!(parse(&format!("{text}0")), Err(Malformed));
        assert_eq!(parse(""), Err(Malformed));
    }

    #[test]
    fn a_number_past_the_greatest_is_refused_even_with_a_right_checksum() {
        let checked = format!("{PREFIX}{}", "z".repeat(BODY_CHARS));
        assert_eq!(parse(&format!("{checked}{}", check_text(&checked))), Err(Malformed));
    }

    #[test]
    fn a_token_has_no_second_spelling() {
        let minted = mint(lease()).expect("entropy");
        let text = minted.text.expose();
        let body = text.get(PREFIX.len()..PREFIX.len() + BODY_CHARS).expect("whole");
        // The same number and 2^352, which its bytes cannot hold.
        let mut digits: Vec<u64> = vec![0; BODY_CHARS - 1];
        digits.push(1);
        let add = |digits: &mut [u64], other: &[u64]| {
            let mut carry = 0;
            for (digit, other) in digits.iter_mut().zip(other).rev() {
                let sum = *digit + other + carry;
                (*digit, carry) = (sum % BASE, sum / BASE);
            }
        };
        for _ in 0..8 * RAW_BYTES {
            let same = digits.clone();
            add(&mut digits, &same);
        }
        let own: Vec<u64> = body.bytes().map(|b| digit_value(b).expect("own digit")).collect();
        add(&mut digits, &own);
        let checked = format!("{PREFIX}{}", digits.into_iter().map(digit_char).collect::<String>());
        assert_eq!(parse(&format!("{checked}{}", check_text(&checked))), Err(Malformed));
    }

    #[test]
    fn the_encoding_is_pinned() {
        assert_eq!(encode(&[0x41; RAW_BYTES]), format!("mfy_{PINNED}"),);
    }

    const PINNED: &str = "0PiQdNvEYcBcaKUWIahaWiA90VeYsAkrrgcdnCyhmY5PfyEYmWgqpsP3Tq5J2j4IcP";

    proptest! {
        #[test]
        fn bytes_and_digits_are_the_same_number(raw in proptest::array::uniform32(any::<u8>()), more in any::<[u8; 12]>()) {
            let mut all = [0; RAW_BYTES];
            all[..32].copy_from_slice(&raw);
            all[32..].copy_from_slice(&more);
            let mut text = String::new();
            push_base62(&all, &mut text);
            prop_assert_eq!(text.len(), BODY_CHARS);
            prop_assert_eq!(*from_base62(&text).expect("own digits"), all);
        }

        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in "(mfy_)?[0-9A-Za-zé]{0,70}") {
            let _ = parse(&text);
        }
    }
}
