//! To whom a request is charged, and who asked lately.

use crate::{
    identity::{Authority, Caller, Proof},
    model::{Digest, TenantNumber, Timestamp},
};

/// To whom a request is charged.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Payer {
    /// A tenant that the caller is known to act in.
    Tenant(TenantNumber),
    /// Everybody that an authority vouches for and that was not yet found in a tenant.
    Newcomers(Authority),
    /// The same for a user of this host.
    User(u32),
    /// Whom an identity token speaks of, by hash: an issuer vouches for callers of all tenants.
    Subject(Digest),
}

/// The two payers that asked last, and when: of all others than a given one, the latest is among them.
#[derive(Debug, Default)]
pub(super) struct Lately {
    /// Two different ones, the later first.
    asked: [Option<(Payer, Timestamp)>; 2],
    now: Timestamp,
}

// === impl Payer ===

impl Payer {
    /// Who pays for what a caller begins.
    #[must_use]
    pub fn of(caller: &Caller) -> Self {
        match (caller.account().tenant(), caller.proof()) {
            (Some(tenant), _) => Self::Tenant(tenant),
            (None, Proof::Certificate(certificate)) => Self::Newcomers(certificate.authority.clone()),
            (None, Proof::Unix(unix)) => Self::User(unix.uid),
            (None, Proof::TaskKey(key)) => Self::Tenant(key.task.tenant()),
            (None, Proof::Federated(token)) => Self::Subject(Digest::of(token.subject.as_bytes())),
        }
    }
}

// === impl Lately ===

impl Lately {
    /// One asks at `now`.
    pub(super) fn asks(&mut self, payer: &Payer, now: Timestamp) {
        self.now = self.now.max(now);
        let [last, before] = &mut self.asked;
        match last {
            Some((same, at)) if same == payer => *at = self.now,
            Some(_) | None => *before = last.replace((payer.clone(), self.now)),
        }
    }

    /// Whether anybody else asked within the [`LATELY_SECONDS`] before anybody asked last.
    pub(super) fn others_than(&self, payer: &Payer) -> bool {
        let other = self.asked.iter().flatten().find(|(who, _)| who != payer);
        other.is_some_and(|(_, at)| self.now.since(*at).as_secs() < LATELY_SECONDS)
    }
}

/// How long others count as there after they asked.
pub(super) const LATELY_SECONDS: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn user(uid: u32) -> Payer {
        Payer::User(uid)
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1_000)
    }

    #[test]
    fn who_asks_alone_has_no_others_however_often_it_asks() {
        let mut lately = Lately::default();
        assert!(!lately.others_than(&user(1)), "nobody has asked");
        (0..9).for_each(|second| lately.asks(&user(1), at(second)));
        assert!(!lately.others_than(&user(1)));
        assert!(lately.others_than(&user(2)), "to anybody else it is another");
    }

    #[test]
    fn others_count_for_a_while_after_they_asked_and_not_longer() {
        let mut lately = Lately::default();
        lately.asks(&user(2), at(0));
        for (second, others) in [(0, true), (LATELY_SECONDS - 1, true), (LATELY_SECONDS, false)] {
            lately.asks(&user(1), at(second));
            assert_eq!(lately.others_than(&user(1)), others, "after {second} s");
        }
    }

    #[test]
    fn the_latest_other_is_known_in_whatever_order_any_number_asked() {
        let orders: [&[u32]; 4] = [&[2, 3, 1], &[3, 1, 1, 2, 1], &[1, 2, 1, 2, 1], &[2, 1, 3, 1]];
        for order in orders {
            let mut lately = Lately::default();
            let mut latest = None;
            for (second, uid) in (0..).zip(order) {
                lately.asks(&user(*uid), at(second));
                latest = if *uid == 1 { latest } else { Some(second) };
            }
            let latest = latest.expect("others asked");
            lately.asks(&user(1), at(latest + LATELY_SECONDS - 1));
            assert!(lately.others_than(&user(1)), "{order:?}");
            lately.asks(&user(1), at(latest + LATELY_SECONDS));
            assert!(!lately.others_than(&user(1)), "{order:?}");
        }
    }

    #[test]
    fn time_that_steps_back_makes_nobody_forgotten_or_remembered_longer() {
        let mut lately = Lately::default();
        lately.asks(&user(2), at(5));
        lately.asks(&user(1), at(0));
        assert!(lately.others_than(&user(1)));
        lately.asks(&user(1), at(5 + LATELY_SECONDS));
        assert!(!lately.others_than(&user(1)));
    }
}
