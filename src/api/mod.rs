//! The surfaces: decode, call one use case, encode.

pub mod http;
pub mod listen;
