//! Live, suspended or ended.

/// Why something ended.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum EndReason {
    /// Time ran out.
    Expired,
    /// The workload completed the task.
    Completed,
    /// The workload released the lease.
    Released,
    /// Someone revoked it.
    Revoked,
    /// A successor took its place.
    Superseded,
    /// The task's holder went away.
    Abandoned,
    /// The trust map was narrowed.
    Narrowed,
    /// Its record cannot be read.
    Damaged,
    /// Nobody picked it up in time.
    NotPickedUp,
}

impl EndReason {
    /// The number in records and on the wire (`mayfly.v1.EndReason`).
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Expired => 1,
            Self::Completed => 2,
            Self::Released => 3,
            Self::Revoked => 4,
            Self::Superseded => 5,
            Self::Abandoned => 6,
            Self::Narrowed => 7,
            Self::Damaged => 8,
            Self::NotPickedUp => 9,
        }
    }

    /// From a record's number; 0 is `None`, an unknown one counts as damaged.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        match code {
            0 => None,
            1 => Some(Self::Expired),
            2 => Some(Self::Completed),
            3 => Some(Self::Released),
            4 => Some(Self::Revoked),
            5 => Some(Self::Superseded),
            6 => Some(Self::Abandoned),
            7 => Some(Self::Narrowed),
            9 => Some(Self::NotPickedUp),
            _ => Some(Self::Damaged),
        }
    }

    /// The word for people and events.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Completed => "completed",
            Self::Released => "released",
            Self::Revoked => "revoked",
            Self::Superseded => "superseded",
            Self::Abandoned => "abandoned",
            Self::Narrowed => "narrowed",
            Self::Damaged => "damaged",
            Self::NotPickedUp => "not picked up",
        }
    }
}

/// Whether something may be used now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// May be used.
    Live,
    /// Held by a suspending bar.
    Suspended,
    /// Over for good.
    Ended(EndReason),
}

impl Standing {
    /// Whether it may be used.
    #[must_use]
    pub fn is_live(self) -> bool {
        matches!(self, Self::Live)
    }

    /// The more final of two.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Ended(_), _) => self,
            (_, Self::Ended(_)) => other,
            (Self::Suspended, _) | (_, Self::Suspended) => Self::Suspended,
            (Self::Live, Self::Live) => Self::Live,
        }
    }
}
