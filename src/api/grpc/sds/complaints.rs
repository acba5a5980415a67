//! What clients say of secrets that they cannot use, for the log: short, and not often. Whoever has an identity on this host
//! may say it, in any words and as fast as it can.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What one socket's clients complained of within a minute.
#[derive(Debug, Default)]
pub(super) struct Complaints(Mutex<Minute>);

#[derive(Debug, Default)]
struct Minute {
    began: Option<Instant>,
    told: u32,
    untold: u64,
}

impl Complaints {
    /// Logs a complaint, or only counts it when there were enough within a minute.
    pub(super) fn note(&self, message: &str, now: Instant) {
        if let Some(untold_before) = self.tells(now) {
            let message = shortened(message);
            tracing::warn!(message, untold_before, "a client of SDS cannot use its secrets");
        }
    }

    /// Whether one more is told, and how many before it were not.
    fn tells(&self, now: Instant) -> Option<u64> {
        let mut minute = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut untold = 0;
        if minute.began.is_none_or(|began| now.saturating_duration_since(began) >= MINUTE) {
            untold = std::mem::replace(&mut *minute, Minute { began: Some(now), ..Minute::default() }).untold;
        }
        if minute.told >= TOLD_A_MINUTE {
            minute.untold += 1;
            return None;
        }
        minute.told += 1;
        Some(untold)
    }
}

/// The beginning of a message as one line of visible characters.
fn shortened(message: &str) -> String {
    let mut escaped = message.chars().flat_map(char::escape_debug);
    let mut text: String = escaped.by_ref().take(SHOWN_CHARS).collect();
    if escaped.next().is_some() {
        text.push_str("..");
    }
    text
}

const MINUTE: Duration = Duration::from_secs(60);
/// Complaints of a socket that are logged in a minute.
const TOLD_A_MINUTE: u32 = 10;
/// Characters of a complaint that are logged.
const SHOWN_CHARS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_logged_as_one_short_line() {
        assert_eq!(shortened("no\nkey \u{1b}[31m"), "no\\nkey \\u{1b}[31m");
        assert_eq!(shortened(&"a".repeat(SHOWN_CHARS)), "a".repeat(SHOWN_CHARS));
        for long in ["a".repeat(128 << 10), "\u{1b}".repeat(1_000)] {
            assert_eq!(shortened(&long).chars().count(), SHOWN_CHARS + 2, "{} bytes", long.len());
        }
    }

    #[test]
    fn ten_are_told_in_a_minute_and_the_rest_counted() {
        let (complaints, begin) = (Complaints::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        for second in 0..10 {
            assert_eq!(complaints.tells(at(second)), Some(0));
        }
        for second in 10..60 {
            assert_eq!(complaints.tells(at(second)), None);
        }
        assert_eq!(complaints.tells(at(60)), Some(50));
        assert_eq!(complaints.tells(at(61)), Some(0));
    }
}
