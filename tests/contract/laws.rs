//! The laws of the contract, and of the comparison that enforces them.

use std::path::Path;

use prost_types::FileDescriptorSet;

use super::compare::{breaks, promises};

fn compiled(folder: &Path) -> FileDescriptorSet {
    let names = ["types", "broker", "verifier", "admin"].map(|name| format!("mayfly/v1/{name}.proto"));
    protox::compile(names, [folder]).unwrap()
}

fn present() -> FileDescriptorSet {
    compiled(&Path::new(env!("CARGO_MANIFEST_DIR")).join("proto"))
}

/// A contract of one file, to be edited.
fn one_file(edit: impl Fn(&str) -> String) -> FileDescriptorSet {
    let text = "syntax = \"proto3\";\npackage mayfly.v1;\n\
        enum Kind { KIND_UNSPECIFIED = 0; KIND_JWT = 1; }\n\
        message Ask { string name = 1; repeated uint32 sizes = 2; oneof what { string a = 3; bytes b = 4; } }\n\
        message Tell { Kind kind = 1; message Part { bool good = 1; } Part part = 2; }\n\
        service Desk { rpc Query(Ask) returns (Tell); rpc Watch(Ask) returns (stream Tell); }\n";
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("one.proto"), edit(text)).unwrap();
    protox::compile(["one.proto"], [folder.path()]).unwrap()
}

fn edited(from: &str, to: &str) -> Vec<String> {
    breaks(
        &one_file(str::to_owned),
        &one_file(|text| {
            assert!(text.contains(from), "the edit matches nothing: {from}");
            text.replace(from, to)
        }),
    )
}

#[test]
fn the_contract_keeps_every_promise_of_its_baseline() {
    let baseline = compiled(&Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/baseline"));
    let broken = breaks(&baseline, &present());
    assert!(broken.is_empty(), "clients break:\n{}", broken.join("\n"));
}

#[test]
fn the_comparison_sees_the_whole_contract() {
    let promises = promises(&present());
    for place in ["service Broker rpc Issue", "service Verifier rpc Introspect", "service Admin rpc Revoke"] {
        assert!(promises.contains_key(place), "{place}");
    }
    let scope = &promises["message mayfly.v1.RevokeRequest field 1"];
    assert_eq!(scope, "LABEL_OPTIONAL TYPE_MESSAGE .mayfly.v1.Scope scope");
    assert!(promises["service Admin rpc Apply"].starts_with("(stream "));
    assert!(promises.contains_key("enum mayfly.v1.RotateKeysRequest.Step value 4"));
}

#[test]
fn adding_breaks_nothing() {
    assert_eq!(edited("string name = 1;", "string name = 1; bool more = 9;"), Vec::<String>::new());
    assert_eq!(edited("KIND_JWT = 1;", "KIND_JWT = 1; KIND_X509 = 2;"), Vec::<String>::new());
    assert_eq!(edited("rpc Query", "rpc Other(Ask) returns (Tell); rpc Query"), Vec::<String>::new());
    assert_eq!(edited("string a = 3;", "string a = 3; string c = 5;"), Vec::<String>::new());
}

#[test]
fn a_breaking_change_is_caught_and_located() {
    let cases = [
        ("string name = 1; ", "", "message mayfly.v1.Ask field 1"),
        ("string name = 1;", "string title = 1;", "message mayfly.v1.Ask field 1"),
        ("string name = 1;", "bytes name = 1;", "message mayfly.v1.Ask field 1"),
        ("string name = 1;", "string name = 7;", "message mayfly.v1.Ask field 1"),
        ("repeated uint32 sizes", "uint32 sizes", "message mayfly.v1.Ask field 2"),
        ("oneof what { string a = 3; bytes b = 4; }", "oneof what { string a = 3; } bytes b = 4;", "Ask field 4"),
        ("KIND_JWT = 1;", "KIND_TOKEN = 1;", "enum mayfly.v1.Kind value 1"),
        ("KIND_JWT = 1;", "", "enum mayfly.v1.Kind value 1"),
        ("bool good = 1;", "string good = 1;", "message mayfly.v1.Tell.Part field 1"),
        ("rpc Query(Ask) returns (Tell);", "", "service Desk rpc Query"),
        ("rpc Query(Ask)", "rpc Query(Tell)", "service Desk rpc Query"),
        ("returns (stream Tell)", "returns (Tell)", "service Desk rpc Watch"),
        ("service Desk", "service Table", "service Desk"),
    ];
    for (from, to, place) in cases {
        let broken = edited(from, to);
        assert!(broken.iter().any(|line| line.contains(place)), "{from} -> {to}: {broken:?}");
    }
}
