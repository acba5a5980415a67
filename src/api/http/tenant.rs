//! One tenant's public documents: discovery, key set, roots.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Router,
    extract::{Path, State},
    http::HeaderMap,
    response::Response,
    routing::get,
};
use serde_json::{Value, json};

use super::reply;
use crate::{
    broker::{Broker, Refusal, bundle::Bundle},
    mint::pem,
    model::TenantName,
};

/// The routes of every tenant.
pub(super) fn routes() -> Router<Arc<Broker>> {
    Router::new()
        .route("/t/{tenant}/.well-known/openid-configuration", get(openid))
        .route("/.well-known/openid-configuration/t/{tenant}", get(openid))
        .route("/t/{tenant}/.well-known/oauth-authorization-server", get(oauth))
        // RFC 8414 section 3.1: the well-known part comes before the issuer's path.
        .route("/.well-known/oauth-authorization-server/t/{tenant}", get(oauth))
        .route("/t/{tenant}/jwks.json", get(jwks))
        .route("/t/{tenant}/bundle.pem", get(bundle_pem))
        .route("/t/{tenant}/spiffe-bundle.json", get(spiffe))
}

type Asked = (State<Arc<Broker>>, Path<String>, HeaderMap);

async fn openid(state: State<Arc<Broker>>, tenant: Path<String>, headers: HeaderMap) -> Response {
    answer((state, tenant, headers), JSON, |bundle, keys| {
        let mut document = metadata(bundle, keys, "id_token");
        if let Some(members) = document.as_object_mut() {
            members.insert("subject_types_supported".to_owned(), json!(["public"]));
            members.insert("id_token_signing_alg_values_supported".to_owned(), json!(algorithms(bundle)));
        }
        document.to_string()
    })
}

async fn oauth(state: State<Arc<Broker>>, tenant: Path<String>, headers: HeaderMap) -> Response {
    answer((state, tenant, headers), JSON, |bundle, keys| metadata(bundle, keys, "none").to_string())
}

async fn jwks(state: State<Arc<Broker>>, tenant: Path<String>, headers: HeaderMap) -> Response {
    answer((state, tenant, headers), JWK_SET, |bundle, _| bundle.jwks().to_string())
}

async fn bundle_pem(state: State<Arc<Broker>>, tenant: Path<String>, headers: HeaderMap) -> Response {
    answer((state, tenant, headers), PEM, |bundle, _| {
        pem::certificates(&bundle.roots) + &pem::certificates(&bundle.intermediates)
    })
}

async fn spiffe(state: State<Arc<Broker>>, tenant: Path<String>, headers: HeaderMap) -> Response {
    answer((state, tenant, headers), JSON, |bundle, _| spiffe_bundle(bundle).to_string())
}

fn answer((State(broker), Path(tenant), headers): Asked, kind: &'static str, write: Write) -> Response {
    let name = tenant.parse::<TenantName>().map_err(|_| Refusal::Unknown("tenant"));
    match name.and_then(|name| Ok((broker.bundle(&name)?, name))) {
        Ok((bundle, name)) => {
            // Keys are fetched from the broker also where tokens name another issuer.
            let keys = format!("{}/jwks.json", broker.settings.public_url.issuer(&name));
            reply::cacheable(&headers, kind, write(&bundle, &keys), bundle.max_age.as_secs())
        }
        Err(refusal) => reply::refused(&refusal),
    }
}

type Write = fn(&Bundle, &str) -> String;

/// What RFC 8414 and OpenID Connect discovery ask for. There are no endpoints: tokens are had over gRPC only.
fn metadata(bundle: &Bundle, keys: &str, response_type: &str) -> Value {
    json!({ "issuer": bundle.issuer, "jwks_uri": keys, "response_types_supported": [response_type] })
}

fn algorithms(bundle: &Bundle) -> Vec<&'static str> {
    let found: BTreeSet<&str> = bundle.keys.iter().map(|key| key.algorithm().name()).collect();
    if found.is_empty() { vec!["ES256"] } else { found.into_iter().collect() }
}

/// The SPIFFE bundle format (SPIFFE Trust Domain and Bundle, section 4).
fn spiffe_bundle(bundle: &Bundle) -> Value {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let roots = bundle.roots.iter().filter_map(|der| {
        let mut jwk = public_jwk(der)?;
        let members = jwk.as_object_mut()?;
        members.insert("use".to_owned(), json!("x509-svid"));
        members.insert("x5c".to_owned(), json!([STANDARD.encode(der)]));
        Some(jwk)
    });
    let tokens = bundle.keys.iter().map(|key| {
        let mut jwk = key.to_json();
        if let Some(members) = jwk.as_object_mut() {
            members.insert("use".to_owned(), json!("jwt-svid"));
        }
        jwk
    });
    json!({ "keys": roots.chain(tokens).collect::<Vec<_>>(), "spiffe_refresh_hint": bundle.max_age.as_secs() })
}

/// The key of a certificate, when it is of a kind that JWK sets hold here: EC on P-256 or P-384, or RSA.
fn public_jwk(der: &[u8]) -> Option<Value> {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
    use x509_parser::{prelude::FromDer as _, public_key::PublicKey};
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(der).ok()?;
    match certificate.public_key().parsed().ok()? {
        PublicKey::EC(point) => {
            let (x, y) = point.data().strip_prefix(&[4])?.split_at_checked((point.data().len() - 1) / 2)?;
            let curve = match x.len() {
                32 => "P-256",
                48 => "P-384",
                _ => return None,
            };
            Some(json!({ "kty": "EC", "crv": curve, "x": BASE64.encode(x), "y": BASE64.encode(y) }))
        }
        PublicKey::RSA(key) => {
            let plain = |bytes: &[u8]| BASE64.encode(bytes.strip_prefix(&[0]).unwrap_or(bytes));
            Some(json!({ "kty": "RSA", "n": plain(key.modulus), "e": plain(key.exponent) }))
        }
        PublicKey::DSA(_) | PublicKey::GostR3410(_) | PublicKey::GostR3410_2012(_) | PublicKey::Unknown(_) => None,
    }
}

const JSON: &str = "application/json";
const JWK_SET: &str = "application/jwk-set+json";
const PEM: &str = "application/pem-certificate-chain";
