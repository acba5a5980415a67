//! The surfaces: decode, call one use case, encode.

pub mod grpc;
pub mod health;
pub mod http;
pub mod listen;
mod remembered;
pub mod routes;
