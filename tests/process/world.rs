//! Three tenants, each with a caller, a resource server and an operator of its own, on a daemon of their own.

use std::path::{Path, PathBuf};

use mayfly::pb::{
    self, ApplyOptions, ApplyResponse, CredentialKind, IntrospectRequest, IssueOperatorCertificateRequest,
    IssueRequest, IssueResponse, Scope, admin_client::AdminClient, broker_client::BrokerClient,
    introspect_request::Credential as Presented, issue_response::Credential, verifier_client::VerifierClient,
};
use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tonic::{Status, transport::Channel};

use super::rig::{Launch, Process};
use crate::support::{Authority, Grant, Identity, Trust, apply, certificates, dial, signing_request};

pub const TENANTS: [&str; 3] = ["alpha", "beta", "gamma"];
pub const KINDS: [CredentialKind; 3] = [CredentialKind::Jwt, CredentialKind::Opaque, CredentialKind::X509];
pub const PARTNER: &str = "courier";

pub struct World {
    pub process: Process,
    pub launch: Launch,
    pub authority: Authority,
    pub trust: String,
    _folder: TempDir,
}

impl World {
    pub async fn new() -> Self {
        Self::with(&[]).await
    }

    pub async fn with(arguments: &[&str]) -> Self {
        Self::within(tempfile::tempdir().expect("folder"), arguments).await
    }

    /// With its folder within another one.
    pub async fn at(place: &Path) -> Self {
        Self::within(tempfile::tempdir_in(place).expect("folder"), &[]).await
    }

    async fn within(folder: TempDir, arguments: &[&str]) -> Self {
        let authority = Authority::new("platform").expect("authority");
        let launch = launch(folder.path(), &authority, arguments);
        let process = launch.start().expect("starts");
        let world = Self { process, launch, authority, trust: trust(), _folder: folder };
        world.apply(&world.trust, ApplyOptions::default()).await.expect("applies");
        world
    }

    /// The same, with a configuration of its own; `extra` is appended to it.
    pub async fn configured(extra: &str) -> Self {
        Self::configured_on(&[], extra).await
    }

    /// The same, first started with these arguments of `serve --dev`.
    pub async fn configured_on(arguments: &[&str], extra: &str) -> Self {
        let mut world = Self::with(arguments).await;
        assert!(world.process.stop().success());
        let (folder, data) = (world.launch.folder.clone(), world.launch.data());
        // Outside of development the key lies outside of the data folder.
        std::fs::rename(data.join("seal.key"), world.seal_key()).expect("moved");
        // And the anchor beside it, named after the data folder.
        std::fs::rename(data.join("anchor"), world.anchor()).expect("moved");
        let text = format!(
            "data_dir = {data:?}\npublic_url = \"https://localhost:7443\"\nseal.key_file = {:?}\n\
             metrics.address = \"127.0.0.1:0\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
             [[client_ca]]\nname = \"platform\"\nfile = {:?}\n{extra}",
            world.seal_key(),
            folder.join("platform.pem"),
        );
        let file = folder.join("mayfly.toml");
        std::fs::write(&file, text).expect("written");
        world.launch.config = Some(file);
        world.restart().await;
        world
    }

    /// Where [`World::configured`] keeps the seal key.
    pub fn seal_key(&self) -> PathBuf {
        self.launch.folder.join("seal.key")
    }

    /// Where [`World::configured`] keeps the anchor.
    pub fn anchor(&self) -> PathBuf {
        self.launch.folder.join("data.anchor")
    }

    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        certificates(&self.launch.data().join("ca.pem")).expect("roots")
    }

    pub fn identity(&self, path: &str) -> Identity {
        self.authority.identity(&format!("spiffe://platform.example/{path}")).expect("identity")
    }

    pub async fn channel(&self, identity: Option<&Identity>) -> Channel {
        dial(self.process.address, &self.roots(), identity).await.expect("connects")
    }

    pub async fn broker_as(&self, identity: &Identity) -> BrokerClient<Channel> {
        BrokerClient::new(self.channel(Some(identity)).await)
    }

    /// The workload of a tenant.
    pub async fn broker(&self, tenant: &str) -> BrokerClient<Channel> {
        self.broker_as(&self.identity(&format!("{tenant}/worker"))).await
    }

    /// The resource server of a tenant.
    pub async fn verifier(&self, tenant: &str) -> VerifierClient<Channel> {
        VerifierClient::new(self.channel(Some(&self.identity(&format!("{tenant}/shop")))).await)
    }

    /// The first operator.
    pub async fn admin(&self) -> AdminClient<Channel> {
        let identity = Identity::read(&self.launch.data().join("operator")).expect("operator");
        AdminClient::new(self.channel(Some(&identity)).await)
    }

    /// An operator of the trust map.
    pub async fn operator(&self, name: &str) -> AdminClient<Channel> {
        let key = KeyPair::generate().expect("key");
        let request = IssueOperatorCertificateRequest {
            operator: name.into(),
            csr_der: signing_request(&key).expect("request"),
            ttl_seconds: 0,
        };
        let reply = self.admin().await.issue_operator_certificate(request).await.expect("certified").into_inner();
        let identity = identity_of(reply.chain_der, key.serialize_der());
        AdminClient::new(self.channel(Some(&identity)).await)
    }

    pub async fn apply(&self, trust: &str, options: ApplyOptions) -> Result<ApplyResponse, String> {
        let documents = vec![("trust.toml".to_owned(), trust.to_owned())];
        apply(self.admin().await, options, documents).await.map_err(|error| error.to_string())
    }

    /// Live leases, as the daemon counts them.
    pub async fn live(&self) -> u64 {
        let status = self.admin().await.get_status(pb::GetStatusRequest {}).await.expect("status");
        status.into_inner().live_leases
    }

    pub async fn restart(&mut self) {
        self.process = self.launch.start().expect("starts again");
    }
}

pub fn launch(folder: &Path, authority: &Authority, arguments: &[&str]) -> Launch {
    let file = folder.join("platform.pem");
    std::fs::write(&file, &authority.pem).expect("written");
    let mut all = vec!["--client-ca".to_owned(), format!("platform={}", file.display())];
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    Launch { folder: folder.to_owned(), arguments: all, config: None, program: None }
}

/// The trust map of the world.
pub fn trust() -> String {
    let mut trust = Trust::whole();
    trust.partner(PARTNER).partner("other");
    for tenant in TENANTS {
        trust.tenant(tenant);
        trust.workload(tenant, "worker", &format!("spiffe://platform.example/{tenant}/worker"), "platform");
        trust.verifier(
            &format!("shop-{tenant}"),
            &format!("spiffe://platform.example/{tenant}/shop"),
            "platform",
            &audience(tenant),
            &[tenant],
        );
        let (workloads, audience) = (["worker"], audience(tenant));
        trust.grant(&Grant { tenant, name: "report", partner: PARTNER, workloads: &workloads, audience: &audience });
    }
    // Unbound tokens are allowed, so that a test can have any of them looked at.
    let mut text = trust.text().replace("task_max = 7200", "task_max = 7200\nrequire_binding = false");
    for tenant in TENANTS {
        text += &format!(
            "[[operator]]\nname = \"op-{tenant}\"\nrole = \"admin\"\ntenants = [\"{tenant}\"]\npartners = \"all\"\n"
        );
    }
    text
}

pub fn audience(tenant: &str) -> String {
    format!("https://{tenant}.example")
}

/// A request that the tenant's grant covers. Unbound, so that whoever has the token can have it looked at.
pub fn request(tenant: &str, kind: CredentialKind) -> IssueRequest {
    let x509 = kind == CredentialKind::X509;
    IssueRequest {
        tenant: tenant.into(),
        partner: PARTNER.into(),
        purpose: "report".into(),
        kind: kind.into(),
        audiences: vec![audience(tenant)],
        actions: vec!["read".into()],
        generate_key: x509,
        binding: if x509 { pb::Binding::Unspecified } else { pb::Binding::None }.into(),
        ..IssueRequest::default()
    }
}

pub async fn issue(broker: &mut BrokerClient<Channel>, request: IssueRequest) -> Result<IssueResponse, Status> {
    broker.issue(request).await.map(tonic::Response::into_inner)
}

pub fn lease_of(reply: &IssueResponse) -> pb::Lease {
    reply.lease.clone().expect("a lease")
}

/// What a resource server would be shown.
pub fn presented(reply: &IssueResponse) -> Presented {
    match reply.credential.as_ref().expect("a credential") {
        Credential::Token(token) => Presented::Token(token.clone()),
        Credential::X509(x509) => Presented::CertificateDer(x509.chain_der[0].clone()),
        Credential::Secret(_) | Credential::Pickup(_) => panic!("no resource server is shown this"),
    }
}

pub async fn introspect(verifier: &mut VerifierClient<Channel>, credential: Presented) -> pb::IntrospectResponse {
    let request = IntrospectRequest { credential: Some(credential), ..IntrospectRequest::default() };
    verifier.introspect(request).await.expect("answers").into_inner()
}

pub async fn is_active(verifier: &mut VerifierClient<Channel>, reply: &IssueResponse) -> bool {
    introspect(verifier, presented(reply)).await.active
}

/// The identity that a certificate of the broker gives to whoever holds it.
pub fn holder(reply: &IssueResponse) -> Identity {
    match reply.credential.as_ref().expect("a credential") {
        Credential::X509(x509) => identity_of(x509.chain_der.clone(), x509.private_key_der.clone()),
        Credential::Token(_) | Credential::Secret(_) | Credential::Pickup(_) => panic!("this is no identity"),
    }
}

fn identity_of(chain: Vec<Vec<u8>>, key: Vec<u8>) -> Identity {
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    Identity { chain, key: PrivateKeyDer::try_from(key).expect("a key") }
}

// Scopes by what they name.

pub fn lease_scope(id: &str) -> Scope {
    Scope { kind: pb::ScopeKind::Lease.into(), lease_id: id.into(), ..Scope::default() }
}

pub fn partner_scope(tenant: &str) -> Scope {
    let kind = pb::ScopeKind::PartnerInTenant.into();
    Scope { kind, tenant: tenant.into(), partner: PARTNER.into(), ..Scope::default() }
}

pub fn revocation(scope: Scope) -> pb::RevokeRequest {
    pb::RevokeRequest { scope: Some(scope), reason: "test".into(), ..pb::RevokeRequest::default() }
}
