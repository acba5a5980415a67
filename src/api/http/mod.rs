//! HTTP beside gRPC.

mod directory;
pub mod metrics_port;
mod reply;
mod signals;
pub mod tenant;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};

use crate::{
    api::grpc::{rate::Rates, status},
    broker::Broker,
};

/// What those share who tell of people.
struct Inbound {
    broker: Arc<Broker>,
    rates: Rates,
}

impl Inbound {
    /// Takes one request of an address; the seconds until there is one again.
    fn take(&self, source: Option<SocketAddr>) -> Result<(), u32> {
        let Some(source) = source else { return Ok(()) };
        let taken = self.rates.take_address(source.ip().to_canonical(), self.broker.now());
        taken.map_err(|retry_ms| retry_ms.div_ceil(1_000).max(1))
    }

    /// Where the HTTP surface is reached.
    fn place(&self) -> String {
        self.broker.settings.public_url.to_string().trim_end_matches('/').to_owned()
    }
}

/// The routes of a company's directory, or of an identity provider's events.
pub fn of_people(broker: &Arc<Broker>, directory: bool, signals: bool) -> Router {
    let rates = Rates::new(INBOUND_PER_SECOND, INBOUND_AT_ONCE);
    let inbound = Arc::new(Inbound { broker: Arc::clone(broker), rates });
    let mut router = Router::new();
    if directory {
        router = router.merge(directory::routes(&inbound));
    }
    if signals {
        router = router.merge(signals::routes(&inbound));
    }
    router
}

/// Of one address: a directory's first run tells of everybody.
const INBOUND_PER_SECOND: u32 = 50;
const INBOUND_AT_ONCE: u32 = 500;

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
