//! What the build script makes of the contracts, of ours and of others.

#![allow(
    missing_docs,
    missing_debug_implementations,
    clippy::allow_attributes_without_reason,
    clippy::all,
    unused_qualifications,
    clippy::wildcard_enum_match_arm,
    clippy::use_self,
    reason = "generated"
)]

/// Messages and services of the contract, generated from `proto/mayfly/v1`.
pub mod pb {
    tonic::include_proto!("mayfly.v1");

    /// The encoded descriptor set, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/mayfly.v1.bin"));
}

/// Rows of the ledger, generated from `proto/mayfly/store/v1`.
#[cfg(feature = "server")]
pub mod records {
    tonic::include_proto!("mayfly.store.v1");
}

/// Contracts of others, generated from `proto/spiffe` and `proto/envoy`: names and numbers are theirs.
#[cfg(feature = "server")]
pub mod foreign {
    /// The SPIFFE Workload API, which has no package.
    pub mod workload {
        tonic::include_proto!("_");
    }

    /// Envoy's secret discovery. The modules are those of the packages, since generated code names them so.
    pub mod envoy {
        pub mod config {
            pub mod core {
                pub mod v3 {
                    tonic::include_proto!("envoy.config.core.v3");
                }
            }
        }
        pub mod extensions {
            pub mod transport_sockets {
                pub mod tls {
                    pub mod v3 {
                        tonic::include_proto!("envoy.extensions.transport_sockets.tls.v3");
                    }
                }
            }
        }
        pub mod service {
            pub mod discovery {
                pub mod v3 {
                    tonic::include_proto!("envoy.service.discovery.v3");
                }
            }
            pub mod secret {
                pub mod v3 {
                    tonic::include_proto!("envoy.service.secret.v3");
                }
            }
        }
    }

    pub mod google {
        pub mod rpc {
            tonic::include_proto!("google.rpc");
        }
    }

    /// The encoded descriptor set, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/foreign.bin"));
}
