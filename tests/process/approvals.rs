//! Approvals through the real command line: asked for, agreed to, used by one task, and gone after a restore's like.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use mayfly::{
    client::pem,
    pb::{self, ApplyOptions, CredentialKind},
};
use serde_json::Value;

use super::{
    rig::{Said, arg, reason},
    world::{World, audience, is_active, issue, request},
};

/// A world whose tenant `alpha` needs two of three people for its grant, and what their certificates lie in.
struct Bed {
    world: World,
    folder: PathBuf,
}

impl Bed {
    async fn new() -> Self {
        let world = World::new().await;
        let people = ["anna", "bert", "cleo"]
            .map(|name| {
                format!(
                    "[[operator]]\nname = \"{name}\"\nrole = \"auditor\"\ntenants = [\"alpha\"]\npartners = \"all\"\n"
                )
            })
            .concat();
        let need = "task_max = 7200\napprovals = { needed = 2, by = [\"anna\", \"bert\", \"cleo\"] }";
        let trust = world.trust.replacen("task_max = 7200", need, 1) + &people;
        world.apply(&trust, ApplyOptions::default()).await.expect("applies");
        let folder = world.launch.folder.clone();
        let bed = Self { world, folder };
        for name in ["anna", "bert", "cleo"] {
            let out = bed.folder.join(name);
            let said =
                bed.run(&bed.world.launch.data().join("operator"), &["operator", "add", name, "--out", arg(&out)]);
            assert_eq!(said.code, 0, "{said:?}");
        }
        bed
    }

    fn run(&self, identity: &Path, arguments: &[&str]) -> Said {
        self.world.process.ask(identity, arguments)
    }

    /// A command of alpha's worker within a task, with a credential of the grant.
    fn exec(&self, more: &[&str]) -> Output {
        let folder = self.folder.join("worker");
        std::fs::create_dir_all(&folder).expect("a folder");
        let identity = self.world.identity("alpha/worker");
        for (name, text) in [
            ("cert.pem", pem::encode_chain(&identity.chain)),
            ("key.pem", pem::encode(pem::PRIVATE_KEY, identity.key.secret_der()).as_str().to_owned()),
            ("ca.pem", pem::encode_chain(&self.world.roots())),
        ] {
            std::fs::write(folder.join(name), text).expect("written");
            let private = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(folder.join(name), private).expect("chmod");
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_mayfly"));
        command.current_dir(&folder).arg("exec").arg("--identity").arg(&folder).env_remove("XDG_RUNTIME_DIR");
        command.arg("--server").arg(format!("https://{}", self.world.process.address));
        command.args(["--tenant", "alpha", "--partner", "courier", "--purpose", "report", "--wait", "5s"]);
        command.arg("--credential").arg(format!("audience={},action=read,kind=opaque,env=T", audience("alpha")));
        command.args(more).args(["--", "sh", "-c", "test -n \"$T\" && echo got"]);
        command.stdin(Stdio::null()).output().expect("the program starts")
    }

    fn person(&self, name: &str, arguments: &[&str]) -> Said {
        self.run(&self.folder.join(name), &[&["approval"], arguments].concat())
    }

    fn shown(&self, name: &str, arguments: &[&str]) -> Vec<Value> {
        let said = self.run(&self.folder.join(name), &[&["--output", "json", "approval"], arguments].concat());
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
        said.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_let_one_task_go_by_command_and_take_it_back() {
    let mut bed = Bed::new().await;
    let wanted = |approval: &str| pb::IssueRequest {
        approval_id: approval.into(),
        task_deadline_seconds: 3_600,
        ..request("alpha", CredentialKind::Opaque)
    };
    let mut broker = bed.world.broker("alpha").await;
    assert_eq!(reason(&issue(&mut broker, wanted("")).await), "APPROVAL_NEEDED");

    let asked = ["request", "--tenant", "alpha", "--grant", "report", "--purpose", "report", "--workload", "worker"];
    let asked = bed.shown("anna", &[&asked[..], &["--reason", "incident 4711"]].concat());
    let id = asked[0]["approval_id"].as_str().expect("an id").to_owned();
    assert_eq!((asked[0]["standing"].as_str(), asked[0]["asked_by"].as_str()), (Some("open"), Some("operator:anna")));
    let own = bed.person("anna", &["approve", &id]);
    assert!(own.code == 1 && own.errors.contains("NOT_ALLOWED"), "{own:?}");
    assert_eq!(bed.shown("bert", &["list", "--for-me"]).len(), 1);
    assert_eq!(bed.shown("anna", &["list", "--for-me"]).len(), 0);
    bed.shown("bert", &["approve", &id, "--reason", "seen it"]);
    assert_eq!(reason(&issue(&mut broker, wanted(&id)).await), "APPROVAL_PENDING");
    // What was agreed to outlasts the daemon.
    bed.world.process.kill();
    bed.world.restart().await;
    let granted = bed.shown("cleo", &["approve", &id]);
    assert_eq!((granted[0]["standing"].as_str(), granted[0]["agreed"].as_u64()), (Some("granted"), Some(2)));

    let mut broker = bed.world.broker("alpha").await;
    let reply = issue(&mut broker, wanted(&id)).await.expect("issued");
    assert!(is_active(&mut bed.world.verifier("alpha").await, &reply).await);
    assert_eq!(reason(&issue(&mut broker, wanted(&id)).await), "APPROVAL_OVER");
    let stranger = pb::IssueRequest { approval_id: id.clone(), ..request("beta", CredentialKind::Opaque) };
    assert_eq!(reason(&issue(&mut bed.world.broker("beta").await, stranger).await), "NOT_FOUND");

    let denied = bed.shown("bert", &["deny", &id, "--reason", "it was a drill"]);
    assert_eq!(denied[0]["standing"].as_str(), Some("denied"));
    assert!(!is_active(&mut bed.world.verifier("alpha").await, &reply).await, "its task goes with it");
    let without = bed.exec(&[]);
    let errors = String::from_utf8_lossy(&without.stderr).into_owned();
    assert!(without.status.code() == Some(125) && errors.contains("APPROVAL_NEEDED"), "{without:?}");
    let asked = ["request", "--tenant", "alpha", "--grant", "report", "--purpose", "report", "--workload", "worker"];
    let asked = bed.shown("anna", &[&asked[..], &["--reason", "incident 4712"]].concat());
    let id = asked[0]["approval_id"].as_str().expect("an id").to_owned();
    bed.shown("bert", &["approve", &id]);
    bed.shown("cleo", &["approve", &id]);
    let with = bed.exec(&["--approval", &id]);
    assert!(with.status.success() && with.stdout == b"got\n", "{with:?}");
    let again = bed.exec(&["--approval", &id]);
    assert_eq!(again.status.code(), Some(125), "good for one task: {again:?}");

    let events = bed.run(&bed.world.launch.data().join("operator"), &["events", "list", "--kind", "approval."]);
    for kind in ["approval.requested", "approval.approved", "approval.denied", "approval.refused"] {
        assert!(events.out.contains(kind), "{kind} in {events:?}");
    }
}
