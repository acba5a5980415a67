//! The broker's time: the wall clock's, but never back, and never far forward unconfirmed.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::model::{Clock, Timestamp};

/// The system's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        crate::model::time::system_wall()
    }

    fn boot(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
    }
}

/// The broker's time.
///
/// Within a run it advances with the boot clock from the last confirmed mark. It follows the wall clock forward by small
/// steps; a step back is ignored, a jump forward beyond the bound is not followed until an operator confirms it.
#[derive(Debug)]
pub struct Time {
    clock: Arc<dyn Clock>,
    max_jump: Duration,
    base: Mutex<Base>,
}

#[derive(Clone, Copy, Debug)]
struct Base {
    wall: Timestamp,
    boot: Duration,
}

/// What the wall clock says beside the broker's time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Observation {
    /// Close enough; followed.
    Steady,
    /// Behind by this much; not followed.
    Behind(Duration),
    /// Ahead by more than the bound; not followed until confirmed.
    Jumped(Duration),
}

/// What the clock of a starting daemon means for what the store holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Start {
    /// Time goes on.
    Continues,
    /// The wall clock is behind the confirmed mark: every lease ends.
    Behind,
    /// The wall clock is further ahead than a believable downtime: nothing is issued until confirmed.
    Jumped,
}

impl Time {
    /// Starts with the wall clock and the store's confirmed mark.
    #[must_use]
    pub fn start(clock: Arc<dyn Clock>, mark: Timestamp, max_jump: Duration, max_downtime: Duration) -> (Self, Start) {
        let (wall, boot) = (clock.wall(), clock.boot());
        let (wall, start) = if wall.after(MARK_TOLERANCE) < mark {
            (wall, Start::Behind)
        } else if wall.since(mark) > max_downtime {
            // Time stands at the mark: nothing is deleted or lifted on a time that nobody has confirmed.
            (mark, Start::Jumped)
        } else {
            (wall.max(mark), Start::Continues)
        };
        (Self { clock, max_jump, base: Mutex::new(Base { wall, boot }) }, start)
    }

    /// Now. Never steps back within a run, but by [`Self::confirm`].
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let boot = self.clock.boot();
        let base = *self.lock();
        base.wall.after(boot.saturating_sub(base.boot))
    }

    /// Compares with the wall clock and follows small steps forward. Called about once a second.
    pub fn observe(&self) -> Observation {
        let (wall, boot) = (self.clock.wall(), self.clock.boot());
        let mut base = self.lock();
        let now = base.wall.after(boot.saturating_sub(base.boot));
        if wall < now {
            return match now.since(wall) {
                behind if behind > MARK_TOLERANCE => Observation::Behind(behind),
                _ => Observation::Steady,
            };
        }
        let ahead = wall.since(now);
        if ahead > self.max_jump {
            return Observation::Jumped(ahead);
        }
        *base = Base { wall, boot };
        Observation::Steady
    }

    /// Takes the wall clock as it is, on an operator's word.
    pub fn confirm(&self) -> Timestamp {
        let (wall, boot) = (self.clock.wall(), self.clock.boot());
        *self.lock() = Base { wall, boot };
        wall
    }

    /// The wall clock, unconfirmed.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        self.clock.wall()
    }

    fn lock(&self) -> MutexGuard<'_, Base> {
        self.base.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far the wall clock may be behind: what slewing and rounding explain.
const MARK_TOLERANCE: Duration = Duration::from_secs(5);

/// When a certificate ends that is made now and lives so long. While time stands at the store's mark, who connects goes by
/// the real one: else nobody could, and confirm it.
#[must_use]
pub fn end_by_either(now: Timestamp, wall: Timestamp, life: Duration) -> Timestamp {
    now.max(wall).after(life)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock whose two hands are moved by hand.
    #[derive(Debug, Default)]
    struct Hands(Mutex<(u64, u64)>);

    impl Hands {
        fn set(&self, wall_s: u64, boot_s: u64) {
            *self.0.lock().unwrap() = (wall_s, boot_s);
        }
    }

    impl Clock for Hands {
        fn wall(&self) -> Timestamp {
            Timestamp::from_seconds(self.0.lock().unwrap().0)
        }

        fn boot(&self) -> Duration {
            Duration::from_secs(self.0.lock().unwrap().1)
        }
    }

    fn at(mark_s: u64, wall_s: u64) -> (Arc<Hands>, Time, Start) {
        let hands = Arc::new(Hands::default());
        hands.set(wall_s, 10);
        let bounds = (Duration::from_secs(300), Duration::from_secs(10_000));
        let (time, start) = Time::start(hands.clone(), Timestamp::from_seconds(mark_s), bounds.0, bounds.1);
        (hands, time, start)
    }

    #[test]
    fn a_certificate_made_while_time_is_held_is_good_by_the_clock_of_those_who_connect() {
        let (mark, life) = (Timestamp::from_seconds(1_000_000), Duration::from_hours(24 * 7));
        let wall = mark.after(Duration::from_hours(24 * 90));
        assert_eq!(end_by_either(mark, wall, life), wall.after(life));
        // A wall clock that is behind shortens nothing.
        assert_eq!(end_by_either(wall, mark, life), wall.after(life));
    }

    #[test]
    fn a_step_back_neither_revives_nor_freezes() {
        let (hands, time, _) = at(0, 1_000);
        hands.set(400, 20);
        assert_eq!(time.observe(), Observation::Behind(Duration::from_secs(610)));
        assert_eq!(time.now(), Timestamp::from_seconds(1_010));
    }

    #[test]
    fn a_small_step_forward_is_followed_and_a_jump_is_not_until_confirmed() {
        let (hands, time, _) = at(0, 1_000);
        hands.set(1_300, 10);
        assert_eq!(time.observe(), Observation::Steady);
        assert_eq!(time.now(), Timestamp::from_seconds(1_300));
        hands.set(1_601, 10);
        assert_eq!(time.observe(), Observation::Jumped(Duration::from_secs(301)));
        assert_eq!(time.now(), Timestamp::from_seconds(1_300));
        time.confirm();
        assert_eq!(time.now(), Timestamp::from_seconds(1_601));
    }

    #[test]
    fn a_start_behind_the_mark_or_far_past_it_is_told() {
        assert_eq!(at(1_000, 994).2, Start::Behind);
        assert_eq!(at(1_000, 995).2, Start::Continues);
        assert_eq!(at(1_000, 11_000).2, Start::Continues);
        let (_, time, start) = at(1_000, 11_001);
        assert_eq!((start, time.now()), (Start::Jumped, Timestamp::from_seconds(1_000)));
    }
}
