//! Every acknowledgement that the callers were given, and whether the daemon still stands by it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use mayfly::pb::{self, IssueResponse};
use tokio::task::JoinSet;

use crate::process::world::{World, is_active, lease_of};

/// What became of one lease, as far as its holder knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    Live,
    /// Its end was asked for; no answer came.
    Asked,
    /// Its end was acknowledged.
    Over,
}

#[derive(Clone)]
struct Entry {
    reply: IssueResponse,
    fate: Fate,
    entered: Instant,
    /// When it ends by itself, as its holder counts: a little early and a little late.
    expires: (Instant, Instant),
}

/// The leases that were handed out.
#[derive(Default)]
pub struct Book(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    by_id: BTreeMap<String, Entry>,
    /// Ids as they were entered.
    order: Vec<String>,
    /// Not looked at since their fate was told.
    fresh: BTreeSet<String>,
}

impl Book {
    /// Enters a lease that was handed out.
    pub fn enter(&self, reply: IssueResponse) {
        let lease = lease_of(&reply);
        let life = |stamp: Option<prost_types::Timestamp>| stamp.expect("a time").seconds;
        let seconds = u64::try_from(life(lease.expires) - life(lease.issued)).expect("a life");
        let now = Instant::now();
        let expires = (now + Duration::from_secs(seconds.saturating_sub(1)), now + Duration::from_secs(seconds + 1));
        let entry = Entry { reply, fate: Fate::Live, entered: now, expires };
        let mut entries = self.entries();
        entries.order.push(lease.lease_id.clone());
        entries.fresh.insert(lease.lease_id.clone());
        entries.by_id.insert(lease.lease_id, entry);
    }

    /// Tells how far its end has come.
    pub fn ended(&self, id: &str, fate: Fate) {
        let mut entries = self.entries();
        if let Some(entry) = entries.by_id.get_mut(id) {
            entry.fate = fate;
            entries.fresh.insert(id.to_owned());
        }
    }

    pub fn len(&self) -> usize {
        self.entries().order.len()
    }

    /// Looks at what is new since the last time, and at a few others that `choose` picks; says how many.
    pub async fn check(&self, world: &World, when: &str, mut choose: impl FnMut(usize) -> usize) -> usize {
        let looked = {
            let mut entries = self.entries();
            let mut ids = std::mem::take(&mut entries.fresh);
            ids.extend((0..OTHERS).filter_map(|_| entries.order.get(choose(entries.order.len())).cloned()));
            ids.into_iter().filter_map(|id| Some((id.clone(), entries.by_id.get(&id)?.clone()))).collect()
        };
        self.look(world, when, looked).await
    }

    /// Looks at all.
    pub async fn check_all(&self, world: &World, when: &str) -> usize {
        let all = self.entries().by_id.clone().into_iter().collect();
        self.look(world, when, all).await
    }

    async fn look(&self, world: &World, when: &str, looked: Vec<(String, Entry)>) -> usize {
        let mut asking = JoinSet::new();
        for part in looked.chunks(looked.len().div_ceil(AT_ONCE).max(1)) {
            let part = part.to_vec();
            let (mut verifiers, mut admin) = (BTreeMap::new(), world.admin().await);
            for tenant in ["alpha", "beta"] {
                verifiers.insert(tenant.to_owned(), world.verifier(tenant).await);
            }
            asking.spawn(async move {
                let mut wrong = Vec::new();
                for (id, entry) in part {
                    let tenant = lease_of(&entry.reply).tenant;
                    let verifier = verifiers.get_mut(&tenant).expect("its resource server");
                    let asked = Instant::now();
                    let active = is_active(verifier, &entry.reply).await;
                    let expired = asked >= entry.expires.1;
                    match (entry.fate, active) {
                        (Fate::Live, false) if Instant::now() < entry.expires.0 => {
                            wrong.push(format!("lease {id} was acknowledged and is gone"));
                        }
                        (Fate::Over, true) => wrong.push(format!("lease {id} was ended and lives again")),
                        (Fate::Live | Fate::Asked, true) if expired => {
                            wrong.push(format!("lease {id} outlived its end"))
                        }
                        (_, _) => {}
                    }
                    // An active answer proves that it is known already; what has ended is kept for a minute.
                    if !active && entry.entered.elapsed() < KEPT {
                        let found = admin.identify(pb::IdentifyRequest { found: id.clone() }).await;
                        if found.expect("answers").into_inner().lease.is_none() {
                            wrong.push(format!("lease {id} was handed out and is not known"));
                        }
                    }
                }
                wrong
            });
        }
        let wrong = asking.join_all().await.concat();
        assert!(wrong.is_empty(), "{when}: {}", wrong.join("\n"));
        looked.len()
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().expect("no caller panicked")
    }
}

/// Older leases looked at in each round.
const OTHERS: usize = 48;
const AT_ONCE: usize = 4;
/// Less than the minute that an ended lease is kept.
const KEPT: Duration = Duration::from_secs(50);
