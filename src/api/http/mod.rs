//! HTTP beside gRPC.

pub mod metrics_port;
