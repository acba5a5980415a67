//! SVIDs and bundles as Envoy takes them.
//!
//! | name | secret |
//! |---|---|
//! | a SPIFFE ID | that SVID |
//! | `default` | the default SVID |
//! | the ID of a trust domain | its roots |
//! | `ROOTCA` | the roots of the default SVID's trust domain |
//! | `ALL` | the roots of all, chosen by the peer's trust domain |
//!
//! Without names: every SVID by its ID, and the roots of every trust domain by its own.

use prost::Message as _;
use prost_types::Any;

use crate::{
    broker::{
        Refusal,
        spiffe::{TrustBundle, Update, X509Svid},
    },
    foreign::envoy::{
        config::core::v3::{DataSource, TypedExtensionConfig, data_source::Specifier},
        extensions::transport_sockets::tls::v3::{
            CertificateValidationContext, Secret, SpiffeCertValidatorConfig, TlsCertificate, secret::Type,
            spiffe_cert_validator_config::TrustDomain,
        },
    },
    mint::pem,
};

/// The type of every resource.
pub(super) const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// The secrets of these names; of all when there are none.
///
/// # Errors
/// When one is unknown.
pub(super) fn secrets(names: &[String], update: &Update) -> Result<Vec<Any>, Refusal> {
    if names.is_empty() {
        let mut domains: Vec<&TrustBundle> = update.0.iter().map(|(_, bundle)| bundle.as_ref()).collect();
        domains.dedup_by_key(|bundle| &bundle.id);
        let svids = update.0.iter().map(|(svid, _)| certificate(&svid.spiffe_id, svid));
        return Ok(svids.chain(domains.into_iter().map(|bundle| roots(&bundle.id, bundle))).map(any).collect());
    }
    names.iter().map(|name| secret(name, update).map(any)).collect()
}

fn secret(name: &str, update: &Update) -> Result<Secret, Refusal> {
    let found = match name {
        "ALL" => Some(every_domain(update)),
        "ROOTCA" => update.0.first().map(|(_, bundle)| roots(name, bundle)),
        "default" => update.0.first().map(|(svid, _)| certificate(name, svid)),
        _ => {
            let svid = update.0.iter().find(|(svid, _)| svid.spiffe_id == name);
            let domain = || update.0.iter().find(|(_, bundle)| bundle.id == name);
            let svid = svid.map(|(svid, _)| certificate(name, svid));
            svid.or_else(|| domain().map(|(_, bundle)| roots(name, bundle)))
        }
    };
    found.ok_or_else(|| {
        let known = "is a SPIFFE ID or trust domain of yours, `default`, `ROOTCA` or `ALL`";
        Refusal::invalid("resource_names", format!("has `{}`; each {known}", name.escape_debug()))
    })
}

fn certificate(name: &str, svid: &X509Svid) -> Secret {
    let certificate = TlsCertificate {
        certificate_chain: inline(pem::certificates(&svid.chain_der)),
        private_key: inline(pem::private_key(&svid.key).expose().to_owned()),
    };
    Secret { name: name.to_owned(), r#type: Some(Type::TlsCertificate(certificate)) }
}

fn roots(name: &str, bundle: &TrustBundle) -> Secret {
    let context = CertificateValidationContext {
        trusted_ca: inline(pem::certificates(&bundle.roots_der)),
        custom_validator_config: None,
    };
    Secret { name: name.to_owned(), r#type: Some(Type::ValidationContext(context)) }
}

/// Envoy 1.18 and newer choose the roots by the peer's trust domain.
fn every_domain(update: &Update) -> Secret {
    let mut trust_domains: Vec<TrustDomain> = Vec::new();
    for (_, bundle) in &update.0 {
        if !trust_domains.iter().any(|known| known.name == bundle.domain()) {
            let trust_bundle = inline(pem::certificates(&bundle.roots_der));
            trust_domains.push(TrustDomain { name: bundle.domain().to_owned(), trust_bundle });
        }
    }
    let config =
        Any { type_url: VALIDATOR.to_owned(), value: SpiffeCertValidatorConfig { trust_domains }.encode_to_vec() };
    let validator = TypedExtensionConfig { name: VALIDATOR_NAME.to_owned(), typed_config: Some(config) };
    let context = CertificateValidationContext { trusted_ca: None, custom_validator_config: Some(validator) };
    Secret { name: "ALL".to_owned(), r#type: Some(Type::ValidationContext(context)) }
}

fn inline(pem: String) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::InlineBytes(pem.into_bytes())) })
}

fn any(secret: Secret) -> Any {
    Any { type_url: SECRET.to_owned(), value: secret.encode_to_vec() }
}

const VALIDATOR: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";
const VALIDATOR_NAME: &str = "envoy.tls.cert_validator.spiffe";
