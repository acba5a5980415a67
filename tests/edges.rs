//! The crate's edges: what untrusted bytes can do to its readers, and what a feature pulls in.
//!
//! The readers are those that fuzz/ drives without end; here they are driven for a moment, on stable: by proptest, and with
//! the seeds that are kept.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "tests may")]

#[path = "../fuzz/readers/mod.rs"]
mod readers;
#[path = "edges/served.rs"]
mod served;

use std::{path::Path, process::Command};

use mayfly::{
    audit::{chain, export},
    client::Key,
    config::{self, Config},
    mint::{
        jwt, opaque,
        signing::{Algorithm, SigningKey},
        x509::parse_csr,
    },
    model::{Digest, LeaseId, ScopeId, Stamp, TaskId, TenantNumber, Timestamp},
    pb,
};
use proptest::{prelude::*, sample::Index};

/// Gives untrusted bytes to every reader; only a panic is wrong.
fn read_all(bytes: &[u8]) {
    readers::csr(bytes);
    readers::stamp(bytes);
    readers::audit_export(bytes);
    readers::certificate(bytes);
    readers::row(bytes);
    readers::anchor(bytes);
    readers::authority(bytes);
    readers::backup(bytes);
    readers::claims(bytes);
    readers::presented(bytes);
    let text = String::from_utf8_lossy(bytes);
    readers::token(&text);
    readers::identity_token(&text);
    readers::trust(&text);
    readers::policies(&text);
    readers::config(&text);
    readers::files(&text);
}

fn now() -> Timestamp {
    Timestamp::from_seconds(1_800_000_000)
}

fn lease() -> LeaseId {
    let tenant = TenantNumber::new(3).expect("in range");
    LeaseId::fresh(TaskId::fresh(tenant).expect("entropy")).expect("entropy")
}

fn stamp() -> Stamp {
    Stamp::new((7, 9), vec![ScopeId::from_slice(&[5; 12]).expect("12 bytes"); 9]).expect("few scopes")
}

fn token() -> String {
    let (key, _) = SigningKey::generate(Algorithm::Es256).expect("entropy");
    let claims = jwt::TokenClaims {
        issuer: "https://mayfly.example/t/acme",
        subject: "spiffe://acme.example/w/exporter",
        actors: &[],
        resellers: &[],
        audiences: &["https://api.example".to_owned()],
        tenant: &"acme".parse().expect("name"),
        partner: &"globex".parse().expect("name"),
        grant: &"nightly".parse().expect("name"),
        workload: &"exporter".parse().expect("name"),
        purpose: &"export".parse().expect("name"),
        actions: &["read".to_owned()],
        lease: lease(),
        issued: now(),
        expires: Timestamp::from_seconds(1_800_000_300),
        stamp: &stamp(),
        bound: Some(Digest([1; 32])),
    };
    jwt::mint(&key, &claims).expect("minted").text.expose().to_owned()
}

fn event_line() -> String {
    let mut event = pb::Event { stream: "acme/globex".into(), sequence: 1, ..pb::Event::default() };
    chain::seal_event(&mut event, chain::GENESIS);
    export::event_line(&event).expect("a line")
}

const TRUST: &str = r#"
[[partner]]
name = "globex"
display_name = "Globex"
contact = "ops@globex.example"
[[tenant]]
name = "acme"
max_live_leases = 10
[[workload]]
tenant = "acme"
name = "exporter"
environment = "prod"
selectors = [{ spiffe_id = "spiffe://acme.example/w", authority = "own" }]
"#;

/// One valid input of each reader.
fn valid() -> Vec<Vec<u8>> {
    vec![
        token().into_bytes(),
        opaque::mint(lease()).expect("entropy").text.expose().as_bytes().to_vec(),
        Key::fresh().and_then(|key| key.request()).expect("entropy"),
        stamp().to_extension(),
        stamp().to_bytes(),
        event_line().into_bytes(),
        config::SAMPLE.as_bytes().to_vec(),
        TRUST.as_bytes().to_vec(),
        br#"@id("p") permit(principal in Partner::"globex", action in Action::"Issue", resource)
            when { context.parameters.hasTag("t") && context has source_ip && context.source_ip.isIpv4() };"#
            .to_vec(),
        br#"{"keys":[{"kty":"EC","kid":"k","crv":"P-256","x":"AAAA","y":"AAAA"}]}"#.to_vec(),
        [b"\x07", HTTP2].concat(),
        EVENT.to_vec(),
        br"octo-org/automation/\.github/workflows/[a-z]+\.yml@refs/tags/v[0-9.]+".to_vec(),
    ]
}

/// Overwrites a byte, cuts the end off, or writes a stretch twice.
fn mutate(bytes: &mut Vec<u8>, kind: u8, at: Index, value: u8) {
    if bytes.is_empty() {
        return;
    }
    let at = at.index(bytes.len());
    match kind % 4 {
        0 => bytes[at] = value,
        1 => bytes.insert(at, value),
        2 => bytes.truncate(at),
        _ => bytes.extend_from_within(at..bytes.len().min(at + usize::from(value))),
    }
}

#[test]
fn the_valid_inputs_are_read() {
    let inputs = valid();
    let text = |at: usize| std::str::from_utf8(&inputs[at]).expect("text");
    assert!(jwt::peek(text(0)).is_some());
    assert!(opaque::parse(text(1)).is_ok());
    assert!(parse_csr(&inputs[2]).is_ok());
    assert_eq!(Stamp::from_extension(&inputs[3]), Some(stamp()));
    assert_eq!(Stamp::from_bytes(&inputs[4]), Some(stamp()));
    assert!(export::parse(&inputs[5]).is_ok());
    assert!(Config::parse(text(6), Path::new("mayfly.toml")).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        read_all(&bytes);
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in "\\PC{0,300}") {
        read_all(text.as_bytes());
    }

    #[test]
    fn no_damage_to_a_valid_input_makes_a_reader_panic(
        which in any::<Index>(),
        damage in proptest::collection::vec((any::<u8>(), any::<Index>(), any::<u8>()), 1..6),
    ) {
        let inputs = valid();
        let mut bytes = which.get(&inputs).clone();
        for (kind, at, value) in damage {
            mutate(&mut bytes, kind, at, value);
        }
        read_all(&bytes);
    }
}

#[test]
fn a_resource_server_links_no_store() {
    let cargo = std::env::var_os("CARGO").expect("run by cargo");
    let output = Command::new(cargo)
        .args(["tree", "--edges", "normal,build", "--prefix", "none", "--format", "{p}", "--offline", "--locked"])
        .args(["--no-default-features", "--features", "verifier"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo tree runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).expect("text");
    let names: Vec<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&"jsonwebtoken"));
    for foreign in ["fjall", "lsm-tree", "sled", "axum", "clap", "rcgen", "toml", "reqwest"] {
        assert!(!names.contains(&foreign), "the verifier links {foreign}");
    }
}

/// That somebody's account was closed; whoever signs it is believed.
pub(crate) const EVENT: &[u8] = b"\x05{\"iss\":\"https://issuer.example\",\"aud\":\"https://mayfly.example\",\
    \"iat\":1790000000,\"jti\":\"e1\",\"sub_id\":{\"format\":\"email\",\"email\":\"ann@acme.example\"},\"events\":\
    {\"https://schemas.openid.net/secevent/risc/event-type/account-disabled\":{}}}";

/// Preface, settings, and a request whose authority is a path.
pub(crate) const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\
    \0\0\x19\x01\x05\0\0\0\x01\x82\x86\x44\x04/abc\x41\x0f%2Ftmp%2Fa.sock";
