//! What the callers were told, in lists that are looked through from the front.

use crate::model::{Lease, LeaseId, Scope, Task, TaskId, Timestamp};

/// A lease, as its caller decided it.
#[derive(Debug)]
pub struct MLease {
    pub row: Lease,
    /// Incarnation and revision that the decision was really made at.
    pub decided: (u64, u64),
    /// Whether it was begun; what was not never lives.
    pub known: bool,
    /// Revision by which it had ended by its own row.
    pub ended: Option<u64>,
    /// It was once seen to have ended.
    pub seen_ended: bool,
    pub damaged: bool,
    /// The reference token, when the broker made it.
    pub token: Option<String>,
}

#[derive(Debug)]
pub struct MTask {
    pub row: Task,
    pub ended: Option<u64>,
    pub damaged: bool,
}

#[derive(Debug)]
pub struct MBar {
    pub scope: Scope,
    pub since: u64,
    pub suspends: bool,
    /// Revision of its end.
    pub lifted: Option<u64>,
}

/// Something may or may not have been done.
#[derive(Clone, Debug)]
pub enum Doubt {
    Lease(Box<Lease>, (u64, u64)),
    Task(Box<Task>),
    /// Something that only the broker could name.
    Stranger,
    LeaseEnd(LeaseId),
    TaskEnd(TaskId),
    /// Cut, bar or lift.
    Scope(Scope),
}

#[derive(Debug, Default)]
pub struct Model {
    pub leases: Vec<MLease>,
    pub tasks: Vec<MTask>,
    pub cuts: Vec<(Scope, u64)>,
    pub bars: Vec<MBar>,
    /// Lifts and changes of the trust map: what was decided before them must not begin after them.
    pub moved: Vec<(Scope, u64)>,
    pub doubts: Vec<Doubt>,
    pub incarnation: u64,
    /// Time of the last sweep that was acknowledged: time never goes back behind it unnoticed.
    pub swept: Timestamp,
}

/// Live, suspended or ended.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Expected {
    Live,
    Suspended,
    Ended,
}

pub fn concerns(scope: &Scope, lease: &Lease) -> bool {
    match scope {
        Scope::Everything => true,
        Scope::Grant(tenant, grant) => *tenant == lease.tenant && *grant == lease.grant,
        Scope::Partner(partner) => *partner == lease.partner,
        Scope::PartnerInTenant(tenant, partner) => *tenant == lease.tenant && *partner == lease.partner,
        Scope::Proof(_) => lease.proofs.contains(&scope.id()),
        Scope::SigningKey(key) => *key == lease.key_id,
        Scope::Tenant(tenant) => *tenant == lease.tenant,
        Scope::Workload(tenant, workload) => *tenant == lease.tenant && *workload == lease.workload,
        Scope::Issuer(_) | Scope::Lease(_) | Scope::Secret(..) | Scope::Task(_) => false,
    }
}

pub fn concerns_task(scope: &Scope, task: &Task) -> bool {
    match scope {
        Scope::Everything => true,
        Scope::Partner(partner) => *partner == task.partner,
        Scope::PartnerInTenant(tenant, partner) => *tenant == task.tenant && *partner == task.partner,
        Scope::Proof(_) => task.proofs.contains(&scope.id()),
        Scope::Tenant(tenant) => *tenant == task.tenant,
        Scope::Workload(tenant, workload) => *tenant == task.tenant && *workload == task.workload,
        Scope::Grant(..)
        | Scope::Issuer(_)
        | Scope::Secret(..)
        | Scope::SigningKey(_)
        | Scope::Lease(_)
        | Scope::Task(_) => false,
    }
}

impl Model {
    pub fn lease(&self, id: LeaseId) -> Option<&MLease> {
        self.leases.iter().find(|lease| lease.row.id == id)
    }

    pub fn lease_mut(&mut self, id: LeaseId) -> Option<&mut MLease> {
        self.leases.iter_mut().find(|lease| lease.row.id == id)
    }

    pub fn task(&self, id: TaskId) -> Option<&MTask> {
        self.tasks.iter().find(|task| task.row.id == id)
    }

    pub fn task_mut(&mut self, id: TaskId) -> Option<&mut MTask> {
        self.tasks.iter_mut().find(|task| task.row.id == id)
    }

    pub fn bar(&mut self, scope: &Scope) -> Option<&mut MBar> {
        self.bars.iter_mut().find(|bar| bar.lifted.is_none() && bar.scope == *scope)
    }

    /// The last cut of a scope; 0 for none.
    pub fn last_cut(&self, scope: &Scope) -> u64 {
        self.cuts.iter().filter(|(cut, _)| cut == scope).map(|(_, number)| *number).max().unwrap_or(0)
    }

    /// What a check must answer.
    pub fn expected(&self, lease: &MLease, now: Timestamp) -> Expected {
        let row = &lease.row;
        if lease.damaged || lease.seen_ended || lease.ended.is_some() || row.expires <= now {
            return Expected::Ended;
        }
        let own = self.by_scopes(|scope| concerns(scope, row), lease.decided);
        let above = row.parent.and_then(|id| self.lease(id)).map_or(Expected::Live, |lease| self.expected(lease, now));
        own.max(above).max(self.expected_task(row.id.task(), now))
    }

    pub fn expected_task(&self, id: TaskId, now: Timestamp) -> Expected {
        let Some(task) = self.task(id) else { return Expected::Ended };
        if task.damaged || task.ended.is_some() || task.row.deadline <= now {
            return Expected::Ended;
        }
        let above = task.row.parent.map_or(Expected::Live, |id| self.expected_task(id, now));
        let through = task.row.parent_lease.and_then(|id| self.lease(id));
        let through = through.map_or(Expected::Live, |lease| self.expected(lease, now));
        above.max(through).max(self.by_scopes(|scope| concerns_task(scope, &task.row), task.row.basis))
    }

    fn by_scopes(&self, concerns: impl Fn(&Scope) -> bool, decided: (u64, u64)) -> Expected {
        let is_cut = self.cuts.iter().any(|(scope, number)| *number > decided.1 && concerns(scope));
        if is_cut || decided.0 != self.incarnation {
            return Expected::Ended;
        }
        let is_held = self.bars.iter().any(|bar| bar.lifted.is_none() && bar.suspends && concerns(&bar.scope));
        if is_held { Expected::Suspended } else { Expected::Live }
    }

    /// Why a lease that was begun in commit `number` should have been refused.
    pub fn misfit(&self, lease: &MLease, number: u64) -> Option<String> {
        let (row, basis) = (&lease.row, lease.decided.1);
        let cut = self.cuts.iter().find(|(scope, cut)| basis < *cut && *cut <= number && concerns(scope, row));
        let moved = self.moved.iter().find(|(scope, moved)| basis < *moved && *moved <= number && concerns(scope, row));
        let bar = self.bars.iter().find(|bar| {
            bar.since <= number && bar.lifted.is_none_or(|lifted| number < lifted) && concerns(&bar.scope, row)
        });
        let mut above = Some(row.id.task());
        while let Some(task) = above.and_then(|id| self.task(id)) {
            if task.ended.is_some_and(|ended| ended <= number) {
                return Some(format!("its task {} had ended", task.row.id));
            }
            if task.row.parent_lease.and_then(|id| self.lease(id)?.ended).is_some_and(|ended| ended <= number) {
                return Some(format!("what its task {} was opened through had ended", task.row.id));
            }
            above = task.row.parent;
        }
        if let Some(parent) = row.parent.and_then(|id| self.lease(id))
            && parent.ended.is_some_and(|ended| ended <= number)
        {
            return Some("the lease it was obtained through had ended".to_owned());
        }
        cut.map(|(scope, cut)| format!("{scope} was cut at {cut}"))
            .or_else(|| moved.map(|(scope, moved)| format!("{scope} was changed at {moved}")))
            .or_else(|| bar.map(|bar| format!("{} was barred at {}", bar.scope, bar.since)))
    }

    pub fn note_cut(&mut self, scope: &Scope, number: u64) {
        if number > self.last_cut(scope) {
            self.cuts.push((scope.clone(), number));
        }
    }

    pub fn note_bar(&mut self, scope: &Scope, suspends: bool, number: u64) {
        match self.bar(scope) {
            Some(bar) => bar.suspends |= suspends,
            None => self.bars.push(MBar { scope: scope.clone(), since: number, suspends, lifted: None }),
        }
    }

    pub fn note_lift(&mut self, scope: &Scope, number: u64) {
        if let Some(bar) = self.bar(scope) {
            bar.lifted = Some(number);
            self.moved.push((scope.clone(), number));
        }
    }

    /// A lease's own end, first one first.
    pub fn note_end(&mut self, id: LeaseId, number: u64) {
        if let Some(lease) = self.lease_mut(id) {
            lease.ended = Some(lease.ended.unwrap_or(number));
        }
    }

    pub fn note_task_end(&mut self, id: TaskId, number: u64) {
        if let Some(task) = self.task_mut(id) {
            task.ended = Some(task.ended.unwrap_or(number));
        }
    }

    /// How many leases count by the plainest rule: not ended, not under an ended task, not over.
    pub fn counted(&self, now: Timestamp, of: impl Fn(&Lease) -> bool) -> u64 {
        let counts = |lease: &&MLease| {
            let task_lives = self.task(lease.row.id.task()).is_some_and(|task| task.ended.is_none());
            lease.known && lease.ended.is_none() && lease.row.expires > now && task_lives && of(&lease.row)
        };
        self.leases.iter().filter(counts).count().try_into().unwrap()
    }

    fn is_below_an_ended(&self, task: TaskId) -> bool {
        let mut above = self.task(task).and_then(|task| task.row.parent);
        while let Some(task) = above.and_then(|id| self.task(id)) {
            if task.ended.is_some() {
                return true;
            }
            above = task.row.parent;
        }
        false
    }

    /// How many leases have not ended in any way.
    pub fn unended(&self, now: Timestamp, of: impl Fn(&Lease) -> bool) -> u64 {
        let lives = |lease: &&MLease| lease.known && of(&lease.row) && self.expected(lease, now) < Expected::Ended;
        self.leases.iter().filter(lives).count().try_into().unwrap()
    }

    /// The least and the most that the ledger may count: what expires within this minute counts until it is over, and
    /// what a cut has ended counts until the walk behind it has come by, and of what lies under an ended task's child
    /// tasks only some leaves the count at once.
    pub fn recounted(&self, now: Timestamp, of: impl Fn(&Lease) -> bool) -> (u64, u64) {
        let is_cut = |row: &Lease| {
            let lease = self.lease(row.id);
            lease.is_some_and(|lease| {
                self.cuts.iter().any(|(scope, cut)| *cut > lease.decided.1 && concerns(scope, row))
            })
        };
        let least = self.counted(now, |row| of(row) && !is_cut(row) && !self.is_below_an_ended(row.id.task()));
        let minute = |lease: &&MLease| {
            lease.known && lease.row.expires <= now && lease.row.expires.minute() == now.minute() && of(&lease.row)
        };
        let within_the_minute: u64 = self.leases.iter().filter(minute).count().try_into().unwrap();
        (least, self.counted(now, &of) + within_the_minute)
    }
}
