//! The real program from outside: a daemon process, real TLS and gRPC, signals and crashes.

#![expect(clippy::string_slice, reason = "tests cut ASCII texts that they made")]

#[cfg(test)]
#[path = "../examples/support/mod.rs"]
mod support;

#[cfg(test)]
#[path = "../src/identity/oidc/testing.rs"]
mod signer;

#[cfg(test)]
#[path = "../src/issuers/testing.rs"]
mod local_issuer;

#[cfg(test)]
#[path = "process"]
mod process {
    mod abuse;
    mod approvals;
    mod authority;
    mod backup;
    mod canary;
    mod ci;
    mod client;
    mod clock;
    mod crash;
    mod disk;
    mod drain;
    mod exec;
    mod federated;
    mod host;
    mod input;
    mod kept;
    mod life;
    mod limits;
    mod local;
    mod notify;
    mod operations;
    mod policies;
    mod proof;
    mod released;
    mod revoke;
    mod rig;
    mod root;
    mod scenarios;
    mod secrets;
    mod sign_in;
    mod sinks;
    mod start;
    mod store;
    mod streams;
    mod surface;
    mod tenants;
    mod workload_api;
    mod world;
}
