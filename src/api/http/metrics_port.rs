//! Metrics and probes on a plain port of their own, on loopback.

use std::{fmt, io, sync::Arc};

use axum::{Router, extract::State, http::StatusCode, http::header, response::IntoResponse, routing::get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Whether the broker can do its work now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Readiness {
    /// It can.
    Ready,
    /// It cannot; why, in one line.
    Not(String),
}

/// What the port shows.
#[derive(Clone)]
pub struct Probes {
    /// Renders the metrics as Prometheus text.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Says whether the broker can do its work.
    pub readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
}

impl fmt::Debug for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Probes(..)")
    }
}

/// `/metrics`, `/livez` (200 while the process answers) and `/readyz` (200, or 503 with the reason).
pub fn router(probes: Probes) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(probes)
}

/// Serves [`router`] until `stop`.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, probes: Probes, stop: CancellationToken) -> io::Result<()> {
    axum::serve(listener, router(probes)).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn metrics(State(probes): State<Probes>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (probes.metrics)())
}

async fn ready(State(probes): State<Probes>) -> (StatusCode, String) {
    match (probes.readiness)() {
        Readiness::Ready => (StatusCode::OK, "ready\n".to_owned()),
        Readiness::Not(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{body::Body, http::Request};
    use tower::ServiceExt;

    async fn ask(readiness: Readiness, path: &str) -> (StatusCode, String) {
        let probes = Probes {
            metrics: Arc::new(|| "mayfly_cuts 1\n".to_owned()),
            readiness: Arc::new(move || readiness.clone()),
        };
        let request = Request::get(path).body(Body::empty()).expect("request");
        let reply = router(probes).oneshot(request).await.expect("infallible");
        let status = reply.status();
        let body = axum::body::to_bytes(reply.into_body(), 1024).await.expect("body");
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn a_broker_that_is_not_ready_lives_and_says_why() {
        let not = Readiness::Not("the clock is held".to_owned());
        assert_eq!(ask(not.clone(), "/livez").await.0, StatusCode::OK);
        let want = (StatusCode::SERVICE_UNAVAILABLE, "the clock is held\n".to_owned());
        assert_eq!(ask(not, "/readyz").await, want);
        assert_eq!(ask(Readiness::Ready, "/readyz").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn metrics_are_text() {
        assert_eq!(ask(Readiness::Ready, "/metrics").await, (StatusCode::OK, "mayfly_cuts 1\n".to_owned()));
        assert_eq!(ask(Readiness::Ready, "/").await.0, StatusCode::NOT_FOUND);
    }
}
