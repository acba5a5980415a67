//! The gRPC surface: each method decodes, calls one use case, and encodes.

pub mod admin;
pub mod broker;
pub mod gate;
pub mod local;
pub mod rate;
pub mod sds;
pub mod shares;
pub mod sign_in;
pub mod status;
pub mod stream;
pub mod turns;
pub mod verifier;
pub mod workload_api;
