//! What a server shows of itself in TLS, and whom it believes.

use std::{net::IpAddr, sync::Arc, time::Duration};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::error::ServerError;
use crate::{
    api::listen::{ServerIdentity, TlsError, TlsSwap, certificates},
    broker::{Broker, time::end_by_either},
    config::{Config, ServerCertificate},
    identity::ClientAuthorities,
    mint::{
        ca::{self, Validity},
        x509::CaKey,
    },
    model::{Chain, TenantNumber, Timestamp, time::SKEW},
};

/// The certificate that the server shows: from files, or made by its own CA.
pub(super) fn identity(broker: &Broker, config: &Config) -> Result<ServerIdentity, ServerError> {
    let names = match &config.server_certificate {
        ServerCertificate::Files { certificate, key } => {
            show_end(certificates(certificate)?.first().and_then(|leaf| CaKey::end_of(leaf)));
            return Ok(ServerIdentity::from_files(certificate, key)?);
        }
        ServerCertificate::Own { names } => names,
    };
    let ring = broker.rings.ring(&broker.ledger, TenantNumber::BROKER)?;
    let issuing = ring.ca.as_ref().ok_or(ServerError::NoCa)?;
    let addresses: Vec<IpAddr> = names.iter().filter_map(|name| name.parse().ok()).collect();
    let dns: Vec<String> = names.iter().filter(|name| name.parse::<IpAddr>().is_err()).cloned().collect();
    let now = broker.now();
    let not_after = end_by_either(now, broker.time.wall(), CERTIFICATE_LIFE).min(issuing.not_after());
    let leaf = ca::mint_server(issuing, &dns, &addresses, Validity { not_before: now.before(SKEW), not_after })?;
    show_end(leaf.chain_der.first().and_then(|leaf| CaKey::end_of(leaf)));
    let key = leaf.private_key_der.as_ref().map(|key| key.expose().to_vec()).unwrap_or_default();
    let chain = leaf.chain_der.into_iter().map(CertificateDer::from).collect();
    Ok(ServerIdentity::new(chain, PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key))))
}

/// Shows when the certificate that new connections get ends.
fn show_end(end: Option<Timestamp>) {
    if let Some(end) = end.and_then(|end| u32::try_from(end.seconds()).ok()) {
        metrics::gauge!("mayfly_server_certificate_end_seconds").set(f64::from(end));
    }
}

/// The CAs that callers are believed by.
pub(super) fn authorities(broker: &Broker, config: &Config) -> Result<Arc<ClientAuthorities>, ServerError> {
    let own: Vec<CertificateDer<'static>> = broker.roots()?.into_iter().map(CertificateDer::from).collect();
    let foreign = config.client_cas.iter().map(|ca| Ok((ca.name.clone(), certificates(&ca.file)?)));
    let foreign: Vec<_> = foreign.collect::<Result<_, TlsError>>()?;
    let mut authorities = ClientAuthorities::new(config.trust_domain.clone(), &own, &foreign)?;
    for ca in config.client_cas.iter().filter(|ca| !ca.trust_domains.is_empty()) {
        authorities = authorities.limited(&ca.name, &ca.trust_domains);
    }
    // Where no identity token counts, a key of one's own is of no use.
    Ok(Arc::new(if config.issuers.is_empty() { authorities } else { authorities.taking_keys() }))
}

/// Gives new connections a fresh certificate and the CAs as they are then, well before the old one ends.
pub(super) async fn renew(broker: Arc<Broker>, config: Config, tls: Arc<TlsSwap>) {
    let mut pause = CERTIFICATE_LIFE * 7 / 10;
    loop {
        tokio::time::sleep(pause).await;
        let fresh = identity(&broker, &config).and_then(|own| Ok(tls.swap(own, authorities(&broker, &config)?)?));
        pause = match fresh {
            Ok(()) => CERTIFICATE_LIFE * 7 / 10,
            Err(error) => {
                tracing::error!(error = %Chain(&error), "the server's certificate was not renewed");
                RENEW_RETRY
            }
        };
    }
}

/// Of the broker's own TLS certificate.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(7 * 86_400);
const RENEW_RETRY: Duration = Duration::from_secs(600);
