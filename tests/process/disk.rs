//! A full disk under the whole daemon: it begins nothing, still ends, and loses nothing.

use std::{path::Path, process::Command};

use mayfly::pb::{self, CredentialKind};

use super::{
    rig::{reason, until},
    world::{World, is_active, issue, lease_of, lease_scope, request, revocation},
};

/// A small file system of its own, gone when dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    /// `None` where mounting is not allowed.
    fn new(megabytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().expect("folder");
        let size = format!("size={megabytes}m");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        mount.is_ok_and(|done| done.status.success()).then_some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all that is left, until removed.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.path().join("filler")).expect("a file");
        while std::io::Write::write_all(&mut file, &[0; 4_096]).is_ok() {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.path().join("filler")).expect("removed");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_begins_nothing_still_ends_and_loses_nothing() {
    let Some(disk) = Disk::new(96) else {
        eprintln!("skipped: this user may not mount a file system");
        return;
    };
    let mut world = World::at(disk.path()).await;
    let (mut broker, mut verifier) = (world.broker("alpha").await, world.verifier("alpha").await);
    let mut obtained = Vec::new();
    for _ in 0..3 {
        obtained.push(issue(&mut broker, request("alpha", CredentialKind::Opaque)).await.expect("issued"));
    }
    disk.fill();
    let mut refused = String::new();
    for _ in 0..ISSUES_MOST {
        match issue(&mut broker, request("alpha", CredentialKind::Opaque)).await {
            Ok(reply) => obtained.push(reply),
            Err(status) => {
                refused = reason(&Err::<(), _>(status));
                break;
            }
        }
    }
    assert!(["ISSUING_HELD", "UNAVAILABLE"].contains(&refused.as_str()), "`{refused}` after {}", obtained.len());
    let revoked = obtained.remove(0);
    let end = revocation(lease_scope(&lease_of(&revoked).lease_id));
    world.admin().await.revoke(end).await.expect("ends on a full disk");
    assert!(!is_active(&mut verifier, &revoked).await);
    assert!(is_active(&mut verifier, &obtained[0]).await, "what lives is still checked");
    world.process.kill();

    disk.make_room();
    world.restart().await;
    let mut verifier = world.verifier("alpha").await;
    assert!(!is_active(&mut verifier, &revoked).await, "the revocation is lost");
    for reply in &obtained {
        assert!(is_active(&mut verifier, reply).await, "lost {:?}", reply.lease);
    }
    let mut broker = world.broker("alpha").await;
    until("room again", || {
        let mut broker = broker.clone();
        async move { issue(&mut broker, request("alpha", CredentialKind::Opaque)).await.ok() }
    })
    .await;
    let open = pb::ReleaseRequest { lease_id: lease_of(&obtained[0]).lease_id };
    broker.release(open).await.expect("released");
}

/// More than fit into what the store keeps ready.
const ISSUES_MOST: usize = 20_000;
