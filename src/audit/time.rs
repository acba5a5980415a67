//! Times as events have them.

use crate::model::Timestamp;

/// The wire's form of a time; milliseconds are kept.
#[must_use]
pub fn stamp(at: Timestamp) -> prost_types::Timestamp {
    let nanos = i32::try_from(at.millis() % 1000).unwrap_or(0) * 1_000_000;
    prost_types::Timestamp { seconds: i64::try_from(at.seconds()).unwrap_or(i64::MAX), nanos }
}

/// The inverse of [`stamp`]; before 1970 is 1970.
#[must_use]
pub fn unstamp(at: &prost_types::Timestamp) -> Timestamp {
    let millis = u64::try_from(at.nanos / 1_000_000).unwrap_or(0);
    Timestamp::from_millis(u64::try_from(at.seconds).unwrap_or(0).saturating_mul(1000).saturating_add(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_reads_back_as_itself_and_none_is_before_1970() {
        for millis in [0, 1, 999, 1_000, 1_750_000_000_123, u64::MAX / 2] {
            let at = Timestamp::from_millis(millis);
            assert_eq!(unstamp(&stamp(at)), at);
        }
        let before = prost_types::Timestamp { seconds: -1, nanos: -5_000_000 };
        assert_eq!(unstamp(&before), Timestamp::default());
    }
}
