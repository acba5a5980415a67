//! What a release is said to be made of.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

/// The SBOM of a build with these features, twice.
fn sbom(features: &[&str]) -> Option<(Value, bool)> {
    let write = || {
        let mut command = Command::new("python3");
        command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("scripts/sbom").args(features);
        // Crates are fetched when tests run.
        command.env("CARGO_NET_OFFLINE", "true").output().expect("runs")
    };
    let has = Command::new("python3").args(["-c", "import tomllib"]).output().is_ok_and(|done| done.status.success());
    if !has {
        eprintln!("skipped: there is no Python 3.11");
        return None;
    }
    let (first, again) = (write(), write());
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    Some((serde_json::from_slice(&first.stdout).expect("JSON"), first.stdout == again.stdout))
}

#[test]
fn what_the_client_is_made_of_is_told_to_the_last_crate() {
    let Some((document, is_same)) = sbom(&["--no-default-features", "--features", "cli"]) else { return };
    assert!(is_same, "another document of the same commit");
    assert_eq!((&document["bomFormat"], &document["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    let components = document["components"].as_array().expect("a list");
    let mut known = BTreeSet::from([document["metadata"]["component"]["bom-ref"].as_str().expect("ours")]);
    for component in components {
        let text = |name: &str| component[name].as_str().expect("a text");
        assert_eq!(text("purl"), format!("pkg:cargo/{}@{}", text("name"), text("version")));
        assert!(known.insert(text("bom-ref")), "twice: {component}");
        let digest = component["hashes"][0]["content"].as_str().expect("a digest");
        assert!(digest.len() == 64 && component["licenses"][0]["expression"].is_string(), "{component}");
    }
    let edges = document["dependencies"].as_array().expect("a list");
    for edge in edges {
        let on = edge["dependsOn"].as_array().expect("a list").iter();
        for name in on.chain([&edge["ref"]]) {
            assert!(known.contains(name.as_str().expect("a reference")), "{name} is not described");
        }
    }
    assert_eq!(edges.len(), known.len());
    let scope = |name: &str| components.iter().find(|one| one["name"] == name).map(|one| one["scope"].clone());
    for linked in ["rustls", "ring", "tonic", "clap"] {
        assert_eq!(scope(linked), Some("required".into()), "{linked}");
    }
    for tool in ["tonic-prost-build", "serde_derive"] {
        assert_eq!(scope(tool), Some("excluded".into()), "{tool}");
    }
    // Of the daemon and of the tests.
    for absent in ["fjall", "axum", "cedar-policy", "proptest", "criterion"] {
        assert_eq!(scope(absent), None, "{absent}");
    }
}
