//! How long to wait before the next attempt.

use std::time::Duration;

/// The wait before attempt `failures + 1`: doubling from 500 ms up to 60 s, of which `random` takes up to half away.
///
/// Any `random` is valid; a different one for each sink and attempt keeps a crowd apart. Attempts never end.
#[must_use]
pub fn delay(failures: u32, random: u64) -> Duration {
    up_to(MAX_MILLIS, failures, random)
}

/// As [`delay`], up to a cap of `most_millis`.
#[must_use]
pub fn up_to(most_millis: u64, failures: u32, random: u64) -> Duration {
    let doubled = FIRST_MILLIS.saturating_mul(1_u64.checked_shl(failures.saturating_sub(1)).unwrap_or(u64::MAX));
    let full = doubled.min(most_millis);
    Duration::from_millis(full - random % (full / 2 + 1))
}

const FIRST_MILLIS: u64 = 500;
const MAX_MILLIS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_delay_is_between_half_and_all_of_its_step(failures: u32, random: u64) {
            let full = delay(failures, 0);
            let delay = delay(failures, random);
            prop_assert!(full / 2 <= delay && delay <= full && full <= Duration::from_secs(60));
        }
    }

    #[test]
    fn delays_double_up_to_the_cap() {
        let steps = [1, 2, 3, 7, 8, 100, u32::MAX].map(|failures| delay(failures, 0).as_millis());
        assert_eq!(steps, [500, 1000, 2000, 32_000, 60_000, 60_000, 60_000]);
    }
}
