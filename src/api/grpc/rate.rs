//! How often one caller may ask: a bucket of tokens each.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use crate::{
    api::remembered::Remembered,
    identity::{Account, Caller, Proof},
    model::{Digest, Timestamp},
};

/// Buckets by caller. Takes memory for at most [`Self::MOST`] callers: the longest idle are forgotten, and begin full.
#[derive(Debug)]
pub struct Rates {
    /// Tokens a second, which is thousandths of a token a millisecond.
    per_second: u64,
    /// Thousandths of a token in a full bucket.
    full: u64,
    shards: Vec<Mutex<Remembered<Key, Bucket>>>,
}

/// What a caller is counted by.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Key {
    Certificate(Digest),
    User(u32),
    Address(IpAddr),
}

#[derive(Clone, Debug)]
struct Bucket {
    /// Thousandths of a token.
    left: u64,
    at: Timestamp,
    account: Account,
}

impl Rates {
    /// Callers remembered.
    pub const MOST: usize = 100_000;

    /// Each caller may ask `per_second` times a second, and `burst` times at once after a pause.
    #[must_use]
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self::with_room(per_second, burst, Self::MOST / SHARDS / 2, SHARDS)
    }

    fn with_room(per_second: u32, burst: u32, half: usize, shards: usize) -> Self {
        Self {
            per_second: u64::from(per_second.max(1)),
            full: u64::from(burst.max(1)) * TOKEN,
            shards: (0..shards).map(|_| Mutex::new(Remembered::new(half))).collect(),
        }
    }

    /// Takes one token of the caller's; gives the account that it has had as long as it is remembered.
    ///
    /// # Errors
    /// When there is none: the milliseconds until there is.
    pub fn take(&self, caller: &Caller, now: Timestamp) -> Result<Account, u32> {
        let key = match caller.proof() {
            Proof::Certificate(certificate) => Key::Certificate(certificate.sha256),
            Proof::Unix(unix) => Key::User(unix.uid),
            // Counted by address, before anything was proven.
            Proof::Federated(_) | Proof::TaskKey(_) => return Ok(Account::default()),
        };
        self.take_by(key, now)
    }

    /// Takes one token of whoever comes from an address.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn take_address(&self, address: IpAddr, now: Timestamp) -> Result<(), u32> {
        self.take_by(Key::Address(network(address)), now).map(drop)
    }

    fn take_by(&self, key: Key, now: Timestamp) -> Result<Account, u32> {
        let Some(shard) = self.shards.get(key.spread() % self.shards.len().max(1)) else {
            return Ok(Account::default());
        };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = shard.of(key, || Bucket { left: self.full, at: now, account: Account::default() });
        let gained =
            u64::try_from(now.since(bucket.at).as_millis()).unwrap_or(u64::MAX).saturating_mul(self.per_second);
        bucket.left = bucket.left.saturating_add(gained).min(self.full);
        // Time that stands still or steps back gains nothing, and is not counted twice when it comes again.
        bucket.at = bucket.at.max(now);
        match bucket.left.checked_sub(TOKEN) {
            Some(left) => {
                bucket.left = left;
                Ok(bucket.account.clone())
            }
            None => Err(u32::try_from((TOKEN - bucket.left).div_ceil(self.per_second)).unwrap_or(u32::MAX)),
        }
    }

    #[cfg(test)]
    fn remembered(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().count()).sum()
    }
}

impl Key {
    fn spread(self) -> usize {
        match self {
            Self::Certificate(digest) => digest.0.first().copied().map_or(0, usize::from),
            Self::User(uid) => usize::try_from(uid).unwrap_or(0),
            Self::Address(IpAddr::V4(address)) => address.octets().iter().map(|byte| usize::from(*byte)).sum(),
            Self::Address(IpAddr::V6(address)) => address.octets().iter().map(|byte| usize::from(*byte)).sum(),
        }
    }
}

/// What one customer of a network has: an IPv4 address, or 64 bits of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
    }
}

/// Locks among which callers are spread.
const SHARDS: usize = 16;
/// Parts of a token.
const TOKEN: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    fn granted(rates: &Rates, key: Key, now: Timestamp, tries: usize) -> usize {
        (0..tries).filter(|_| rates.take_by(key, now).is_ok()).count()
    }

    #[test]
    fn a_caller_gets_the_burst_at_once_and_the_rate_from_then_on() {
        let rates = Rates::new(100, 20);
        let key = Key::User(1);
        assert_eq!(granted(&rates, key, at(0), 50), 20);
        assert_eq!(rates.take_by(key, at(0)).map(drop), Err(10));
        assert_eq!(rates.take_by(key, at(9)).map(drop), Err(1));
        assert_eq!(granted(&rates, key, at(10), 50), 1);
        assert_eq!(granted(&rates, key, at(1_010), 200), 20, "idle time fills the bucket, not more");
    }

    #[test]
    fn over_any_second_no_more_than_rate_and_burst_pass() {
        let rates = Rates::new(1_000, 10);
        let passed: usize = (0..1_000).map(|ms| granted(&rates, Key::User(1), at(ms), 5)).sum();
        assert_eq!(passed, 10 + 999);
    }

    #[test]
    fn one_callers_haste_does_not_slow_another() {
        let rates = Rates::new(1, 1);
        let other = Key::Certificate(Digest::of(b"other"));
        assert_eq!(granted(&rates, Key::User(1), at(0), 9), 1);
        assert_eq!(granted(&rates, other, at(0), 9), 1);
    }

    #[test]
    fn time_that_steps_back_gains_nothing() {
        let rates = Rates::new(1_000, 1);
        let key = Key::User(1);
        assert_eq!(rates.take_by(key, at(100)).map(drop), Ok(()));
        assert!(rates.take_by(key, at(50)).is_err());
        assert!(rates.take_by(key, at(100)).is_err());
        assert_eq!(rates.take_by(key, at(101)).map(drop), Ok(()));
    }

    #[test]
    fn memory_is_bounded_and_the_longest_idle_are_forgotten_first() {
        let rates = Rates::with_room(1, 1, 10, 1);
        let busy = Key::User(0);
        assert_eq!(rates.take_by(busy, at(0)).map(drop), Ok(()));
        for uid in 1..=1_000 {
            assert_eq!(rates.take_by(Key::User(uid), at(0)).map(drop), Ok(()));
            assert!(rates.take_by(busy, at(0)).is_err(), "one in use is never forgotten");
            assert!(rates.remembered() <= 20);
        }
        assert_eq!(rates.take_by(Key::User(1), at(0)).map(drop), Ok(()), "one long idle begins anew");
    }

    fn caller(uid: u32) -> Caller {
        Caller::for_test(Proof::Unix(crate::identity::UnixProof { uid, gid: 0, pid: None }))
    }

    #[test]
    fn what_one_request_was_charged_to_the_next_ones_of_the_same_caller_are() {
        let rates = Rates::new(10, 10);
        let acme = crate::model::TenantNumber::new(7).expect("number");
        rates.take(&caller(1), at(0)).expect("a token").found_in(acme);
        assert_eq!(rates.take(&caller(1), at(1)).expect("a token").tenant(), Some(acme));
        assert_eq!(rates.take(&caller(2), at(1)).expect("a token").tenant(), None);
    }

    #[test]
    fn callers_are_counted_by_their_proof() {
        let rates = Rates::new(1, 1);
        assert_eq!(rates.take(&caller(7), at(0)).map(drop), Ok(()));
        assert_eq!(rates.take(&caller(7), at(0)).map(drop), Err(1_000));
        assert_eq!(rates.take(&caller(8), at(0)).map(drop), Ok(()));
    }
}
