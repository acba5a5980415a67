//! Every scenario at modest sizes, and the table that the README shows.

use crate::report::{Measurement, Report};
use crate::support::Fallible;
use crate::{Options, Scenario, measure};

/// One row: what is aimed at, where it is read, and whether it was reached.
struct Row {
    work: &'static str,
    aim: &'static str,
    limit: &'static str,
    from: &'static str,
    read: fn(&Measurement) -> (String, bool),
}

/// Runs them all. A scenario that fails is told of and leaves a gap in the table; the others still run.
pub async fn run(options: &Options, report: &mut Report) -> Fallible<()> {
    let mut failed = Vec::new();
    for scenario in ORDER {
        let modest = MODEST.iter().find_map(|(of, leases)| (*of == scenario).then_some(*leases));
        let leases = options.leases.or(modest);
        // Boxed, as the futures of all scenarios are alternatives of one.
        if let Err(error) = Box::pin(measure(scenario, &Options { leases, ..options.clone() }, report)).await {
            eprintln!("{scenario:?}: {error}");
            failed.push(format!("{scenario:?}"));
        }
    }
    println!("\n| work | aim | measured | limit here, same run | reached |\n|---|---|---|---|---|");
    for row in ROWS {
        let (measured, reached) = match report.find(row.from) {
            Some(taken) => (row.read)(taken),
            None => ("failed".to_owned(), false),
        };
        let limit = report.find(row.limit).map_or_else(|| "-".to_owned(), |taken| limit(row.limit, taken));
        println!("| {} | {} | {measured} | {limit} | {} |", row.work, row.aim, if reached { "yes" } else { "no" });
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", ")).into()) }
}

fn limit(name: &str, taken: &Measurement) -> String {
    match name {
        "limit-commit-1" => format!("one flush, p50 {:.2} ms", taken.p50_ms),
        "limit-rpc" => format!("{:.0}/s bare calls", taken.rate_per_s),
        "limit-sign-x509" => format!("{:.0}/s a core", taken.rate_per_s),
        "limit-sign-es256" => format!("{:.0}/s signatures a core", taken.rate_per_s),
        quiet => format!("{quiet}: p99 {:.2} ms", taken.p99_ms),
    }
}

fn rate(taken: &Measurement, at_least: f64, p99_under: f64) -> (String, bool) {
    let text = format!("{:.0}/s, p99 {:.1} ms", taken.rate_per_s, taken.p99_ms);
    (text, taken.rate_per_s >= at_least && taken.p99_ms < p99_under && taken.errors == 0)
}

fn leases(taken: &Measurement) -> f64 {
    taken.extra("leases").unwrap_or_default()
}

/// Leases where the scenario's own default takes minutes to fill.
const MODEST: [(Scenario, u32); 3] =
    [(Scenario::Footprint, 200_000), (Scenario::Restart, 200_000), (Scenario::Growth, 100_000)];

const ORDER: [Scenario; 12] = [
    Scenario::Limits,
    Scenario::IssueJwt,
    Scenario::IssueJwtChurn,
    Scenario::SignX509,
    Scenario::Introspect,
    Scenario::RevokeOne,
    Scenario::RevokePartner,
    Scenario::Footprint,
    Scenario::Restart,
    Scenario::Growth,
    Scenario::ExpiryStorm,
    Scenario::TrustMap,
];

const ROWS: [Row; 13] = [
    Row {
        work: "issue a durable leased JWT",
        aim: "18,000/s, p99 < 15 ms",
        limit: "limit-sign-es256",
        from: "issue-jwt",
        read: |taken| rate(taken, 18_000.0, 15.0),
    },
    Row {
        work: "the same with leases expiring at the same rate (TTL 10 s)",
        aim: "12,000/s, p99 < 25 ms",
        limit: "limit-sign-es256",
        from: "issue-jwt-churn",
        read: |taken| rate(taken, 12_000.0, 25.0),
    },
    Row {
        work: "durable leased X.509 from a CSR",
        aim: "10,000/s",
        limit: "limit-sign-x509",
        from: "sign-x509",
        read: |taken| rate(taken, 10_000.0, f64::INFINITY),
    },
    Row {
        work: "introspect",
        aim: "40,000/s",
        limit: "limit-rpc",
        from: "introspect",
        read: |taken| rate(taken, 40_000.0, f64::INFINITY),
    },
    Row {
        work: "one revoke: call to refused",
        aim: "p99 < 2 ms",
        limit: "limit-commit-1",
        from: "revoke-one",
        read: |taken| (format!("p50 {:.2}, p99 {:.2} ms", taken.p50_ms, taken.p99_ms), taken.p99_ms < 2.0),
    },
    Row {
        work: "revoke a partner: call to the last refused",
        aim: "< 5 ms, all at once, flat",
        limit: "limit-commit-1",
        from: "revoke-partner",
        read: |taken| (format!("{:.2} ms with {:.0} leases", taken.max_ms, leases(taken)), taken.max_ms < 5.0),
    },
    Row {
        work: "memory per live lease",
        aim: "< 100 B; process < 300 MB at 1,000,000",
        limit: "",
        from: "footprint",
        read: |taken| {
            let each = taken.extra("rss_bytes_per_lease").unwrap_or(f64::INFINITY);
            let text = format!("{each:.0} B; {:.0} MB with {:.0} leases", taken.rss_mb, leases(taken));
            let at_a_million = taken.rss_mb + each * (1e6 - leases(taken)).max(0.0) / 1_048_576.0;
            (text, each < 100.0 && at_a_million < 300.0)
        },
    },
    Row {
        work: "disk per live lease",
        aim: "< 1 KB",
        limit: "",
        from: "footprint",
        read: |taken| {
            let each = taken.extra("disk_bytes_per_lease").unwrap_or(f64::INFINITY);
            (format!("{each:.0} B"), each < 1024.0)
        },
    },
    Row {
        work: "kill -9 to first issue",
        aim: "< 0.3 s, flat",
        limit: "",
        from: "restart",
        read: |taken| (format!("{:.2} s with {:.0} leases", taken.max_ms / 1e3, leases(taken)), taken.max_ms < 300.0),
    },
    Row {
        work: "p99 at a fixed 300/s in a full store",
        aim: "< 2 ms, flat",
        limit: "growth-0-of-4",
        from: "growth",
        read: |taken| (format!("{:.2} ms with {:.0} leases", taken.p99_ms, leases(taken)), taken.p99_ms < 2.0),
    },
    Row {
        work: "20,000 leases expiring in one second, foreground p50",
        aim: "unchanged (x1.2)",
        limit: "expiry-storm-before",
        from: "expiry-storm",
        read: |taken| {
            let ratio = taken.extra("p50_ratio").unwrap_or(f64::INFINITY);
            (format!("x{ratio:.2}, p99 {:.2} ms", taken.p99_ms), ratio <= 1.2)
        },
    },
    Row {
        work: "one grant changed among 100,000",
        aim: "< 1 s",
        limit: "",
        from: "trust-map",
        read: |taken| (format!("p50 {:.1}, max {:.1} ms", taken.p50_ms, taken.max_ms), taken.max_ms < 1_000.0),
    },
    Row {
        work: "issue p99 meanwhile",
        aim: "unchanged (x1.2)",
        limit: "trust-map-issue-quiet",
        from: "trust-map-issue",
        read: |taken| {
            let ratio = taken.extra("p99_ratio").unwrap_or(f64::INFINITY);
            (format!("p99 {:.2} ms, x{ratio:.2}", taken.p99_ms), ratio <= 1.2)
        },
    },
];
