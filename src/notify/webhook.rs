//! Signed POSTs, as the Standard Webhooks specification 1.0.0 has them.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use http::header;
use reqwest::{Client, Url};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::io::AsyncReadExt;
use zeroize::Zeroizing;

use super::{DeliveryError, Message, OutletError};
use crate::{
    config,
    issuers::guarded,
    mint::webhook::WebhookSecrets,
    model::{Timestamp, address::is_private},
};

/// One receiver.
pub(super) struct Webhook {
    url: Url,
    client: Client,
    secret_file: PathBuf,
    allow_private: bool,
    public_url: String,
}

impl Webhook {
    pub(super) fn open(config: &config::Webhook, public_url: &str) -> Result<Self, OutletError> {
        let url = Url::parse(&config.url).map_err(|_| OutletError::Url)?;
        let client = guarded(config.allow_private).use_preconfigured_tls(tls(&config.ca_file)?);
        let client = client.connect_timeout(CONNECT_TIME).timeout(WHOLE_TIME).build();
        let client = client.map_err(|error| OutletError::Client(error.without_url().into()))?;
        let (secret_file, allow_private) = (config.secret_file.clone(), config.allow_private);
        let text = std::fs::read_to_string(&secret_file).map(Zeroizing::new);
        let text = text.map_err(|source| OutletError::File { file: secret_file.clone(), source })?;
        WebhookSecrets::parse(&text)
            .map_err(|why| OutletError::Secrets(DeliveryError::Secrets { file: secret_file.clone(), why }))?;
        Ok(Self { url, client, secret_file, allow_private, public_url: public_url.to_owned() })
    }

    pub(super) fn host(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// The answer's body is not read: whatever it says, the status has said it.
    pub(super) async fn deliver(&self, message: &Message, route: &str, now: Timestamp) -> Result<(), DeliveryError> {
        self.check_literal()?;
        // Read each time, so that secrets can be changed without a restart.
        let secrets = self.secrets().await?;
        let body = message.json(route, &self.public_url);
        let signature = secrets.sign(&message.id, now.seconds(), &body);
        let request = self
            .client
            .post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("mayfly/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", now.seconds().to_string())
            .header("webhook-signature", signature)
            .body(body);
        let answer = request.send().await.map_err(|error| {
            if error.is_timeout() {
                DeliveryError::Deadline(WHOLE_TIME)
            } else {
                DeliveryError::Request(error.without_url())
            }
        })?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(DeliveryError::Status(status.as_u16())) }
    }

    async fn secrets(&self) -> Result<WebhookSecrets, DeliveryError> {
        let file = &self.secret_file;
        let text = read_bounded(file).await?;
        WebhookSecrets::parse(&text).map_err(|why| DeliveryError::Secrets { file: file.clone(), why })
    }

    /// A host that is an address is not looked up, so the resolver of [`guarded`] never sees it.
    fn check_literal(&self) -> Result<(), DeliveryError> {
        let host = self.url.host_str().unwrap_or_default();
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse();
        if !self.allow_private && literal.is_ok_and(is_private) {
            return Err(DeliveryError::Private(host.to_owned()));
        }
        Ok(())
    }
}

impl fmt::Debug for Webhook {
    // Without the URL's path and query, which may hold a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("host", &self.host()).finish_non_exhaustive()
    }
}

/// A small file of secrets.
pub(super) async fn read_bounded(file: &std::path::Path) -> Result<Zeroizing<String>, DeliveryError> {
    let failed = |source| DeliveryError::File { file: file.to_path_buf(), source };
    let open = tokio::fs::File::open(file).await.map_err(failed)?;
    let mut text = Zeroizing::new(String::with_capacity(FILE_MAX_BYTES));
    open.take(FILE_MAX_BYTES as u64).read_to_string(&mut text).await.map_err(failed)?;
    Ok(text)
}

/// Certificates of a PEM file that can be used as roots.
pub(super) fn roots(file: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, OutletError> {
    let pem = std::fs::read(file).map_err(|source| OutletError::File { file: file.to_path_buf(), source })?;
    let found = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
    // A system's bundle may hold roots that webpki does not know how to use.
    let usable: Vec<_> = found.filter(|root| RootCertStore::empty().add(root.clone()).is_ok()).collect();
    if usable.is_empty() { Err(OutletError::NoRoots(file.to_path_buf())) } else { Ok(usable) }
}

fn tls(ca_file: &std::path::Path) -> Result<ClientConfig, OutletError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots(ca_file)?);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| OutletError::Client(error.into()))?;
    Ok(builder.with_root_certificates(store).with_no_client_auth())
}

const CONNECT_TIME: Duration = Duration::from_secs(3);
const WHOLE_TIME: Duration = Duration::from_secs(8);
const FILE_MAX_BYTES: usize = 4_096;
