//! How long to wait before the next attempt.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// Growing pauses, so random that a crowd which lost its broker at one moment does not come back at one moment.
#[derive(Clone, Debug)]
pub struct Backoff {
    failures: u32,
    first: Duration,
    most: Duration,
}

impl Backoff {
    /// Pauses of up to `first`, then up to twice that, and never more than `most`.
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { failures: 0, first, most }
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        delay(self.failures, self.first, self.most, random())
    }

    /// From now on no pause is longer than this.
    pub fn limit(&mut self, most: Duration) {
        self.most = most;
    }

    /// Begins anew: something succeeded.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

/// A number that differs from call to call. Not for secrets.
#[must_use]
pub fn random() -> u64 {
    // Each state is keyed anew.
    RandomState::new().hash_one(0_u8)
}

/// A share of `whole`: `random` picks one evenly.
#[must_use]
pub fn share(whole: Duration, random: u64) -> Duration {
    let nanos = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(random.checked_rem(nanos.saturating_add(1)).unwrap_or(0))
}

/// Between [`LEAST`] and the step that belongs to so many failures.
fn delay(failures: u32, first: Duration, most: Duration, random: u64) -> Duration {
    let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    let step = first.checked_mul(doubled).unwrap_or(most).min(most);
    share(step, random).max(LEAST.min(step))
}

/// So that nobody spins.
const LEAST: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const MOST: Duration = Duration::from_secs(2);

    proptest! {
        #[test]
        fn a_pause_is_never_longer_than_its_step_and_never_nothing(failures in 1_u32.., random: u64) {
            let pause = delay(failures, FIRST, MOST, random);
            prop_assert!(LEAST <= pause && pause <= MOST);
            prop_assert!(failures > 1 || pause <= FIRST);
        }
    }

    #[test]
    fn pauses_double_up_to_the_most_and_begin_anew_after_a_success() {
        let longest = |failures| (0..500).map(|_| delay(failures, FIRST, MOST, random())).max().expect("some");
        let longest = [1, 2, 3, 40].map(longest);
        assert!(longest[0] <= FIRST && longest[1] > FIRST && longest[2] > 2 * FIRST && longest[3] > 10 * FIRST);
        let mut backoff = Backoff::new(FIRST, MOST);
        (0..20).for_each(|_| assert!(backoff.pause() <= MOST));
        backoff.succeeded();
        assert!(backoff.pause() <= FIRST);
    }

    #[test]
    fn a_crowd_spreads_over_the_step() {
        let early = (0..1000).filter(|_| delay(3, FIRST, MOST, random()) < FIRST * 2).count();
        assert!((350..650).contains(&early), "{early} of 1000 in the first half");
    }
}
