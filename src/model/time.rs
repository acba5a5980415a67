//! Time: bounded types, read once a request and passed down.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A point in time, in whole milliseconds since 1970 (UTC).
#[derive(Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From Unix milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// From Unix seconds.
    #[must_use]
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Unix milliseconds.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Unix seconds, rounded down.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// Unix minutes, rounded down.
    #[must_use]
    pub fn minute(self) -> u32 {
        u32::try_from(self.0 / 60_000).unwrap_or(u32::MAX)
    }

    /// This much later.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    /// This much earlier.
    #[must_use]
    pub fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    /// From `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Without its fraction of a second: what tokens and certificates can say.
    #[must_use]
    pub fn floor_second(self) -> Self {
        Self(self.0 - self.0 % 1000)
    }

    /// RFC 3339 text in UTC, to the second.
    #[must_use]
    pub fn rfc3339(self) -> String {
        i64::try_from(self.seconds())
            .ok()
            .and_then(|s| time::OffsetDateTime::from_unix_timestamp(s).ok())
            .and_then(|t| t.format(&time::format_description::well_known::Rfc3339).ok())
            .unwrap_or_else(|| format!("{}s", self.seconds()))
    }

    /// Parses RFC 3339 text; `None` when it is not, or before 1970.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let parsed = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()?;
        u64::try_from(parsed.unix_timestamp()).ok().map(Self::from_seconds)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How long a credential lives: whole seconds, at least 1, at most [`Ttl::MAX`].
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Ttl(u32);

impl Ttl {
    /// The longest life of any credential: one hour.
    pub const MAX: Self = Self(3600);

    /// `None` for zero and beyond [`Self::MAX`].
    #[must_use]
    pub fn from_seconds(seconds: u32) -> Option<Self> {
        (1..=Self::MAX.0).contains(&seconds).then_some(Self(seconds))
    }

    /// Whole seconds.
    #[must_use]
    pub fn seconds(self) -> u32 {
        self.0
    }

    /// As a duration.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0.into())
    }
}

/// Clock skew forgiven between the broker and who checks its credentials.
///
/// INVARIANT: a verifier may honour a credential until `expires + SKEW`, so what ends it is remembered until then.
pub const SKEW: Duration = Duration::from_secs(30);

/// What the machine says about time. Only [`crate::broker`] reads it, once a request.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Wall time; may step either way.
    fn wall(&self) -> Timestamp;
    /// Time since boot, suspend included; never steps back.
    fn boot(&self) -> Duration;
}

/// Reads the system's wall clock, for the one implementation of [`Clock`] that is not a test's.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn system_wall() -> Timestamp {
    Timestamp(0).after(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_a_second_to_an_hour() {
        for (seconds, fits) in [(0, false), (1, true), (3_600, true), (3_601, false), (u32::MAX, false)] {
            assert_eq!(Ttl::from_seconds(seconds).map(Ttl::seconds), fits.then_some(seconds));
        }
        assert_eq!(Ttl::MAX.duration(), Duration::from_hours(1));
    }

    #[test]
    fn times_are_rounded_down_and_never_turn_over() {
        let at = Timestamp::from_millis(61_999);
        assert_eq!((at.seconds(), at.minute(), at.floor_second()), (61, 1, Timestamp::from_seconds(61)));
        assert_eq!(at.before(Duration::from_mins(2)), Timestamp::default());
        assert_eq!(at.after(Duration::MAX), Timestamp::from_millis(u64::MAX));
        assert_eq!(at.since(at.after(Duration::from_secs(1))), Duration::ZERO);
        assert_eq!(at.after(Duration::from_millis(1)).since(at), Duration::from_millis(1));
        assert_eq!(Timestamp::parse_rfc3339(&at.rfc3339()), Some(at.floor_second()));
        assert_eq!(Timestamp::parse_rfc3339("1969-12-31T23:59:59Z"), None);
    }
}
