//! What people write: trust maps, policies, the configuration, and what the command line is given.

use std::path::Path;

use mayfly::{cli::untrusted, config::Config, model::Timestamp, policy};

/// A trust document, of the whole map and of named tenants.
pub fn trust(text: &str) {
    let now = Timestamp::from_seconds(1_800_000_000);
    let document = policy::Document { path: "trust.toml", text };
    let _ = policy::parse(&[document], policy::Extent::Whole, now);
}

/// Policies, as a tenant's and as guardrails.
pub fn policies(text: &str) {
    let now = Timestamp::from_seconds(1_800_000_000);
    let file = policy::Document { path: "p.cedar", text };
    let own = "[[tenant]]\nname = \"acme\"\npolicy = { enforce = \"p.cedar\" }\n[guardrails]\nenforce = \"p.cedar\"\n";
    let _ = policy::parse(&[policy::Document { path: "trust.toml", text: own }, file], policy::Extent::Whole, now);
}

/// The server's configuration.
pub fn config(text: &str) {
    let _ = Config::parse(text, Path::new("mayfly.toml"));
}

/// A repository's job file, a list of credentials that others issued, and a table of policy cases.
pub fn files(text: &str) {
    let _ = untrusted::job_file(text);
    let _ = untrusted::unmanaged(text);
    let _ = untrusted::policy_cases(text);
}
