//! What was measured: one line each, and the last one is the scenario's headline.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::series::Series;
use crate::usage::Usage;

/// One measurement, as it is printed.
#[derive(Clone, Serialize)]
pub struct Measurement {
    pub name: String,
    pub callers: usize,
    pub ok: u64,
    pub errors: u64,
    pub rate_per_s: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
    pub rss_mb: f64,
    pub disk_mb: f64,
    /// What only this scenario knows, such as `leases`.
    #[serde(flatten)]
    pub extra: BTreeMap<&'static str, f64>,
}

/// Collects measurements and prints each at once.
pub struct Report {
    json: bool,
    taken: Vec<Measurement>,
}

// === impl Measurement ===

impl Measurement {
    /// Sums up a series.
    pub fn new(name: &str, callers: usize, series: &Series, usage: Usage) -> Self {
        Self {
            name: name.to_owned(),
            callers,
            ok: series.ok(),
            errors: series.errors(),
            rate_per_s: round(series.rate()),
            p50_ms: round(series.quantile_ms(0.5)),
            p99_ms: round(series.quantile_ms(0.99)),
            p999_ms: round(series.quantile_ms(0.999)),
            max_ms: round(series.quantile_ms(1.0)),
            rss_mb: round(usage.rss_mb),
            disk_mb: round(usage.disk_mb),
            extra: BTreeMap::new(),
        }
    }

    /// Adds a figure of its own.
    pub fn with(mut self, name: &'static str, value: f64) -> Self {
        self.extra.insert(name, round(value));
        self
    }

    /// A figure of its own, as added by [`Measurement::with`].
    pub fn extra(&self, name: &str) -> Option<f64> {
        self.extra.get(name).copied()
    }
}

// === impl Report ===

impl Report {
    /// Prints JSON lines, or rows for people.
    pub fn new(json: bool) -> Self {
        Self { json, taken: Vec::new() }
    }

    /// Prints and keeps a measurement.
    pub fn add(&mut self, taken: Measurement) {
        if self.json {
            self.line(&taken);
        } else {
            if self.taken.is_empty() {
                println!(
                    "{:<28}{:>8}{:>10}{:>8}{:>12}{:>10}{:>10}{:>10}{:>10}{:>9}{:>9}",
                    "name",
                    "callers",
                    "ok",
                    "errors",
                    "rate/s",
                    "p50 ms",
                    "p99 ms",
                    "p999 ms",
                    "max ms",
                    "rss MB",
                    "disk MB"
                );
            }
            print!(
                "{:<28}{:>8}{:>10}{:>8}{:>12.0}{:>10.3}{:>10.3}{:>10.3}{:>10.3}{:>9.0}{:>9.0}",
                taken.name,
                taken.callers,
                taken.ok,
                taken.errors,
                taken.rate_per_s,
                taken.p50_ms,
                taken.p99_ms,
                taken.p999_ms,
                taken.max_ms,
                taken.rss_mb,
                taken.disk_mb
            );
            for (name, value) in &taken.extra {
                print!("  {name}={value}");
            }
            println!();
        }
        self.taken.push(taken);
    }

    /// Repeats the last measurement in words for people. As JSON lines it was the last line already.
    pub fn headline(&self) {
        if let (false, Some(last)) = (self.json, self.taken.last()) {
            println!(
                "{}: {:.0}/s, p50 {:.3} ms, p99 {:.3} ms, max {:.3} ms, {} errors",
                last.name, last.rate_per_s, last.p50_ms, last.p99_ms, last.max_ms, last.errors
            );
        }
    }

    /// The last measurement of this name.
    pub fn find(&self, name: &str) -> Option<&Measurement> {
        self.taken.iter().rev().find(|taken| taken.name == name)
    }

    fn line(&self, taken: &Measurement) {
        match serde_json::to_string(taken) {
            Ok(line) => println!("{line}"),
            Err(error) => eprintln!("{}: {error}", taken.name),
        }
    }
}

fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
