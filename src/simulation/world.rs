//! One world: a disk, a clock, a broker that lives and dies, its callers, and what they were told.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use super::{
    chance::Chance,
    disk::{Disk, Trouble},
    ground::{self, Ground},
    hands::Hands,
    model::{Doubt, Model},
    said::Said,
};
use crate::{
    broker::{Broker, time::Start},
    ledger::Stepper,
    model::{Scope, Timestamp},
};

/// A bug that is put in on purpose: the simulation must notice.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sabotage {
    /// Commits are acknowledged before they are flushed.
    AcknowledgeBeforeFlush,
    /// Cuts in the store are forgotten when it is opened.
    ForgetCutsOnRestart,
    /// A lease is decided at one revision and committed as if decided at a later one.
    CommitAtAnotherBasis,
    /// The sweeper goes by the wall clock instead of the broker's time.
    SweepByWallClock,
}

impl Sabotage {
    pub const ALL: [Self; 4] =
        [Self::AcknowledgeBeforeFlush, Self::ForgetCutsOnRestart, Self::CommitAtAnotherBasis, Self::SweepByWallClock];
}

/// What was found wrong, in words.
pub type Wrong = String;
/// Nothing wrong, or what.
pub type Fine = Result<(), Wrong>;

/// Something asked of the broker and not answered yet.
pub struct Asked {
    answer: Pin<Box<dyn Future<Output = Said>>>,
    /// What is not known when no answer comes.
    doubts: Vec<Doubt>,
}

/// A broker that runs.
pub struct Up {
    pub broker: Arc<Broker>,
    pub stepper: Stepper,
    pub asked: Vec<Asked>,
    /// Runs what the broker spawns; dies with it.
    runtime: tokio::runtime::Runtime,
    /// Time as last seen: within a run it never goes back.
    pub last_now: Timestamp,
}

pub struct World {
    pub chance: Chance,
    pub clock: Arc<Hands>,
    pub disk: Arc<Disk>,
    pub ground: &'static Ground,
    pub up: Option<Up>,
    pub model: Model,
    pub sabotage: Option<Sabotage>,
    pub temper: Temper,
    pub trace: Trace,
    pub marks: Marks,
    /// Leases decided and not proposed yet.
    pub decided: Vec<super::callers::Decided>,
    /// What a caller asks again and again, and the lease that it has of it.
    pub retried: Vec<(usize, crate::model::LeaseId)>,
    /// What standings were last looked at: revision, time, start, whether a commit was in doubt.
    pub checked: Option<((u64, u64), Timestamp, u64, bool)>,
}

/// How a world is.
#[derive(Clone, Copy, Debug)]
pub struct Temper {
    pub steps: usize,
    pub trouble: Trouble,
    /// Once in so many steps, 0 for never.
    pub clock_steps: u64,
    pub damages: u64,
    pub crashes: u64,
}

/// What a world may not be asked about any more.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marks {
    /// Rows were changed from outside before the next start.
    pub is_edited: bool,
    /// Pages of the audit were damaged.
    pub audit_is_damaged: bool,
    /// Live counts were damaged, or time was set back.
    pub counts_are_off: bool,
    /// Leases may exist that nobody was told of.
    pub has_strangers: bool,
    /// The latest time that a broker ever believed in.
    pub latest: Timestamp,
    /// Leases and ends that callers got: a world in which nothing happens proves nothing.
    pub leases: u64,
    pub ends: u64,
    pub restarts: u64,
}

/// What happened, as text and as one number.
#[derive(Debug)]
pub struct Trace {
    pub lines: Option<Vec<String>>,
    pub hash: u64,
}

impl Trace {
    pub fn note(&mut self, line: fmt::Arguments<'_>) {
        let line = line.to_string();
        for byte in line.bytes().chain([b'\n']) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(line);
        }
    }
}

impl World {
    pub fn new(seed: u64, sabotage: Option<Sabotage>, is_told: bool) -> Self {
        let mut chance = Chance::new(seed, 1);
        let ground = ground::ground();
        let clock = Arc::new(Hands::new(ground::START));
        let temper = Temper::of(&mut chance, sabotage);
        let disk = Disk::new(ground.tables.clone(), Chance::new(seed, 2), Arc::clone(&clock));
        let lines = is_told.then(Vec::new);
        Self {
            chance,
            clock,
            disk: Arc::new(disk),
            ground,
            up: None,
            model: Model::default(),
            sabotage,
            temper,
            trace: Trace { lines, hash: 0xcbf2_9ce4_8422_2325 },
            marks: Marks::default(),
            decided: Vec::new(),
            retried: Vec::new(),
            checked: None,
        }
    }

    pub fn up(&self) -> &Up {
        self.up.as_ref().unwrap()
    }

    pub fn broker(&self) -> Arc<Broker> {
        Arc::clone(&self.up().broker)
    }

    pub fn now(&self) -> Timestamp {
        self.up().broker.now()
    }

    /// Asks, and lets the question reach the committer's queue.
    pub fn ask(&mut self, doubts: Vec<Doubt>, answer: impl Future<Output = Said> + 'static) -> Fine {
        let asked = Asked { answer: Box::pin(answer), doubts };
        self.up.as_mut().unwrap().asked.push(asked);
        self.listen()
    }

    /// One commit of what waits, and its answers.
    pub fn commit(&mut self) -> Fine {
        self.up.as_mut().unwrap().stepper.step();
        for done in self.disk.take_done() {
            if done != "written" {
                self.trace.note(format_args!("  the disk: {done}"));
            }
        }
        if self.disk.is_down() {
            self.crash();
            return Ok(());
        }
        self.listen()
    }

    /// Polls what was asked and notes what was said.
    fn listen(&mut self) -> Fine {
        let Some(up) = &mut self.up else { return Ok(()) };
        let asked = &mut up.asked;
        let mut said = Vec::new();
        up.runtime.block_on(async {
            std::future::poll_fn(|context: &mut Context<'_>| {
                asked.retain_mut(|one| match one.answer.as_mut().poll(context) {
                    Poll::Ready(answer) => {
                        said.push((answer, std::mem::take(&mut one.doubts)));
                        false
                    }
                    Poll::Pending => true,
                });
                Poll::Ready(())
            })
            .await;
            // What the broker spawned asks too.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
        });
        // Ends come before beginnings in a commit, so also here.
        said.sort_by_key(|(answer, _)| answer.begins());
        said.into_iter().try_for_each(|(answer, doubts)| self.hear(answer, doubts))
    }

    /// Works until nothing waits.
    pub fn quiesce(&mut self) -> Fine {
        for _ in 0..MANY {
            let Some(up) = &self.up else { return Ok(()) };
            if up.broker.ledger.depths() == (0, 0, 0) && up.asked.is_empty() {
                return Ok(());
            }
            self.commit()?;
        }
        Err("what was asked is never answered".to_owned())
    }

    /// Carries out background work that may sleep between its steps; false when the broker died over it.
    pub fn carry_out<T>(&mut self, work: impl Future<Output = T>) -> Result<Option<T>, Wrong> {
        let mut work = std::pin::pin!(work);
        for _ in 0..MANY {
            let Some(up) = &mut self.up else { return Ok(None) };
            let polled = up.runtime.block_on(async {
                let polled = std::future::poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await;
                tokio::task::yield_now().await;
                polled
            });
            if let Poll::Ready(value) = polled {
                return Ok(Some(value));
            }
            if up.broker.ledger.depths() == (0, 0, 0) {
                up.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
            } else {
                self.commit()?;
            }
        }
        Err("background work never ends".to_owned())
    }

    /// The process dies where it stands.
    pub fn crash(&mut self) {
        self.disk.crash();
        let Some(up) = self.up.take() else { return };
        self.model.doubts.extend(up.asked.into_iter().flat_map(|asked| asked.doubts));
        self.decided.clear();
        self.trace.note(format_args!("  crashed"));
    }

    /// An orderly stop.
    pub fn stop(&mut self) -> Fine {
        self.quiesce()?;
        if self.up.take().is_some() {
            self.decided.clear();
            self.disk.power_off();
        }
        Ok(())
    }

    /// Starts the broker, as often as it takes.
    pub fn start(&mut self) -> Fine {
        for attempt in 0..20 {
            if attempt == 10 {
                self.disk.set_trouble(Trouble { faults: 0, crashes: 0, ..self.temper.trouble });
            }
            self.disk.power_on();
            if self.try_start()? {
                self.disk.set_trouble(self.temper.trouble);
                return Ok(());
            }
        }
        Err("the broker does not start".to_owned())
    }

    fn try_start(&mut self) -> Result<bool, Wrong> {
        let opened = self.ground.open(self.disk.clone(), self.clock.clone());
        let Ok((broker, mut stepper, start)) = opened else {
            return Err(format!("the store does not open: {:?}", opened.err()));
        };
        if self.sabotage == Some(Sabotage::ForgetCutsOnRestart) {
            stepper.forget_cuts();
        }
        let (doubt, incarnation) = (broker.ledger.doubt, broker.ledger.basis().0);
        if doubt.is_some() && !self.marks.is_edited {
            return Err(format!("the store is doubted though nobody touched it: {doubt:?}"));
        }
        self.trace.note(format_args!("  opened: {start:?}, doubt {doubt:?}"));
        self.marks.restarts += 1;
        if start == Start::Behind {
            // Time goes back in the open: everything ends.
            (self.marks.counts_are_off, self.model.swept) = (true, broker.now());
        }
        self.model.incarnation = incarnation;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let last_now = broker.now();
        let up = Up { broker: Arc::clone(&broker), stepper, asked: Vec::new(), runtime, last_now };
        self.up = Some(up);
        self.model.doubts.push(Doubt::Scope(Scope::Everything));
        let settled = self.carry_out(async move { broker.settle_start(start).await })?;
        match settled {
            Some(Ok(())) if self.up.is_some() => {
                self.marks.is_edited = false;
                self.settle_doubts()?;
                Ok(true)
            }
            // A daemon that cannot say this does not start.
            _ => {
                self.crash();
                Ok(false)
            }
        }
    }
}

impl Temper {
    fn of(chance: &mut Chance, sabotage: Option<Sabotage>) -> Self {
        let lies = sabotage == Some(Sabotage::AcknowledgeBeforeFlush);
        // Some worlds are calm, so that what happens there is known exactly.
        let faults = chance.weighted(&[(2, 0), (3, 12), (1, 5)]);
        let crashes = chance.weighted(&[(2, 0), (3, 25), (1, 10)]);
        Self {
            steps: 20 + chance.below(50),
            trouble: Trouble { faults, crashes, lies },
            clock_steps: chance.weighted(&[(2, 0), (2, 12), (1, 5)]),
            damages: chance.weighted(&[(3, 0), (1, 20)]),
            crashes: chance.weighted(&[(1, 0), (2, 20), (1, 8)]),
        }
    }
}

/// More steps than any work takes.
const MANY: usize = 10_000;
