//! Leave to use a grant once: asked for with a reason, given by several people, good for one task and not for long.

use super::{
    id::{ApprovalId, GrantName, OperatorName, PartnerName, Purpose, TaskId, TenantName, WorkloadName},
    scope::ScopeId,
    secret::Digest,
    time::Timestamp,
};

/// One request for leave to use a grant, and what became of it.
///
/// ```text
/// ask --> Open --(enough agree)--> Granted --(first use)--> Used
///           \                         \                      \
///            +-------------------------+----------------------+--> Closed(denied | withdrawn | void | expired)   never back
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Approval {
    /// Its id; says the tenant's number.
    pub id: ApprovalId,
    /// The tenant it is for.
    pub tenant: TenantName,
    /// The grant's partner.
    pub partner: PartnerName,
    /// The one grant it is for.
    pub grant: GrantName,
    /// The one workload that can use it.
    pub workload: WorkloadName,
    /// The one purpose.
    pub purpose: Purpose,
    /// The task it is for; `None` for the one that is opened with it.
    pub task: Option<TaskId>,
    /// Why it is asked for, in the asker's words.
    pub reason: String,
    /// Who asked, as events name it.
    pub asked_by: String,
    /// The key that the asker proved itself with: who holds it does not approve.
    pub asked_key: String,
    /// The person who asked, by sign-in: the hash of issuer and subject, the same at each sign-in and as each operator.
    pub asked_person: Option<Digest>,
    /// When.
    pub asked: Timestamp,
    /// Until when enough must have agreed.
    pub waits_until: Timestamp,
    /// Who has agreed.
    pub votes: Vec<ApprovalVote>,
    /// Until when it can be used; `None` before enough have agreed.
    pub until: Option<Timestamp>,
    /// The one task it is used in.
    pub used_by: Option<TaskId>,
    /// Why it is over before its time, and since when.
    pub closed: Option<(Closed, Timestamp)>,
    /// Hash of what the grant gave and demanded when it was asked for.
    pub terms: Digest,
    /// Incarnation and revision number that it was asked at: one of before a restore is over.
    pub basis: (u64, u64),
}

/// One person's word.
#[derive(Clone, Debug, PartialEq)]
pub struct ApprovalVote {
    /// Whose.
    pub operator: OperatorName,
    /// When.
    pub at: Timestamp,
    /// The key that proved it.
    pub key: String,
    /// The person whose word it is, by sign-in; as [`Approval::asked_person`].
    pub person: Option<Digest>,
    /// By what it is found whether that person was signed out or left since; `None` for who did not come by sign-in.
    pub voter: Option<Voter>,
    /// Scopes of the proof: cut or barred, the word no longer counts.
    pub proofs: Vec<ScopeId>,
    /// The revision it was given at.
    pub basis: u64,
}

impl ApprovalVote {
    /// Whether it is another word of the same one: of one operator, by one key, or of one person who signed in.
    #[must_use]
    pub fn is_same_voice(&self, other: &Self) -> bool {
        self.operator == other.operator
            || self.key == other.key
            || (self.person.is_some() && self.person == other.person)
    }
}

/// A person who agreed, as directory and provider may speak of it later.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Voter {
    /// What it is called, folded.
    pub names: Vec<String>,
    /// Its ids at provider and directory.
    pub subjects: Vec<String>,
}

/// Why an approval is over before its time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Closed {
    /// An approver said no.
    Denied,
    /// The asker, or an admin, took it back.
    Withdrawn,
    /// What was agreed to is no longer what the grant gives.
    Void,
}

impl Closed {
    /// The number in records.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Denied => 1,
            Self::Withdrawn => 2,
            Self::Void => 3,
        }
    }

    /// From a record's number; 0 is `None`, an unknown one is void.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        match code {
            0 => None,
            1 => Some(Self::Denied),
            2 => Some(Self::Withdrawn),
            _ => Some(Self::Void),
        }
    }
}

/// Where an approval stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ApprovalStanding {
    /// Waits for people.
    Open,
    /// Enough have agreed, and no task uses it.
    Granted,
    /// A task uses it.
    Used,
    /// An approver said no.
    Denied,
    /// It was taken back.
    Withdrawn,
    /// It no longer fits the grant, or is of before a restore.
    Void,
    /// Nobody, or too few, agreed in time, or its time to be used is over.
    Expired,
}

impl ApprovalStanding {
    /// Every one.
    pub const ALL: [Self; 7] =
        [Self::Open, Self::Granted, Self::Used, Self::Denied, Self::Withdrawn, Self::Void, Self::Expired];

    /// The word in replies, events and lists.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Granted => "granted",
            Self::Used => "used",
            Self::Denied => "denied",
            Self::Withdrawn => "withdrawn",
            Self::Void => "void",
            Self::Expired => "expired",
        }
    }

    /// The inverse of [`Self::word`].
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|standing| standing.word() == word)
    }

    /// Whether it can come to something yet.
    #[must_use]
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Open | Self::Granted | Self::Used)
    }
}

impl Approval {
    /// How many requests of a workload can wait.
    pub const OPEN_PER_WORKLOAD: usize = 8;
    /// How many requests of a tenant can wait.
    pub const OPEN_PER_TENANT: usize = 256;
    /// How many of a workload are kept, over or not.
    pub const KEPT_PER_WORKLOAD: usize = 64;
    /// How many of a tenant are kept, over or not.
    pub const KEPT_PER_TENANT: usize = 1_024;
    /// Bytes of a reason.
    pub const REASON_MAX_BYTES: usize = 512;

    /// Where it stands by its own row, the store's incarnation and the time. The grant comes on top.
    #[must_use]
    pub fn standing(&self, incarnation: u64, now: Timestamp) -> ApprovalStanding {
        match (self.closed, self.until) {
            (Some((Closed::Denied, _)), _) => ApprovalStanding::Denied,
            (Some((Closed::Withdrawn, _)), _) => ApprovalStanding::Withdrawn,
            (Some((Closed::Void, _)), _) => ApprovalStanding::Void,
            (None, _) if self.basis.0 != incarnation => ApprovalStanding::Void,
            (None, None) if self.waits_until <= now => ApprovalStanding::Expired,
            (None, Some(until)) if until <= now => ApprovalStanding::Expired,
            (None, None) => ApprovalStanding::Open,
            (None, Some(_)) if self.used_by.is_some() => ApprovalStanding::Used,
            (None, Some(_)) => ApprovalStanding::Granted,
        }
    }

    /// Whether someone has a part in it already: as the one who asked, or by a word given before. One operator, one key and
    /// one person who signed in are each one, whatever else they are called or hold.
    #[must_use]
    pub fn involves(&self, operator: &OperatorName, key: &str, person: Option<&Digest>) -> bool {
        let same = |other: Option<&Digest>| person.is_some() && person == other;
        self.asking_operator() == Some(operator.as_str())
            || self.asked_key == key
            || same(self.asked_person.as_ref())
            || self.votes.iter().any(|vote| vote.operator == *operator || vote.key == key || same(vote.person.as_ref()))
    }

    /// The operator who asked, if one did, whoever signed in as it.
    fn asking_operator(&self) -> Option<&str> {
        // INVARIANT: no operator's name holds a slash; what comes after one is the person.
        self.asked_by.strip_prefix("operator:")?.split('/').next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TenantNumber;

    fn asked() -> Approval {
        Approval {
            id: ApprovalId::fresh(TenantNumber::new(3).expect("in range")).expect("entropy"),
            tenant: "acme".parse().expect("name"),
            partner: "zeta".parse().expect("name"),
            grant: "g".parse().expect("name"),
            workload: "w".parse().expect("name"),
            purpose: "work".parse().expect("name"),
            task: None,
            reason: "incident".into(),
            asked_by: "operator:olga".into(),
            asked_key: "k0".into(),
            asked_person: None,
            asked: Timestamp::from_seconds(100),
            waits_until: Timestamp::from_seconds(200),
            votes: vec![],
            until: None,
            used_by: None,
            closed: None,
            terms: Digest::of(b"terms"),
            basis: (7, 1),
        }
    }

    #[test]
    fn time_a_restore_and_a_no_end_it_whatever_it_was() {
        let at = Timestamp::from_seconds;
        let open = asked();
        let granted = Approval { until: Some(at(300)), ..open.clone() };
        let used = Approval { used_by: TaskId::fresh(open.id.tenant()).ok(), ..granted.clone() };
        for (approval, live, over_at) in [
            (open, ApprovalStanding::Open, 200),
            (granted, ApprovalStanding::Granted, 300),
            (used, ApprovalStanding::Used, 300),
        ] {
            assert_eq!(approval.standing(7, at(over_at - 1)), live);
            assert_eq!(approval.standing(7, at(over_at)), ApprovalStanding::Expired);
            assert_eq!(approval.standing(8, at(150)), ApprovalStanding::Void);
            for why in [Closed::Denied, Closed::Withdrawn, Closed::Void] {
                let closed = Approval { closed: Some((why, at(120))), ..approval.clone() };
                assert!(closed.standing(7, at(150)).is_over());
                assert_eq!(Closed::from_code(why.code().into()), Some(why));
            }
        }
    }

    #[test]
    fn every_standing_is_known_by_its_own_word() {
        for standing in ApprovalStanding::ALL {
            assert_eq!(ApprovalStanding::from_word(standing.word()), Some(standing));
        }
        assert_eq!(ApprovalStanding::from_word("Open"), None);
    }

    fn name(text: &str) -> OperatorName {
        text.parse().expect("name")
    }

    fn vote(operator: &str, key: &str, person: Option<Digest>) -> ApprovalVote {
        let at = Timestamp::from_seconds(110);
        ApprovalVote { operator: name(operator), at, key: key.into(), person, voter: None, proofs: vec![], basis: 2 }
    }

    #[test]
    fn who_asked_and_who_has_spoken_takes_part_once_by_name_and_by_key() {
        let mut approval = asked();
        assert!(approval.involves(&name("olga"), "k9", None) && approval.involves(&name("petra"), "k0", None));
        assert!(!approval.involves(&name("petra"), "k1", None));
        approval.votes.push(vote("petra", "k1", None));
        assert!(approval.involves(&name("petra"), "k2", None) && approval.involves(&name("quentin"), "k1", None));
        assert!(!approval.involves(&name("quentin"), "k2", None));
        assert!(!approval.involves(&name("quentin"), "k2", Some(&Digest::of(b"quentin"))), "unknown is not the same");
    }

    #[test]
    fn a_person_who_signs_in_anew_or_as_another_operator_is_the_same_one() {
        let (olga, petra) = (Digest::of(b"olga"), Digest::of(b"petra"));
        let mut approval = asked();
        (approval.asked_by, approval.asked_person) = ("operator:oncall/olga@example.com".into(), Some(olga));
        assert!(approval.involves(&name("oncall"), "k9", Some(&olga)), "a new key after a new sign-in");
        assert!(approval.involves(&name("second"), "k9", Some(&olga)), "as another operator");
        assert!(approval.involves(&name("oncall"), "k9", None), "the lasting certificate of the same operator");
        assert!(!approval.involves(&name("second"), "k9", Some(&petra)));
        approval.votes.push(vote("second", "k1", Some(petra)));
        assert!(approval.involves(&name("third"), "k2", Some(&petra)), "agrees twice");
        assert!(!approval.involves(&name("third"), "k2", Some(&Digest::of(b"quentin"))));
    }
}
