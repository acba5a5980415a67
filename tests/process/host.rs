//! What is done on the host: a folder made for production, its locks and keys, and the way back in.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use mayfly::pb;
use tempfile::TempDir;

use super::{
    rig::{Launch, Said, arg, mayfly},
    world::{World, revocation},
};
use crate::support::{Authority, Identity};

/// A folder that `mayfly init` made, on ports of its own.
pub struct Founded {
    pub launch: Launch,
    pub said: String,
    pub folder: TempDir,
}

impl Founded {
    pub fn new(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let data = folder.path().join("data");
        let said = mayfly(&[&["init", "--data", arg(&data)], arguments].concat());
        assert_eq!(said.code, 0, "{said:?}");
        let config = folder.path().join("data.toml");
        let launch =
            Launch { folder: folder.path().into(), arguments: Vec::new(), config: Some(config.clone()), program: None };
        let text = fs::read_to_string(&config).expect("a configuration");
        let text = text.replace("address = \"127.0.0.1:7443\"", "address = \"127.0.0.1:0\"");
        let text = text.replace("#address = \"127.0.0.1:7444\"", "address = \"127.0.0.1:0\"");
        fs::write(config, text).expect("written");
        Self { launch, said: said.out, folder }
    }

    pub fn config(&self) -> &Path {
        self.launch.config.as_deref().expect("set")
    }

    pub fn operator(&self) -> PathBuf {
        self.launch.data().join("operator")
    }

    fn seal_key(&self) -> PathBuf {
        self.folder.path().join("data.seal.key")
    }

    /// Why it does not serve.
    pub fn refusal(&self) -> String {
        let refused = self.launch.start().err().expect("refused");
        assert!(!refused.status.success());
        refused.stderr
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("is there").permissions().mode() & 0o777
}

#[test]
fn a_folder_that_init_made_serves_and_its_operator_may_act() {
    let founded = Founded::new(&[]);
    assert!(founded.said.contains(arg(&founded.operator())), "{}", founded.said);
    let modes = [founded.seal_key(), founded.launch.data(), founded.operator().join("key.pem")].map(|path| mode(&path));
    assert_eq!(modes, [0o600, 0o700, 0o600]);
    let again = mayfly(&["init", "--data", arg(&founded.launch.data())]);
    assert!(again.code != 0 && again.errors.contains("not empty"), "{again:?}");

    let mut process = founded.launch.start().expect("serves");
    let status = process.ask(&founded.operator(), &["--output", "json", "status"]);
    assert_eq!(status.code, 0, "{status:?}");
    let listed = process.ask(&founded.operator(), &["operator", "list"]);
    assert!(listed.code == 0 && listed.out.contains("admin"), "{listed:?}");
    assert!(founded.refusal().contains("in use by another"));
    assert_eq!(process.ask(&founded.operator(), &["status"]).code, 0, "the first one still serves");
    assert!(process.stop().success());
}

#[test]
fn a_readable_and_a_wrong_seal_key_are_refused_and_the_right_one_serves_again() {
    let (founded, other) = (Founded::new(&[]), Founded::new(&[]));
    let key = founded.seal_key();
    let right = fs::read(&key).expect("the key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).expect("mode");
    let said = founded.refusal();
    assert!(said.contains("data.seal.key") && said.contains("600"), "{said}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("mode");
    fs::write(&key, fs::read(other.seal_key()).expect("another key")).expect("written");
    assert!(founded.refusal().contains("not the one that this data folder was made with"));
    let config = arg(founded.config());
    let checked = mayfly(&["store", "check", "--config", config]);
    assert!(checked.code == 2 && checked.errors.contains("seal"), "a check calls every row damaged: {checked:?}");
    let out = founded.folder.path().join("stolen");
    let recovered = mayfly(&["operator", "recover", "admin", "--config", config, "--out", arg(&out)]);
    assert!(recovered.code != 0 && !out.exists(), "{recovered:?}");
    fs::write(&key, right).expect("written");
    let process = founded.launch.start().expect("serves");
    assert_eq!(process.ask(&founded.operator(), &["status"]).code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_operator_is_recovered_on_the_host_only_and_everybody_can_see_it() {
    let mut world = World::new().await;
    let (data, out) = (world.launch.data(), world.launch.folder.join("new"));
    let recover =
        |out: &Path| -> Said { mayfly(&["operator", "recover", "admin", "--dev-data", arg(&data), "--out", arg(out)]) };
    let busy = recover(&out);
    assert!(busy.code == 2 && busy.errors.contains("in use"), "{busy:?}");
    assert!(world.process.stop().success());
    let nowhere = world.launch.folder.join("nowhere");
    let missing = mayfly(&["operator", "recover", "admin", "--dev-data", arg(&nowhere), "--out", arg(&out)]);
    assert!(missing.code == 2 && !nowhere.exists(), "{missing:?}");
    let done = recover(&out);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(mode(&out.join("key.pem")), 0o600);
    assert_ne!(recover(&out).code, 0, "a key was overwritten");

    world.restart().await;
    let events = world.process.ask(&out, &["--output", "json", "events", "list", "--kind", "operator.recovered"]);
    assert_eq!(events.code, 0, "{events:?}");
    let told = events.out.lines().filter(|line| line.contains("operator=admin")).count();
    assert!(told >= 2, "founding and recovery: {}", events.out);
    // As the audit's documentation says: the old one stays good until it is revoked.
    let old = Identity::read(&data.join("operator")).expect("operator");
    assert_eq!(world.process.ask(&data.join("operator"), &["status"]).code, 0);
    let scope = pb::Scope { kind: pb::ScopeKind::Proof.into(), proof_sha256: old.sha256(), ..Default::default() };
    let fresh = world.channel(Some(&Identity::read(&out).expect("recovered"))).await;
    pb::admin_client::AdminClient::new(fresh).revoke(revocation(scope)).await.expect("revoked");
    assert_eq!(world.process.ask(&data.join("operator"), &["status"]).code, 1);
    assert_eq!(world.process.ask(&out, &["status"]).code, 0);
}

#[test]
fn what_is_looked_after_is_never_made() {
    let (folder, authority) = (tempfile::tempdir().expect("folder"), Authority::new("platform").expect("authority"));
    let founded = Founded::new(&[]);
    let text = fs::read_to_string(founded.config()).expect("a configuration");
    let data = folder.path().join("elsewhere");
    let text = text.replace(&format!("\"{}\"", arg(&founded.launch.data())), &format!("\"{}\"", arg(&data)));
    let config = folder.path().join("wrong.toml");
    fs::write(&config, text).expect("written");
    let (config, chain) = (arg(&config), folder.path().join("chain.pem"));
    fs::write(&chain, &authority.pem).expect("written");
    let commands: [&[&str]; 3] = [
        &["store", "check", "--config", config],
        &["operator", "recover", "admin", "--config", config, "--out", "/dev/null/none"],
        &["adopt-root", "--config", config, "--chain", arg(&chain)],
    ];
    for command in commands {
        let said = mayfly(command);
        assert!(said.code == 2 && said.errors.contains("holds no store"), "{command:?}: {said:?}");
        assert!(!data.exists(), "{command:?} made a store");
    }
}
