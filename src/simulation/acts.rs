//! One step after the other.

use std::time::Duration;

use super::{
    disk::Trouble,
    ground::{self},
    upkeep::Upkeep,
    world::{Fine, Marks, Sabotage, World, Wrong},
};
use crate::{
    ledger::{
        engine::{Op, Table},
        keys,
    },
    model::LeaseId,
};

#[derive(Clone, Copy, Debug)]
enum Act {
    Open,
    Decide,
    Propose,
    Release,
    Complete,
    Cut,
    Bar,
    Lift,
    Narrow,
    BrokerIssue,
    BrokerRenew,
    BrokerOpen,
    BrokerEnd,
    BrokerRevoke,
    Apply,
    Look,
    Upkeep(Upkeep),
    Wait,
    Restart,
}

const ACTS: &[(u64, Act)] = &[
    (10, Act::Open),
    (30, Act::Decide),
    (28, Act::Propose),
    (4, Act::Release),
    (2, Act::Complete),
    (3, Act::Cut),
    (2, Act::Bar),
    (9, Act::Lift),
    (2, Act::Narrow),
    (12, Act::BrokerIssue),
    (4, Act::BrokerRenew),
    (4, Act::BrokerOpen),
    (2, Act::BrokerEnd),
    (2, Act::BrokerRevoke),
    (1, Act::Apply),
    (2, Act::Look),
    (6, Act::Upkeep(Upkeep::Sweep)),
    (3, Act::Upkeep(Upkeep::Walk)),
    (1, Act::Upkeep(Upkeep::Trim)),
    (3, Act::Upkeep(Upkeep::Checkpoint)),
    (3, Act::Upkeep(Upkeep::Observe)),
    (1, Act::Upkeep(Upkeep::Rings)),
    (1, Act::Upkeep(Upkeep::Uses)),
    (8, Act::Wait),
    (2, Act::Restart),
];

/// How a world ended.
#[derive(Debug)]
pub struct Ended {
    pub outcome: Fine,
    /// Says everything that happened in one number.
    pub hash: u64,
    pub lines: Vec<String>,
    pub marks: Marks,
}

/// Lives one world to its end.
pub fn live(seed: u64, sabotage: Option<Sabotage>, is_told: bool) -> Ended {
    let mut world = World::new(seed, sabotage, is_told);
    let outcome = world.live();
    // The broker goes before what it runs on.
    world.up = None;
    Ended { outcome, hash: world.trace.hash, lines: world.trace.lines.unwrap_or_default(), marks: world.marks }
}

impl World {
    fn live(&mut self) -> Fine {
        self.start()?;
        for _ in 0..4 {
            self.open_raw()?;
        }
        self.quiesce()?;
        for step in 0..self.temper.steps {
            self.step(step).map_err(|wrong| format!("in step {step}: {wrong}"))?;
        }
        self.end().map_err(|wrong| format!("at the end: {wrong}"))
    }

    fn step(&mut self, step: usize) -> Fine {
        if self.up.is_none() {
            self.be_off()?;
            self.start()?;
            self.check()?;
            self.the_audit_holds()?;
        }
        if self.chance.one_in(self.temper.clock_steps) {
            self.step_clock()?;
        }
        if self.up.is_none() {
            return Ok(());
        }
        let act = self.chance.weighted(ACTS);
        self.trace.note(format_args!("{step}: {act:?}"));
        self.act(act)?;
        // Several may wait for one commit.
        if self.up.is_some() && self.chance.one_in(2) {
            self.commit()?;
        }
        if self.up.is_some() && self.chance.one_in(self.temper.crashes) {
            self.crash();
        }
        self.check()
    }

    fn act(&mut self, act: Act) -> Fine {
        match act {
            Act::Open => self.open_raw(),
            Act::Decide => self.decide_raw(),
            Act::Propose => self.propose_raw(),
            Act::Release => self.release_raw(),
            Act::Complete => self.complete_raw(),
            Act::Cut => self.cut_some(),
            Act::Bar => self.bar_raw(),
            Act::Lift => self.lift_some(),
            Act::Narrow => self.narrow_raw(),
            Act::BrokerIssue => self.issue(),
            Act::BrokerRenew => self.renew(),
            Act::BrokerOpen => self.open(),
            Act::BrokerEnd => self.end_by_operator(),
            Act::BrokerRevoke => self.revoke(),
            Act::Apply => self.apply(),
            Act::Look => {
                self.quiesce()?;
                if self.up.is_none() { Ok(()) } else { self.nobody_sees_anothers() }
            }
            Act::Upkeep(work) => self.upkeep(work),
            Act::Wait => self.wait(),
            Act::Restart => self.restart(),
        }
    }

    /// Time goes by, and with it what runs every few seconds.
    fn wait(&mut self) -> Fine {
        let seconds = self.chance.weighted(&[(4, 1), (4, 20), (3, 90), (2, 400), (1, 1_500)]);
        let seconds = self.chance.between(1, seconds);
        self.clock.advance(Duration::from_secs(seconds));
        self.trace.note(format_args!("  {seconds} s go by"));
        if seconds >= 10 {
            self.upkeep(Upkeep::Observe)?;
        }
        if seconds >= 10 && self.up.is_some() {
            self.upkeep(Upkeep::Sweep)?;
        }
        Ok(())
    }

    /// Someone sets the clock; mostly the broker soon looks.
    fn step_clock(&mut self) -> Fine {
        let by = self.chance.weighted(&[(2, 3), (2, -3), (2, 200), (3, -200), (2, 3_000), (2, -3_000), (1, 90_000)]);
        self.clock.step(by);
        self.trace.note(format_args!("the clock is set {by} s further"));
        if self.chance.one_in(3) {
            return Ok(());
        }
        self.upkeep(Upkeep::Observe)?;
        if self.up.is_some() && self.chance.one_in(2) {
            self.confirm_time()?;
        }
        Ok(())
    }

    /// The machine is off, mostly for moments.
    fn be_off(&mut self) -> Fine {
        let most = self.chance.weighted(&[(8, 3), (3, 120), (1, 4_000), (1, 40 * 86_400)]);
        let seconds = self.chance.between(0, most);
        self.clock.reboot(Duration::from_secs(seconds));
        self.trace.note(format_args!("  off for {seconds} s"));
        Ok(())
    }

    fn restart(&mut self) -> Fine {
        self.stop()?;
        if self.up.is_some() {
            return Ok(());
        }
        if self.chance.one_in(5) {
            let by = self.chance.weighted(&[(2, -2), (2, -100), (1, -4_000)]);
            self.clock.step(by);
            self.trace.note(format_args!("  the clock is set {by} s further while it is off"));
        }
        // Only where nothing is in doubt is it known what a damaged row took away.
        if self.temper.damages > 0 && self.model.doubts.is_empty() && self.chance.one_in(2) {
            self.damage()?;
        }
        self.be_off()?;
        self.start()?;
        self.check()?;
        self.the_audit_holds()
    }

    /// One row is damaged, or a cut or bar removed, while the broker is stopped.
    fn damage(&mut self) -> Fine {
        let table = *self.chance.pick(&DAMAGED).ok_or("no tables")?;
        let rows: Vec<_> =
            self.disk.rows(table).into_iter().filter(|(key, value)| is_fair(table, key, value)).collect();
        // Ids of leases and tasks are drawn anew in each run: what is damaged is told by its place in the model.
        let Some((key, mut value)) = self.chosen(table, rows) else { return Ok(()) };
        self.trace.note(format_args!("  a row of {} is damaged", table.name()));
        self.marks.is_edited = true;
        self.marks.counts_are_off = true;
        if matches!(table, Table::Cuts | Table::Bars) && self.chance.one_in(2) {
            self.trace.note(format_args!("  it is removed"));
            self.disk.edit(Op::Delete(table, key));
            self.model.bars.iter_mut().filter(|bar| bar.lifted.is_none()).for_each(|bar| bar.lifted = Some(0));
            self.is_resynced();
            return Ok(());
        }
        let at = self.chance.below(value.len());
        value[at] ^= 1 << self.chance.below(8);
        self.disk.edit(Op::Put(table, key.clone(), value));
        match table {
            Table::Leases => {
                let id = LeaseId::from_bytes(&key).ok_or("a lease has no id")?;
                self.model.lease_mut(id).into_iter().for_each(|lease| lease.damaged = true);
            }
            Table::Tasks => {
                let hit = self.model.tasks.iter_mut().filter(|task| task.row.id.as_bytes()[..] == key);
                hit.for_each(|task| task.damaged = true);
            }
            Table::Audit | Table::Streams | Table::Checkpoints => self.marks.audit_is_damaged = true,
            Table::Bars => self.is_resynced(),
            _ => {}
        }
        Ok(())
    }

    /// Bars are what the store says from the next start on.
    fn is_resynced(&mut self) {
        let scopes: Vec<_> = self.model.bars.iter().map(|bar| bar.scope.clone()).collect();
        self.model.doubts.extend(scopes.into_iter().map(super::model::Doubt::Scope));
    }

    fn chosen(&mut self, table: Table, rows: Vec<(Vec<u8>, Vec<u8>)>) -> Option<(Vec<u8>, Vec<u8>)> {
        let key = match table {
            Table::Leases => {
                let known: Vec<_> = self.model.leases.iter().filter(|lease| lease.known).collect();
                self.chance.pick(&known)?.row.id.as_bytes().to_vec()
            }
            Table::Tasks => {
                let at = self.chance.below(self.model.tasks.len());
                self.model.tasks.get(at)?.row.id.as_bytes().to_vec()
            }
            _ => return self.chance.pick(&rows).cloned(),
        };
        rows.into_iter().find(|(found, _)| *found == key)
    }

    fn end(&mut self) -> Fine {
        if self.up.is_some() && self.chance.one_in(2) {
            self.crash();
        }
        if self.up.is_none() {
            self.start()?;
        }
        self.the_broker_goes_on()?;
        self.the_audit_holds()?;
        self.the_counts_equal_a_recount()?;
        self.nobody_sees_anothers()?;
        // What was said last is there after a crash too.
        self.crash();
        self.disk.set_trouble(Trouble { faults: 0, crashes: 0, ..self.temper.trouble });
        self.start()?;
        self.check()?;
        self.the_audit_holds()
    }
}

/// Tables whose rows are damaged. Not the rows of keys and trust: they close a tenant, which other tests look at.
const DAMAGED: [Table; 16] = [
    Table::Meta,
    Table::Leases,
    Table::Leases,
    Table::Tasks,
    Table::Children,
    Table::Expiry,
    Table::Cuts,
    Table::Cuts,
    Table::Bars,
    Table::Retries,
    Table::Counts,
    Table::Audit,
    Table::Log,
    Table::Streams,
    Table::Feed,
    Table::Checkpoints,
];

fn is_fair(table: Table, key: &[u8], value: &[u8]) -> bool {
    // The row that proves the seal key is what says whether anything can be read at all.
    !value.is_empty() && (table != Table::Meta || key != keys::FOUNDING)
}

/// As the trace of a failure is told.
pub fn told(seed: u64, sabotage: Option<Sabotage>) -> (Result<(), Wrong>, String) {
    let ended = live(seed, sabotage, true);
    (ended.outcome, ended.lines.join("\n"))
}

/// Laying the ground takes longer than living a world.
pub fn prepare() {
    let _ground = ground::ground();
}
