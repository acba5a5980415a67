//! A large trust map: 4,000 tenants with 25 grants each.

use std::time::{Duration, Instant};

use mayfly::pb::ApplyOptions;

use crate::Options;
use crate::issue::issuing_at;
use crate::report::{Measurement, Report};
use crate::rig::{AUDIENCE, AUTHORITY, Rig, STEADY};
use crate::series::Series;
use crate::support::{Fallible, Grant, Trust, apply};

/// Applies the whole map, then changes one grant at a time while a foreground issues at a fixed rate.
pub async fn run(options: &Options, report: &mut Report) -> Fallible<()> {
    let rig = Rig::start(options).await?;
    let documents: Vec<_> = (0..TENANTS).map(|number| document(number, 300)).collect();
    let bytes: usize = documents.iter().map(|(_, text)| text.len()).sum();
    eprintln!("applying {TENANTS} tenants and {} grants, {} MB", TENANTS * GRANTS, bytes / 1_000_000);
    let named = ApplyOptions { only_named_tenants: true, reason: "load test".to_owned(), ..ApplyOptions::default() };
    let started = Instant::now();
    apply(rig.admin.clone(), named.clone(), documents).await?;
    let whole = Series::of([started.elapsed()]);
    let grants = f64::from(TENANTS * GRANTS);
    report.add(Measurement::new("trust-map-first-apply", 1, &whole, rig.usage()?).with("grants", grants));

    let quiet = issuing_at(&rig, RATE, options.window()).await?.checked("trust-map-quiet")?;
    report.add(Measurement::new("trust-map-issue-quiet", 1, &quiet, rig.usage()?));
    let foreground = issuing_at(&rig, RATE, options.window() + Duration::from_secs(1));
    let (foreground, times) = tokio::join!(foreground, changes(&rig, &named, options.window()));
    let foreground = foreground?.checked("trust-map-issue")?;
    let ratio = foreground.quantile_ms(0.99) / quiet.quantile_ms(0.99).max(0.001);
    report.add(Measurement::new("trust-map-issue", 1, &foreground, rig.usage()?).with("p99_ratio", ratio));
    let times = times?;
    // What a whole folder costs that is applied again with one grant changed.
    let changed = u32::try_from(times.len())?;
    let again = (0..TENANTS).map(|number| document(number, later_life(number, changed))).collect();
    let started = Instant::now();
    apply(rig.admin.clone(), named, again).await?;
    let again = Series::of([started.elapsed()]);
    report.add(Measurement::new("trust-map-apply-again", 1, &again, rig.usage()?).with("grants", grants));
    report.add(Measurement::new("trust-map", 1, &Series::of(times), rig.usage()?).with("grants", grants));
    Ok(())
}

/// Changes one grant of one tenant after the other until `window` is over.
async fn changes(rig: &Rig, named: &ApplyOptions, window: Duration) -> Fallible<Vec<Duration>> {
    let (start, mut times, mut number) = (Instant::now(), Vec::new(), 0);
    while start.elapsed() < window {
        // A longer default life in the first grant widens it; nothing else changes.
        let document = document(number % TENANTS, 301);
        let started = Instant::now();
        let reply = apply(rig.admin.clone(), named.clone(), vec![document]).await?;
        times.push(started.elapsed());
        if reply.change_count == 0 {
            return Err("the change of a grant was not noticed".into());
        }
        number += 1;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(times)
}

/// The default life after `changed` changes, and one more change in the last tenant.
fn later_life(number: u32, changed: u32) -> u32 {
    if number + 1 == TENANTS {
        302
    } else if number < changed {
        301
    } else {
        300
    }
}

/// One tenant's document; the first grant's default life is `ttl_default_seconds`.
fn document(number: u32, ttl_default_seconds: u32) -> (String, String) {
    let tenant = format!("big{number}");
    let mut trust = Trust::default();
    trust.tenant(&tenant).workload(&tenant, "w0", &format!("spiffe://load.test/{tenant}/w0"), AUTHORITY);
    for grant in 0..GRANTS {
        let name = format!("g{grant}");
        let grant_of = Grant { tenant: &tenant, name: &name, partner: STEADY, workloads: &["w0"], audience: AUDIENCE };
        trust.grant_with(&grant_of, if grant == 0 { ttl_default_seconds } else { 300 });
    }
    (format!("{tenant}.toml"), trust.text().to_owned())
}

const TENANTS: u32 = 4_000;
const GRANTS: u32 = 25;
const RATE: u32 = 300;
const PAUSE: Duration = Duration::from_millis(200);
