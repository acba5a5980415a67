//! What lives: leases and tasks, with all that they depend on.

use super::{engine::Table, open::Ledger, refused::Refused};
use crate::model::{EndReason, Lease, LeaseId, ScopeId, Standing, Task, TaskId, Timestamp};

impl Ledger {
    /// A lease's row. `None` also when it is unreadable, which is noted: it counts as ended.
    ///
    /// # Errors
    /// When the store failed.
    pub fn lease(&self, id: LeaseId) -> Result<Option<Lease>, Refused> {
        let Some(value) = self.get(Table::Leases, id.as_bytes())? else { return Ok(None) };
        let read = self.shared.codec.decode_lease(id, &value);
        Ok(read.inspect_err(|e| self.shared.aside.note(Table::Leases, id.as_bytes(), e)).ok())
    }

    /// A task's row. `None` also when it is unreadable, which is noted: it counts as ended.
    ///
    /// # Errors
    /// When the store failed.
    pub fn task(&self, id: TaskId) -> Result<Option<Task>, Refused> {
        let Some(value) = self.get(Table::Tasks, id.as_bytes())? else { return Ok(None) };
        let read = self.shared.codec.decode_task(id, &value);
        Ok(read.inspect_err(|e| self.shared.aside.note(Table::Tasks, id.as_bytes(), e)).ok())
    }

    /// Whether a lease may be used now: its row, its task and the tasks above, cuts, bars, the leases that it and they were
    /// obtained through, and the time.
    ///
    /// # Errors
    /// When the store failed.
    pub fn lease_standing(&self, lease: &Lease, now: Timestamp) -> Result<Standing, Refused> {
        self.lease_within(lease, now, Task::MAX_ANCESTORS)
    }

    /// Whether something may be begun under a task now.
    ///
    /// # Errors
    /// When the store failed.
    pub fn task_standing(&self, task: &Task, now: Timestamp) -> Result<Standing, Refused> {
        self.task_within(task, now, Task::MAX_ANCESTORS)
    }

    /// `left` leases may stand above; a longer chain counts as ended, for what is above it is not known.
    fn lease_within(&self, lease: &Lease, now: Timestamp, left: usize) -> Result<Standing, Refused> {
        let own = self.own_lease_standing(lease, now);
        if matches!(own, Standing::Ended(_)) {
            return Ok(own);
        }
        let standing = own.and(match self.task(lease.id.task())? {
            Some(task) => self.task_within(&task, now, left)?,
            None => Standing::Ended(EndReason::Expired),
        });
        self.above(standing, lease.parent, now, left)
    }

    fn task_within(&self, task: &Task, now: Timestamp, left: usize) -> Result<Standing, Refused> {
        let mut standing = self.above(self.own_task_standing(task, now), task.parent_lease, now, left)?;
        let mut parent = task.parent;
        for _ in 0..Task::MAX_ANCESTORS {
            let Some(id) = parent else { break };
            let Some(task) = self.task(id)? else { return Ok(Standing::Ended(EndReason::Expired)) };
            standing = self.above(standing.and(self.own_task_standing(&task, now)), task.parent_lease, now, left)?;
            parent = task.parent;
        }
        Ok(if parent.is_some() { Standing::Ended(EndReason::Damaged) } else { standing })
    }

    /// `standing`, and that of the lease above. What has ended already is not looked into.
    fn above(
        &self,
        standing: Standing,
        lease: Option<LeaseId>,
        now: Timestamp,
        left: usize,
    ) -> Result<Standing, Refused> {
        match (standing, lease, left.checked_sub(1)) {
            (Standing::Ended(_), _, _) | (_, None, _) => Ok(standing),
            (_, Some(_), None) => Ok(Standing::Ended(EndReason::Damaged)),
            (_, Some(id), Some(left)) => Ok(standing.and(match self.lease(id)? {
                Some(lease) => self.lease_within(&lease, now, left)?,
                None => Standing::Ended(EndReason::Expired),
            })),
        }
    }

    fn own_lease_standing(&self, lease: &Lease, now: Timestamp) -> Standing {
        let own = lease.own_standing(now);
        if !own.is_live() {
            return own;
        }
        if lease.basis.0 != self.shared.incarnation {
            return Standing::Ended(EndReason::Revoked);
        }
        self.shared.book().standing(&lease.scopes(), lease.basis.1).and(self.shared.lapse(lease, now))
    }

    fn own_task_standing(&self, task: &Task, now: Timestamp) -> Standing {
        let own = task.own_standing(now);
        if !own.is_live() {
            return own;
        }
        if task.basis.0 != self.shared.incarnation {
            return Standing::Ended(EndReason::Revoked);
        }
        let book = self.shared.book();
        let standing = book.standing(&task.scopes(), task.basis.1);
        standing.and(if book.state(ScopeId::task(task.id)).is_suspended() {
            Standing::Suspended
        } else {
            Standing::Live
        })
    }
}
