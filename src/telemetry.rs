//! Logs, metrics and spans of the process.

#[cfg(test)]
mod documented;
mod host;
#[cfg(feature = "otlp")]
mod otlp;
mod spans;

use std::{io, thread, time::Duration};

use metrics::Unit;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Telemetry};

pub use host::show_disk;
pub use spans::{ended, rpc};

/// Renders what the process counted.
#[derive(Clone)]
pub struct Metrics {
    rendered: PrometheusHandle,
    #[cfg(feature = "otlp")]
    spans: Option<otlp::Spans>,
}

/// Why logs or metrics could not begin.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log filter is none.
    #[error("the log filter cannot be read")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// Logs began before.
    #[error("a log output is installed already")]
    Logs(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The thread that folds metrics.
    #[error("cannot start a thread for the metrics")]
    Thread(#[source] io::Error),
    /// Metrics began before.
    #[error("a metrics recorder is installed already")]
    Recorder,
    /// The histograms' bounds are refused.
    #[error("the metrics recorder cannot be built")]
    Build(#[source] metrics_exporter_prometheus::BuildError),
    /// Spans cannot be sent.
    #[error("the spans' exporter cannot be built; mend telemetry.otlp.endpoint")]
    Spans(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What a metric is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Moves both ways.
    Gauge,
    /// Spreads over buckets.
    Histogram,
}

/// One metric that the broker keeps.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name, unit included.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it counts in.
    pub unit: Unit,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

/// Begins logs on standard error, the metrics, and spans where they are asked for, once in a process.
///
/// # Errors
/// When the filter is none, or either began before.
pub fn install(telemetry: &Telemetry) -> Result<Metrics, TelemetryError> {
    let filter = EnvFilter::try_new(&telemetry.log).map_err(TelemetryError::Filter)?;
    #[cfg(feature = "otlp")]
    let spans = otlp::install(telemetry, filter)?;
    #[cfg(not(feature = "otlp"))]
    logs_alone(telemetry.format, filter)?;
    let recorder = builder().map_err(TelemetryError::Build)?.build_recorder();
    let handle = recorder.handle();
    fold(handle.clone()).map_err(TelemetryError::Thread)?;
    metrics::set_global_recorder(recorder).map_err(|_| TelemetryError::Recorder)?;
    describe();
    Ok(Metrics {
        rendered: handle,
        #[cfg(feature = "otlp")]
        spans,
    })
}

/// Puts the times that histograms hold into their buckets, for as long as the process lives: each is kept as it is until
/// then, also where nobody asks for the metrics.
fn fold(rendered: PrometheusHandle) -> io::Result<()> {
    let folding = move || {
        loop {
            thread::sleep(FOLD_EVERY);
            rendered.run_upkeep();
            tracing::trace!("histograms were folded");
        }
    };
    thread::Builder::new().name("metrics".into()).spawn(folding).map(drop)
}

/// Lines on standard error, and no spans anywhere.
fn logs_alone(format: LogFormat, filter: EnvFilter) -> Result<(), TelemetryError> {
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(TelemetryError::Logs)
}

impl Metrics {
    /// All metrics in the Prometheus text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.rendered.render()
    }

    /// Sends the spans that still wait, for a few seconds at most; none begins afterwards.
    pub fn close(&self) {
        #[cfg(feature = "otlp")]
        if let Some(spans) = &self.spans {
            spans.close();
        }
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics(..)")
    }
}

fn builder() -> Result<PrometheusBuilder, metrics_exporter_prometheus::BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_batch".to_owned()), BATCH)
}

fn describe() {
    for metric in METRICS {
        let Metric { name, unit, help, .. } = *metric;
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(name, unit, help),
            Kind::Gauge => metrics::describe_gauge!(name, unit, help),
            Kind::Histogram => metrics::describe_histogram!(name, unit, help),
        }
        // What has not happened yet shows as zero, so that a rate sees its first time.
        match metric.kind {
            Kind::Counter if metric.labels.is_empty() => metrics::counter!(name).increment(0),
            Kind::Gauge if metric.labels.is_empty() && unit == Unit::Count => metrics::gauge!(name).increment(0.0),
            Kind::Counter | Kind::Gauge | Kind::Histogram => {}
        }
    }
}

/// At 40,000 requests a second, a few megabytes are held at a time.
const FOLD_EVERY: Duration = Duration::from_secs(2);
/// Bounds of time histograms, in seconds: around the aims of the design, from a lookup to a time-out.
const SECONDS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// Bounds of batch histograms, in proposals.
const BATCH: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

const fn metric(
    kind: Kind,
    name: &'static str,
    unit: Unit,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind, unit, labels, help }
}

/// Every metric that the broker keeps.
pub const METRICS: &[Metric] = &[
    metric(Kind::Gauge, "mayfly_build_info", Unit::Count, &["version", "engine"], "1; the labels say what runs."),
    metric(Kind::Gauge, "mayfly_started_seconds", Unit::Seconds, &[], "When the daemon started, Unix time."),
    metric(Kind::Gauge, "mayfly_revision", Unit::Count, &[], "The last published revision."),
    metric(Kind::Gauge, "mayfly_held", Unit::Count, &["reason"], "1 while nothing is begun for this reason."),
    metric(Kind::Gauge, "mayfly_clock_ahead_seconds", Unit::Seconds, &[], "The broker's time less the wall clock."),
    metric(Kind::Counter, "mayfly_issued_total", Unit::Count, &["kind"], "Credentials handed out."),
    metric(
        Kind::Counter,
        "mayfly_issuer_fetch_failures_total",
        Unit::Count,
        &[],
        "Times that the keys of an issuer could not be fetched.",
    ),
    metric(
        Kind::Counter,
        "mayfly_credentials_reused_total",
        Unit::Count,
        &[],
        "Bound credentials that came to a verifier without their certificate.",
    ),
    metric(
        Kind::Counter,
        "mayfly_identity_tokens_reused_total",
        Unit::Count,
        &[],
        "Identity tokens that came with a second key.",
    ),
    metric(
        Kind::Counter,
        "mayfly_sign_ins_total",
        Unit::Count,
        &["outcome"],
        "Sign-ins of people, by what came of them.",
    ),
    metric(Kind::Counter, "mayfly_approvals_requested_total", Unit::Count, &[], "Approvals asked for."),
    metric(Kind::Counter, "mayfly_refused_total", Unit::Count, &["reason"], "Requests refused."),
    metric(
        Kind::Counter,
        "mayfly_policy_differences_total",
        Unit::Count,
        &["shadow"],
        "Decisions that policies in shadow would have made otherwise.",
    ),
    metric(Kind::Histogram, "mayfly_rpc_seconds", Unit::Seconds, &["method", "code"], "Time of one call."),
    metric(Kind::Histogram, "mayfly_end_seconds", Unit::Seconds, &[], "Time of an end, from the queue to in force."),
    metric(Kind::Gauge, "mayfly_connections", Unit::Count, &[], "Open connections."),
    metric(Kind::Counter, "mayfly_connections_refused_total", Unit::Count, &["reason"], "Connections turned away."),
    metric(Kind::Gauge, "mayfly_holds", Unit::Count, &[], "Open HoldTask streams."),
    metric(Kind::Gauge, "mayfly_watchers", Unit::Count, &[], "Open WatchRevocations streams."),
    metric(Kind::Gauge, "mayfly_local_streams", Unit::Count, &[], "Open streams of the Workload API and of SDS."),
    metric(
        Kind::Counter,
        "mayfly_turns_total",
        Unit::Count,
        &["outcome"],
        "Beginnings (issue, renew, open, hold) that were let in.",
    ),
    metric(Kind::Gauge, "mayfly_turns_waiting", Unit::Count, &[], "Beginnings that wait for their tenant's turn."),
    metric(Kind::Histogram, "mayfly_commit_seconds", Unit::Seconds, &[], "Time of a durable commit."),
    metric(Kind::Histogram, "mayfly_commit_batch", Unit::Count, &[], "Proposals merged into one commit."),
    metric(Kind::Histogram, "mayfly_anchor_seconds", Unit::Seconds, &[], "Time of writing the anchor."),
    metric(Kind::Gauge, "mayfly_lane_depth", Unit::Count, &["lane"], "Proposals waiting for the committer."),
    metric(Kind::Gauge, "mayfly_live_leases", Unit::Count, &[], "Leases that have not expired."),
    metric(Kind::Gauge, "mayfly_cuts", Unit::Count, &[], "Cuts in memory."),
    metric(Kind::Gauge, "mayfly_bars", Unit::Count, &[], "Scopes that are barred or suspended."),
    metric(Kind::Gauge, "mayfly_suspended_scopes", Unit::Count, &["reason"], "Scopes suspended by reason."),
    metric(
        Kind::Gauge,
        "mayfly_lapsed_quarantines",
        Unit::Count,
        &[],
        "Quarantines whose time is over and that stay closed.",
    ),
    metric(Kind::Gauge, "mayfly_cleanup_pending_cuts", Unit::Count, &[], "Cuts whose leases are still being marked."),
    metric(Kind::Counter, "mayfly_cleanup_walked_total", Unit::Count, &[], "Leases looked at behind cuts."),
    metric(Kind::Counter, "mayfly_cleanup_ended_total", Unit::Count, &[], "Leases marked as ended behind cuts."),
    metric(Kind::Counter, "mayfly_swept_total", Unit::Count, &[], "Rows that the sweeper deleted."),
    metric(Kind::Gauge, "mayfly_sweep_at_seconds", Unit::Seconds, &[], "When nothing was left to sweep, Unix time."),
    metric(Kind::Counter, "mayfly_background_failures_total", Unit::Count, &["work"], "Background work put off."),
    metric(Kind::Gauge, "mayfly_store_disk_bytes", Unit::Bytes, &[], "Disk that the ledger takes."),
    metric(Kind::Gauge, "mayfly_store_buffered_bytes", Unit::Bytes, &[], "Written, and not yet in its place."),
    metric(Kind::Gauge, "mayfly_disk_free_bytes", Unit::Bytes, &[], "Room left where the ledger lies."),
    metric(Kind::Gauge, "mayfly_set_aside_rows", Unit::Count, &["table"], "Rows that could not be read."),
    metric(Kind::Gauge, "mayfly_sink_behind_revisions", Unit::Count, &["sink"], "Revisions a sink has yet to take."),
    metric(Kind::Gauge, "mayfly_sink_acknowledged_revision", Unit::Count, &["sink"], "What a sink has taken last."),
    metric(Kind::Gauge, "mayfly_sink_waiting_seconds", Unit::Seconds, &["sink"], "Age of what waits longest."),
    metric(Kind::Gauge, "mayfly_sink_failing", Unit::Count, &["sink"], "1 when a sink failed last time."),
    metric(Kind::Gauge, "mayfly_checkpoint_at_seconds", Unit::Seconds, &[], "Time of the last checkpoint, Unix time."),
    metric(Kind::Gauge, "mayfly_checkpoint_waiting_streams", Unit::Count, &[], "Streams moved since then."),
    metric(Kind::Gauge, "mayfly_authority_end_seconds", Unit::Seconds, &["authority"], "When a CA ends, Unix time."),
    metric(Kind::Gauge, "mayfly_server_certificate_end_seconds", Unit::Seconds, &[], "When it ends, Unix time."),
    metric(Kind::Gauge, "mayfly_key_rings_stuck", Unit::Count, &[], "Tenants whose keys could not be rotated."),
    metric(
        Kind::Gauge,
        "mayfly_notify_waiting",
        Unit::Count,
        &["route", "channel"],
        "Messages to owners that wait to be delivered.",
    ),
    metric(
        Kind::Gauge,
        "mayfly_notify_failing",
        Unit::Count,
        &["route", "channel"],
        "1 when the last message by this way did not get through.",
    ),
    metric(
        Kind::Counter,
        "mayfly_notify_delivered_total",
        Unit::Count,
        &["route", "channel"],
        "Messages to owners that were delivered.",
    ),
    metric(
        Kind::Counter,
        "mayfly_notify_failures_total",
        Unit::Count,
        &["route", "channel"],
        "Attempts to deliver one that failed.",
    ),
    metric(
        Kind::Counter,
        "mayfly_notify_given_up_total",
        Unit::Count,
        &["route", "channel"],
        "Messages to owners that were given up.",
    ),
    metric(Kind::Counter, "mayfly_spans_total", Unit::Count, &["outcome"], "Spans sent to the collector, or lost."),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_metric_has_one_name_that_says_its_kind_and_unit() {
        let mut names = HashSet::new();
        for metric in METRICS {
            assert!(names.insert(metric.name), "{}", metric.name);
            assert!(metric.name.starts_with("mayfly_") && metric.help.ends_with('.'), "{}", metric.name);
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            assert_eq!(metric.unit == Unit::Seconds, metric.name.ends_with("_seconds"), "{}", metric.name);
            assert_eq!(metric.unit == Unit::Bytes, metric.name.ends_with("_bytes"), "{}", metric.name);
        }
    }

    #[test]
    fn rendered_metrics_carry_help_and_buckets() {
        let recorder = builder().expect("bounds").build_recorder();
        let metrics = Metrics {
            rendered: recorder.handle(),
            #[cfg(feature = "otlp")]
            spans: None,
        };
        metrics::with_local_recorder(&recorder, || {
            describe();
            metrics::counter!("mayfly_issued_total", "kind" => "jwt").increment(2);
            metrics::histogram!("mayfly_commit_seconds").record(0.003);
        });
        let text = metrics.render();
        for want in [
            "# HELP mayfly_issued_total Credentials handed out.",
            "mayfly_issued_total{kind=\"jwt\"} 2",
            "mayfly_commit_seconds_bucket{le=\"0.004\"} 1",
        ] {
            assert!(text.contains(want), "{text}");
        }
    }
}
