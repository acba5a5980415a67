//! Why something is suspended that nobody has barred by hand.

/// Why a scope is suspended, beside a bar. Each is a row of its own: lifting one leaves the others.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Suspension {
    /// An operator suspended it for a time.
    Quarantine,
    /// Nobody attested the grant in time.
    AttestationOverdue,
    /// The grant has a new owner, who has not attested it yet.
    TransferPending,
    /// The grant's owner has left.
    OwnerLeft,
    /// The grant was not used for too long.
    Dormant,
    /// A task derived more, or reached further, than its grant allows.
    Velocity,
}

impl Suspension {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::Quarantine,
        Self::AttestationOverdue,
        Self::TransferPending,
        Self::OwnerLeft,
        Self::Dormant,
        Self::Velocity,
    ];

    /// The number in keys and records.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Quarantine => 1,
            Self::AttestationOverdue => 2,
            Self::TransferPending => 3,
            Self::OwnerLeft => 4,
            Self::Dormant => 5,
            Self::Velocity => 6,
        }
    }

    /// The inverse of [`Self::code`].
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.code() == code)
    }

    /// The words in replies, events and lists.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Quarantine => "quarantine",
            Self::AttestationOverdue => "attestation overdue",
            Self::TransferPending => "transfer pending",
            Self::OwnerLeft => "owner left",
            Self::Dormant => "dormant",
            Self::Velocity => "velocity",
        }
    }

    fn bit(self) -> u8 {
        1 << self.code()
    }
}

/// A set of reasons.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Suspensions(u8);

impl Suspensions {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this one is among them.
    #[must_use]
    pub fn has(self, cause: Suspension) -> bool {
        self.0 & cause.bit() != 0
    }

    /// With this one too.
    #[must_use]
    pub fn with(self, cause: Suspension) -> Self {
        Self(self.0 | cause.bit())
    }

    /// Without those of another set.
    #[must_use]
    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Those in both sets.
    #[must_use]
    pub fn and(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    /// One by one, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Suspension> {
        Suspension::ALL.into_iter().filter(move |cause| self.has(*cause))
    }
}

impl FromIterator<Suspension> for Suspensions {
    fn from_iter<I: IntoIterator<Item = Suspension>>(causes: I) -> Self {
        causes.into_iter().fold(Self::default(), Self::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_number_and_a_place_of_its_own() {
        let all: Suspensions = Suspension::ALL.into_iter().collect();
        assert_eq!(all.iter().collect::<Vec<_>>(), Suspension::ALL);
        for cause in Suspension::ALL {
            assert_eq!(Suspension::from_code(cause.code()), Some(cause));
            let rest = all.without(Suspensions::default().with(cause));
            assert!(!rest.has(cause) && rest.iter().count() + 1 == Suspension::ALL.len());
        }
        assert_eq!(Suspension::from_code(0), None);
        assert_eq!(Suspension::from_code(99), None);
    }
}
