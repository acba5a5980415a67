//! When the daemon starts, when it refuses to, and how it stops.

use std::{fs, os::unix::fs::PermissionsExt};

use mayfly::pb::CredentialKind;

use super::{
    rig::get_plain,
    world::{World, is_active, issue, launch, request},
};
use crate::support::Authority;

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_drains_and_a_new_start_knows_what_was_issued() {
    for engine in ["fjall", "sled"] {
        let mut world = World::with(&["--engine", engine]).await;
        let mut broker = world.broker("alpha").await;
        let reply = issue(&mut broker, request("alpha", CredentialKind::Opaque)).await.expect("issued");
        assert!(world.process.stop().success(), "{engine}: {}", world.process.log());
        world.restart().await;
        assert!(is_active(&mut world.verifier("alpha").await, &reply).await, "{engine}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_the_same_folder_is_refused() {
    let world = World::new().await;
    let refused = world.launch.start().err().expect("refused");
    assert!(!refused.status.success());
    let said = refused.stderr.to_lowercase();
    assert!(said.contains("another") || said.contains("in use") || said.contains("lock"), "{said}");
    assert_eq!(world.live().await, 0, "the first one still serves");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_or_readable_seal_key_is_refused_and_changes_nothing() {
    let mut world = World::new().await;
    let reply =
        issue(&mut world.broker("alpha").await, request("alpha", CredentialKind::Opaque)).await.expect("issued");
    assert!(world.process.stop().success());
    let file = world.launch.data().join("seal.key");
    let right = fs::read(&file).expect("the key");

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("mode");
    let refused = world.launch.start().err().expect("readable by all");
    assert!(!refused.status.success());
    assert!(refused.stderr.contains("seal.key"), "{}", refused.stderr);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("mode");

    // A key of the same shape, from another folder.
    let (folder, authority) = (tempfile::tempdir().expect("folder"), Authority::new("platform").expect("authority"));
    let other = launch(folder.path(), &authority, &[]);
    drop(other.start().expect("starts"));
    fs::write(&file, fs::read(other.data().join("seal.key")).expect("another key")).expect("written");
    let refused = world.launch.start().err().expect("the wrong key");
    assert!(!refused.status.success());
    assert!(refused.stderr.to_lowercase().contains("seal"), "{}", refused.stderr);

    fs::write(&file, right).expect("written");
    world.restart().await;
    assert!(is_active(&mut world.verifier("alpha").await, &reply).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_probes_say_when_it_serves() {
    let world = World::new().await;
    for path in ["/livez", "/readyz", "/metrics"] {
        let (head, body) = get_plain(world.process.metrics, path).await;
        assert!(head.starts_with("http/1.1 200"), "{path}: {head} {body}");
    }
    let (head, _) = get_plain(world.process.metrics, "/nothing").await;
    assert!(head.starts_with("http/1.1 404"), "{head}");
}
