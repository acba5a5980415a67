//! The surfaces: decode, call one use case, encode.

pub mod grpc;
pub mod http;
pub mod listen;
pub mod routes;
