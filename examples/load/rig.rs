//! A daemon under test with a trust map, and connections of every kind of caller.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mayfly::pb::admin_client::AdminClient;
use mayfly::pb::broker_client::BrokerClient;
use mayfly::pb::introspect_request::Credential as Presented;
use mayfly::pb::issue_response::Credential;
use mayfly::pb::verifier_client::VerifierClient;
use mayfly::pb::{ApplyOptions, CredentialKind, IntrospectRequest, IssueRequest, IssueResponse};
use prost::bytes::Bytes;
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::transport::Channel;

use crate::Options;
use crate::support::{Authority, Daemon, Fallible, Grant, Identity, Launch, Trust, apply, dial, signing_request};
use crate::usage::Usage;

/// The daemon and everybody who talks to it.
pub struct Rig {
    pub daemon: Daemon,
    pub lanes: Vec<Lane>,
    pub verifiers: Vec<VerifierClient<Channel>>,
    pub admin: AdminClient<Channel>,
    verifier: Identity,
    csr: Bytes,
}

/// One workload with a connection of its own.
#[derive(Clone)]
pub struct Lane {
    pub client: BrokerClient<Channel>,
    tenant: String,
    identity: Identity,
    proof: Vec<u8>,
}

/// A credential handed out, as a resource server meets it.
#[derive(Clone)]
pub struct Held {
    pub lease_id: String,
    pub ask: IntrospectRequest,
}

// === impl Rig ===

impl Rig {
    /// Starts a daemon with the trust map of the load test.
    pub async fn start(options: &Options) -> Fallible<Self> {
        Self::launch(Launch { engine: options.engine.clone(), unlimited: true }, options.policies).await
    }

    /// The same with the limits that a daemon has unless told otherwise.
    pub async fn limited(options: &Options) -> Fallible<Self> {
        Self::launch(Launch { engine: options.engine.clone(), unlimited: false }, options.policies).await
    }

    async fn launch(launch: Launch, policies: bool) -> Fallible<Self> {
        let authority = Authority::new(AUTHORITY)?;
        let daemon = Daemon::start(launch, &authority)?;
        let roots = daemon.roots()?;
        let admin = AdminClient::new(dial(daemon.address, &roots, Some(&daemon.operator()?)).await?);
        let mut documents = vec![("load.toml".to_owned(), trust(policies).text().to_owned())];
        if policies {
            documents.push(("own.cedar".to_owned(), own_policies()));
            documents.push(("guardrails.cedar".to_owned(), GUARDRAILS.to_owned()));
        }
        apply(admin.clone(), ApplyOptions::default(), documents).await?;
        let mut lanes = Vec::new();
        for index in 0..LANES {
            let (tenant, workload) = (tenant(index), workload(index));
            let identity = authority.identity(&format!("spiffe://load.test/{tenant}/{workload}"))?;
            let client = BrokerClient::new(dial(daemon.address, &roots, Some(&identity)).await?);
            lanes.push(Lane { client, tenant, proof: identity.sha256(), identity });
        }
        let verifier = authority.identity(VERIFIER)?;
        let csr = signing_request(&KeyPair::generate()?)?.into();
        let mut rig = Self { daemon, lanes, verifiers: Vec::new(), admin, verifier, csr };
        rig.connect_verifiers(&roots).await?;
        Ok(rig)
    }

    /// Connects the first `lanes` workloads anew to a daemon that was started again.
    pub async fn reconnect_workloads(&mut self, lanes: usize) -> Fallible<()> {
        let roots = self.daemon.roots()?;
        for lane in self.lanes.iter_mut().take(lanes) {
            lane.client = BrokerClient::new(dial(self.daemon.address, &roots, Some(&lane.identity)).await?);
        }
        Ok(())
    }

    /// Connects everybody anew to a daemon that was started again.
    pub async fn reconnect(&mut self) -> Fallible<()> {
        self.reconnect_workloads(self.lanes.len()).await?;
        let roots = self.daemon.roots()?;
        let operator = self.daemon.operator()?;
        self.admin = AdminClient::new(dial(self.daemon.address, &roots, Some(&operator)).await?);
        self.connect_verifiers(&roots).await
    }

    async fn connect_verifiers(&mut self, roots: &[CertificateDer<'static>]) -> Fallible<()> {
        self.verifiers.clear();
        for _ in 0..VERIFIERS {
            let channel = dial(self.daemon.address, roots, Some(&self.verifier)).await?;
            self.verifiers.push(VerifierClient::new(channel));
        }
        Ok(())
    }

    /// The lane of the i-th caller.
    pub fn lane(&self, index: usize) -> Fallible<&Lane> {
        Ok(self.lanes.get(index % self.lanes.len().max(1)).ok_or("a rig without lanes")?)
    }

    /// The connection of the i-th resource server.
    pub fn verifier(&self, index: usize) -> Fallible<VerifierClient<Channel>> {
        Ok(self.verifiers.get(index % self.verifiers.len().max(1)).ok_or("a rig without verifiers")?.clone())
    }

    /// The resource servers' certificate and key.
    pub fn verifier_identity(&self) -> &Identity {
        &self.verifier
    }

    /// A request of the i-th caller for the partner.
    pub fn request(
        &self,
        index: usize,
        partner: &str,
        kind: CredentialKind,
        ttl_seconds: u32,
    ) -> Fallible<IssueRequest> {
        let csr_der = if kind == CredentialKind::X509 { self.csr.clone() } else { Bytes::new() };
        Ok(IssueRequest {
            tenant: self.lane(index)?.tenant.clone(),
            partner: partner.to_owned(),
            purpose: "report".to_owned(),
            kind: kind.into(),
            audiences: vec![AUDIENCE.to_owned()],
            actions: vec!["read".to_owned()],
            ttl_seconds,
            csr_der,
            ..IssueRequest::default()
        })
    }

    /// Issues one token to the i-th caller.
    pub async fn issue(&self, index: usize, partner: &str, kind: CredentialKind) -> Fallible<Held> {
        let mut client = self.lane(index)?.client.clone();
        let reply = client.issue(self.request(index, partner, kind, 0)?).await?.into_inner();
        self.held(index, reply)
    }

    /// Turns a reply to the i-th caller into what a resource server meets.
    fn held(&self, index: usize, reply: IssueResponse) -> Fallible<Held> {
        let lease_id = reply.lease.ok_or("a reply without a lease")?.lease_id;
        let Some(Credential::Token(token)) = reply.credential else { return Err("a reply without a token".into()) };
        let ask = IntrospectRequest {
            credential: Some(Presented::Token(token)),
            audience: AUDIENCE.to_owned(),
            presented_certificate_sha256: self.lane(index)?.proof.clone(),
        };
        Ok(Held { lease_id, ask })
    }

    /// Fills the store with `leases` live leases of `partner`, and returns `samples` of them from first to last.
    ///
    /// Reference tokens, as their leases weigh the same and spare the signature. `ttl_seconds` is asked for each.
    pub async fn fill(
        &self,
        leases: u32,
        partner: &str,
        samples: u32,
        ttl_seconds: impl Fn() -> u32 + Clone + Send + 'static,
    ) -> Fallible<Vec<Held>> {
        let (next, started) = (Arc::new(AtomicU32::new(0)), Instant::now());
        let every = (leases / samples.max(1)).max(1);
        let mut running = JoinSet::new();
        for index in 0..FILLERS {
            let (next, ttl_seconds) = (Arc::clone(&next), ttl_seconds.clone());
            let request = self.request(index, partner, CredentialKind::Opaque, 0)?;
            let mut client = self.lane(index)?.client.clone();
            running.spawn(async move {
                let mut kept = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= leases {
                        return Ok::<_, Status>((index, kept));
                    }
                    let request = IssueRequest { ttl_seconds: ttl_seconds(), ..request.clone() };
                    let reply = patiently(&mut client, request).await?;
                    if number % every == 0 || number + 1 == leases {
                        kept.push((number, reply));
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
            let (index, replies) = part.map_err(|status| format!("fill: {:?}: {}", status.code(), status.message()))?;
            for (number, reply) in replies {
                kept.push((number, self.held(index, reply)?));
            }
        }
        kept.sort_unstable_by_key(|(number, _)| *number);
        Ok(kept.into_iter().map(|(_, held)| held).collect())
    }

    /// Whether a resource server would accept the credential now.
    pub async fn is_active(&self, index: usize, held: &Held) -> Fallible<bool> {
        Ok(self.verifier(index)?.introspect(held.ask.clone()).await?.into_inner().active)
    }

    /// Resident memory of the daemon and disk blocks of its data folder.
    pub fn usage(&self) -> Fallible<Usage> {
        Usage::of(self.daemon.pid(), &self.daemon.data())
    }
}

// === impl Lane ===

impl Lane {
    /// The workload's certificate and key.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

/// Issues, and asks again for a bounded time when the daemon pushes back.
async fn patiently(client: &mut BrokerClient<Channel>, request: IssueRequest) -> Result<IssueResponse, Status> {
    let mut last = Status::unavailable("not asked");
    for _ in 0..PATIENCE {
        match client.issue(request.clone()).await {
            Ok(reply) => return Ok(reply.into_inner()),
            Err(status) if matches!(status.code(), tonic::Code::ResourceExhausted | tonic::Code::Unavailable) => {
                last = status;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(status) => return Err(status),
        }
    }
    Err(last)
}

/// Four tenants with four workloads each; every partner has one grant in every tenant.
fn trust(policies: bool) -> Trust {
    let mut trust = Trust::whole();
    if policies {
        trust.guardrails("guardrails.cedar");
    }
    let tenants: Vec<String> = (0..TENANTS).map(tenant).collect();
    let tenants: Vec<&str> = tenants.iter().map(String::as_str).collect();
    let workloads: Vec<String> = (0..LANES / TENANTS).map(|index| format!("w{index}")).collect();
    let workloads: Vec<&str> = workloads.iter().map(String::as_str).collect();
    for partner in PARTNERS {
        trust.partner(partner);
    }
    for tenant in &tenants {
        trust.tenant(tenant);
        if policies {
            trust.policy("own.cedar");
        }
        for name in &workloads {
            trust.workload(tenant, name, &format!("spiffe://load.test/{tenant}/{name}"), AUTHORITY);
        }
        for partner in PARTNERS {
            trust.grant(&Grant { tenant, name: partner, partner, workloads: &workloads, audience: AUDIENCE });
        }
    }
    trust.verifier("shop", VERIFIER, AUTHORITY, AUDIENCE, &tenants);
    trust
}

/// Twenty-one policies of a tenant, three of which concern a request: one lets its task be opened, one permits it for
/// what it is, one could forbid it.
fn own_policies() -> String {
    let mut text = OPENING.to_owned();
    for partner in PARTNERS {
        let _ = write!(
            text,
            "@id(\"{partner}\") permit(principal in Partner::\"{partner}\", action in Action::\"Issue\", resource)\n\
             when {{ context.purpose == \"report\" && context.ttl_seconds <= 3600 && \
             context.actions.contains(\"read\") }};\n\
             @id(\"{partner}-not\") forbid(principal in Partner::\"{partner}\", action in Action::\"Issue\", resource)\n\
             when {{ context.environment == \"lab\" || context.renewals > 100 }};\n"
        );
    }
    text
}

fn tenant(index: usize) -> String {
    format!("t{}", index % TENANTS)
}

fn workload(index: usize) -> String {
    format!("w{}", (index / TENANTS) % (LANES / TENANTS))
}

/// The partner that keeps its access.
pub const STEADY: &str = "steady";
/// The partner that is revoked with many leases.
pub const VICTIM: &str = "victim";
/// Partners that are revoked with few leases.
pub const SMALL: [&str; 8] = ["small0", "small1", "small2", "small3", "small4", "small5", "small6", "small7"];
/// What the credentials are for.
pub const AUDIENCE: &str = "https://api.load.test";
/// The name of the foreign authority.
pub const AUTHORITY: &str = "load";

const PARTNERS: [&str; 10] =
    [STEADY, VICTIM, "small0", "small1", "small2", "small3", "small4", "small5", "small6", "small7"];
const OPENING: &str = "@id(\"open\") permit(principal, action == Action::\"OpenTask\", resource);\n";
const GUARDRAILS: &str = "@id(\"no-lab\") forbid(principal, action in Action::\"Issue\", resource)\n\
                          when { context.environment == \"lab\" };\n";
const VERIFIER: &str = "spiffe://load.test/shop";
const TENANTS: usize = 4;
const LANES: usize = 16;
const VERIFIERS: usize = 8;
const FILLERS: usize = 256;
const PROGRESS: u32 = 100_000;
const PATIENCE: u32 = 500;
const FILL_LIMIT: Duration = Duration::from_secs(900);
