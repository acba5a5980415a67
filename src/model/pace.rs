//! How fast one task goes on, and how far it reaches.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{secret::Digest, time::Timestamp};

/// What a grant allows one task with all its child tasks; `None` for no limit.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Velocity {
    /// Credentials issued or renewed and child tasks opened, in a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub derivations_per_minute: Option<u32>,
    /// The same in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub derivations: Option<u32>,
    /// Distinct audiences in a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources_per_minute: Option<u32>,
    /// Distinct audiences in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<u32>,
}

impl Velocity {
    /// The most distinct audiences that a limit can allow: their hashes stand in the task's row.
    pub const RESOURCES_MOST: u32 = 64;

    /// Whether nothing is limited.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    /// Each limit with its name in trust files.
    #[must_use]
    pub fn limits(&self) -> [(&'static str, Option<u32>); 4] {
        [
            ("derivations_per_minute", self.derivations_per_minute),
            ("derivations", self.derivations),
            ("resources_per_minute", self.resources_per_minute),
            ("resources", self.resources),
        ]
    }

    /// The lower of each limit.
    #[must_use]
    pub fn least(self, other: Self) -> Self {
        let least = |one: Option<u32>, other: Option<u32>| match (one, other) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, None) | (None, one) => one,
        };
        Self {
            derivations_per_minute: least(self.derivations_per_minute, other.derivations_per_minute),
            derivations: least(self.derivations, other.derivations),
            resources_per_minute: least(self.resources_per_minute, other.resources_per_minute),
            resources: least(self.resources, other.resources),
        }
    }
}

/// What was derived in a task so far. Only what falls under a grant with limits is counted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pace {
    /// When the running minute began: with the first derivation after the one before was over.
    pub began: Timestamp,
    /// Derivations in it.
    pub in_minute: u32,
    /// Derivations in all.
    pub total: u32,
    /// Audiences: the first 8 bytes of SHA-256, and when each was last asked for. At most
    /// [`Velocity::RESOURCES_MOST`] and one.
    pub resources: Vec<(u64, Timestamp)>,
}

/// A limit that one more derivation exceeds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tripped {
    /// The limit's name in trust files.
    pub rule: &'static str,
    /// What it allows.
    pub limit: u32,
    /// What it would be.
    pub count: u32,
}

impl Pace {
    /// With one more derivation, for `audiences`.
    ///
    /// A minute begins with the first derivation after the last one was over: in no 60 seconds are there more than twice as
    /// many as the limit says.
    ///
    /// # Errors
    /// The first limit that it exceeds, in the order of [`Velocity::limits`].
    pub fn with(mut self, limits: Velocity, audiences: &[String], now: Timestamp) -> Result<Self, Tripped> {
        if now.since(self.began) >= MINUTE {
            (self.began, self.in_minute) = (now, 0);
        }
        self.in_minute = self.in_minute.saturating_add(1);
        self.total = self.total.saturating_add(1);
        if limits.resources.is_some() || limits.resources_per_minute.is_some() {
            audiences.iter().for_each(|audience| self.reach(audience, now));
        }
        let began = self.began;
        let count = |counted: usize| u32::try_from(counted).unwrap_or(u32::MAX);
        let counts = [
            self.in_minute,
            self.total,
            count(self.resources.iter().filter(|(_, last)| *last >= began).count()),
            count(self.resources.len()),
        ];
        let over = limits.limits().into_iter().zip(counts).find_map(|((rule, limit), count)| {
            limit.filter(|limit| count > *limit).map(|limit| Tripped { rule, limit, count })
        });
        match over {
            Some(tripped) => Err(tripped),
            None => {
                self.forget();
                Ok(self)
            }
        }
    }

    /// Keeps one audience more than any limit allows, the latest: a grant without a limit in all is no way to have one with
    /// such a limit count anew, and no row grows beyond.
    fn forget(&mut self) {
        self.resources.sort_unstable_by_key(|(_, last)| std::cmp::Reverse(*last));
        self.resources.truncate(RESOURCES_KEPT);
    }

    fn reach(&mut self, audience: &str, now: Timestamp) {
        let name = Digest::of(audience.as_bytes()).0.first_chunk().map_or(0, |head| u64::from_be_bytes(*head));
        match self.resources.iter_mut().find(|(known, _)| *known == name) {
            Some((_, last)) => *last = now,
            None => self.resources.push((name, now)),
        }
    }
}

const RESOURCES_KEPT: usize = Velocity::RESOURCES_MOST as usize + 1;
const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_seconds(1_000_000 + seconds)
    }

    fn only(set: impl FnOnce(&mut Velocity)) -> Velocity {
        let mut limits = Velocity::default();
        set(&mut limits);
        limits
    }

    /// How many derivations pass, each for the audience and at the second of its place.
    fn passed(limits: Velocity, asked: &[(&str, u64)]) -> (usize, Option<&'static str>) {
        let mut pace = Pace::default();
        for (n, (audience, seconds)) in asked.iter().enumerate() {
            match pace.with(limits, &[(*audience).to_owned()], at(*seconds)) {
                Ok(next) => pace = next,
                Err(tripped) => return (n, Some(tripped.rule)),
            }
        }
        (asked.len(), None)
    }

    #[test]
    fn each_limit_holds_as_many_as_it_says_and_not_one_more() {
        let fast: Vec<_> = (0..9).map(|_| ("a", 0)).collect();
        assert_eq!(passed(Velocity::default(), &fast), (9, None));
        assert_eq!(passed(only(|l| l.derivations_per_minute = Some(3)), &fast), (3, Some("derivations_per_minute")));
        assert_eq!(passed(only(|l| l.derivations = Some(4)), &fast), (4, Some("derivations")));
        assert_eq!(passed(only(|l| l.resources = Some(1)), &fast), (9, None));
        let wide = [("a", 0), ("b", 1), ("a", 2), ("c", 3)];
        assert_eq!(passed(only(|l| l.resources = Some(2)), &wide), (3, Some("resources")));
        assert_eq!(passed(only(|l| l.resources_per_minute = Some(2)), &wide), (3, Some("resources_per_minute")));
        let at_once = [("a", 0), ("b", 0)];
        assert_eq!(passed(only(|l| l.resources_per_minute = Some(1)), &at_once), (1, Some("resources_per_minute")));
    }

    #[test]
    fn a_minute_later_the_minutes_limits_begin_anew_and_those_in_all_do_not() {
        let slow = [("a", 0), ("b", 61), ("c", 122), ("d", 183)];
        assert_eq!(passed(only(|l| l.derivations_per_minute = Some(1)), &slow), (4, None));
        assert_eq!(passed(only(|l| l.resources_per_minute = Some(1)), &slow), (4, None));
        assert_eq!(passed(only(|l| l.derivations = Some(2)), &slow), (2, Some("derivations")));
        assert_eq!(passed(only(|l| l.resources = Some(3)), &slow), (3, Some("resources")));
    }

    #[test]
    fn of_two_grants_the_lower_limit_holds() {
        let one = only(|l| (l.derivations, l.resources) = (Some(3), None));
        let other = only(|l| (l.derivations, l.resources) = (Some(2), Some(5)));
        let both = only(|l| (l.derivations, l.resources) = (Some(2), Some(5)));
        assert_eq!((one.least(other), other.least(one)), (both, both));
    }

    #[test]
    fn a_row_holds_no_more_audiences_than_can_count() {
        let limits = only(|l| l.resources_per_minute = Some(Velocity::RESOURCES_MOST));
        let mut pace = Pace::default();
        for n in 0..1_000u64 {
            pace = pace.with(limits, &[format!("a{n}")], at(n * 30)).expect("slow enough");
            assert!(pace.resources.len() <= RESOURCES_KEPT, "{}", pace.resources.len());
        }
    }

    #[test]
    fn audiences_are_noted_only_under_a_grant_that_limits_them() {
        let of =
            |limits| Pace::default().with(limits, &["a".into(), "b".into()], at(0)).expect("within").resources.len();
        assert_eq!(of(only(|l| l.derivations = Some(9))), 0);
        assert_eq!(of(only(|l| l.resources = Some(9))), 2);
        assert_eq!(of(only(|l| l.resources_per_minute = Some(9))), 2);
    }

    #[test]
    fn what_is_kept_of_many_audiences_are_the_latest_so_that_the_minutes_limit_still_holds() {
        let limits = only(|l| l.resources_per_minute = Some(2));
        let mut pace = Pace::default();
        for n in 0..100 {
            pace = pace.with(limits, &[format!("a{n}")], at(n * 61)).expect("slow enough");
        }
        let mut passed = 0;
        for n in 0..9 {
            let Ok(next) = pace.clone().with(limits, &[format!("b{n}")], at(100 * 61)) else { break };
            (pace, passed) = (next, passed + 1);
        }
        assert_eq!(passed, 2);
    }

    #[test]
    fn a_grant_without_a_limit_in_all_does_not_have_one_with_it_count_anew() {
        let in_all = |most| only(|l| l.resources = Some(most));
        let by_minute = only(|l| l.resources_per_minute = Some(2));
        let with = |pace: &Pace, limits, audience: String, seconds| pace.clone().with(limits, &[audience], at(seconds));
        for distinct in [2u64, 200] {
            let mut pace = Pace::default();
            for n in 0..distinct {
                pace = with(&pace, by_minute, format!("a{n}"), n * 61).expect("slow enough");
            }
            let most = u32::try_from(distinct).expect("few").min(Velocity::RESOURCES_MOST);
            let over = with(&pace, in_all(most), "new".into(), distinct * 61).expect_err("one more");
            assert_eq!((over.rule, over.limit), ("resources", most));
        }
        let mut pace = Pace::default();
        for n in 0..200 {
            pace = with(&pace, by_minute, "a".into(), n * 61).expect("slow enough");
        }
        with(&pace, in_all(1), "a".into(), 200 * 61).expect("one and the same");
    }
}
