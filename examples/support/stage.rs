//! The stage of the small examples: tenant `acme`, partner `courier`, and the callers `worker`, `peer` and `shop`.

use std::net::SocketAddr;
use std::path::PathBuf;

use mayfly::client::{Address, ClientConfig, pem};
use mayfly::pb::admin_client::AdminClient;
use mayfly::pb::broker_client::BrokerClient;
use mayfly::pb::verifier_client::VerifierClient;
use mayfly::pb::{ApplyOptions, CredentialKind, IssueRequest};
use rustls::pki_types::CertificateDer;
use tonic::transport::Channel;

use super::{Authority, Daemon, Fallible, Grant, Identity, Launch, Trust, apply, certificates, dial};

/// A daemon to talk to, and where the keys of its callers are.
///
/// Without arguments an example starts its own daemon. With `--server HOST:PORT --keys FOLDER` it uses a running one:
/// `FOLDER/ca.pem` is its root, `FOLDER/NAME/{cert,key}.pem` the callers' identities, and its trust map must hold what
/// [`Stage::trust`] says.
pub struct Stage {
    address: SocketAddr,
    roots: Vec<CertificateDer<'static>>,
    keys: Keys,
}

enum Keys {
    Own(Box<(Authority, Daemon)>),
    Folder(PathBuf),
}

// === impl Stage ===

impl Stage {
    /// The audience that the grant is for.
    pub const AUDIENCE: &'static str = "https://shop.example";

    /// Sets the stage as the command line says.
    pub async fn set() -> Fallible<Self> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [] => Self::own().await,
            ["--server", server, "--keys", folder] => {
                let folder = PathBuf::from(folder);
                let roots = certificates(&folder.join("ca.pem"))?;
                let address = server.trim_start_matches("https://").trim_end_matches('/').parse()?;
                Ok(Self { address, roots, keys: Keys::Folder(folder) })
            }
            _ => Err("usage: no arguments, or --server IP:PORT --keys FOLDER".into()),
        }
    }

    async fn own() -> Fallible<Self> {
        let authority = Authority::new("platform")?;
        let daemon = Daemon::start(Launch::default(), &authority)?;
        let (address, roots) = (daemon.address, daemon.roots()?);
        let stage = Self { address, roots, keys: Keys::Own(Box::new((authority, daemon))) };
        let documents = vec![("trust.toml".to_owned(), Self::trust().text().to_owned())];
        apply(stage.operator().await?, ApplyOptions::default(), documents).await?;
        Ok(stage)
    }

    /// The trust map of the stage.
    pub fn trust() -> Trust {
        let mut trust = Trust::whole();
        trust.partner("courier").tenant("acme");
        trust.workload("acme", "worker", "spiffe://platform.example/worker", "platform");
        trust.workload("acme", "peer", "spiffe://platform.example/peer", "platform");
        trust.verifier("shop", "spiffe://platform.example/shop", "platform", Self::AUDIENCE, &["acme"]);
        let workloads = ["worker", "peer"];
        trust.grant(&Grant {
            tenant: "acme",
            name: "courier-report",
            partner: "courier",
            workloads: &workloads,
            audience: Self::AUDIENCE,
        });
        trust
    }

    /// A request that the grant covers.
    pub fn request(kind: CredentialKind) -> IssueRequest {
        IssueRequest {
            tenant: "acme".into(),
            partner: "courier".into(),
            purpose: "report".into(),
            kind: kind.into(),
            audiences: vec![Self::AUDIENCE.into()],
            actions: vec!["read".into()],
            ..IssueRequest::default()
        }
    }

    /// A caller's certificate and key: `worker`, `peer` or `shop`.
    pub fn identity(&self, name: &str) -> Fallible<Identity> {
        match &self.keys {
            Keys::Own(own) => own.0.identity(&format!("spiffe://platform.example/{name}")),
            Keys::Folder(folder) => Identity::read(&folder.join(name)),
        }
    }

    /// What the client library connects with, as a workload.
    pub fn config(&self, identity: &Identity) -> ClientConfig {
        let key = pem::encode(pem::PRIVATE_KEY, identity.key.secret_der());
        let chain = pem::encode_chain(&identity.chain).into_bytes();
        ClientConfig {
            address: Address::Https { host: self.address.ip().to_string(), port: self.address.port() },
            ca_pem: pem::encode_chain(&self.roots).into_bytes(),
            identity: Some(mayfly::client::Identity::new(chain, key.as_bytes().to_vec().into())),
            server_name: Some("localhost".into()),
        }
    }

    /// A workload's connection.
    pub async fn workload(&self, identity: &Identity) -> Fallible<BrokerClient<Channel>> {
        Ok(BrokerClient::new(dial(self.address, &self.roots, Some(identity)).await?))
    }

    /// The resource server's connection.
    pub async fn verifier(&self) -> Fallible<VerifierClient<Channel>> {
        let identity = self.identity("shop")?;
        Ok(VerifierClient::new(dial(self.address, &self.roots, Some(&identity)).await?))
    }

    /// The operator's connection.
    pub async fn operator(&self) -> Fallible<AdminClient<Channel>> {
        let identity = match &self.keys {
            Keys::Own(own) => own.1.operator()?,
            Keys::Folder(folder) => Identity::read(&folder.join("operator"))?,
        };
        Ok(AdminClient::new(dial(self.address, &self.roots, Some(&identity)).await?))
    }
}
