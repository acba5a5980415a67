//! Random histories against the plainest model there is: lists that are looked through from the front.

use proptest::{collection::vec, prelude::*, sample::select};

use super::harness::{Bed, Kind, QUOTA, wait};
use crate::{
    ledger::{EndLease, IssueDraft, Quota, engine::faulty::Fault},
    model::{Digest, EndReason, Lease, LeaseId, Scope, Standing, Task, TaskId},
};

#[derive(Clone, Debug)]
enum Step {
    /// A task under one of the tasks, or under none.
    Open {
        parent: Option<usize>,
        minutes: u64,
    },
    /// A lease, from a fresh decision or one made at the last `Decide`.
    Issue {
        task: usize,
        seconds: u64,
        fresh: bool,
        proof: bool,
        through: Option<usize>,
        grant: usize,
    },
    Decide,
    Renew(usize),
    Release(usize),
    Complete(usize),
    Cut {
        scope: usize,
        bar: bool,
    },
    Bar {
        scope: usize,
        suspend: bool,
    },
    Lift(usize),
    Walk(usize),
    Advance(u64),
    Sweep,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0..64_usize;
    prop_oneof![
        3 => (prop::option::of(at()), 1..20_u64).prop_map(|(parent, minutes)| Step::Open { parent, minutes }),
        10 => (at(), 1..400_u64, prop::bool::weighted(0.8), proptest::bool::ANY, prop::option::weighted(0.3, at()), 0..2_usize)
            .prop_map(|(task, seconds, fresh, proof, through, grant)| {
                Step::Issue { task, seconds, fresh, proof, through, grant }
            }),
        1 => Just(Step::Decide),
        3 => at().prop_map(Step::Renew),
        3 => at().prop_map(Step::Release),
        1 => at().prop_map(Step::Complete),
        2 => (at(), proptest::bool::ANY).prop_map(|(scope, bar)| Step::Cut { scope, bar }),
        1 => (at(), proptest::bool::ANY).prop_map(|(scope, suspend)| Step::Bar { scope, suspend }),
        3 => at().prop_map(Step::Lift),
        2 => at().prop_map(Step::Walk),
        3 => (1..120_u64).prop_map(Step::Advance),
        1 => Just(Step::Sweep),
        1 => Just(Step::Reopen),
    ]
}

fn history(length: usize) -> impl Strategy<Value = Vec<(Step, Fault)>> {
    let faults = vec![Fault::Full, Fault::UnknownApplied, Fault::UnknownLost];
    vec((step(), prop_oneof![9 => Just(Fault::None), 1 => select(faults)]), length)
}

fn proof() -> Scope {
    Scope::Proof(Digest::of(b"certificate"))
}

fn grant(n: usize) -> Scope {
    Scope::Grant("acme".parse().unwrap(), ["read", "write"][n].parse().unwrap())
}

/// The scopes that histories cut and bar.
fn scopes() -> Vec<Scope> {
    let (tenant, partner) = ("acme".parse().unwrap(), "north".parse().unwrap());
    let workload = Scope::Workload("acme".parse().unwrap(), "runner".parse().unwrap());
    let key = Scope::SigningKey("k1".into());
    vec![Scope::Tenant(tenant), Scope::Partner(partner), grant(0), grant(1), workload, key, proof(), Scope::Everything]
}

struct MTask {
    row: Task,
    ended: bool,
}

struct MLease {
    row: Lease,
    proof: bool,
    ended: bool,
}

struct MCut {
    scope: Scope,
    number: u64,
    at: u64,
    is_walked: bool,
}

#[derive(Default)]
struct Model {
    tasks: Vec<MTask>,
    leases: Vec<MLease>,
    cuts: Vec<MCut>,
    /// Scope, and whether it suspends.
    bars: Vec<(Scope, bool)>,
    lifts: Vec<(Scope, u64)>,
    now: u64,
}

impl Model {
    fn concerns_task(scope: &Scope) -> bool {
        !matches!(scope, Scope::Grant(..) | Scope::SigningKey(_) | Scope::Proof(_))
    }

    fn concerns(scope: &Scope, lease: &MLease) -> bool {
        match scope {
            Scope::Proof(_) => lease.proof,
            Scope::Grant(_, name) => *name == lease.row.grant,
            Scope::Everything
            | Scope::Lease(_)
            | Scope::Partner(_)
            | Scope::PartnerInTenant(..)
            | Scope::Secret(..)
            | Scope::SigningKey(_)
            | Scope::Issuer(_)
            | Scope::Task(_)
            | Scope::Tenant(_)
            | Scope::Workload(..) => true,
        }
    }

    fn by(&self, concerns: impl Fn(&Scope) -> bool, basis: u64) -> Standing {
        if self.cuts.iter().any(|cut| concerns(&cut.scope) && cut.number > basis) {
            return Standing::Ended(EndReason::Revoked);
        }
        let is_suspended = self.bars.iter().any(|(scope, suspend)| *suspend && concerns(scope));
        if is_suspended { Standing::Suspended } else { Standing::Live }
    }

    fn task(&self, id: TaskId) -> Standing {
        let task = self.tasks.iter().find(|task| task.row.id == id).unwrap();
        if task.ended || task.row.deadline.millis() <= self.now {
            return Standing::Ended(EndReason::Completed);
        }
        let above = task.row.parent.map_or(Standing::Live, |id| self.task(id));
        above.and(self.by(Self::concerns_task, task.row.basis.1))
    }

    fn lease(&self, id: LeaseId) -> Standing {
        let lease = self.leases.iter().find(|lease| lease.row.id == id).unwrap();
        if lease.ended || lease.row.expires.millis() <= self.now {
            return Standing::Ended(EndReason::Released);
        }
        let above = lease.row.parent.map_or(Standing::Live, |id| self.lease(id));
        above.and(self.task(id.task())).and(self.by(|scope| Self::concerns(scope, lease), lease.row.basis.1))
    }

    /// Ends a task, and the tasks under it that live: none of their leases counts any more.
    fn end(&mut self, id: TaskId) {
        let now = self.now;
        let mut below = Vec::new();
        for task in &mut self.tasks {
            task.ended |= task.row.id == id;
            let lives = !task.ended && task.row.deadline.millis() > now;
            below.extend(Some(task.row.id).filter(|_| lives && task.row.parent == Some(id)));
        }
        below.into_iter().for_each(|id| self.end(id));
    }

    fn depth(&self, id: LeaseId) -> usize {
        let lease = self.leases.iter().find(|lease| lease.row.id == id).unwrap();
        1 + lease.row.parent.map_or(0, |id| self.depth(id))
    }

    fn levels(&self, id: TaskId) -> usize {
        let task = self.tasks.iter().find(|task| task.row.id == id).unwrap();
        1 + task.row.parent.map_or(0, |id| self.levels(id))
    }

    /// Whether nothing is in the way of beginning what was decided at `basis`.
    fn may_begin(&self, concerns: impl Fn(&Scope) -> bool, basis: u64) -> bool {
        !self.bars.iter().any(|(scope, _)| concerns(scope))
            && !self.cuts.iter().any(|cut| concerns(&cut.scope) && cut.number > basis)
            && !self.lifts.iter().any(|(scope, number)| concerns(scope) && *number > basis)
    }

    /// What counts against the quota of the tenant, or of a grant.
    fn count(&self, grant: Option<&Scope>) -> u64 {
        let counts = |lease: &&MLease| {
            let task = self.tasks.iter().find(|task| task.row.id == lease.row.id.task()).unwrap();
            !lease.ended
                && !task.ended
                && lease.row.expires.millis() / 60_000 >= self.now / 60_000
                && grant.is_none_or(|scope| Self::concerns(scope, lease))
        };
        self.leases.iter().filter(counts).count() as u64
    }
}

/// The ledger and the model side by side.
struct Pair {
    bed: Bed,
    model: Model,
    decided: (u64, u64),
}

const TENANT_MOST: u32 = 12;

impl Pair {
    fn new(kind: Kind) -> Self {
        let bed = Bed::new(kind);
        let decided = bed.ledger().basis();
        Self { model: Model { now: bed.now.millis(), ..Model::default() }, bed, decided }
    }

    fn pick<T>(of: &[T], at: usize) -> Option<&T> {
        of.get(at.checked_rem(of.len())?)
    }

    /// Whether the fault that was planned struck and kept a beginning or a background step from happening.
    fn struck(&self, fault: Fault) -> bool {
        self.bed.plan.lock().unwrap().is_empty() && matches!(fault, Fault::Full | Fault::UnknownLost)
    }

    fn take(&mut self, step: &Step, fault: Fault) -> Result<(), TestCaseError> {
        if fault != Fault::None {
            self.bed.plan.lock().unwrap().push_back(fault);
        }
        match *step {
            Step::Open { parent, minutes } => self.open(parent, minutes, fault)?,
            Step::Issue { task, seconds, fresh, proof, through, grant } => {
                self.issue(task, seconds, fresh, proof, through, grant, fault)?;
            }
            Step::Decide => self.decided = self.bed.ledger().basis(),
            Step::Renew(at) => self.renew(at, fault)?,
            Step::Release(at) => self.release(at)?,
            Step::Complete(at) => self.complete(at)?,
            Step::Cut { scope, bar } => self.cut(scope, bar)?,
            Step::Bar { scope, suspend } => self.bar(scope, suspend),
            Step::Lift(at) => self.lift(at)?,
            Step::Walk(at) => self.walk(at, fault)?,
            Step::Advance(seconds) => {
                self.bed.advance(seconds);
                self.model.now = self.bed.now.millis();
            }
            Step::Sweep => {
                // A sweep that fails is the same as none.
                let (bed, basis) = (&self.bed, self.bed.ledger().basis().1);
                let _maybe = wait(bed.ledger().sweep(bed.now, bed.now, basis));
            }
            Step::Reopen => {
                self.bed.plan.lock().unwrap().clear();
                self.bed.reopen();
                self.model.lifts.clear();
            }
        }
        self.bed.plan.lock().unwrap().clear();
        self.agrees()
    }

    fn open(&mut self, parent: Option<usize>, minutes: u64, fault: Fault) -> Result<(), TestCaseError> {
        let parent = parent.and_then(|at| Self::pick(&self.model.tasks, at)).map(|task| task.row.id);
        let parent = parent.filter(|&id| self.model.levels(id) < 5);
        let deadline = self.bed.now.after(std::time::Duration::from_secs(60 * minutes));
        let row = Task { parent, deadline, ..self.bed.new_task() };
        let expected = self.model.may_begin(Model::concerns_task, row.basis.1)
            && parent.is_none_or(|id| self.model.task(id).is_live());
        let opened = wait(self.bed.ledger().open_task(self.bed.opening(row.clone())));
        prop_assert_eq!(opened.is_ok(), expected && !self.struck(fault), "{:?}", opened);
        if opened.is_ok() {
            self.model.tasks.push(MTask { row, ended: false });
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "one step, spelled out")]
    fn issue(
        &mut self,
        task: usize,
        seconds: u64,
        fresh: bool,
        proof: bool,
        through: Option<usize>,
        grant: usize,
        fault: Fault,
    ) -> Result<(), TestCaseError> {
        let Some(task) = Self::pick(&self.model.tasks, task) else { return Ok(()) };
        let parent = through.and_then(|at| Self::pick(&self.model.leases, at)).map(|lease| lease.row.id);
        let parent = parent.filter(|&id| self.model.depth(id) < 5);
        let expires = self.bed.now.after(std::time::Duration::from_secs(seconds)).min(task.row.deadline);
        let basis = if fresh { self.bed.ledger().basis() } else { self.decided };
        let row = Lease {
            parent,
            expires,
            basis,
            grant: ["read", "write"][grant].parse().unwrap(),
            proofs: if proof { vec![self::proof().id()] } else { Vec::new() },
            ..self.bed.new_lease(&task.row)
        };
        let lease = MLease { row, proof, ended: false };
        let expected = self.model.may_begin(|scope| Model::concerns(scope, &lease), basis.1)
            && parent.is_none_or(|id| self.model.lease(id).is_live())
            && self.model.task(task.row.id).is_live()
            && self.model.count(None) < u64::from(TENANT_MOST);
        let quota = Quota { tenant: TENANT_MOST, ..QUOTA };
        let issued = wait(self.bed.ledger().issue(IssueDraft { quota, ..self.bed.draft(&lease.row) }));
        prop_assert_eq!(issued.is_ok(), expected && !self.struck(fault), "{:?}", issued);
        if issued.is_ok() {
            self.model.leases.push(lease);
        }
        Ok(())
    }

    fn renew(&mut self, at: usize, fault: Fault) -> Result<(), TestCaseError> {
        let Some(old) = Self::pick(&self.model.leases, at) else { return Ok(()) };
        let (id, proof) = (old.row.id, old.proof);
        let row = Lease {
            id: LeaseId::fresh(id.task()).unwrap(),
            basis: self.bed.ledger().basis(),
            renewals: old.row.renewals + 1,
            ..old.row.clone()
        };
        let lease = MLease { row, proof, ended: false };
        let expected = self.model.lease(id).is_live()
            && self.model.may_begin(|scope| Model::concerns(scope, &lease), lease.row.basis.1);
        let issued = wait(self.bed.ledger().issue(IssueDraft { supersedes: Some(id), ..self.bed.draft(&lease.row) }));
        prop_assert_eq!(issued.is_ok(), expected && !self.struck(fault), "{:?}", issued);
        if issued.is_ok() {
            self.model.leases.iter_mut().filter(|lease| lease.row.id == id).for_each(|lease| lease.ended = true);
            self.model.leases.push(lease);
        }
        Ok(())
    }

    fn release(&mut self, at: usize) -> Result<(), TestCaseError> {
        let now = self.model.now;
        let Some(lease) = Self::pick(&self.model.leases, at) else { return Ok(()) };
        let id = lease.row.id;
        let own = !lease.ended && lease.row.expires.millis() > now;
        let expected = own && !matches!(self.model.lease(id), Standing::Ended(_));
        let event = self.bed.event("lease.released", Some(id));
        let end = EndLease { lease: id, why: EndReason::Released, event, now: self.bed.now };
        let changed = wait(self.bed.ledger().end_lease(end)).is_ok_and(|(changed, _)| changed);
        prop_assert_eq!(changed, expected);
        for lease in self.model.leases.iter_mut().filter(|lease| own && lease.row.id == id) {
            lease.ended = true;
        }
        Ok(())
    }

    fn complete(&mut self, at: usize) -> Result<(), TestCaseError> {
        let now = self.model.now;
        let Some(task) = Self::pick(&self.model.tasks, at) else { return Ok(()) };
        let (id, own) = (task.row.id, !task.ended && task.row.deadline.millis() > now);
        let expected = own && !matches!(self.model.task(id), Standing::Ended(_));
        prop_assert_eq!(self.bed.complete(id).unwrap_or(false), expected);
        if own {
            self.model.end(id);
        }
        Ok(())
    }

    fn cut(&mut self, at: usize, bar: bool) -> Result<(), TestCaseError> {
        let scope = Self::pick(&scopes(), at).unwrap().clone();
        let revoked = self.bed.cut(scope.clone(), bar).unwrap();
        if revoked.changed {
            let at = self.model.now;
            self.model.cuts.push(MCut { scope: scope.clone(), number: revoked.cut, at, is_walked: false });
        }
        if bar && !self.model.bars.iter().any(|(barred, _)| *barred == scope) {
            self.model.bars.push((scope.clone(), false));
        }
        // Whatever it answered, nothing in the scope lives.
        for lease in self.model.leases.iter().filter(|lease| Model::concerns(&scope, lease)) {
            prop_assert!(!self.bed.is_live(lease.row.id));
        }
        Ok(())
    }

    fn bar(&mut self, at: usize, suspend: bool) {
        let scope = Self::pick(&scopes(), at).unwrap().clone();
        self.bed.bar(scope.clone(), suspend).unwrap();
        match self.model.bars.iter_mut().find(|(barred, _)| *barred == scope) {
            Some((_, suspends)) => *suspends |= suspend,
            None => self.model.bars.push((scope, suspend)),
        }
    }

    fn lift(&mut self, at: usize) -> Result<(), TestCaseError> {
        // Mostly one that is barred, or nothing would begin any more.
        let barred: Vec<_> = self.model.bars.iter().map(|(scope, _)| scope.clone()).collect();
        let scope = Self::pick(&barred, at).cloned().unwrap_or_else(proof);
        prop_assert_eq!(self.bed.lift(scope.clone()).unwrap(), !barred.is_empty());
        self.model.bars.retain(|(barred, _)| *barred != scope);
        if !barred.is_empty() {
            self.model.lifts.push((scope, self.bed.ledger().basis().1));
        }
        Ok(())
    }

    fn walk(&mut self, at: usize, fault: Fault) -> Result<(), TestCaseError> {
        let at = at.checked_rem(self.model.cuts.len());
        let Some(cut) = at.and_then(|at| self.model.cuts.get_mut(at)) else { return Ok(()) };
        let walked = wait(self.bed.ledger().walk(cut.scope.id(), cut.number, None));
        let struck = self.bed.plan.lock().unwrap().is_empty() && matches!(fault, Fault::Full | Fault::UnknownLost);
        prop_assert_eq!(walked.is_ok(), !struck);
        if !struck && !std::mem::replace(&mut cut.is_walked, true) {
            let covered = |lease: &&mut MLease| {
                lease.row.basis.1 < cut.number
                    && lease.row.expires.millis() > cut.at
                    && Model::concerns(&cut.scope, lease)
            };
            self.model.leases.iter_mut().filter(covered).for_each(|lease| lease.ended = true);
        }
        Ok(())
    }

    fn agrees(&self) -> Result<(), TestCaseError> {
        for lease in &self.model.leases {
            let (found, expected) = (self.bed.standing(lease.row.id), self.model.lease(lease.row.id));
            let kind = |standing| match standing {
                Standing::Live => 0,
                Standing::Suspended => 1,
                Standing::Ended(_) => 2,
            };
            prop_assert_eq!(kind(found), kind(expected), "{} is {:?}, not {:?}", lease.row.id, found, expected);
        }
        let counted = [scopes()[0].clone(), scopes()[1].clone()].map(|scope| self.bed.live(&scope));
        prop_assert_eq!(counted, [self.model.count(None); 2]);
        for scope in [grant(0), grant(1)] {
            prop_assert_eq!(self.bed.live(&scope), self.model.count(Some(&scope)));
        }
        prop_assert_eq!(self.bed.ledger().doubt, None);
        Ok(())
    }
}

fn agrees_with_the_model(kind: Kind, history: &[(Step, Fault)]) -> Result<(), TestCaseError> {
    let mut pair = Pair::new(kind);
    history.iter().try_for_each(|(step, fault)| pair.take(step, *fault))
}

fn config(cases: u32) -> ProptestConfig {
    let persistence = proptest::test_runner::FileFailurePersistence::WithSource("regressions");
    ProptestConfig { cases, failure_persistence: Some(Box::new(persistence)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn memory_agrees_with_the_model(history in history(60)) {
        agrees_with_the_model(Kind::Memory, &history)?;
    }
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn fjall_agrees_with_the_model(history in history(60)) {
        agrees_with_the_model(Kind::Fjall, &history)?;
    }

    #[cfg(feature = "sled")]
    #[test]
    fn sled_agrees_with_the_model(history in history(60)) {
        agrees_with_the_model(Kind::Sled, &history)?;
    }
}
