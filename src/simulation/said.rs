//! What callers are told, and what the model makes of it.

use super::{
    model::{Doubt, MLease, MTask},
    world::{Fine, World},
};
use crate::{
    broker::Refusal,
    ledger::Refused,
    model::{Lease, LeaseId, Scope, Task, TaskId},
};

/// Why it was not done.
#[derive(Clone, Debug)]
pub enum Not {
    /// Nothing was done.
    Refused(String),
    /// It may have been done.
    Unknown(String),
}

/// An answer, with the revision that it holds at.
#[derive(Debug)]
pub enum Said {
    Issued {
        lease: Box<Lease>,
        decided: (u64, u64),
        replaces: Option<LeaseId>,
        at: Result<u64, Not>,
    },
    /// Through the broker: the lease and its reference token.
    Brokered {
        tenant: usize,
        replaces: Option<LeaseId>,
        retried: bool,
        got: Result<(LeaseId, Option<String>), Not>,
    },
    Opened {
        task: Box<Task>,
        at: Result<u64, Not>,
    },
    BrokerOpened(Result<TaskId, Not>),
    LeaseEnded(LeaseId, Result<u64, Not>),
    TaskEnded(TaskId, Result<u64, Not>),
    /// Scope, whether it is barred as well, revision of the cut.
    Cut(Scope, bool, Result<u64, Not>),
    Barred {
        scope: Scope,
        suspend: bool,
        at: Result<u64, Not>,
    },
    Lifted(Scope, Result<u64, Not>),
    /// Scopes whose decisions are to be made anew, and scopes that were cut.
    TrustChanged {
        changed: Vec<Scope>,
        cut: Vec<Scope>,
        at: Result<u64, Not>,
    },
}

impl From<Refused> for Not {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::StoreFailed | Refused::StoreFull | Refused::Stopping => Self::Unknown(refused.to_string()),
            _ => Self::Refused(without_ids(refused)),
        }
    }
}

impl From<Refusal> for Not {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unavailable(_) | Refusal::Fault(_) => Self::Unknown(refusal.reason().to_owned()),
            _ => Self::Refused(refusal.reason().to_owned()),
        }
    }
}

fn without_ids(refused: Refused) -> String {
    match refused {
        Refused::Moved => "moved".to_owned(),
        other => other.to_string(),
    }
}

/// An outcome as the trace tells it.
struct Told<'a>(Option<&'a Not>);

impl std::fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            None => f.write_str("done"),
            Some(Not::Refused(why)) => write!(f, "refused: {why}"),
            Some(Not::Unknown(why)) => write!(f, "unknown: {why}"),
        }
    }
}

impl Said {
    pub fn begins(&self) -> bool {
        matches!(self, Self::Issued { .. } | Self::Brokered { .. } | Self::Opened { .. } | Self::BrokerOpened(_))
    }

    fn outcome(&self) -> (&'static str, Option<&Not>) {
        match self {
            Self::Issued { at, .. } => ("issue", at.as_ref().err()),
            Self::Brokered { got, .. } => ("issue by the broker", got.as_ref().err()),
            Self::Opened { at, .. } => ("open", at.as_ref().err()),
            Self::BrokerOpened(got) => ("open by the broker", got.as_ref().err()),
            Self::LeaseEnded(_, at) => ("end of a lease", at.as_ref().err()),
            Self::TaskEnded(_, at) => ("end of a task", at.as_ref().err()),
            Self::Cut(_, _, at) => ("cut", at.as_ref().err()),
            Self::Barred { at, .. } => ("bar", at.as_ref().err()),
            Self::Lifted(_, at) => ("lift", at.as_ref().err()),
            Self::TrustChanged { at, .. } => ("change of trust", at.as_ref().err()),
        }
    }
}

impl World {
    /// Notes what a caller was told.
    pub fn hear(&mut self, said: Said, doubts: Vec<Doubt>) -> Fine {
        let (what, not) = said.outcome();
        match &said {
            Said::Cut(scope, _, at) | Said::Lifted(scope, at) | Said::Barred { scope, at, .. } => {
                let at = at.as_ref().copied().unwrap_or_default();
                self.trace.note(format_args!("  {what} of {scope}: {}, at {at}", Told(not)));
            }
            _ => self.trace.note(format_args!("  {what}: {}", Told(not))),
        }
        match not {
            Some(Not::Unknown(_)) => {
                self.model.doubts.extend(doubts);
                Ok(())
            }
            Some(Not::Refused(_)) => Ok(()),
            None => self.hear_done(said),
        }
    }

    fn hear_done(&mut self, said: Said) -> Fine {
        match said {
            Said::Issued { lease, decided, replaces, at: Ok(at) } => {
                self.marks.leases += 1;
                self.check_replaced(replaces, at)?;
                self.add_lease(*lease, decided, None, true);
                self.check_begun(self.model.leases.len() - 1, at)
            }
            Said::Brokered { tenant, replaces, retried, got: Ok((id, token)) } => {
                self.hear_brokered(tenant, replaces, retried, id, token)
            }
            Said::Opened { task, at: Ok(_) } => {
                self.model.tasks.push(MTask { row: *task, ended: None, damaged: false });
                Ok(())
            }
            Said::BrokerOpened(Ok(id)) => self.learn_task(id),
            Said::LeaseEnded(id, Ok(at)) => {
                self.marks.ends += 1;
                // What had ended by time before is not ended again: its successor may have been decided while it lived.
                if self.model.lease(id).is_some_and(|lease| lease.row.expires > self.now()) {
                    self.model.note_end(id, at);
                }
                Ok(())
            }
            Said::TaskEnded(id, Ok(at)) => {
                self.marks.ends += 1;
                if self.model.task(id).is_some_and(|task| task.row.deadline > self.now()) {
                    self.model.note_task_end(id, at);
                }
                Ok(())
            }
            Said::Cut(scope, bar, Ok(at)) => {
                self.marks.ends += 1;
                self.model.note_cut(&scope, at);
                if bar {
                    self.model.note_bar(&scope, false, at);
                }
                Ok(())
            }
            Said::Barred { scope, suspend, at: Ok(at) } => {
                self.model.note_bar(&scope, suspend, at);
                Ok(())
            }
            Said::Lifted(scope, Ok(at)) => {
                self.model.note_lift(&scope, at);
                Ok(())
            }
            Said::TrustChanged { changed, cut, at: Ok(at) } => {
                self.model.moved.extend(changed.into_iter().map(|scope| (scope, at)));
                cut.iter().for_each(|scope| self.model.note_cut(scope, at));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn hear_brokered(
        &mut self,
        tenant: usize,
        replaces: Option<LeaseId>,
        retried: bool,
        id: LeaseId,
        token: Option<String>,
    ) -> Fine {
        self.marks.leases += 1;
        let (at, now) = (self.broker().ledger.basis().1, self.now());
        let Ok(Some(lease)) = self.broker().ledger.lease(id) else {
            return Err(format!("lease {id} was handed out and has no row"));
        };
        self.learn_task(id.task())?;
        self.check_replaced(replaces, at)?;
        let ttl = lease.expires.since(now).as_secs();
        if ttl > super::ground::TTL_MOST {
            return Err(format!("lease {id} lives {ttl} s, longer than its grant allows"));
        }
        if retried {
            // Of one request, however often it is made, there is never more than one live lease.
            let before = std::mem::take(&mut self.retried);
            for (whose, old) in before {
                if whose == tenant { self.model.note_end(old, at) } else { self.retried.push((whose, old)) }
            }
            self.retried.push((tenant, id));
        }
        let (decided, ended) = (lease.basis, lease.ended.is_some());
        self.add_lease(lease, decided, token, true);
        // Of two retries in one commit the later one ends the earlier.
        if ended && retried {
            self.model.note_end(id, at);
        }
        self.check_begun(self.model.leases.len() - 1, at)
    }

    fn learn_task(&mut self, id: TaskId) -> Fine {
        if self.model.task(id).is_none() {
            let Ok(Some(row)) = self.broker().ledger.task(id) else {
                return Err(format!("task {id} was opened and has no row"));
            };
            self.model.tasks.push(MTask { row, ended: None, damaged: false });
        }
        Ok(())
    }

    pub fn add_lease(&mut self, row: Lease, decided: (u64, u64), token: Option<String>, known: bool) {
        self.model.leases.push(MLease { row, decided, known, ended: None, seen_ended: !known, damaged: false, token });
    }

    /// What had ended has no successor; what has one has ended.
    fn check_replaced(&mut self, replaces: Option<LeaseId>, at: u64) -> Fine {
        let Some(old) = replaces.and_then(|id| self.model.lease(id)) else { return Ok(()) };
        if old.ended.is_some_and(|ended| ended <= at) {
            return Err(format!("lease {} was renewed at {at}, after its end at {:?}", old.row.id, old.ended));
        }
        let id = old.row.id;
        self.model.note_end(id, at);
        Ok(())
    }
}
