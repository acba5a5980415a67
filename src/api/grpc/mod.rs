//! The gRPC surface: each method decodes, calls one use case, and encodes.

pub mod gate;
pub mod rate;
pub mod status;
pub mod stream;
