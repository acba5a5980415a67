use crate::{
    identity::{Authority, Caller, CertificateProof, Proof, UnixProof},
    model::{Digest, Timestamp},
    policy::TenantTrust,
};

use super::{BASE, map, tenant};

fn certificate(authority: Authority, id: &str, dns: &str) -> Caller {
    Caller::for_test(Proof::Certificate(CertificateProof {
        key: Digest::default(),
        sha256: Digest::of(b"x"),
        authority,
        spiffe_id: Some(id.to_owned()),
        dns_names: vec![dns.to_owned()],
        serial: vec![1],
        not_after: Timestamp::from_seconds(u64::from(u32::MAX)),
    }))
}

fn unix(uid: u32, gid: u32) -> Caller {
    Caller::for_test(Proof::Unix(UnixProof { uid, gid, pid: None }))
}

fn trust() -> TenantTrust {
    let more = r#"
[[workload]]
tenant = "acme"
name = "foreign"
environment = "prod"
selectors = [{ spiffe_id = "spiffe://acme.test/ci", authority = "corp" }, { dns_name = "x.test", authority = "corp" }]
[[workload]]
tenant = "acme"
name = "stray"
environment = "prod"
selectors = [{ spiffe_id = "spiffe://other.test/ci" }, { unix_uid = 9, unix_gid = 1 }]
[[verifier]]
tenant = "acme"
name = "api"
audiences = ["https://api.test/*"]
selectors = [{ unix_uid = 11 }]
"#;
    tenant(&map(&format!("{BASE}{more}")), "acme")
}

#[test]
fn a_proof_selects_exactly_one_workload_or_none() {
    let trust = trust();
    let corp = || Authority::Foreign("corp".to_owned());
    let table = [
        (certificate(Authority::Own, "spiffe://acme.test/ci", "x.test"), Ok("ci")),
        (certificate(corp(), "spiffe://acme.test/ci", "x.test"), Ok("foreign")),
        (certificate(corp(), "spiffe://acme.test/no", "x.test"), Ok("foreign")),
        (
            certificate(Authority::Foreign("evil".to_owned()), "spiffe://acme.test/ci", "x.test"),
            Err("UNKNOWN_WORKLOAD"),
        ),
        (certificate(Authority::Own, "spiffe://acme.test/c", "x.test"), Err("UNKNOWN_WORKLOAD")),
        (certificate(Authority::Own, "spiffe://other.test/ci", "x.test"), Err("UNKNOWN_WORKLOAD")),
        (unix(7, 0), Ok("lab")),
        (unix(9, 1), Ok("stray")),
        (unix(9, 2), Err("UNKNOWN_WORKLOAD")),
        (unix(0, 0), Err("UNKNOWN_WORKLOAD")),
    ];
    for (caller, wanted) in table {
        let got = trust.workload_of(&caller, "acme.test").map(|name| name.as_str()).map_err(|why| why.reason());
        assert_eq!(got, wanted, "{caller:?}");
    }
}

#[test]
fn a_proof_that_selects_two_workloads_selects_none() {
    let more = r#"
[[workload]]
tenant = "acme"
name = "one"
environment = "prod"
selectors = [{ dns_name = "one.test", authority = "corp" }]
[[workload]]
tenant = "acme"
name = "two"
environment = "prod"
selectors = [{ spiffe_id = "spiffe://corp.test/two", authority = "corp" }]
"#;
    let trust = tenant(&map(&format!("{BASE}{more}")), "acme");
    let caller = certificate(Authority::Foreign("corp".to_owned()), "spiffe://corp.test/two", "one.test");
    assert_eq!(trust.workload_of(&caller, "acme.test").map_err(|why| why.reason()), Err("WORKLOAD_AMBIGUOUS"));
}

#[test]
fn a_proof_from_beyond_its_workloads_networks_selects_none() {
    let text = BASE.replacen("environment = \"prod\"", "environment = \"prod\"\nsources = [\"10.0.0.0/8\"]", 1);
    // A caller without an address is on this host, which is in no network.
    let caller = certificate(Authority::Own, "spiffe://acme.test/ci", "x.test");
    for (text, selected) in [(BASE, Ok("ci")), (text.as_str(), Err("UNKNOWN_WORKLOAD"))] {
        let trust = tenant(&map(text), "acme");
        let found = trust.workload_of(&caller, "acme.test").map(|name| name.as_str()).map_err(|why| why.reason());
        assert_eq!(found, selected);
    }
}

#[test]
fn a_verifier_sees_its_audiences_only() {
    let trust = trust();
    let caller = unix(11, 0);
    let found: Vec<_> = trust.verifiers_of(&caller, "acme.test").collect();
    assert_eq!(found.len(), 1);
    assert!(found[0].1.may_see("https://api.test/x") && !found[0].1.may_see("https://other.test/x"));
    assert_eq!(trust.verifiers_of(&unix(7, 0), "acme.test").count(), 0);
}

#[test]
fn a_verifier_is_known_by_each_kind_of_proof_and_by_nothing_less() {
    let more = r#"
[[verifier]]
tenant = "acme"
name = "api"
audiences = ["https://api.test/*"]
selectors = [{ spiffe_id = "spiffe://acme.test/api" }, { dns_name = "api.test", authority = "corp" }, { unix_uid = 11, unix_gid = 3 }]
"#;
    let trust = tenant(&map(&format!("{BASE}{more}")), "acme");
    let corp = || Authority::Foreign("corp".to_owned());
    for (caller, is_known) in [
        (certificate(Authority::Own, "spiffe://acme.test/api", "x.test"), true),
        (certificate(Authority::Own, "spiffe://acme.test/other", "x.test"), false),
        (certificate(Authority::Own, "spiffe://acme.test/other", "api.test"), false),
        (certificate(corp(), "spiffe://acme.test/api", "x.test"), false),
        (certificate(corp(), "spiffe://corp.test/other", "api.test"), true),
        (certificate(Authority::Foreign("evil".to_owned()), "spiffe://evil.test/api", "api.test"), false),
        (unix(11, 3), true),
        (unix(11, 4), false),
        (unix(12, 3), false),
    ] {
        assert_eq!(trust.verifiers_of(&caller, "acme.test").count(), usize::from(is_known), "{caller:?}");
    }
}
