//! The queue in front of the committer.

use std::{
    sync::mpsc::{self, Receiver, Sender},
    time::Duration,
};

use crate::{
    ledger::{
        Refused,
        lanes::{Lane, LaneFull, LaneLimits, Lanes},
        tx::{Tx, Work},
    },
    model::TenantNumber,
};

/// Work that does nothing but say when it is done.
struct Named(&'static str, Sender<&'static str>);

impl Work for Named {
    fn run(&mut self, _: &mut Tx<'_>) {}
    fn finish(self: Box<Self>, _: Result<u64, Refused>) {
        self.1.send(self.0).unwrap();
    }
    fn is_end(&self) -> bool {
        self.0 == "end"
    }
}

/// Lanes, a way to put named work into one, and what was done.
struct Queue {
    lanes: Lanes,
    sent: Sender<&'static str>,
    done: Receiver<&'static str>,
}

impl Queue {
    fn new(limits: LaneLimits) -> Self {
        let (sent, done) = mpsc::channel();
        Self { lanes: Lanes::new(limits), sent, done }
    }

    fn push(&self, name: &'static str, lane: Lane) -> Result<(), LaneFull> {
        self.lanes.push(lane, Box::new(Named(name, self.sent.clone())))
    }

    /// Does one batch; what was in it, or `None` when nothing will come any more.
    fn take(&self, most: usize) -> Option<Vec<&'static str>> {
        self.lanes.take(most, Duration::ZERO)?.into_iter().for_each(|work| work.finish(Ok(0)));
        Some(self.done.try_iter().collect())
    }
}

fn begin(tenant: u32) -> Lane {
    Lane::Begin(TenantNumber::new(tenant).unwrap())
}

#[test]
fn one_flooding_tenant_delays_another_by_no_more_than_its_share() {
    let queue = Queue::new(LaneLimits { begin_per_tenant: 100, ..LaneLimits::default() });
    (0..100).for_each(|_| queue.push("flood", begin(1)).unwrap());
    assert!(queue.push("flood", begin(1)).is_err());
    queue.push("other", begin(2)).unwrap();
    queue.push("other", begin(2)).unwrap();
    queue.push("background", Lane::Background).unwrap();
    queue.push("end", Lane::End).unwrap();
    assert_eq!(queue.take(6).unwrap(), ["end", "flood", "other", "flood", "other", "flood", "background"]);
}

#[test]
fn each_lane_holds_what_it_may_and_not_one_more_whatever_the_others_hold() {
    let queue = Queue::new(LaneLimits { end: 2, begin_per_tenant: 2, begin: 3, background: 1 });
    for (lane, most) in [(Lane::End, 2), (begin(1), 2), (begin(2), 1), (Lane::Background, 1)] {
        for _ in 0..most {
            assert_eq!(queue.push("work", lane), Ok(()), "{lane:?}");
        }
        assert_eq!(queue.push("work", lane), Err(LaneFull), "{lane:?}");
    }
    assert_eq!(queue.lanes.depths(), (2, 3, 1));
    assert_eq!(queue.take(9).unwrap().len(), 6);
    assert_eq!((queue.lanes.depths(), queue.push("end", Lane::End)), ((0, 0, 0), Ok(())), "there is room again");
}

#[test]
fn after_the_close_nothing_comes_in_and_what_waits_is_done() {
    let queue = Queue::new(LaneLimits::default());
    queue.push("end", Lane::End).unwrap();
    queue.lanes.close();
    for lane in [Lane::End, begin(1), Lane::Background] {
        assert_eq!(queue.push("late", lane), Err(LaneFull), "{lane:?}");
    }
    assert_eq!((queue.take(9), queue.take(9)), (Some(vec!["end"]), None));
}
