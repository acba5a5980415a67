//! What the machine allows, so that every figure can be read as a share of its limit.

use std::hint::black_box;
use std::time::{Duration, Instant};

use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use rustls::pki_types::CertificateSigningRequestDer;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::Options;
use crate::report::{Measurement, Report};
use crate::rig::Rig;
use crate::series::{Series, closed_loop};
use crate::support::{Fallible, dial, signing_request};
use crate::usage::Usage;

/// Measures signatures, certificates and commits in this process, then bare calls to a daemon.
pub async fn run(options: &Options, report: &mut Report) -> Fallible<()> {
    let alone = Usage::default();
    report.add(Measurement::new("limit-sign-es256", 1, &sign()?, alone));
    report.add(Measurement::new("limit-sign-x509", 1, &certify()?, alone));
    for rows in [1, 64] {
        let name = if rows == 1 { "limit-commit-1" } else { "limit-commit-64" };
        report.add(Measurement::new(name, 1, &commit(rows)?, alone).with("rows", f64::from(rows)));
    }
    let rig = Rig::start(options).await?;
    let roots = rig.daemon.roots()?;
    let mut clients = Vec::new();
    for lane in &rig.lanes {
        clients.push(HealthClient::new(dial(rig.daemon.address, &roots, Some(lane.identity())).await?));
    }
    let clients = clients.as_slice();
    let series = closed_loop(options.callers(), options.window(), move |index| {
        let client = clients.get(index % clients.len()).cloned();
        move || {
            let client = client.clone();
            async move {
                let mut client = client.ok_or_else(|| tonic::Status::internal("a caller too many"))?;
                client.check(HealthCheckRequest::default()).await.map(drop)
            }
        }
    })
    .await?;
    report.add(Measurement::new("limit-rpc", options.callers(), &series.checked("limit-rpc")?, rig.usage()?));
    Ok(())
}

/// Signs 600 bytes, the size of a token's input, on one core.
fn sign() -> Fallible<Series> {
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|_| "no key")?;
    let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).map_err(|_| "no key")?;
    let message = [7_u8; 600];
    repeat(|| {
        black_box(key.sign(&random, black_box(&message)).map_err(|_| "no signature")?);
        Ok(())
    })
}

/// Parses a request, checks its signature and signs a leaf, on one core.
fn certify() -> Fallible<Series> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let issuer = Issuer::new(params, KeyPair::generate()?);
    let request = CertificateSigningRequestDer::from(signing_request(&KeyPair::generate()?)?);
    let mut serial = 0_u64;
    repeat(|| {
        let mut parsed = CertificateSigningRequestParams::from_der(&request)?;
        let mut leaf = CertificateParams::default();
        leaf.distinguished_name = DistinguishedName::new();
        leaf.subject_alt_names = vec![SanType::URI("spiffe://t0.load.test/w0".try_into()?)];
        leaf.is_ca = IsCa::ExplicitNoCa;
        serial += 1;
        leaf.serial_number = Some(SerialNumber::from(serial));
        leaf.use_authority_key_identifier_extension = true;
        parsed.params = leaf;
        black_box(parsed.signed_by(&issuer)?);
        Ok(())
    })
}

/// Commits batches of `rows` rows of 120 bytes, each on disk before the next.
fn commit(rows: u32) -> Fallible<Series> {
    let folder = tempfile::tempdir()?;
    let store = Database::builder(folder.path()).worker_threads(2).open()?;
    let table = store.keyspace("rows", || KeyspaceCreateOptions::default().max_memtable_size(4 << 20))?;
    let mut number = 0_u64;
    repeat(|| {
        let mut batch = store.batch().durability(Some(PersistMode::SyncData));
        for _ in 0..rows {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            batch.insert(&table, number.to_be_bytes(), [7_u8; 112]);
        }
        Ok(batch.commit()?)
    })
}

fn repeat(mut work: impl FnMut() -> Fallible<()>) -> Fallible<Series> {
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < ALONE {
        let started = Instant::now();
        work()?;
        times.push(started.elapsed());
    }
    Ok(Series::of(times))
}

const ALONE: Duration = Duration::from_secs(2);
