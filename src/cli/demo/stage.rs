//! What the demo plays on: the daemon, the resource servers, the callers, and the credentials they hold.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tonic::transport::Channel;

use crate::{
    cli::{
        failure::{Failure, Outcome},
        request::OwnRequest,
        session::{CA_FILE, CERTIFICATE_FILE, KEY_FILE},
    },
    client::{self, Address, ClientConfig, Connection, Identity, pem},
    model::Digest,
    pb::{
        CredentialKind, IssueRequest, IssueResponse, Lease, admin_client::AdminClient, broker_client::BrokerClient,
        issue_response::Credential as Issued, verifier_client::VerifierClient,
    },
};

use super::{
    SabotageArg,
    authority::{Authority, Member},
    child::Child,
    platform::Platform,
    trust::{ACTION, PURPOSE, Partner, Tenant},
    visit::{Answer, Visitor},
};

/// The daemon, the resource servers and everyone who calls them.
///
/// Fields are dropped in this order: processes before the folder that they use.
#[derive(Debug)]
pub struct Stage {
    servers: Vec<Child>,
    daemon: Child,
    /// What is broken on purpose.
    pub sabotage: Option<SabotageArg>,
    /// Workloads and resource servers of the tenants, in the order of [`Tenant::ALL`].
    casts: Vec<Cast>,
    /// The operator's calls.
    pub admin: AdminClient<Channel>,
    /// Credentials that must stay dead.
    pub dead: Vec<Credential>,
    /// Credentials that must stay live.
    pub live: Vec<Credential>,
    authority: Authority,
    /// Signs the identity tokens of CI jobs.
    pub platform: Platform,
    folder: TempDir,
}

/// One tenant's callers.
#[derive(Debug)]
struct Cast {
    worker: Member,
    server: Member,
    broker: BrokerClient<Channel>,
    verifier: VerifierClient<Channel>,
}

/// An issued credential, in its holder's hands.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The tenant it is for.
    pub tenant: Tenant,
    /// Its lease, as the broker described it on issue.
    pub lease: Lease,
    /// A certificate and its intermediates, leaf first, DER; empty for a token.
    pub chain_der: Vec<Vec<u8>>,
    token: Option<Token>,
    /// Visits with the client certificate that the credential is bound to, or is.
    visitor: Visitor,
}

/// A token's text, which `Debug` leaves out.
#[derive(Clone)]
struct Token(zeroize::Zeroizing<String>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Stage {
    /// Starts the daemon on a temporary folder and makes everyone's identities. The resource servers come once the
    /// trust map knows them.
    ///
    /// # Errors
    /// When the daemon does not get ready.
    pub async fn set(sabotage: Option<SabotageArg>) -> Outcome<Self> {
        let folder = tempfile::Builder::new().prefix("mayfly-demo-").tempdir();
        let folder = folder.map_err(|error| Failure::io("make a temporary folder", error))?;
        let authority = Authority::new()?;
        let file = folder.path().join(AUTHORITY_FILE);
        std::fs::write(&file, authority.pem()).map_err(|error| Failure::file("write", &file, error))?;
        let platform = Platform::new()?;
        platform.declare(folder.path())?;
        let daemon = start_daemon(folder.path()).await?;
        let operator = folder.path().join(OPERATOR);
        let roots_pem = client::read_ca(&operator.join(CA_FILE))?;
        let mut casts = Vec::new();
        for tenant in Tenant::ALL {
            let member = |name: &str| authority.member(folder.path().join(name), name, &roots_pem);
            let (worker, server) = (member(&tenant.worker())?, member(&tenant.server())?);
            authority.equip_server(&server.folder, &roots_pem)?;
            let broker = BrokerClient::new(dial(&daemon.address, &worker.folder).await?);
            let verifier = VerifierClient::new(dial(&daemon.address, &server.folder).await?);
            casts.push(Cast { worker, server, broker, verifier });
        }
        let admin = AdminClient::new(dial(&daemon.address, &operator).await?);
        let (dead, live) = (Vec::new(), Vec::new());
        Ok(Self { servers: Vec::new(), daemon, sabotage, casts, admin, dead, live, authority, platform, folder })
    }

    /// Starts one resource server a tenant, each a process of its own.
    ///
    /// # Errors
    /// When one does not get ready.
    pub async fn open_servers(&mut self) -> Outcome {
        self.servers.clear();
        for tenant in Tenant::ALL {
            let identity = self.cast(tenant)?.server.folder.display().to_string();
            let (broker, audience) = (self.daemon.address.to_string(), tenant.audience());
            let mut arguments = vec!["demo-resource-server", "--address", "127.0.0.1:0", "--identity", &identity];
            arguments.extend(["--server", &broker, "--audience", &audience]);
            let other = Tenant::Acme.audience();
            if self.sabotage == Some(SabotageArg::Tenant) && tenant == Tenant::Globex {
                arguments.extend(["--audience", &other]);
            }
            if self.sabotage == Some(SabotageArg::Revoke) {
                arguments.push("--trust-forever");
            }
            let log = self.folder.path().join(format!("{}.log", tenant.server()));
            self.servers.push(Child::start("the resource server", &arguments, &log).await?);
        }
        Ok(())
    }

    /// Kills the daemon as a crash would, starts a new one on the same data folder, and connects everyone anew.
    ///
    /// # Errors
    /// When the new one does not get ready.
    pub async fn crash_and_restart(&mut self) -> Outcome<Duration> {
        self.daemon.kill()?;
        let killed = Instant::now();
        self.daemon = start_daemon(self.folder.path()).await?;
        let took = killed.elapsed();
        self.admin = AdminClient::new(dial(&self.daemon.address, &self.operator()).await?);
        for cast in &mut self.casts {
            cast.broker = BrokerClient::new(dial(&self.daemon.address, &cast.worker.folder).await?);
            cast.verifier = VerifierClient::new(dial(&self.daemon.address, &cast.server.folder).await?);
        }
        self.open_servers().await?;
        Ok(took)
    }

    /// Returns when the daemon is gone.
    pub async fn wait_for_daemon(&mut self) {
        while !self.daemon.is_over() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The workload's calls in a tenant.
    ///
    /// # Errors
    /// Never, since every tenant has a cast.
    pub fn broker(&self, tenant: Tenant) -> Outcome<BrokerClient<Channel>> {
        Ok(self.cast(tenant)?.broker.clone())
    }

    /// The resource server's calls in a tenant.
    ///
    /// # Errors
    /// Never, since every tenant has a cast.
    pub fn verifier(&self, tenant: Tenant) -> Outcome<VerifierClient<Channel>> {
        Ok(self.cast(tenant)?.verifier.clone())
    }

    /// The hash of the workload's certificate, which bound tokens name.
    ///
    /// # Errors
    /// Never, since every tenant has a cast.
    pub fn worker_sha256(&self, tenant: Tenant) -> Outcome<Digest> {
        Ok(self.cast(tenant)?.worker.sha256)
    }

    /// Where a tenant's resource server listens.
    ///
    /// # Errors
    /// Before [`Self::open_servers`].
    pub fn server(&self, tenant: Tenant) -> Outcome<&Address> {
        let server = Tenant::ALL.iter().position(|other| *other == tenant).and_then(|at| self.servers.get(at));
        server.map(|child| &child.address).ok_or_else(|| Failure::Internal("no resource server yet".into()))
    }

    /// Has a tenant's workload ask for a credential, and takes it in hand.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn issue(&self, tenant: Tenant, request: IssueRequest) -> Outcome<Credential> {
        let own = if request.kind() == CredentialKind::X509 { Some(OwnRequest::fresh()?) } else { None };
        let csr_der = own.as_ref().map(|own| own.csr_der.clone()).unwrap_or_default().into();
        let reply = self.broker(tenant)?.issue(IssueRequest { csr_der, ..request }).await?.into_inner();
        self.take(tenant, reply, own.as_ref())
    }

    /// Takes a reply's credential in hand.
    ///
    /// # Errors
    /// When the reply is incomplete.
    pub fn take(&self, tenant: Tenant, reply: IssueResponse, own: Option<&OwnRequest>) -> Outcome<Credential> {
        let incomplete = || Failure::Internal("the broker's reply is incomplete".into());
        let lease = reply.lease.ok_or_else(incomplete)?;
        let authority = self.authority.pem();
        let (token, chain_der, identity) = match (reply.credential.ok_or_else(incomplete)?, own) {
            (Issued::Token(token), _) => {
                (Some(Token(token.into())), Vec::new(), read_identity(&self.cast(tenant)?.worker.folder)?)
            }
            (Issued::X509(issued), Some(own)) => {
                let chain = pem::encode_chain(&issued.chain_der).into_bytes();
                let key = zeroize::Zeroizing::new(own.key_pem.as_bytes().to_vec());
                (None, issued.chain_der, Identity::new(chain, key))
            }
            (Issued::X509(_), None) | (Issued::Secret(_) | Issued::Pickup(_), _) => return Err(incomplete()),
        };
        let visitor = Visitor::new(authority.as_bytes(), Some(&identity))?;
        Ok(Credential { tenant, lease, chain_der, token, visitor })
    }

    /// Takes a reply's token in hand that is bound to no certificate.
    ///
    /// # Errors
    /// When the reply is incomplete.
    pub fn take_unbound(&self, tenant: Tenant, reply: IssueResponse) -> Outcome<Credential> {
        let visitor = Visitor::new(self.authority.pem().as_bytes(), None)?;
        Ok(Credential { visitor, ..self.take(tenant, reply, None)? })
    }

    /// A connection of somebody who shows a key of its own.
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub async fn dial_as(&self, own: Identity) -> Outcome<Channel> {
        let ca_pem = client::read_ca(&self.operator().join(CA_FILE))?;
        let address = self.daemon.address.clone();
        let config = ClientConfig { address, ca_pem, identity: Some(own), server_name: None };
        Ok(Connection::open(&config).await?.channel())
    }

    /// What its own tenant's resource server says to a credential.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn answer(&self, credential: &Credential) -> Outcome<Answer> {
        self.answer_at(credential, credential.tenant).await
    }

    /// What a resource server says to a credential.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn answer_at(&self, credential: &Credential, tenant: Tenant) -> Outcome<Answer> {
        credential.visitor.visit(self.server(tenant)?, credential.token()).await
    }

    /// What the resource server says to whoever holds the token but not the key that it is bound to: with no
    /// certificate, and with another one of the same authority.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn answers_to_a_thief(&self, credential: &Credential) -> Outcome<[Answer; 2]> {
        let roots = self.authority.pem();
        let other = read_identity(&self.cast(credential.tenant)?.server.folder)?;
        let server = self.server(credential.tenant)?;
        let nobody = Visitor::new(roots.as_bytes(), None)?.visit(server, credential.token()).await?;
        let another = Visitor::new(roots.as_bytes(), Some(&other))?.visit(server, credential.token()).await?;
        Ok([nobody, another])
    }

    /// Looks at credentials until every answer is a refusal, and at each at least once. Says which was let in instead.
    ///
    /// # Errors
    /// When a server cannot be reached.
    pub async fn all_refused(&self, credentials: &[Credential]) -> Outcome<Option<String>> {
        self.first_other(credentials, Answer::Refused, "is still taken").await
    }

    /// Says which of the credentials is not let in.
    ///
    /// # Errors
    /// When a server cannot be reached.
    pub async fn all_welcome(&self, credentials: &[Credential]) -> Outcome<Option<String>> {
        self.first_other(credentials, Answer::Welcome, "is refused").await
    }

    async fn first_other(&self, credentials: &[Credential], want: Answer, words: &str) -> Outcome<Option<String>> {
        for credential in credentials {
            if self.answer(credential).await? != want {
                return Ok(Some(format!("{} {words}", credential.name())));
            }
        }
        Ok((credentials.is_empty()).then(|| "there is no credential to look at".to_owned()))
    }

    /// The operator's identity folder.
    #[must_use]
    pub fn operator(&self) -> PathBuf {
        self.folder.path().join(OPERATOR)
    }

    /// The workload's and the resource server's identity folders in a tenant.
    ///
    /// # Errors
    /// Never, since every tenant has a cast.
    pub fn folders(&self, tenant: Tenant) -> Outcome<(&Path, &Path)> {
        let cast = self.cast(tenant)?;
        Ok((&cast.worker.folder, &cast.server.folder))
    }

    /// The folder of it all.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The daemon's process id and address.
    #[must_use]
    pub fn daemon(&self) -> (u32, &Address) {
        (self.daemon.pid(), &self.daemon.address)
    }

    fn cast(&self, tenant: Tenant) -> Outcome<&Cast> {
        let at = Tenant::ALL.iter().position(|other| *other == tenant);
        at.and_then(|at| self.casts.get(at)).ok_or_else(|| Failure::Internal("a tenant without callers".into()))
    }
}

impl Credential {
    /// The token's text; `None` for a certificate. Every caller is a place to review.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.token.as_ref().map(|token| token.0.as_str())
    }

    /// What people call it.
    #[must_use]
    pub fn name(&self) -> String {
        let kind = match self.lease.kind() {
            CredentialKind::Jwt => "JWT",
            CredentialKind::Opaque => "reference token",
            CredentialKind::X509 => "certificate",
            CredentialKind::Secret => "static secret",
            CredentialKind::Unspecified => "credential",
        };
        format!("a {kind} of {} in {}", self.lease.partner, self.tenant.name())
    }
}

/// A request that the partner's grant covers.
#[must_use]
pub fn request(tenant: Tenant, partner: Partner, kind: CredentialKind) -> IssueRequest {
    IssueRequest {
        tenant: tenant.name().into(),
        partner: partner.name().into(),
        purpose: PURPOSE.into(),
        kind: kind.into(),
        audiences: vec![tenant.audience()],
        actions: vec![ACTION.into()],
        ..IssueRequest::default()
    }
}

async fn start_daemon(folder: &Path) -> Outcome<Child> {
    let (data, log) = (folder.join(DATA), folder.join("daemon.log"));
    let authority = format!("{}={}", Authority::NAME, folder.join(AUTHORITY_FILE).display());
    let data = data.display().to_string();
    let issuers = folder.join(Platform::ISSUERS_FILE).display().to_string();
    let arguments =
        ["serve", "--dev", "--data", &data, "--port", "0", "--client-ca", &authority, "--issuers", &issuers];
    Child::start("the daemon", &arguments, &log).await
}

async fn dial(address: &Address, folder: &Path) -> Outcome<Channel> {
    let config = ClientConfig {
        address: address.clone(),
        ca_pem: client::read_ca(&folder.join(CA_FILE))?,
        identity: Some(read_identity(folder)?),
        server_name: None,
    };
    Ok(Connection::open(&config).await?.channel())
}

fn read_identity(folder: &Path) -> Outcome<Identity> {
    Ok(Identity::from_files(&folder.join(CERTIFICATE_FILE), &folder.join(KEY_FILE))?)
}

const AUTHORITY_FILE: &str = "demo-ca.pem";
const DATA: &str = "data";
const OPERATOR: &str = "data/operator";
const LOOK_EVERY: Duration = Duration::from_millis(500);
