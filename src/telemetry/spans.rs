//! Spans: one a call, one a step of it. They cost one comparison each while nobody takes them.
//!
//! All have the target `mayfly::spans` and the level trace, so that no log shows them unless asked for by name. They
//! tell methods, steps and codes: nothing of what was asked, and nothing of what was handed out.

use http::HeaderMap;
use tracing::Span;

/// The span of one call. A `traceparent` (W3C) among the headers becomes its parent.
#[must_use]
pub fn rpc(method: &'static str, headers: &HeaderMap) -> Span {
    let span = tracing::trace_span!(
        target: "mayfly::spans",
        "rpc",
        otel.name = method,
        otel.kind = "server",
        rpc.system = "grpc",
        rpc.method = method,
        code = tracing::field::Empty,
    );
    #[cfg(feature = "otlp")]
    if !span.is_disabled() {
        super::otlp::adopt(&span, headers);
    }
    #[cfg(not(feature = "otlp"))]
    let _unused = headers;
    span
}

/// Says how a call ended.
pub fn ended(span: &Span, code: &'static str) {
    span.record("code", code);
}
