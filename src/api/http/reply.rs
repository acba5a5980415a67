//! Answers over HTTP: cacheable public data, and refusals.

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{
    broker::Refusal,
    model::{Chain, Digest},
};

/// Public data that may be kept for `max_age` seconds; 304 for who has it already (RFC 9110 section 13.1.2).
pub(super) fn cacheable(headers: &HeaderMap, media_type: &'static str, body: String, max_age: u64) -> Response {
    let tag = format!("\"{}\"", Digest::of(body.as_bytes()));
    let has_it = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|list| {
        list.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
    });
    let cache = [(header::ETAG, tag), (header::CACHE_CONTROL, format!("public, max-age={max_age}"))];
    if has_it {
        return (StatusCode::NOT_MODIFIED, cache).into_response();
    }
    let kind = [(header::CONTENT_TYPE, media_type), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (cache, kind, body).into_response()
}

/// Counts a refusal, and logs it when it is our failure.
pub(super) fn counted(refusal: &Refusal) {
    metrics::counter!("mayfly_refused_total", "reason" => refusal.reason()).increment(1);
    if let Refusal::Fault(error) = refusal {
        tracing::error!(error = %Chain(error.as_ref()), "a request failed");
    }
}

/// Too much of one address.
pub(super) fn too_many(seconds: u32) -> Response {
    (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, seconds.to_string())]).into_response()
}

/// The one answer to what is not there.
pub(super) fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "not_found")
}

/// A refusal over HTTP.
pub(super) fn refused(refusal: &Refusal) -> Response {
    if let Refusal::Unknown(_) = refusal {
        return not_found();
    }
    counted(refusal);
    if let Refusal::Fault(_) = refusal {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "server_error");
    }
    error(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable")
}

fn error(status: StatusCode, word: &str) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, Body::from(format!("{{\"error\":\"{word}\"}}\n"))).into_response()
}
