//! SCIM 2.0 for a company's directory (RFC 7643, RFC 7644): users, as far as it matters who is there.

mod ask;
mod paper;

use std::sync::Arc;

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};

use self::{
    ask::{Asked, Filter, changes, replacement},
    paper::{ScimFault, listed, of_user},
};
use super::{Inbound, reply};
use crate::{
    api::listen::Peer,
    broker::{
        Refusal,
        directory::{NotChanged, UserChange},
    },
    model::{Digest, id::unhex},
};

type Shared = State<Arc<Inbound>>;
type From = Extension<Arc<Peer>>;

/// The routes, behind the directory's bearer token.
pub(super) fn routes(inbound: &Arc<Inbound>) -> Router {
    Router::new()
        .route("/scim/v2/ServiceProviderConfig", get(|| async { paper::json(&paper::provider_config()) }))
        .route("/scim/v2/ResourceTypes", get(|| async { paper::json(&paper::resource_types()) }))
        .route("/scim/v2/ResourceTypes/User", get(|| async { paper::json(&paper::resource_type()) }))
        .route("/scim/v2/Schemas", get(|| async { paper::json(&paper::schemas()) }))
        .route("/scim/v2/Schemas/{id}", get(one_schema))
        .route("/scim/v2/Users", get(list).post(add))
        .route("/scim/v2/Users/{id}", get(one).put(replace).patch(change).delete(remove))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .layer(middleware::from_fn_with_state(Arc::clone(inbound), admit))
        .with_state(Arc::clone(inbound))
}

/// Within the rate of its address, and with a token whose hash stands in the file.
async fn admit(State(inbound): Shared, request: Request, next: Next) -> Response {
    let source = request.extensions().get::<Arc<Peer>>().and_then(|peer| peer.source());
    if let Err(seconds) = inbound.take(source) {
        return reply::too_many(seconds);
    }
    let hashes = match inbound.broker.people.scim.as_ref() {
        Some(declared) => tokio::fs::read(&declared.token_hashes_file).await,
        None => return ScimFault::unauthorized().into_response(),
    };
    let hashes = match hashes {
        Ok(hashes) if hashes.len() <= HASHES_MAX_BYTES => hashes,
        outcome => {
            tracing::error!(error = ?outcome.err(), "scim.token_hashes_file cannot be used");
            return ScimFault::unavailable().into_response();
        }
    };
    if bearer(request.headers()).is_some_and(|token| is_known(token, &hashes)) {
        return next.run(request).await;
    }
    tracing::info!(?source, "a directory came without a token that counts");
    ScimFault::unauthorized().into_response()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?.to_str().ok()?, values.next()) else { return None };
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    // Short ones could be guessed.
    (scheme.eq_ignore_ascii_case("bearer") && token.len() >= TOKEN_LEAST_BYTES).then_some(token)
}

/// Whether the token's hash is one of the first two of the file: one in use, and one that comes or goes.
fn is_known(token: &str, hashes: &[u8]) -> bool {
    let own = Digest::of(token.as_bytes());
    let text = String::from_utf8_lossy(hashes);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let hashes = lines.take(2).filter_map(|line| Digest::from_slice(&unhex(line).ok()?));
    hashes.fold(false, |known, hash| known | hash.matches(&own))
}

async fn list(State(inbound): Shared, Query(asked): Query<Asked>) -> Result<Response, ScimFault> {
    let filter = asked.filter.as_deref().map(Filter::parse).transpose()?;
    let users = inbound.broker.users(|user| filter.as_ref().is_none_or(|filter| filter.keeps(user)));
    let start = asked.start.unwrap_or(1).max(1);
    let count = asked.count.unwrap_or(PAGE).min(PAGE);
    let shown: Vec<_> = users.iter().skip(start - 1).take(count).map(|user| of_user(user, &inbound.place())).collect();
    Ok(paper::json(&listed(users.len(), start, shown)))
}

async fn one(State(inbound): Shared, Path(id): Path<String>) -> Result<Response, ScimFault> {
    Ok(paper::json(&of_user(&inbound.broker.user(&id)?, &inbound.place())))
}

async fn add(State(inbound): Shared, Extension(peer): From, body: Bytes) -> Result<Response, ScimFault> {
    let change = replacement(&body)?;
    let user = inbound.broker.add_user(change, peer.source()).await?;
    let shown = of_user(&user, &inbound.place());
    let place = [(header::LOCATION, format!("{}/scim/v2/Users/{}", inbound.place(), user.id))];
    Ok((StatusCode::CREATED, place, paper::json(&shown)).into_response())
}

async fn replace(shared: Shared, from: From, id: Path<String>, body: Bytes) -> Result<Response, ScimFault> {
    let change = replacement(&body)?;
    changed(shared, from, id, change).await
}

async fn change(shared: Shared, from: From, id: Path<String>, body: Bytes) -> Result<Response, ScimFault> {
    let change = changes(&body)?;
    changed(shared, from, id, change).await
}

async fn changed(
    State(inbound): Shared,
    Extension(peer): From,
    Path(id): Path<String>,
    change: UserChange,
) -> Result<Response, ScimFault> {
    let user = inbound.broker.change_user(&id, change, peer.source()).await?;
    Ok(paper::json(&of_user(&user, &inbound.place())))
}

async fn remove(
    State(inbound): Shared,
    Extension(peer): From,
    Path(id): Path<String>,
) -> Result<StatusCode, ScimFault> {
    inbound.broker.remove_user(&id, peer.source()).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn one_schema(Path(id): Path<String>) -> Result<Response, ScimFault> {
    if id == paper::USER_SCHEMA { Ok(paper::json(&paper::schema())) } else { Err(NotChanged::Unknown.into()) }
}

impl std::convert::From<NotChanged> for ScimFault {
    fn from(error: NotChanged) -> Self {
        match error {
            NotChanged::Unknown => Self::not_found(),
            NotChanged::Taken => Self::new(StatusCode::CONFLICT, Some("uniqueness"), error.to_string()),
            NotChanged::Value(_) => Self::bad("invalidValue", error.to_string()),
            NotChanged::Refused(refusal) => {
                reply::counted(&refusal);
                if let Refusal::Fault(_) = refusal {
                    return Self::new(StatusCode::INTERNAL_SERVER_ERROR, None, "the broker failed".to_owned());
                }
                Self::unavailable()
            }
        }
    }
}

/// Of the longest request. Directories send whole profiles.
const BODY_MAX_BYTES: usize = 64 << 10;
/// Of the file of hashes.
const HASHES_MAX_BYTES: usize = 4 << 10;
/// Of the shortest token: 16 random bytes in hex.
const TOKEN_LEAST_BYTES: usize = 32;
/// Users on one page.
const PAGE: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_counts_whose_hash_is_one_of_the_first_two() {
        let (one, two, three) = ("a".repeat(40), "b".repeat(40), "c".repeat(40));
        let file = format!(
            "# in use\n{}\n\n{}\n{}\n",
            Digest::of(one.as_bytes()),
            Digest::of(two.as_bytes()).to_string().to_uppercase(),
            Digest::of(three.as_bytes())
        );
        assert!(is_known(&one, file.as_bytes()) && is_known(&two, file.as_bytes()));
        assert!(!is_known(&three, file.as_bytes()) && !is_known("", b"") && !is_known(&one, b"\xff"));
    }

    #[test]
    fn a_bearer_is_one_and_long() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().expect("ASCII"));
            }
            bearer(&headers).map(str::to_owned)
        };
        let long = "x".repeat(32);
        assert_eq!(of(&[&format!("bearer {long}")]), Some(long.clone()));
        for bad in [&[][..], &["Bearer short"], &[&format!("Basic {long}")], &[&format!("Bearer {long}"), "Bearer y"]] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
    }
}
