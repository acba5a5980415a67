//! Every scenario at modest sizes, and the table that the README shows.

use crate::report::{Measurement, Report};
use crate::support::Fallible;
use crate::{Options, Scenario, measure};

/// One row: what is aimed at, where it is read, and whether it was reached.
struct Row {
    work: &'static str,
    aim: &'static str,
    limit: Limit,
    from: &'static str,
    read: fn(&Measurement) -> (String, bool),
}

/// What no broker on this machine could beat.
enum Limit {
    /// Nothing that was measured.
    Nothing,
    /// A call that does nothing.
    Call,
    /// A call that does nothing and this work, which all cores share. What a store costs is not in it.
    CallAnd(&'static str, &'static str),
    /// One flush to disk, beside this figure of the measurement in milliseconds.
    Flush(fn(&Measurement) -> f64),
    /// The 99th percentile without the load.
    Quiet(&'static str),
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
    println!("\n| work | aim | reached | measured | limit here, same run | share of it |\n|---|---|---|---|---|---|");
    for row in ROWS {
        let taken = report.find(row.from);
        let (measured, reached) = taken.map_or_else(|| ("failed".to_owned(), false), row.read);
        let (limit, share) = row.limit.beside(taken, report);
        println!(
            "| {} | {} | {} | {measured} | {limit} | {share} |",
            row.work,
            row.aim,
            if reached { "yes" } else { "no" }
        );
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", ")).into()) }
}

// === impl Limit ===

impl Limit {
    /// The limit in words, and the share of it that was reached.
    fn beside(&self, taken: Option<&Measurement>, report: &Report) -> (String, String) {
        let rate = |name| report.find(name).map(|limit| limit.rate_per_s);
        let p50 = |name| report.find(name).map(|limit| limit.p50_ms);
        let beside = taken.and_then(|taken| match *self {
            Self::Nothing => None,
            Self::Call => rate(CALL).map(|calls| (format!("{calls:.0}/s bare calls"), taken.rate_per_s / calls)),
            Self::CallAnd(name, work) => {
                let (calls, works) = (rate(CALL)?, rate(name)? * cores());
                let both = calls * works / (calls + works);
                let text = format!("{both:.0}/s bare call and {work}; {works:.0}/s {work} alone");
                Some((text, taken.rate_per_s / both))
            }
            Self::Flush(figure) => {
                let flush = p50("limit-commit-1")?;
                Some((format!("{flush:.2} ms, one flush"), flush / figure(taken)))
            }
            Self::Quiet(name) => {
                report.find(name).map(|quiet| (format!("{:.2} ms quiet", quiet.p99_ms), quiet.p99_ms / taken.p99_ms))
            }
        });
        beside.map_or_else(
            || ("-".to_owned(), "-".to_owned()),
            |(limit, share)| (limit, format!("{:.0} %", share * 100.0)),
        )
    }
}

fn cores() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cores| f64::from(u32::try_from(cores.get()).unwrap_or(1)))
}

fn rate(taken: &Measurement, at_least: f64, p99_under: f64) -> (String, bool) {
    let text = format!("{:.0}/s, p99 {:.1} ms", taken.rate_per_s, taken.p99_ms);
    (text, taken.rate_per_s >= at_least && taken.p99_ms < p99_under && taken.errors == 0)
}

fn leases(taken: &Measurement) -> f64 {
    taken.extra("leases").unwrap_or_default()
}

const CALL: &str = "limit-rpc";

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
        limit: Limit::CallAnd("limit-sign-es256", "signature"),
        from: "issue-jwt",
        read: |taken| rate(taken, 18_000.0, 15.0),
    },
    Row {
        work: "the same with leases expiring at the same rate (TTL 10 s)",
        aim: "12,000/s, p99 < 25 ms",
        limit: Limit::CallAnd("limit-sign-es256", "signature"),
        from: "issue-jwt-churn",
        read: |taken| rate(taken, 12_000.0, 25.0),
    },
    Row {
        work: "durable leased X.509 from a CSR",
        aim: "10,000/s",
        limit: Limit::CallAnd("limit-sign-x509", "certificate"),
        from: "sign-x509",
        read: |taken| rate(taken, 10_000.0, f64::INFINITY),
    },
    Row {
        work: "introspect",
        aim: "40,000/s",
        limit: Limit::Call,
        from: "introspect",
        read: |taken| rate(taken, 40_000.0, f64::INFINITY),
    },
    Row {
        work: "one revoke: call to refused",
        aim: "p99 < 2 ms",
        limit: Limit::Flush(|taken| taken.p50_ms),
        from: "revoke-one",
        read: |taken| (format!("p50 {:.2}, p99 {:.2} ms", taken.p50_ms, taken.p99_ms), taken.p99_ms < 2.0),
    },
    Row {
        work: "revoke a partner: call to the last refused",
        aim: "< 5 ms, all at once, flat",
        limit: Limit::Flush(|taken| taken.max_ms),
        from: "revoke-partner",
        read: |taken| (format!("{:.2} ms with {:.0} leases", taken.max_ms, leases(taken)), taken.max_ms < 5.0),
    },
    Row {
        work: "memory per live lease",
        aim: "< 100 B; process < 300 MB at 1,000,000",
        limit: Limit::Nothing,
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
        limit: Limit::Nothing,
        from: "footprint",
        read: |taken| {
            let each = taken.extra("disk_bytes_per_lease").unwrap_or(f64::INFINITY);
            (format!("{each:.0} B"), each < 1024.0)
        },
    },
    Row {
        work: "kill -9 to first issue",
        aim: "< 0.3 s, flat",
        limit: Limit::Nothing,
        from: "restart",
        read: |taken| (format!("{:.2} s with {:.0} leases", taken.max_ms / 1e3, leases(taken)), taken.max_ms < 300.0),
    },
    Row {
        work: "p99 at a fixed 300/s in a full store",
        aim: "< 2 ms, flat",
        limit: Limit::Quiet("growth-0-of-4"),
        from: "growth",
        read: |taken| (format!("{:.2} ms with {:.0} leases", taken.p99_ms, leases(taken)), taken.p99_ms < 2.0),
    },
    Row {
        work: "20,000 leases expiring in one second, foreground p50",
        aim: "unchanged (x1.2)",
        limit: Limit::Quiet("expiry-storm-before"),
        from: "expiry-storm",
        read: |taken| {
            let ratio = taken.extra("p50_ratio").unwrap_or(f64::INFINITY);
            (format!("x{ratio:.2}, p99 {:.2} ms", taken.p99_ms), ratio <= 1.2)
        },
    },
    Row {
        work: "one grant changed among 100,000",
        aim: "< 1 s",
        limit: Limit::Nothing,
        from: "trust-map",
        read: |taken| (format!("p50 {:.1}, max {:.1} ms", taken.p50_ms, taken.max_ms), taken.max_ms < 1_000.0),
    },
    Row {
        work: "issue p99 meanwhile",
        aim: "unchanged (x1.2)",
        limit: Limit::Quiet("trust-map-issue-quiet"),
        from: "trust-map-issue",
        read: |taken| {
            let ratio = taken.extra("p99_ratio").unwrap_or(f64::INFINITY);
            (format!("p99 {:.2} ms, x{ratio:.2}", taken.p99_ms), ratio <= 1.2)
        },
    },
];
