//! What owners are told of: which events of the audit, under which word.

use std::fmt;

/// What a notification is about, as routes name it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Topic {
    /// Something is suspended, for any reason but the next; and appeals against what is.
    Suspension,
    /// An attestation is due soon, or overdue: then the grant is suspended.
    Attestation,
    /// A job was gone before it completed its task.
    Abandoned,
    /// The time of a quarantine is over, and it stays closed.
    Quarantine,
    /// A static secret was taken from who had it, and has to be rotated at its vendor.
    Rotation,
    /// Something that should not happen.
    Alarm,
}

impl Topic {
    /// Every topic, by its word in the config.
    pub const ALL: [(&'static str, Self); 6] = [
        ("suspension", Self::Suspension),
        ("attestation", Self::Attestation),
        ("abandoned", Self::Abandoned),
        ("quarantine", Self::Quarantine),
        ("rotation", Self::Rotation),
        ("alarm", Self::Alarm),
    ];

    /// Events that are alarms, whatever they say.
    pub const ALARMS: [&'static str; 9] = [
        "clock.behind",
        "clock.jumped",
        "credential.reused",
        "identity.token_reused",
        "operator.recovered",
        "operator.restored",
        "pickup.misused",
        "store.doubted",
        "store.restored",
    ];

    /// The word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Suspension => "suspension",
            Self::Attestation => "attestation",
            Self::Abandoned => "abandoned",
            Self::Quarantine => "quarantine",
            Self::Rotation => "rotation",
            Self::Alarm => "alarm",
        }
    }

    /// Whether events of this kind can have a topic: asked once an event, when it is written.
    #[must_use]
    pub fn may_be_of(kind: &str) -> bool {
        // What comes by the thousand a second is told from the rest by a few bytes.
        !kind.starts_with("lease.") && (Self::KINDS.contains(&kind) || Self::ALARMS.contains(&kind))
    }

    /// The topic of an event: its kind and its details, `name=value`. `None` for what nobody is told of.
    #[must_use]
    pub fn of(kind: &str, details: &[String]) -> Option<Self> {
        let has = |wanted: &str| details.iter().any(|detail| detail == wanted);
        match kind {
            "grant.attestation_due" => Some(Self::Attestation),
            "scope.suspended" if has("cause=attestation overdue") => Some(Self::Attestation),
            "scope.suspended" | "scope.quarantined" | "task.suspended" => Some(Self::Suspension),
            "appeal.filed" | "appeal.granted" | "appeal.refused" | "appeal.closed" => Some(Self::Suspension),
            "scope.barred" => has("suspend=true").then_some(Self::Suspension),
            "quarantine.lapsed" => Some(Self::Quarantine),
            "task.abandoned" => Some(Self::Abandoned),
            "secret.needs_rotation" => Some(Self::Rotation),
            _ => Self::ALARMS.contains(&kind).then_some(Self::Alarm),
        }
    }

    const KINDS: [&'static str; 12] = [
        "appeal.closed",
        "appeal.filed",
        "appeal.granted",
        "appeal.refused",
        "grant.attestation_due",
        "quarantine.lapsed",
        "scope.barred",
        "scope.quarantined",
        "scope.suspended",
        "secret.needs_rotation",
        "task.abandoned",
        "task.suspended",
    ];
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_has_a_topic_is_marked_when_it_is_written() {
        let suspends = ["suspend=true".to_owned()];
        for kind in Topic::KINDS.iter().chain(&Topic::ALARMS) {
            assert!(Topic::may_be_of(kind) && Topic::of(kind, &suspends).is_some(), "{kind}");
        }
        for kind in ["lease.issued", "lease.used", "task.opened", "task.completed", "trust.applied", "notify.failed"] {
            assert!(!Topic::may_be_of(kind) && Topic::of(kind, &suspends).is_none(), "{kind}");
        }
    }

    #[test]
    fn a_bar_that_suspends_nothing_is_told_nobody() {
        assert_eq!(Topic::of("scope.barred", &["scope=grant a/b".to_owned()]), None);
        let suspends = ["scope=grant a/b", "suspend=true"].map(str::to_owned);
        assert_eq!(Topic::of("scope.barred", &suspends), Some(Topic::Suspension));
    }

    #[test]
    fn a_suspension_that_waits_for_an_owner_is_told_as_such() {
        let told =
            |cause: &str| Topic::of("scope.suspended", &["scope=grant a/b".to_owned(), format!("cause={cause}")]);
        assert_eq!(told("attestation overdue"), Some(Topic::Attestation));
        assert_eq!(told("velocity"), Some(Topic::Suspension));
    }

    #[test]
    fn what_the_events_page_calls_an_alarm_is_one() {
        let page = include_str!("../../docs/events.md");
        let rows = page.lines().filter(|line| line.starts_with("| `") && line.contains("An alarm"));
        let mut named: Vec<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
        named.sort_unstable();
        assert_eq!(named, Topic::ALARMS);
        for kind in Topic::KINDS {
            assert!(page.contains(&format!("`{kind}`")), "{kind}");
        }
    }

    #[test]
    fn every_word_is_its_own() {
        for (word, topic) in Topic::ALL {
            assert_eq!(topic.word(), word);
        }
    }
}
