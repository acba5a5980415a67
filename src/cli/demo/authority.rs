//! The demo's own certificate authority, as a platform has one, and identity folders from it.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    cli::{
        failure::{Failure, Outcome},
        private_file,
        session::{CA_FILE, CERTIFICATE_FILE, KEY_FILE},
    },
    mint::{
        ca::{self, CaName, NewCa, Validity},
        pem,
        x509::{LeafKey, MintedLeaf, NotIssued},
    },
    model::{Digest, time::system_wall},
};

/// A foreign certificate authority. The daemon is told to believe it under [`Authority::NAME`].
#[derive(Debug)]
pub struct Authority {
    ca: NewCa,
    validity: Validity,
}

/// A caller: a folder as `--identity` takes it, and the hash of its certificate.
#[derive(Clone, Debug)]
pub struct Member {
    /// Holds `ca.pem` (the broker's roots), `cert.pem` and `key.pem`.
    pub folder: PathBuf,
    /// SHA-256 of the certificate's DER: what a bound token names.
    pub sha256: Digest,
}

impl Authority {
    /// What the daemon's config and the trust map call it.
    pub const NAME: &'static str = "demo";

    /// A new authority with its own key, good for two days.
    ///
    /// # Errors
    /// When the system has no entropy.
    pub fn new() -> Outcome<Self> {
        let now = system_wall();
        let validity = Validity { not_before: now.before(BACK), not_after: now.after(LIFE) };
        let name = CaName { organization: "Mayfly demo", name: "demo platform", trust_domain: None };
        let ca = ca::create_root(&name, validity).map_err(not_issued)?;
        Ok(Self { ca, validity })
    }

    /// Its certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        pem::certificates(self.ca.key.chain_der())
    }

    /// Certifies a fresh key for the workload or service `name` of the demo, into `folder`.
    ///
    /// # Errors
    /// When the system has no entropy or the folder cannot be written.
    pub fn member(&self, folder: PathBuf, name: &str, broker_roots_pem: &[u8]) -> Outcome<Member> {
        let leaf = ca::mint_client(&self.ca.key, LeafKey::Generate, &spiffe_id(name), self.validity);
        let leaf = leaf.map_err(not_issued)?;
        private_file::folder(&folder)?;
        private_file::write(&folder, CA_FILE, broker_roots_pem)?;
        write(&folder, CERTIFICATE_FILE, KEY_FILE, &leaf)?;
        Ok(Member { folder, sha256: leaf.sha256 })
    }

    /// Adds what a resource server shows and believes to its identity folder: a server certificate for 127.0.0.1, and
    /// the roots of its clients, who come with certificates of this authority or of the broker.
    ///
    /// # Errors
    /// When the system has no entropy or the folder cannot be written.
    pub fn equip_server(&self, folder: &Path, broker_roots_pem: &[u8]) -> Outcome {
        let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let leaf = ca::mint_server(&self.ca.key, &[], &addresses, self.validity).map_err(not_issued)?;
        write(folder, SERVER_CERTIFICATE_FILE, SERVER_KEY_FILE, &leaf)?;
        let roots = [self.pem().as_bytes(), broker_roots_pem].concat();
        private_file::write(folder, CLIENT_ROOTS_FILE, &roots)
    }
}

/// The SPIFFE ID of a caller of the demo.
#[must_use]
pub fn spiffe_id(name: &str) -> String {
    format!("spiffe://platform.demo/{name}")
}

/// Certificate chain that a resource server shows.
pub const SERVER_CERTIFICATE_FILE: &str = "server-cert.pem";
/// Its private key.
pub const SERVER_KEY_FILE: &str = "server-key.pem";
/// The roots of its clients.
pub const CLIENT_ROOTS_FILE: &str = "clients.pem";

fn write(folder: &Path, certificate: &str, key: &str, leaf: &MintedLeaf) -> Outcome {
    let pkcs8 = leaf.private_key_der.as_ref();
    let pkcs8 = pkcs8.ok_or_else(|| Failure::Internal("a certificate without its key".into()))?;
    private_file::write(folder, certificate, pem::certificates(&leaf.chain_der).as_bytes())?;
    private_file::write(folder, key, pem::private_key(pkcs8).expose().as_bytes())
}

fn not_issued(why: NotIssued) -> Failure {
    Failure::Internal(format!("the demo's authority: {why}"))
}

/// Clocks of one machine do not differ, but a certificate starts at a full second.
const BACK: Duration = Duration::from_secs(300);
const LIFE: Duration = Duration::from_secs(2 * 86_400);
