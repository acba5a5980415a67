//! Policy as laws.

mod classes;
mod decide;
mod demand;
mod diff;
mod federated;
mod fields;
mod limits;
mod parse;
mod select;
mod template;

use crate::model::Timestamp;

use super::{Document, Extent, Problems, TenantTrust, TrustMap, parse as parse_documents};

pub(super) fn now() -> Timestamp {
    Timestamp::parse_rfc3339("2026-11-22T00:00:00Z").expect("a time")
}

pub(super) fn read(text: &str) -> Result<TrustMap, Problems> {
    parse_documents(&[Document { path: "a.toml", text }], Extent::Whole, now())
}

/// The problems of a text, as they are shown.
pub(super) fn problems(text: &str) -> Vec<String> {
    read(text).expect_err("has problems").list().iter().map(ToString::to_string).collect()
}

pub(super) fn map(text: &str) -> TrustMap {
    read(text).unwrap_or_else(|problems| panic!("{problems}"))
}

pub(super) fn tenant(map: &TrustMap, name: &str) -> TenantTrust {
    map.tenants[&name.parse().expect("a name")].clone()
}

/// What a small trust map needs beside its grants.
pub(super) const BASE: &str = r#"
[[tenant]]
name = "acme"
[[partner]]
name = "payco"
display_name = "PayCo"
contact = "x@payco.example"
[[partner]]
name = "other"
display_name = "Other"
contact = "x@other.example"
[[operator]]
name = "alice"
role = "admin"
tenants = "all"
partners = "all"
[[workload]]
tenant = "acme"
name = "ci"
environment = "prod"
selectors = [{ spiffe_id = "spiffe://acme.test/ci" }]
[[workload]]
tenant = "acme"
name = "lab"
environment = "lab"
selectors = [{ unix_uid = 7 }]
"#;

/// A grant; `more` may override nothing, only add.
pub(super) fn grant(name: &str, more: &str) -> String {
    let field = |key: &str, value: &str| if more.contains(key) { String::new() } else { format!("{key} = {value}\n") };
    let mut text = format!("[[grant]]\ntenant = \"acme\"\nname = \"{name}\"\n{more}\n");
    for (key, value) in [
        ("partner", "\"payco\""),
        ("workloads", "[\"ci\"]"),
        ("purposes", "[\"deploy\"]"),
        ("audiences", "[\"https://api.test\", \"https://api.test/orders/*\"]"),
        ("actions", "[\"read\", \"write\"]"),
        ("kinds", "[\"jwt\", \"x509\"]"),
        ("dns_names", "[\"ci.acme.test\"]"),
        ("ttl_max", "600"),
        ("owner", "\"team\""),
        ("expires", "2027-01-01"),
        ("attest_by", "2026-12-15"),
        ("revokers", "[\"alice\"]"),
        ("environment", "\"prod\""),
    ] {
        text += &field(key, value);
    }
    text
}
