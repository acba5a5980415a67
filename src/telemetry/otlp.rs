//! Spans on their way to an OpenTelemetry collector.

use std::time::Duration;

use http::HeaderMap;
use opentelemetry::{
    propagation::{Extractor, TextMapPropagator},
    trace::TracerProvider as _,
};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    propagation::TraceContextPropagator,
    trace::{ParentBasedSampler, Sampler, SdkTracerProvider, SpanData, SpanExporter as Export},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{EnvFilter, Layer, filter::filter_fn, layer::SubscriberExt, util::SubscriberInitExt};

use super::{TelemetryError, logs_alone};
use crate::config::{LogFormat, Otlp, Telemetry};

/// What ships spans.
#[derive(Clone, Debug)]
pub struct Spans(SdkTracerProvider);

impl Spans {
    /// Sends what waits, for a few seconds at most.
    pub fn close(&self) {
        if let Err(error) = self.0.shutdown_with_timeout(CLOSE_WITHIN) {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

/// Begins logs, and spans where the config says so; within the runtime, which does the sending.
///
/// # Errors
/// When logs began before, or the exporter cannot be built.
pub fn install(telemetry: &Telemetry, filter: EnvFilter) -> Result<Option<Spans>, TelemetryError> {
    let Some(otlp) = &telemetry.otlp else { return logs_alone(telemetry.format, filter).map(|()| None) };
    let provider = provider(otlp).map_err(|error| TelemetryError::Spans(Box::new(error)))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match telemetry.format {
        LogFormat::Text => lines.with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
    };
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("mayfly"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        // No line of the log becomes an event of a span.
        .with_filter(filter_fn(|metadata| metadata.is_span() && metadata.target() == TARGET));
    let logs = tracing_subscriber::registry().with(lines).with(spans).try_init();
    logs.map_err(|error| TelemetryError::Logs(Box::new(error)))?;
    Ok(Some(Spans(provider)))
}

/// Makes the caller's span the parent of ours. Its `tracestate` is left behind: it is a text of anyone's choice.
pub fn adopt(span: &Span, headers: &HeaderMap) {
    if headers.contains_key(PARENT) {
        // A span that has begun keeps the parent it has.
        let _ = span.set_parent(TraceContextPropagator::new().extract(&Parent(headers)));
    }
}

fn provider(otlp: &Otlp) -> Result<SdkTracerProvider, ExporterBuildError> {
    let exporter =
        SpanExporter::builder().with_tonic().with_endpoint(otlp.endpoint.as_str()).with_timeout(SEND_WITHIN).build()?;
    let ratio = Sampler::TraceIdRatioBased(f64::from(otlp.sampled_per_million) / 1_000_000.0);
    let resource = Resource::builder_empty()
        .with_service_name("mayfly")
        .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    Ok(SdkTracerProvider::builder()
        .with_resource(resource.build())
        // A caller may ask not to be traced, and not to be traced more often than others.
        .with_sampler(ParentBasedSampler::new(ratio.clone()).with_remote_parent_sampled(ratio))
        .with_batch_exporter(Counted(exporter))
        .build())
}

/// Counts what arrived and what was lost: the broker never waits for a collector.
#[derive(Debug)]
struct Counted(SpanExporter);

impl Export for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let sent = self.0.export(batch).await;
        let outcome = if sent.is_ok() { "sent" } else { "lost" };
        metrics::counter!("mayfly_spans_total", "outcome" => outcome).increment(spans);
        sent.inspect_err(|error| tracing::warn!(%error, spans, "spans were not taken by the collector"))
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

struct Parent<'a>(&'a HeaderMap);

impl Extractor for Parent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        if key == PARENT { self.0.get(PARENT)?.to_str().ok() } else { None }
    }

    fn keys(&self) -> Vec<&str> {
        vec![PARENT]
    }
}

const TARGET: &str = "mayfly::spans";
const PARENT: &str = "traceparent";
const SEND_WITHIN: Duration = Duration::from_secs(5);
const CLOSE_WITHIN: Duration = Duration::from_secs(3);
