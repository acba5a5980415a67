//! A clock whose two hands are moved by hand.

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use crate::model::{Clock, Timestamp};

/// Wall and boot clock, in milliseconds.
#[derive(Debug)]
pub struct Hands(Mutex<(u64, u64)>);

impl Hands {
    pub fn new(wall: Timestamp) -> Self {
        Self(Mutex::new((wall.millis(), 0)))
    }

    /// Time goes by, also for who sleeps.
    pub fn advance(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap();
        let mut hands = self.hands();
        *hands = (hands.0 + millis, hands.1 + millis);
    }

    /// Someone sets the wall clock.
    pub fn step(&self, by_seconds: i64) {
        let mut hands = self.hands();
        hands.0 = hands.0.saturating_add_signed(by_seconds * 1000);
    }

    /// The machine is off for a while.
    pub fn reboot(&self, off: Duration) {
        let mut hands = self.hands();
        *hands = (hands.0 + u64::try_from(off.as_millis()).unwrap(), 0);
    }

    fn hands(&self) -> MutexGuard<'_, (u64, u64)> {
        self.0.lock().unwrap()
    }
}

impl Clock for Hands {
    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(self.hands().0)
    }

    fn boot(&self) -> Duration {
        Duration::from_millis(self.hands().1)
    }
}
