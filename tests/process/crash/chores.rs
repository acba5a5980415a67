//! What else the daemon does at the moment of a kill, and what of it was acknowledged.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mayfly::pb::{
    self, ApplyOptions, CredentialKind, admin_client::AdminClient, broker_client::BrokerClient,
    rotate_keys_request::Step,
};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::book::{Book, Fate};
use crate::{
    process::{
        rig::{arg, mayfly, reason},
        secrets::vendor_request,
        world::{PARTNER, World, issue, lease_of, partner_scope, request, revocation},
    },
    support::apply,
};

/// The work beside the load.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Chore {
    /// Nothing but the load: compaction and checkpoints come by themselves.
    Load,
    /// A partner with many leases is revoked, again and again; a walk follows each.
    Walk,
    /// Token and CA keys are replaced.
    Rotate,
    /// The trust map changes.
    Apply,
    /// Leases of a second, for the sweeper.
    Sweep,
    /// A partner is barred and let in again.
    Bar,
    /// A static secret gets one value after the other.
    Secret,
    /// A backup is made, again and again.
    Backup,
}

impl Chore {
    pub const ALL: [Self; 8] =
        [Self::Load, Self::Walk, Self::Rotate, Self::Apply, Self::Sweep, Self::Bar, Self::Secret, Self::Backup];
}

/// What was asked for and what of it was acknowledged, over all rounds.
pub struct Chores {
    trust: String,
    steps: Arc<AtomicUsize>,
    under_way_from: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Numbers that stand in the trust map: acknowledged, and asked for since.
    applied: usize,
    apply_asked: usize,
    /// Whether gamma's partner is barred; unclear while an answer is missing.
    barred: Option<bool>,
    /// Names of keys.
    keys: BTreeSet<String>,
    revocations: Vec<pb::Revision>,
    /// Versions of the secret: acknowledged, and asked for since.
    secret: u32,
    secret_asked: u32,
    /// The last backup that came whole, and the longest that did not.
    backup: Vec<u8>,
    part: Vec<u8>,
}

type Shared = Arc<Mutex<State>>;

impl Chores {
    pub fn new(world: &World) -> Self {
        let state = State { barred: Some(false), ..State::default() };
        let state = Arc::new(Mutex::new(state));
        Self { trust: world.trust.clone(), steps: Arc::default(), under_way_from: 0, state }
    }

    /// Begins one that goes on until the daemon is gone.
    pub async fn begin(&mut self, chore: Chore, world: &World, book: &Arc<Book>, into: &mut JoinSet<()>) {
        self.under_way_from = self.steps.load(Ordering::Relaxed);
        let (steps, state, book) = (Arc::clone(&self.steps), Arc::clone(&self.state), Arc::clone(book));
        let (admin, trust) = (world.admin().await, self.trust.clone());
        match chore {
            Chore::Load => self.under_way_from = usize::MAX,
            Chore::Walk => {
                into.spawn(walk(world.broker("beta").await, admin, book, state, steps));
            }
            Chore::Rotate => {
                into.spawn(rotate(admin, state, steps));
            }
            Chore::Apply => {
                into.spawn(change(admin, trust, state, steps));
            }
            Chore::Sweep => {
                into.spawn(shorts(world.broker("alpha").await, book, steps));
            }
            Chore::Bar => {
                into.spawn(bar(admin, state, steps));
            }
            Chore::Secret => {
                into.spawn(replace(admin, state, steps));
            }
            Chore::Backup => {
                into.spawn(back_up(admin, state, steps));
            }
        }
    }

    /// Whether the chore has done a part of its work.
    pub fn is_under_way(&self) -> bool {
        self.under_way_from == usize::MAX || self.steps.load(Ordering::Relaxed) > self.under_way_from
    }

    /// Looks at whether every acknowledgement holds, and settles what had no answer.
    pub async fn check(&self, world: &World, when: &str) {
        let mut admin = world.admin().await;
        let listed = admin.list_partners(pb::ListPartnersRequest::default()).await.expect("listed").into_inner();
        let other = listed.partners.iter().find(|partner| partner.name == "other").expect("a partner");
        let (applied, asked) = {
            let state = self.state();
            (state.applied, state.apply_asked)
        };
        let found = other.display_name.strip_prefix("other-").map_or(0, |text| text.parse().expect("a number"));
        assert!((applied..=asked).contains(&found), "{when}: the trust map says {found}, not {applied} to {asked}");
        self.state().applied = found;

        let keys = admin.list_keys(pb::ListKeysRequest { tenant: "alpha".into() }).await.expect("listed").into_inner();
        let keys: BTreeSet<_> = keys.keys.into_iter().map(|key| key.key_id).collect();
        let lost: Vec<_> = self.state().keys.difference(&keys).cloned().collect();
        assert!(lost.is_empty(), "{when}: keys were told of and are gone: {lost:?}");

        let revocations = std::mem::take(&mut self.state().revocations);
        for revision in revocations {
            let found = admin.get_revocation(pb::GetRevocationRequest { revision: Some(revision) }).await;
            assert!(found.is_ok(), "{when}: revocation {revision:?} was acknowledged and is gone");
        }

        let asked = issue(&mut world.broker("gamma").await, request("gamma", CredentialKind::Opaque)).await;
        let barred = reason(&asked) == "BARRED";
        assert!(barred || asked.is_ok(), "{when}: {}", reason(&asked));
        let known = self.state().barred;
        assert!(known.is_none_or(|known| known == barred), "{when}: barred {barred}, acknowledged was {known:?}");
        self.state().barred = Some(barred);
        self.check_secret(world, when).await;
    }

    /// The secret's value is the last one acknowledged, or one that was asked for since.
    async fn check_secret(&self, world: &World, when: &str) {
        let (kept, asked) = {
            let state = self.state();
            (state.secret, state.secret_asked)
        };
        let got = issue(&mut world.broker("alpha").await, vendor_request()).await;
        let found = got.as_ref().ok().and_then(|reply| reply.credential.as_ref()).map_or(0, |got| {
            let pb::issue_response::Credential::Secret(secret) = got else { panic!("{when}: no secret") };
            assert_eq!(secret.value, value(secret.version), "{when}: version {}", secret.version);
            secret.version
        });
        assert!((kept..=asked).contains(&found), "{when}: {found} in {kept} to {asked}, {}", reason(&got));
        let mut state = self.state();
        (state.secret, state.secret_asked) = (found, found);
    }

    /// A backup that came whole is whole, one that was cut off is none.
    pub fn check_backups(&self, world: &World, when: &str) {
        let (whole, part) = {
            let state = self.state();
            (state.backup.clone(), state.part.clone())
        };
        for (bytes, is_whole) in [(whole, true), (part, false)] {
            if bytes.is_empty() {
                continue;
            }
            let file = world.launch.folder.join("crash.backup");
            std::fs::write(&file, bytes).expect("written");
            let said = mayfly(&["backup", "verify", arg(&file), "--seal-key", arg(&world.seal_key())]);
            assert_eq!(said.code == 0, is_whole, "{when}: {said:?}");
        }
    }

    /// In words.
    pub fn told(&self) -> String {
        let state = self.state();
        format!(
            "{} applies, {} key rotations and {} values of a secret acknowledged",
            state.applied,
            state.keys.len(),
            state.secret
        )
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Shared) -> MutexGuard<'_, State> {
    state.lock().expect("no chore panicked")
}

/// Fills a partner of beta and revokes it.
async fn walk(
    broker: BrokerClient<Channel>,
    mut admin: AdminClient<Channel>,
    book: Arc<Book>,
    state: Shared,
    steps: Arc<AtomicUsize>,
) {
    loop {
        let mut filling = JoinSet::new();
        for _ in 0..FILLERS {
            let (mut broker, book) = (broker.clone(), Arc::clone(&book));
            filling.spawn(async move {
                let mut ids = Vec::new();
                for _ in 0..FILL / FILLERS {
                    let asked = pb::IssueRequest { ttl_seconds: 3_600, ..request("beta", CredentialKind::Opaque) };
                    let Ok(reply) = issue(&mut broker, asked).await else { break };
                    ids.push(lease_of(&reply).lease_id);
                    book.enter(reply);
                }
                ids
            });
        }
        let ids = filling.join_all().await.concat();
        ids.iter().for_each(|id| book.ended(id, Fate::Asked));
        steps.fetch_add(1, Ordering::Relaxed);
        let asked = pb::RevokeRequest { without_bar: true, ..revocation(partner_scope("beta")) };
        let Ok(reply) = admin.revoke(asked).await else { return };
        ids.iter().for_each(|id| book.ended(id, Fate::Over));
        lock(&state).revocations.extend(reply.into_inner().revision);
    }
}

async fn rotate(mut admin: AdminClient<Channel>, state: Shared, steps: Arc<AtomicUsize>) {
    // A few a round: each stays published.
    for turn in 0..4 {
        let uses = ["token", "ca"][turn % 2].to_owned();
        let asked = pb::RotateKeysRequest { tenant: "alpha".into(), r#use: uses, step: Step::Now.into() };
        steps.fetch_add(1, Ordering::Relaxed);
        let Ok(reply) = admin.rotate_keys(asked).await else { return };
        lock(&state).keys.extend(reply.into_inner().keys.into_iter().map(|key| key.key_id));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn change(admin: AdminClient<Channel>, trust: String, state: Shared, steps: Arc<AtomicUsize>) {
    loop {
        let number = {
            let mut state = lock(&state);
            state.apply_asked += 1;
            state.apply_asked
        };
        let text = trust.replace("display_name = \"other\"", &format!("display_name = \"other-{number}\""));
        steps.fetch_add(1, Ordering::Relaxed);
        if apply(admin.clone(), ApplyOptions::default(), vec![("trust.toml".to_owned(), text)]).await.is_err() {
            return;
        }
        lock(&state).applied = number;
    }
}

async fn shorts(mut broker: BrokerClient<Channel>, book: Arc<Book>, steps: Arc<AtomicUsize>) {
    loop {
        let asked = pb::IssueRequest { ttl_seconds: SHORT, ..request("alpha", CredentialKind::Opaque) };
        let Ok(reply) = issue(&mut broker, asked).await else { return };
        book.enter(reply);
        steps.fetch_add(1, Ordering::Relaxed);
    }
}

async fn bar(mut admin: AdminClient<Channel>, state: Shared, steps: Arc<AtomicUsize>) {
    let scope = Some(partner_scope("gamma"));
    loop {
        lock(&state).barred = None;
        steps.fetch_add(1, Ordering::Relaxed);
        let asked = pb::BarRequest { scope: scope.clone(), reason: "test".into(), ..pb::BarRequest::default() };
        if admin.bar(asked).await.is_err() {
            return;
        }
        lock(&state).barred = Some(true);
        tokio::time::sleep(Duration::from_millis(5)).await;
        lock(&state).barred = None;
        if admin
            .lift(pb::LiftRequest { scope: scope.clone(), reason: "test".into(), ..Default::default() })
            .await
            .is_err()
        {
            return;
        }
        lock(&state).barred = Some(false);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn replace(mut admin: AdminClient<Channel>, state: Shared, steps: Arc<AtomicUsize>) {
    loop {
        let number = {
            let mut state = lock(&state);
            state.secret_asked = state.secret + 1;
            state.secret_asked
        };
        steps.fetch_add(1, Ordering::Relaxed);
        let (tenant, name, reason) = ("alpha".to_owned(), "vendor".to_owned(), "test".to_owned());
        let done = if number == 1 {
            let (owner, purpose) = ("pay@example.com".into(), "charges".into());
            let value = value(number);
            let asked = pb::PutSecretRequest { tenant, name, partner: PARTNER.into(), owner, purpose, value, reason };
            admin.put_secret(asked).await.map(|_| ())
        } else {
            let asked = pb::RotateSecretRequest { tenant, name, value: value(number), revoke_old: false, reason };
            admin.rotate_secret(asked).await.map(|_| ())
        };
        if done.is_err() {
            return;
        }
        lock(&state).secret = number;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Of a version of the secret.
fn value(version: u32) -> Vec<u8> {
    format!("vendor-key-of-version-{version:06}").into_bytes()
}

async fn back_up(mut admin: AdminClient<Channel>, state: Shared, steps: Arc<AtomicUsize>) {
    loop {
        let Ok(reply) = admin.create_backup(pb::CreateBackupRequest {}).await else { return };
        let (mut parts, mut bytes) = (reply.into_inner(), Vec::new());
        loop {
            let Ok(Some(part)) = parts.message().await else {
                let mut state = lock(&state);
                if bytes.len() > state.part.len() {
                    state.part = bytes;
                }
                return;
            };
            steps.fetch_add(1, Ordering::Relaxed);
            bytes.extend(part.data);
            if part.last {
                break;
            }
        }
        lock(&state).backup = bytes;
    }
}

const FILL: usize = 120;
const FILLERS: usize = 8;
/// Seconds.
const SHORT: u32 = 1;
