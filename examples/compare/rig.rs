//! An OpenBao with login mounts, a certificate authority and everybody who talks to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::task::JoinSet;
use tonic::Status;

use crate::Options;
use crate::connection::{Call, Connection};
use crate::server::Server;
use crate::support::Fallible;

/// The server and what its callers know.
pub struct Rig {
    pub server: Server,
    pub connections: Vec<Connection>,
    /// A resource server's token: it may look up tokens and nothing else.
    pub verifier: String,
    jwts: Vec<String>,
    csr: String,
}

/// A token that was handed out.
#[derive(Clone, Deserialize)]
pub struct Held {
    #[serde(rename = "client_token")]
    pub token: String,
    pub accessor: String,
    pub lease_duration: u32,
}

/// What a login answers, as far as its caller needs it.
#[derive(Deserialize)]
pub struct Granted {
    pub auth: Held,
}

// === impl Rig ===

impl Rig {
    /// Starts a server and sets up what all scenarios need.
    pub async fn start(options: &Options) -> Fallible<Self> {
        let server = Server::start(options).await?;
        let signer = KeyPair::generate()?;
        let (jwts, csr) = (jwts(&signer)?, csr()?);
        let mut rig = Self { server, connections: Vec::new(), verifier: String::new(), jwts, csr };
        let lanes = if options.http2 { LANES } else { options.callers() };
        rig.connect(lanes).await?;
        for (mount, ttl_seconds) in [(STEADY, 300), (VICTIM, 3600)] {
            rig.mount_login(mount, &signer, ttl_seconds).await?;
        }
        rig.mount_pki().await?;
        rig.policy("shop", "auth/token/lookup").await?;
        let shop = json!({ "policies": ["shop"], "ttl": "24h" });
        rig.verifier = rig.connection(0)?.must::<Granted>(&rig.admin("auth/token/create", &shop)).await?.auth.token;
        Ok(rig)
    }

    /// Opens `lanes` new connections in place of the old ones.
    pub async fn connect(&mut self, lanes: usize) -> Fallible<()> {
        self.connections.clear();
        for _ in 0..lanes {
            self.connections.push(self.server.target.dial().await?);
        }
        Ok(())
    }

    /// The connection of the i-th caller.
    pub fn connection(&self, index: usize) -> Fallible<&Connection> {
        Ok(self.connections.get(index % self.connections.len().max(1)).ok_or("a rig without connections")?)
    }

    /// A call of the operator.
    pub fn admin(&self, path: &str, body: &Value) -> Call {
        Call::post(path, &self.server.root, body)
    }

    /// The i-th caller's login.
    pub fn login(&self, index: usize, mount: &str) -> Fallible<Call> {
        let jwt = self.jwts.get(index % self.jwts.len().max(1)).ok_or("a rig without proofs")?;
        Ok(Call::post(&format!("auth/{mount}/login"), "", &json!({ "role": ROLE, "jwt": jwt })))
    }

    /// A request for a certificate with a token that may ask for it.
    pub fn sign(&self, token: &str) -> Call {
        Call::post(&format!("pki/sign/{ROLE}"), token, &json!({ "csr": self.csr, "common_name": "w.load.test" }))
    }

    /// A resource server's question about a token.
    pub fn lookup(&self, held: &Held) -> Call {
        Call::post("auth/token/lookup", &self.verifier, &json!({ "token": held.token }))
    }

    /// Hands out one token to the i-th caller.
    pub async fn issue(&self, index: usize, mount: &str) -> Fallible<Held> {
        Ok(self.connection(index)?.must::<Granted>(&self.login(index, mount)?).await?.auth)
    }

    /// Whether a resource server would accept the token now.
    pub async fn is_active(&self, index: usize, held: &Held) -> Fallible<bool> {
        Ok(is_active(self.connection(index)?, &self.lookup(held)).await?)
    }

    /// Fills the store with `leases` live leases of `mount`, and returns `samples` of them from first to last.
    pub async fn fill(&self, leases: u32, mount: &str, samples: u32) -> Fallible<Vec<Held>> {
        let (next, started) = (Arc::new(AtomicU32::new(0)), Instant::now());
        let every = (leases / samples.max(1)).max(1);
        let mut running = JoinSet::new();
        for index in 0..FILLERS {
            let (next, call, connection) = (next.clone(), self.login(index, mount)?, self.connection(index)?.clone());
            running.spawn(async move {
                let mut kept = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= leases {
                        return Ok::<_, Status>(kept);
                    }
                    let held = connection.must::<Granted>(&call).await?.auth;
                    if number % every == 0 || number + 1 == leases {
                        kept.push((number, held));
                    }
                    if number > 0 && number % PROGRESS == 0 {
                        eprintln!("filled {number} of {leases} leases in {:.0} s", started.elapsed().as_secs_f64());
                    }
                }
            });
        }
        let joined = tokio::time::timeout(FILL_LIMIT, running.join_all()).await;
        let mut kept = Vec::new();
        for part in joined.map_err(|_| "filling took longer than fifteen minutes")? {
            kept.extend(part.map_err(|status| format!("fill: {}", status.message()))?);
        }
        kept.sort_unstable_by_key(|(number, _)| *number);
        Ok(kept.into_iter().map(|(_, held)| held).collect())
    }

    /// A login mount that believes `signer`, with a role whose tokens live `ttl_seconds`.
    async fn mount_login(&self, mount: &str, signer: &KeyPair, ttl_seconds: u32) -> Fallible<()> {
        self.set(&format!("sys/auth/{mount}"), json!({ "type": "jwt" })).await?;
        let keys = [signer.public_key_pem()];
        let config = json!({ "jwt_validation_pubkeys": keys, "jwt_supported_algs": ["ES256"], "bound_issuer": ISSUER });
        self.set(&format!("auth/{mount}/config"), config).await?;
        let role = json!({
            "role_type": "jwt", "user_claim": "sub", "bound_audiences": [AUDIENCE],
            "token_policies": ["worker"], "token_ttl": ttl_seconds, "token_max_ttl": 3600,
        });
        self.set(&format!("auth/{mount}/role/{ROLE}"), role).await
    }

    /// A certificate authority with a P-256 key and a role that leases what it signs.
    async fn mount_pki(&self) -> Fallible<()> {
        self.set("sys/mounts/pki", json!({ "type": "pki", "config": { "max_lease_ttl": "8760h" } })).await?;
        let root = json!({ "common_name": "load.test", "key_type": "ec", "key_bits": 256, "ttl": "8000h" });
        self.set("pki/root/generate/internal", root).await?;
        let role = json!({
            "allow_any_name": true, "enforce_hostnames": false, "key_type": "ec", "key_bits": 256,
            "generate_lease": true, "ttl": 300, "max_ttl": 3600,
        });
        self.set(&format!("pki/roles/{ROLE}"), role).await?;
        let create = r#"path "auth/token/create" { capabilities = ["update"] }"#;
        self.rules("worker", &format!(r#"path "pki/sign/{ROLE}" {{ capabilities = ["update"] }} {create}"#)).await
    }

    async fn policy(&self, name: &str, path: &str) -> Fallible<()> {
        self.rules(name, &format!(r#"path "{path}" {{ capabilities = ["update"] }}"#)).await
    }

    async fn rules(&self, name: &str, rules: &str) -> Fallible<()> {
        self.set(&format!("sys/policies/acl/{name}"), json!({ "policy": rules })).await
    }

    /// A setting of the operator's, which may answer with nothing.
    async fn set(&self, path: &str, body: Value) -> Fallible<()> {
        let call = self.admin(path, &body);
        self.connection(0)?.call(&call).await?.succeeded(&call)?;
        Ok(())
    }
}

/// Asks whether a token is live. The server answers 403 for one that it does not know (any more).
pub async fn is_active(connection: &Connection, lookup: &Call) -> Result<bool, Status> {
    let reply = connection.call(lookup).await?;
    if matches!(reply.status.as_u16(), 403 | 404) {
        return Ok(false);
    }
    reply.succeeded(lookup)?.decode::<IgnoredAny>()?;
    Ok(true)
}

/// Proofs of as many workloads as the other side's load test has, signed with ES256 and good for hours.
fn jwts(signer: &KeyPair) -> Fallible<Vec<String>> {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &signer.serialize_der(), &random)
        .map_err(|_| "the key was not understood")?;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let mut jwts = Vec::new();
    for index in 0..LANES {
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": format!("spiffe://load.test/w{index}"),
            "iat": now, "nbf": now, "exp": now + 6 * 3600,
        });
        let header = json!({ "alg": "ES256", "typ": "JWT" });
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let input = format!("{}.{}", encode(&header), encode(&claims));
        let signature = key.sign(&random, input.as_bytes()).map_err(|_| "no signature")?;
        jwts.push(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)));
    }
    Ok(jwts)
}

/// A PKCS #10 request for a P-256 key, in PEM.
fn csr() -> Fallible<String> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(&KeyPair::generate()?)?.pem()?)
}

/// The login mount that keeps its access.
pub const STEADY: &str = "steady";
/// The login mount that is revoked with many leases.
pub const VICTIM: &str = "victim";

const ROLE: &str = "work";
const ISSUER: &str = "https://platform.load.test";
const AUDIENCE: &str = "https://api.load.test";
const LANES: usize = 16;
const FILLERS: usize = 64;
const PROGRESS: u32 = 10_000;
const FILL_LIMIT: Duration = Duration::from_secs(900);
