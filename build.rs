//! Compiles the contract and the store's records without protoc.

use std::path::PathBuf;

use prost::Message;

const CONTRACT: [&str; 5] = [
    "mayfly/v1/types.proto",
    "mayfly/v1/broker.proto",
    "mayfly/v1/verifier.proto",
    "mayfly/v1/admin.proto",
    "mayfly/v1/sign_in.proto",
];
const RECORDS: &str = "mayfly/store/v1/records.proto";
// Contracts of others, with their names and numbers.
const WORKLOAD_API: &str = "spiffe/workload.proto";
const SDS: [&str; 2] = ["envoy/service/secret/v3/sds.proto", "envoy/extensions/transport_sockets/tls/v3/secret.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let contract = protox::compile(CONTRACT, ["proto"])?;
    // protox ignores `file_descriptor_set_path`; reflection needs the set.
    std::fs::write(out.join("mayfly.v1.bin"), contract.encode_to_vec())?;
    tonic_prost_build::configure()
        .codec_path("crate::wire::Protobuf")
        .bytes(".mayfly.v1.IssueRequest.csr_der")
        // Requests are hashed as they are encoded: a map has one order.
        .btree_map(".mayfly.v1")
        // Derived `Debug` would print credentials.
        .skip_debug([
            ".mayfly.v1.IssueResponse",
            ".mayfly.v1.X509Credential",
            ".mayfly.v1.IntrospectRequest",
            ".mayfly.v1.IdentifyRequest",
            ".mayfly.v1.RevokeRequest",
            ".mayfly.v1.TestIdentityTokenRequest",
            ".mayfly.v1.SignInRequest",
            ".mayfly.v1.StaticSecret",
            ".mayfly.v1.PickupHandle",
            ".mayfly.v1.PickupRequest",
            ".mayfly.v1.PutSecretRequest",
            ".mayfly.v1.RotateSecretRequest",
        ])
        .compile_fds(contract)?;
    let records = protox::compile([RECORDS], ["proto"])?;
    tonic_prost_build::configure().build_client(false).build_server(false).compile_fds(records)?;
    let foreign = protox::compile([WORKLOAD_API].into_iter().chain(SDS), ["proto"])?;
    std::fs::write(out.join("foreign.bin"), foreign.encode_to_vec())?;
    tonic_prost_build::configure()
        .btree_map(".")
        // Derived `Debug` would print private keys and bearer tokens.
        .skip_debug(["."])
        .compile_fds(foreign)?;
    Ok(())
}
