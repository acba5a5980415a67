//! HTTP beside gRPC.

pub mod metrics_port;
mod reply;
pub mod tenant;

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};

use crate::{api::grpc::status, broker::Broker};

/// Everything over HTTP that needs no gRPC.
pub fn router(broker: Arc<Broker>) -> Router {
    tenant::routes().with_state(broker)
}

/// The answer to what is not there, in the words of whoever asks.
pub async fn not_found(headers: HeaderMap) -> Response {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if kind.is_some_and(|kind| kind.starts_with("application/grpc")) {
        return status::not_offered().into_http::<axum::body::Body>();
    }
    reply::not_found().into_response()
}
