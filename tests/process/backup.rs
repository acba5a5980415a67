//! Backups taken under load, restores, and data folders that were put back.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use mayfly::pb::{self, ConfirmStoreRequest, CredentialKind, GetStatusRequest, admin_client::AdminClient};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::{
    rig::{Launch, reason, until},
    world::{World, is_active, issue, lease_of, lease_scope, partner_scope, request, revocation},
};

const ENGINES: [&str; 2] = ["fjall", "sled"];

/// Runs the command line.
fn mayfly(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mayfly")).args(arguments).stdin(Stdio::null()).output().expect("runs")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Makes a backup with the command line, as the first operator.
fn back_up(world: &World, out: &Path) -> Output {
    let server = format!("https://{}", world.process.address);
    let identity = world.launch.data().join("operator");
    mayfly(&["--server", &server, "--identity", text(&identity), "backup", "create", "--out", text(out)])
}

/// A restore with no proof of what followed the backup, unless `more` says where the anchor is.
pub fn restore(world: &World, backup: &Path, to: &Path, engine: &str, more: &[&str]) -> Output {
    let key = world.launch.data().join("seal.key");
    let arguments = ["restore", text(backup), "--data", text(to), "--seal-key", text(&key), "--engine", engine];
    let accepting: &[&str] = if more.contains(&"--anchor") { &[] } else { &["--accept-unproven"] };
    mayfly(&[&arguments[..], more, accepting].concat())
}

pub fn backup_of(world: &World) -> PathBuf {
    let file = world.launch.folder.join("a.backup");
    let made = back_up(world, &file);
    assert!(made.status.success(), "{}", said(&made));
    file
}

async fn status(admin: &mut AdminClient<Channel>) -> pb::GetStatusResponse {
    admin.get_status(GetStatusRequest {}).await.expect("status").into_inner()
}

pub async fn confirm(world: &World) {
    let mut admin = world.admin().await;
    let incarnation = status(&mut admin).await.revision.expect("revision").incarnation;
    let wrong = ConfirmStoreRequest { incarnation: incarnation ^ 1, reason: "test".into() };
    assert_eq!(reason(&admin.confirm_store(wrong).await), "INVALID_FIELD");
    let right = ConfirmStoreRequest { incarnation, reason: "test".into() };
    assert!(admin.confirm_store(right).await.expect("confirmed").into_inner().changed);
}

/// Serves another data folder with the same callers.
pub async fn serve(world: &mut World, folder: &Path) {
    if folder != world.launch.folder {
        fs::create_dir_all(folder).expect("folder");
        world.launch = Launch { folder: folder.to_owned(), ..world.launch.clone() };
    }
    world.restart().await;
}

/// A copy of a data folder whose daemon does not run.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").args(["-a", text(from), text(to)]).status().expect("cp");
    assert!(copied.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_taken_under_load_restores_elsewhere_and_everything_older_is_inactive() {
    for engine in ENGINES {
        let mut world = World::with(&["--engine", engine]).await;
        let mut broker = world.broker("alpha").await;
        let old = issue(&mut broker, request("alpha", CredentialKind::Opaque)).await.expect("issued");
        let mut load = JoinSet::new();
        for _ in 0..8 {
            let mut broker = world.broker("alpha").await;
            load.spawn(async move { while issue(&mut broker, request("alpha", CredentialKind::Jwt)).await.is_ok() {} });
        }
        until("some load", || async { (world.live().await > 40).then_some(()) }).await;
        let file = backup_of(&world);
        let counted = world.live().await;
        let cut = world.admin().await.revoke(revocation(partner_scope("beta"))).await.expect("revoked").into_inner();
        let incarnation = cut.revision.expect("revision").incarnation;
        world.process.kill();
        while load.join_next().await.is_some() {}

        let key = world.launch.data().join("seal.key");
        let verified = mayfly(&["backup", "verify", text(&file), "--seal-key", text(&key)]);
        assert!(verified.status.success(), "{}", said(&verified));
        assert!(said(&verified).contains("leases"), "{}", said(&verified));
        let elsewhere = world.launch.folder.join("elsewhere");
        fs::create_dir(&elsewhere).expect("folder");
        let restored = restore(&world, &file, &elsewhere.join("data"), engine, &[]);
        assert!(restored.status.success(), "{}", said(&restored));
        serve(&mut world, &elsewhere).await;

        let mut admin = world.admin().await;
        let now = status(&mut admin).await;
        assert_eq!(now.held, "restored", "{engine}");
        assert_ne!(now.revision.expect("revision").incarnation, incarnation);
        assert!(counted > 0 && !is_active(&mut world.verifier("alpha").await, &old).await, "{engine}");
        let mut broker = world.broker("alpha").await;
        let held = issue(&mut broker, request("alpha", CredentialKind::Opaque)).await;
        assert_eq!(reason(&held), "ISSUING_HELD");
        // A restart lifts nothing; an operator does.
        world.process.kill();
        world.restart().await;
        assert_eq!(status(&mut world.admin().await).await.held, "restored");
        confirm(&world).await;
        let fresh = issue(&mut world.broker("alpha").await, request("alpha", CredentialKind::Opaque)).await;
        let (fresh, mut verifier) = (fresh.expect("issued"), world.verifier("alpha").await);
        assert!(is_active(&mut verifier, &fresh).await && !is_active(&mut verifier, &old).await, "{engine}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_barred_after_the_backup_is_barred_again_from_the_shipped_audit() {
    let world = World::new().await;
    let file = backup_of(&world);
    world.admin().await.revoke(revocation(partner_scope("alpha"))).await.expect("revoked");
    let events = world.launch.folder.join("audit.jsonl");
    let mut lines = String::new();
    let mut export = world.admin().await.export_events(pb::ExportEventsRequest::default()).await.expect("exports");
    while let Some(item) = export.get_mut().message().await.expect("item") {
        if let Some(pb::export_events_response::Item::Event(event)) = item.item {
            lines.push_str(&mayfly::audit::export::event_line(&event).expect("line"));
            lines.push('\n');
        }
    }
    // A file without the very event that matters is used as far as it goes, and found out.
    let cut: Vec<_> = lines.lines().filter(|line| !line.contains("scope.revoked")).collect();
    fs::write(&events, cut.join("\n") + "\n").expect("written");
    let doubted = restore(&world, &file, &world.launch.folder.join("cut"), "fjall", &["--events", text(&events)]);
    assert!(doubted.status.success() && !said(&doubted).contains("barred again"), "{}", said(&doubted));
    assert!(said(&doubted).contains("not proven: "), "{}", said(&doubted));
    fs::write(&events, lines + "{\"type\":\"event\",\"cut").expect("written");
    let elsewhere = world.launch.folder.join("elsewhere");
    fs::create_dir(&elsewhere).expect("folder");
    let restored = restore(&world, &file, &elsewhere.join("data"), "fjall", &["--events", text(&events)]);
    assert!(restored.status.success(), "{}", said(&restored));
    assert!(said(&restored).contains("barred again: partner courier in tenant alpha"), "{}", said(&restored));
    let mut world = world;
    world.process.kill();
    serve(&mut world, &elsewhere).await;
    confirm(&world).await;
    let barred = issue(&mut world.broker("alpha").await, request("alpha", CredentialKind::Opaque)).await;
    assert_eq!(reason(&barred), "BARRED");
    issue(&mut world.broker("beta").await, request("beta", CredentialKind::Opaque)).await.expect("issued");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_writes_nothing_until_the_audit_reaches_the_anchor_or_that_is_given_up() {
    let mut world = World::new().await;
    let file = backup_of(&world);
    world.admin().await.revoke(revocation(partner_scope("alpha"))).await.expect("revoked");
    issue(&mut world.broker("beta").await, request("beta", CredentialKind::Opaque)).await.expect("issued");
    world.process.kill();
    let events = world.launch.folder.join("audit.jsonl");
    let operator = world.launch.data().join("operator");
    let anchor = world.launch.data().join("anchor");
    let (to, anchor) = (world.launch.folder.join("new"), text(&anchor).to_owned());
    let with = |world: &World, lines: &str, more: &[&str]| {
        fs::write(&events, lines).expect("written");
        restore(world, &file, &to, "fjall", &[&["--anchor", &*anchor], more].concat())
    };
    // What the sink would have: the store itself says. What upkeep writes after the export is in the next one.
    let mut tries = 0;
    let (whole, proven) = loop {
        world.restart().await;
        let exported = world.process.ask(&operator, &["events", "export", "--out", text(&events)]);
        assert_eq!(exported.code, 0, "{exported:?}");
        assert!(world.process.stop().success());
        let whole = fs::read_to_string(&events).expect("file");
        let proven = with(&world, &whole, &["--events", text(&events)]);
        tries += 1;
        if proven.status.success() || tries == 5 {
            break (whole, proven);
        }
        fs::remove_file(&events).expect("removed");
    };
    assert!(proven.status.success() && said(&proven).contains("proven: nothing is missing"), "{}", said(&proven));
    assert!(said(&proven).contains("barred again: partner courier in tenant alpha"), "{}", said(&proven));
    fs::remove_dir_all(&to).expect("removed");
    let cut: Vec<_> = whole.lines().filter(|line| !line.contains("scope.revoked")).collect();
    let end: Vec<_> = whole.lines().filter(|line| !line.contains("lease.issued")).collect();
    for (lines, what) in [(cut.join("\n") + "\n", "the revocation"), (end.join("\n") + "\n", "the last of a stream")] {
        let refused = with(&world, &lines, &["--events", text(&events)]);
        assert_eq!(refused.status.code(), Some(4), "{what}: {}", said(&refused));
        assert!(said(&refused).contains("nothing was written") && !to.exists(), "{what}: {}", said(&refused));
    }
    // As a crash leaves it just before the anchor is replaced: the folder is whole, and the daemon over it is held.
    let again = with(&world, &whole, &["--events", text(&events)]);
    assert!(again.status.success(), "{}", said(&again));
    fs::copy(&anchor, to.join("anchor")).expect("put back");
    let crashed = Launch { folder: world.launch.folder.join("crashed"), ..world.launch.clone() };
    fs::create_dir(&crashed.folder).expect("folder");
    fs::rename(&to, crashed.data()).expect("moved");
    world.process = crashed.start().unwrap_or_else(|refused| panic!("{}", refused.stderr));
    let held = world.process.ask(&operator, &["status"]);
    assert!(held.out.contains("older than its anchor"), "{held:?}");
    assert!(world.process.stop().success());
    let none = with(&world, &whole, &[]);
    assert_eq!(none.status.code(), Some(4), "no events at all: {}", said(&none));
    let gone = restore(&world, &file, &to, "fjall", &["--anchor", "/nowhere/anchor"]);
    assert_eq!(gone.status.code(), Some(2), "{}", said(&gone));
    assert!(!to.exists());
    let accepted = with(&world, &whole, &["--accept-unproven"]);
    assert!(accepted.status.success() && said(&accepted).contains("not proven: "), "{}", said(&accepted));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_cut_off_or_foreign_backup_is_refused_with_nothing_written() {
    let world = World::new().await;
    let file = backup_of(&world);
    let whole = fs::read(&file).expect("file");
    let (bad, to) = (world.launch.folder.join("bad.backup"), world.launch.folder.join("nothing"));
    // Every bit and length of a small one is tried where the form is; here a few on the way through all of it.
    for at in (0..whole.len()).step_by(whole.len() / 9) {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        for defect in [&changed[..], &whole[..at]] {
            fs::write(&bad, defect).expect("written");
            let refused = restore(&world, &bad, &to, "fjall", &[]);
            assert_eq!(refused.status.code(), Some(4), "byte {at}: {}", said(&refused));
            assert!(!to.exists(), "byte {at}");
        }
    }
    let other = World::new().await;
    let refused = restore(&other, &file, &to, "fjall", &[]);
    assert_eq!(refused.status.code(), Some(4), "another seal key: {}", said(&refused));
    assert!(!to.exists());
    // Nor over anything.
    fs::create_dir(&to).expect("folder");
    fs::write(to.join("mine"), b"mine").expect("written");
    let refused = restore(&world, &file, &to, "fjall", &[]);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert_eq!(fs::read_dir(&to).expect("folder").count(), 1);
    // Nor is a backup written over another.
    assert!(!back_up(&world, &file).status.success());
    assert_eq!(fs::read(&file).expect("file"), whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_during_a_backup_leaves_the_daemon_and_the_backup_before_intact() {
    let mut world = World::new().await;
    let reply =
        issue(&mut world.broker("alpha").await, request("alpha", CredentialKind::Opaque)).await.expect("issued");
    let file = backup_of(&world);
    let whole = fs::read(&file).expect("file");
    let mut second = world.admin().await.create_backup(pb::CreateBackupRequest {}).await.expect("begins").into_inner();
    assert!(!second.message().await.expect("a piece").expect("a piece").data.is_empty());
    world.process.kill();
    world.restart().await;
    assert_eq!(status(&mut world.admin().await).await.held, "");
    assert!(is_active(&mut world.verifier("alpha").await, &reply).await);
    assert_eq!(fs::read(&file).expect("file"), whole);
    let key = world.launch.data().join("seal.key");
    assert!(mayfly(&["backup", "verify", text(&file), "--seal-key", text(&key)]).status.success());
    // Whoever goes away in the middle keeps nobody from the next one.
    drop(world.admin().await.create_backup(pb::CreateBackupRequest {}).await.expect("begins"));
    let again = world.launch.folder.join("again.backup");
    until("room for a backup", || async { back_up(&world, &again).status.success().then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_goes_through_no_link_and_a_restored_folder_is_its_owners_alone() {
    let world = World::new().await;
    let (out, victim) = (world.launch.folder.join("b.backup"), world.launch.folder.join("victim"));
    fs::write(&victim, b"mine").expect("written");
    let planted = world.launch.folder.join("b.backup.partial");
    std::os::unix::fs::symlink(&victim, &planted).expect("linked");
    let refused = back_up(&world, &out);
    assert!(!refused.status.success() && !out.exists(), "{}", said(&refused));
    assert!(planted.is_symlink() && said(&refused).contains("b.backup.partial"), "{}", said(&refused));
    assert_eq!(fs::read(&victim).expect("file"), b"mine");

    let file = backup_of(&world);
    let mode = |path: &Path| fs::metadata(path).expect("is there").permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    let open = world.launch.folder.join("open");
    fs::create_dir(&open).expect("folder");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).expect("opened");
    let restored = restore(&world, &file, &open, "fjall", &[]);
    assert!(restored.status.success(), "{}", said(&restored));
    assert_eq!((mode(&open), mode(&open.join("seal.key"))), (0o700, 0o600));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_admin_of_everything_takes_backups_and_confirms() {
    let world = World::new().await;
    let mut operator = world.operator("op-alpha").await;
    assert_eq!(reason(&operator.create_backup(pb::CreateBackupRequest {}).await), "NOT_ALLOWED");
    let request = ConfirmStoreRequest { incarnation: 1, reason: "test".into() };
    assert_eq!(reason(&operator.confirm_store(request).await), "NOT_ALLOWED");
}

/// Tries to kill a restore in the middle.
const RESTORES: usize = 50;

/// Restores into a new folder and kills the program as soon as it has begun; false when it was done before.
fn is_killed_in_the_middle(backup: &Path, key: &Path, folder: &Path) -> bool {
    fs::create_dir(folder).expect("folder");
    let data = folder.join("data");
    let mut restore = Command::new(env!("CARGO_BIN_EXE_mayfly"))
        .args(["restore", text(backup), "--data", text(&data), "--seal-key", text(key), "--accept-unproven"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("runs");
    // It takes milliseconds: looked at without a pause.
    while !data.join("restoring").exists() && restore.try_wait().expect("asked").is_none() {}
    restore.kill().expect("a process of ours");
    restore.wait().expect("gone");
    data.join("restoring").exists()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_restored_folder_does_not_start() {
    let mut world = World::new().await;
    let file = backup_of(&world);
    let key = world.launch.data().join("seal.key");
    let mut folders = (0..RESTORES).map(|at| world.launch.folder.join(format!("elsewhere-{at}")));
    let elsewhere = folders.find(|folder| is_killed_in_the_middle(&file, &key, folder));
    let elsewhere = elsewhere.expect("one of them was slow enough");
    let data = elsewhere.join("data");
    world.process.kill();
    fs::copy(&key, data.join("seal.key")).expect("copied");
    let launch = Launch { folder: elsewhere, ..world.launch.clone() };
    let refused = launch.start().err().expect("refused");
    assert!(refused.stderr.contains("half restored"), "{}", refused.stderr);
    world.restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_that_was_put_back_is_noticed_and_held() {
    let mut world = World::configured("").await;
    let old = issue(&mut world.broker("alpha").await, request("alpha", CredentialKind::Opaque)).await.expect("issued");
    assert!(world.process.stop().success());
    let (data, kept) = (world.launch.data(), world.launch.folder.join("kept"));
    copy(&data, &kept);
    world.restart().await;
    let incarnation = status(&mut world.admin().await).await.revision.expect("revision").incarnation;
    let lease_id = lease_of(&old).lease_id;
    world.admin().await.revoke(revocation(lease_scope(&lease_id))).await.expect("revoked");
    world.process.kill();
    fs::remove_dir_all(&data).expect("removed");
    copy(&kept, &data);
    world.restart().await;
    let now = status(&mut world.admin().await).await;
    assert_eq!(now.held, "older than its anchor");
    assert_ne!(now.revision.expect("revision").incarnation, incarnation);
    assert!(!is_active(&mut world.verifier("alpha").await, &old).await, "a revoked lease lives again");
    let held = issue(&mut world.broker("alpha").await, request("alpha", CredentialKind::Opaque)).await;
    assert_eq!(reason(&held), "ISSUING_HELD");
    confirm(&world).await;
    issue(&mut world.broker("alpha").await, request("alpha", CredentialKind::Opaque)).await.expect("issued");
    assert!(!is_active(&mut world.verifier("alpha").await, &old).await);

    // A lost anchor holds as well, and says how to mend it.
    assert!(world.process.stop().success());
    fs::remove_file(world.anchor()).expect("removed");
    world.restart().await;
    assert_eq!(status(&mut world.admin().await).await.held, "anchor lost");
    assert!(world.process.log().contains("mayfly confirm store"), "{}", world.process.log());
    confirm(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_moment_neither_loses_an_acknowledged_end_nor_holds() {
    let mut world = World::configured("").await;
    let mut all = 0;
    for round in 0..5 {
        let mut ends = JoinSet::new();
        for _ in 0..8 {
            let (mut broker, mut admin) = (world.broker("alpha").await, world.admin().await);
            ends.spawn(async move {
                let mut acknowledged = Vec::new();
                while let Ok(reply) = issue(&mut broker, request("alpha", CredentialKind::Opaque)).await {
                    if admin.revoke(revocation(lease_scope(&lease_of(&reply).lease_id))).await.is_err() {
                        break;
                    }
                    acknowledged.push(reply);
                }
                acknowledged
            });
        }
        let before = status(&mut world.admin().await).await.revision.expect("revision").number;
        let mut admin = world.admin().await;
        for _ in 0..200 {
            if status(&mut admin).await.revision.expect("revision").number > before + 60 + round * 7 {
                break;
            }
            tokio::task::yield_now().await;
        }
        world.process.kill();
        let acknowledged: Vec<_> = ends.join_all().await.concat();
        all += acknowledged.len();
        world.restart().await;
        assert_eq!(status(&mut world.admin().await).await.held, "", "round {round}");
        let mut verifier = world.verifier("alpha").await;
        for reply in &acknowledged {
            assert!(!is_active(&mut verifier, reply).await, "round {round}: an acknowledged end was lost");
        }
    }
    assert!(all > 50, "only {all} ends were acknowledged");
}
