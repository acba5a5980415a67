//! Events of an identity provider, pushed (RFC 8935).

use std::sync::Arc;

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::json;

use super::{Inbound, reply};
use crate::{
    api::listen::Peer,
    broker::signals::NotTaken,
    identity::oidc::{TokenCode, TokenFault},
};

/// The one route.
pub(super) fn routes(inbound: &Arc<Inbound>) -> Router {
    Router::new()
        .route("/shared-signals/events", post(take))
        .layer(DefaultBodyLimit::max(EVENT_MAX_BYTES))
        .layer(middleware::from_fn_with_state(Arc::clone(inbound), admit))
        .with_state(Arc::clone(inbound))
}

/// Within the rate of its address, before a body is waited for.
async fn admit(State(inbound): State<Arc<Inbound>>, request: Request, next: Next) -> Response {
    let source = request.extensions().get::<Arc<Peer>>().and_then(|peer| peer.source());
    match inbound.take(source) {
        Ok(()) => next.run(request).await,
        Err(seconds) => reply::too_many(seconds),
    }
}

async fn take(
    State(inbound): State<Arc<Inbound>>,
    Extension(peer): Extension<Arc<Peer>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/secevent+jwt")) {
        return refused("invalid_request", "the content type is not application/secevent+jwt");
    }
    let Ok(text) = str::from_utf8(&body) else { return refused("invalid_request", "the body is no event") };
    match inbound.broker.take_event(text.trim(), peer.source()).await {
        // Section 2.2.
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(NotTaken::Token(fault)) if fault.code() == TokenCode::Unavailable => again(),
        Err(NotTaken::Token(fault)) => {
            let (code, words) = said(&fault);
            refused(code, words)
        }
        Err(NotTaken::Refused(refusal)) => {
            reply::counted(&refusal);
            again()
        }
    }
}

/// Section 2.4: a code, and no more than it says: the rest stands in the broker's events.
fn said(fault: &TokenFault) -> (&'static str, &'static str) {
    match fault {
        TokenFault::UnknownIssuer(_) => ("invalid_issuer", "the issuer is not the one that is declared here"),
        TokenFault::Audience { .. } => ("invalid_audience", "the event is not for this receiver"),
        TokenFault::UnknownKey(_) | TokenFault::Algorithm(_) | TokenFault::Signature => {
            ("invalid_key", "the event was not signed with a key of the transmitter")
        }
        TokenFault::Malformed(_)
        | TokenFault::Json { .. }
        | TokenFault::Header(_)
        | TokenFault::NoKeys { .. }
        | TokenFault::OtherProvider(_)
        | TokenFault::Party { .. }
        | TokenFault::Nonce
        | TokenFault::Claim(_)
        | TokenFault::Claims(_)
        | TokenFault::Expired(_)
        | TokenFault::TooOld(_)
        | TokenFault::Early(_)
        | TokenFault::Event(_)
        | TokenFault::SshRerun
        | TokenFault::Person(_)
        | TokenFault::Subject(_) => ("invalid_request", "the event is malformed, or from too long ago"),
    }
}

/// Section 2.3.
fn refused(code: &str, words: &str) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CONTENT_LANGUAGE, "en")];
    let body = json!({ "err": code, "description": words }).to_string();
    (StatusCode::BAD_REQUEST, headers, body).into_response()
}

/// Not its fault: the transmitter tells it again.
fn again() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "10")]).into_response()
}

/// Of the longest event, as of any token.
const EVENT_MAX_BYTES: usize = 16 << 10;
