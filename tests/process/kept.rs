//! Data folders of released versions: this version opens them, and what they knew is still so.
//!
//! `tests/golden/store-VERSION/` holds a data folder of each engine and what that version said of it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use mayfly::{
    audit::export::{self, Item},
    ledger::{Anchor, FileAnchor, LaneLimits, Ledger, Opening, engine, stream_id},
    mint::seal::{Seal, SealKey},
    model::{Digest, EndReason, LeaseId, Scope, Standing, Timestamp},
    pb::{self, CredentialKind},
};

use super::world::{World, issue, lease_of, lease_scope, partner_scope, request, revocation};

const RELEASED: [&str; 1] = ["0.1.0"];
const ENGINES: [&str; 2] = ["fjall", "sled"];

fn folder(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/store-{version}"))
}

fn tar(arguments: &[&str], path: &Path) {
    let done = Command::new("tar").args(arguments).arg(path).status().expect("tar");
    assert!(done.success());
}

/// Unpacks a kept folder and reads what its version said of it.
fn unpack(version: &str, engine: &str, to: &Path) -> BTreeMap<String, String> {
    let kept = folder(version);
    tar(&["-C", to.to_str().expect("a path"), "-xzf"], &kept.join(format!("{engine}.tar.gz")));
    let facts = fs::read_to_string(kept.join(format!("{engine}.facts"))).expect("facts");
    facts.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect()
}

/// Opens it at the time at which it was kept, with an anchor, as a daemon of this version does.
fn open(to: &Path, engine: &str, now: Timestamp) -> Ledger {
    let data = to.join("data");
    let seal = Seal::new(&SealKey::read(&data.join("seal.key")).expect("the seal key"));
    let store = data.join("store");
    let engine: Arc<dyn engine::Engine> = match engine {
        "fjall" => Arc::new(engine::fjall::Fjall::open(&store).expect("opens")),
        _ => Arc::new(engine::sled::Sled::open(&store).expect("opens")),
    };
    let anchor: Arc<dyn Anchor> = Arc::new(FileAnchor::new(to.join("anchor"), seal.anchor_key()));
    Ledger::open(Opening {
        engine,
        row_key: seal.row_key(),
        seal_check: seal.check_value(),
        ballast: None,
        anchor: Some(anchor),
        lanes: LaneLimits::default(),
        now,
    })
    .expect("opens")
}

#[tokio::test]
async fn what_a_released_version_knew_is_still_so() {
    for (version, engine) in RELEASED.into_iter().flat_map(|version| ENGINES.map(|engine| (version, engine))) {
        let to = tempfile::tempdir().expect("folder");
        let facts = unpack(version, engine, to.path());
        let now = Timestamp::from_seconds(facts["at"].parse().expect("seconds"));
        // From the old form, and from the one that it was brought to.
        for start in ["first", "second"] {
            let place = format!("{version}, {engine}, {start} start");
            let ledger = open(to.path(), engine, now);
            check(&ledger, &facts, now, &place);
            let kept = fs::read_to_string(folder(version).join(format!("{engine}.jsonl"))).expect("audit");
            kept.lines().for_each(|line| check_line(&ledger, line, &place));
            let event = pb::Event { kind: "test".into(), ..Default::default() };
            ledger.note_act(vec![event], now).await.expect("goes on");
        }
    }
}

fn check(ledger: &Ledger, facts: &BTreeMap<String, String>, now: Timestamp, place: &str) {
    let standing = |name: &str| {
        let id: LeaseId = facts[name].parse().expect("an id");
        ledger.lease_standing(&ledger.lease(id).expect("reads").expect("is known"), now).expect("reads")
    };
    assert_eq!(standing("live"), Standing::Live, "{place}");
    assert_eq!(standing("revoked"), Standing::Ended(EndReason::Revoked), "{place}");
    assert_eq!(standing("cut"), Standing::Ended(EndReason::Revoked), "{place}");
    let barred = Scope::PartnerInTenant("beta".parse().expect("name"), "courier".parse().expect("name"));
    let state = ledger.scope(barred.id());
    assert!(state.cut > 0 && state.bar > 0, "{place}");
    assert_eq!((ledger.aside().total(), ledger.doubt, ledger.holds().first()), (0, None, None), "{place}");
}

/// The audit holds what was exported, hash for hash.
fn check_line(ledger: &Ledger, line: &str, place: &str) {
    match export::parse(line.as_bytes()).expect("a line") {
        Item::Event(event) => {
            let stream = stream_id(&event.tenant, &event.partner);
            let (first, page) = ledger.audit_page_at(&stream, event.sequence).expect("reads").expect("a page");
            let page = page.expect("readable");
            let mut hash = Digest::from_slice(&page.before).expect("a hash");
            let at = usize::try_from(event.sequence - first).expect("within the page");
            for bytes in &page.events[..at] {
                hash = mayfly::audit::chain::hash(hash, bytes);
            }
            assert_eq!(event.previous_hash, hash.0, "{place}: {line}");
            assert_eq!(event.hash, mayfly::audit::chain::hash(hash, &page.events[at]).0, "{place}: {line}");
        }
        Item::Checkpoint(mark) => {
            let kept = ledger.checkpoints(mark.number - 1, 1).expect("reads");
            assert_eq!(kept, [*mark], "{place}: {line}");
        }
    }
}

async fn exported(admin: &mut pb::admin_client::AdminClient<tonic::transport::Channel>) -> Vec<String> {
    let mut items = admin.export_events(pb::ExportEventsRequest::default()).await.expect("exports").into_inner();
    let mut lines = Vec::new();
    while let Some(item) = items.message().await.expect("item") {
        lines.push(match item.item.expect("an item") {
            pb::export_events_response::Item::Event(event) => export::event_line(&event),
            pb::export_events_response::Item::Checkpoint(mark) => export::checkpoint_line(&mark),
        });
    }
    lines.into_iter().map(|line| line.expect("line")).collect()
}

/// Run at a release with `MAYFLY_KEEP=VERSION`, and `MAYFLY_PROGRAM` for another build than this one.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "makes the kept folders of a release"]
async fn keep() {
    let version = std::env::var("MAYFLY_KEEP").expect("MAYFLY_KEEP says the version");
    fs::create_dir_all(folder(&version)).expect("folder");
    for engine in ENGINES {
        let mut world = World::with(&["--engine", engine]).await;
        let asked = |tenant| pb::IssueRequest { ttl_seconds: 3_600, ..request(tenant, CredentialKind::Opaque) };
        let live = lease_of(&issue(&mut world.broker("alpha").await, asked("alpha")).await.expect("issued"));
        let revoked = lease_of(&issue(&mut world.broker("alpha").await, asked("alpha")).await.expect("issued"));
        let cut = lease_of(&issue(&mut world.broker("beta").await, asked("beta")).await.expect("issued"));
        let mut admin = world.admin().await;
        admin.revoke(revocation(lease_scope(&revoked.lease_id))).await.expect("revoked");
        admin.revoke(revocation(partner_scope("beta"))).await.expect("revoked");
        let audit = exported(&mut admin).await.join("\n") + "\n";
        let status = admin.get_status(pb::GetStatusRequest {}).await.expect("status").into_inner();
        assert!(world.process.stop().success());
        let facts = format!(
            "at={}\nlive={}\nrevoked={}\ncut={}\n",
            status.now.expect("now").seconds,
            live.lease_id,
            revoked.lease_id,
            cut.lease_id
        );
        fs::write(folder(&version).join(format!("{engine}.facts")), facts).expect("written");
        fs::write(folder(&version).join(format!("{engine}.jsonl")), audit).expect("written");
        let base = world.launch.folder.to_str().expect("a path");
        let to = folder(&version).join(format!("{engine}.tar.gz"));
        let arguments = ["-C", base, "--sparse", "--exclude=data/reserve", "--exclude=data/operator", "-czf"];
        let done = Command::new("tar").args(arguments).arg(to).arg("data").status().expect("tar");
        assert!(done.success());
    }
}
