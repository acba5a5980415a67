//! A ledger on a store that can be reopened, fails on cue and is counted; time is a plain number.

use std::{
    collections::VecDeque,
    ops::Bound::Unbounded,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;

use super::tap::{Gate, Tap};
use crate::{
    ledger::{
        Anchor, BarDraft, CutDraft, EndLease, EndTask, IssueDraft, LaneLimits, Ledger, OpenDraft, OpenError, Opening,
        Quota, Receipt, Refused, Revoked,
        codec::Codec,
        engine::{
            Batch, Committed, Engine, Op, Order, Row, Table,
            faulty::{Fault, Faulty},
            fjall::Fjall,
            memory::Memory,
        },
    },
    model::{
        CredentialKind, Digest, EndReason, Lease, LeaseId, Scope, Standing, Task, TaskId, TenantNumber, Timestamp,
        Velocity,
        secret::{MacKey, Secret},
    },
    pb,
};

/// Which engine.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Memory,
    Fjall,
    #[cfg(feature = "sled")]
    Sled,
}

/// A store that outlives the ledgers opened on it.
pub struct Store {
    kind: Kind,
    dir: TempDir,
    memory: Arc<Memory>,
}

impl Store {
    pub fn new(kind: Kind) -> Self {
        Self { kind, dir: tempfile::tempdir().unwrap(), memory: Arc::default() }
    }

    pub fn engine(&self) -> Arc<dyn Engine> {
        match self.kind {
            Kind::Memory => Arc::<Memory>::clone(&self.memory),
            Kind::Fjall => Arc::new(Fjall::open(self.dir.path()).unwrap()),
            #[cfg(feature = "sled")]
            Kind::Sled => Arc::new(crate::ledger::engine::sled::Sled::open(self.dir.path()).unwrap()),
        }
    }
}

pub type Plan = Arc<Mutex<VecDeque<Fault>>>;

/// A ledger, its store and the time.
pub struct Bed {
    pub store: Store,
    pub now: Timestamp,
    ledger: Option<Ledger>,
    /// Outside of the store.
    pub anchor: Option<Arc<dyn Anchor>>,
    /// Faults of the next commits.
    pub plan: Plan,
    ops: Arc<AtomicU64>,
    gate: Arc<Gate>,
}

pub const ROW_KEY: u8 = 7;
pub const QUOTA: Quota =
    Quota { task: 100_000, grant: 100_000, partner: 100_000, partner_everywhere: 100_000, tenant: 100_000 };

pub fn row_key() -> MacKey {
    MacKey::new(
        &Secret::try_init(|bytes| -> Result<(), ()> {
            bytes.fill(ROW_KEY);
            Ok(())
        })
        .unwrap(),
    )
}

pub fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Something that is proposed.
pub type Proposal<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Polls all of them from the first time on; answers in their order.
async fn all<T>(mut futures: Vec<Proposal<'_, T>>) -> Vec<T> {
    let mut answers: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, answer) in futures.iter_mut().zip(&mut answers).filter(|(_, answer)| answer.is_none()) {
            if let std::task::Poll::Ready(done) = future.as_mut().poll(context) {
                *answer = Some(done);
            }
        }
        if answers.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    answers.into_iter().flatten().collect()
}

impl Bed {
    pub fn new(kind: Kind) -> Self {
        let now = Timestamp::from_seconds(1_800_000_000);
        let mut bed = Self {
            store: Store::new(kind),
            now,
            ledger: None,
            anchor: None,
            plan: Arc::default(),
            ops: Arc::default(),
            gate: Arc::default(),
        };
        bed.open(1).unwrap();
        bed
    }

    /// With an anchor from the beginning.
    pub fn anchored(kind: Kind, anchor: Arc<dyn Anchor>) -> Self {
        let now = Timestamp::from_seconds(1_800_000_000);
        let (plan, ops, gate) = (Arc::default(), Arc::default(), Arc::default());
        let mut bed = Self { store: Store::new(kind), now, ledger: None, anchor: Some(anchor), plan, ops, gate };
        bed.reopen();
        bed
    }

    pub fn open(&mut self, seal: u8) -> Result<(), OpenError> {
        self.close();
        let tap = Tap { below: self.store.engine(), ops: Arc::clone(&self.ops), gate: Arc::clone(&self.gate) };
        let plan = Arc::clone(&self.plan);
        let engine = Faulty::new(tap, move |_| plan.lock().unwrap().pop_front().unwrap_or(Fault::None));
        let opening = Opening {
            engine: Arc::new(engine),
            row_key: row_key(),
            seal_check: [seal; 32],
            ballast: None,
            anchor: self.anchor.clone(),
            lanes: LaneLimits::default(),
            now: self.now,
        };
        self.ledger = Some(Ledger::open(opening)?);
        Ok(())
    }

    pub fn close(&mut self) {
        self.ledger = None;
    }

    pub fn reopen(&mut self) {
        self.open(1).unwrap();
    }

    /// Changes rows outside of the ledger, between two openings.
    pub fn edit(&mut self, ops: impl IntoIterator<Item = Op>) {
        self.close();
        let batch = Batch { compares: Vec::new(), ops: ops.into_iter().collect() };
        assert_eq!(self.store.engine().commit(&batch).unwrap(), Committed::Applied);
    }

    /// Flips one bit in the middle of every row of a table that holds something.
    pub fn damage(&mut self, table: Table) {
        let rows: Vec<Row> = self.rows(table).into_iter().filter(|(_, value)| !value.is_empty()).collect();
        assert!(!rows.is_empty());
        self.edit(rows.into_iter().map(|(key, mut value)| {
            let middle = value.len() / 2;
            value[middle] ^= 1;
            Op::Put(table, key, value)
        }));
    }

    /// Writes rows of leases that no proposal would.
    pub fn put_leases(&mut self, leases: &[Lease]) {
        let codec = Codec::new(row_key());
        self.edit(
            leases.iter().map(|lease| Op::Put(Table::Leases, lease.id.as_bytes().to_vec(), codec.encode_lease(lease))),
        );
        self.reopen();
    }

    /// Every row of a table; the ledger is closed for it.
    pub fn rows(&mut self, table: Table) -> Vec<Row> {
        self.close();
        self.store.engine().scan(table, (Unbounded, Unbounded), Order::Ascending, usize::MAX).unwrap()
    }

    pub fn ledger(&self) -> &Ledger {
        self.ledger.as_ref().unwrap()
    }

    pub fn advance(&mut self, seconds: u64) {
        self.now = self.now.after(Duration::from_secs(seconds));
    }

    /// Operations that `act` gave to the engine.
    pub fn ops(&self, act: impl FnOnce()) -> u64 {
        let before = self.ops.load(Ordering::SeqCst);
        act();
        self.ops.load(Ordering::SeqCst) - before
    }

    /// Makes proposals that are decided and written in one commit; each is proposed when it is polled first.
    pub fn in_one_commit<T>(&self, proposals: Vec<Proposal<'_, T>>) -> Vec<T> {
        let gate = self.gate.close();
        wait(async {
            let before = async { self.ledger().note(vec![self.event("before", None)], self.now).await.unwrap() };
            let behind = async {
                gate.reached().await;
                let waiting = all(proposals);
                tokio::pin!(waiting);
                std::future::poll_fn(|context| {
                    assert!(waiting.as_mut().poll(context).is_pending(), "refused before it came to the committer");
                    std::task::Poll::Ready(())
                })
                .await;
                drop(gate);
                waiting.await
            };
            tokio::join!(before, behind).1
        })
    }

    pub fn event(&self, kind: &str, lease: Option<LeaseId>) -> pb::Event {
        pb::Event {
            kind: kind.into(),
            tenant: "acme".into(),
            partner: "north".into(),
            lease_id: lease.map(|id| id.to_string()).unwrap_or_default(),
            ..pb::Event::default()
        }
    }

    /// A task of tenant `acme` and partner `north` that has an hour.
    pub fn new_task(&self) -> Task {
        Task {
            id: TaskId::fresh(TenantNumber::new(1).unwrap()).unwrap(),
            tenant: "acme".parse().unwrap(),
            partner: "north".parse().unwrap(),
            workload: "runner".parse().unwrap(),
            purpose: "tests".parse().unwrap(),
            parent: None,
            opened: self.now,
            deadline: self.now.after(Duration::from_hours(1)),
            ended: None,
            held: false,
            leases_issued: 0,
            live: Vec::new(),
            basis: self.ledger().basis(),
            proofs: Vec::new(),
            parent_lease: None,
            client_key: None,
            opened_with: None,
            job_url: None,
            intent: None,
            approvals: Vec::new(),
            pace: None,
            limits: None,
            secrets: Vec::new(),
            secrets_overflow: false,
        }
    }

    /// A lease under `task` that has ten minutes.
    pub fn new_lease(&self, task: &Task) -> Lease {
        Lease {
            id: LeaseId::fresh(task.id).unwrap(),
            tenant: task.tenant.clone(),
            partner: task.partner.clone(),
            grant: "read".parse().unwrap(),
            workload: task.workload.clone(),
            purpose: task.purpose.clone(),
            kind: CredentialKind::Jwt,
            audiences: vec!["https://api.example".into()],
            actions: vec!["read".into()],
            dns_names: Vec::new(),
            issued: self.now,
            expires: self.now.after(Duration::from_mins(10)),
            basis: self.ledger().basis(),
            credential: Digest::of(b"credential"),
            key_id: "k1".into(),
            bound: None,
            spki: None,
            parent: None,
            proofs: Vec::new(),
            renewals: 0,
            broker_made_key: false,
            ended: None,
            delegated: Vec::new(),
            ruling: None,
            secret: None,
            pickup_until: None,
            svid: false,
        }
    }

    pub fn draft(&self, lease: &Lease) -> IssueDraft {
        IssueDraft {
            lease: lease.clone(),
            through: Vec::new(),
            new_task: None,
            retry: None,
            supersedes: None,
            approval: None,
            above: Vec::new(),
            velocity: Velocity::default(),
            spend: None,
            hand_out: None,
            quota: QUOTA,
            event: self.event("lease.issued", Some(lease.id)),
            now: self.now,
        }
    }

    pub fn issue(&self, lease: &Lease) -> Result<Receipt, Refused> {
        wait(self.ledger().issue(self.draft(lease)))
    }

    /// A live task.
    pub fn task(&self) -> Task {
        self.open_task(self.new_task())
    }

    pub fn open_task(&self, task: Task) -> Task {
        wait(self.ledger().open_task(self.opening(task.clone()))).unwrap();
        task
    }

    /// What opens a task, with nothing beside it.
    pub fn opening(&self, task: Task) -> OpenDraft {
        OpenDraft {
            task,
            through: Vec::new(),
            retry: None,
            spend: None,
            approval: None,
            velocity: Velocity::default(),
            event: self.event("task.opened", None),
            now: self.now,
        }
    }

    pub fn child(&self, parent: &Task) -> Task {
        self.open_task(Task { parent: Some(parent.id), ..self.new_task() })
    }

    /// A live lease under a task of its own or a given one.
    pub fn lease(&self, task: &Task) -> Lease {
        let lease = self.new_lease(task);
        self.issue(&lease).unwrap();
        lease
    }

    pub fn release(&self, id: LeaseId) -> Result<bool, Refused> {
        let event = self.event("lease.released", Some(id));
        let end = EndLease { lease: id, why: EndReason::Released, event, now: self.now };
        wait(self.ledger().end_lease(end)).map(|(changed, _)| changed)
    }

    pub fn complete(&self, id: TaskId) -> Result<bool, Refused> {
        let event = self.event("task.completed", None);
        let end = EndTask { task: id, why: EndReason::Completed, event, now: self.now };
        wait(self.ledger().end_task(end)).map(|(changed, _)| changed)
    }

    pub fn cut_draft(&self, scope: Scope, bar: bool) -> CutDraft {
        CutDraft {
            scope,
            why: EndReason::Revoked,
            bar,
            operator: "olga".into(),
            reason: "test".into(),
            covers_until: self.now.after(Duration::from_secs(3_630)),
            event: self.event("scope.revoked", None),
            now: self.now,
            resets_time: false,
        }
    }

    pub fn cut(&self, scope: Scope, bar: bool) -> Result<Revoked, Refused> {
        wait(self.ledger().cut(self.cut_draft(scope, bar))).map(|(revoked, _)| revoked)
    }

    pub fn bar_draft(&self, scope: Scope, suspend: bool) -> BarDraft {
        let (operator, reason) = ("olga".into(), "test".into());
        BarDraft { scope, suspend, operator, reason, event: self.event("scope.barred", None), now: self.now }
    }

    pub fn bar(&self, scope: Scope, suspend: bool) -> Result<bool, Refused> {
        wait(self.ledger().bar(self.bar_draft(scope, suspend))).map(|(changed, _)| changed)
    }

    pub fn lift(&self, scope: Scope) -> Result<bool, Refused> {
        wait(self.ledger().lift(self.bar_draft(scope, false))).map(|(changed, _)| changed)
    }

    /// What a check answers, from the row on; a lease without a row has ended.
    pub fn standing(&self, id: LeaseId) -> Standing {
        match self.ledger().lease(id).unwrap() {
            Some(lease) => self.ledger().lease_standing(&lease, self.now).unwrap(),
            None => Standing::Ended(EndReason::Expired),
        }
    }

    pub fn is_live(&self, id: LeaseId) -> bool {
        self.standing(id).is_live()
    }

    pub fn live(&self, scope: &Scope) -> u64 {
        self.ledger().live(scope, self.now)
    }

    /// Lease ids in the events of `acme/north`.
    pub fn audited(&self) -> Vec<String> {
        let id = crate::ledger::stream_id("acme", "north");
        let pages = self.ledger().audit_pages(&id, 0, usize::MAX).unwrap();
        let events = pages.into_iter().flat_map(|(_, page)| page.unwrap().events);
        events.map(|bytes| <pb::Event as prost::Message>::decode(bytes.as_slice()).unwrap().lease_id).collect()
    }

    /// Sweeps until nothing is due.
    pub fn sweep(&self) -> u64 {
        let mut removed = 0;
        loop {
            let report = wait(self.ledger().sweep(self.now, self.now, self.ledger().basis().1)).unwrap();
            removed += report.removed;
            if !report.more {
                return removed;
            }
        }
    }

    /// Walks behind a cut to its end; how many it ended.
    pub fn walk(&self, scope: &Scope, number: u64) -> u64 {
        loop {
            let report = wait(self.ledger().walk(scope.id(), number, None)).unwrap();
            if report.done {
                return report.ended;
            }
        }
    }
}

pub fn tenant() -> Scope {
    Scope::Tenant("acme".parse().unwrap())
}

pub fn partner() -> Scope {
    Scope::Partner("north".parse().unwrap())
}
