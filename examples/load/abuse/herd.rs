//! Everybody at once after a restart.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mayfly::pb::CredentialKind;
use mayfly::pb::broker_client::BrokerClient;
use tokio::task::JoinSet;
use tonic::Code;

use super::HERD;
use crate::report::{Measurement, Report};
use crate::rig::{Rig, STEADY};
use crate::series::Series;
use crate::support::{Fallible, dial};

/// 20,000 callers on a few connections each ask once, and again where they are pushed back, until all are served.
pub async fn run(rig: &mut Rig, report: &mut Report) -> Fallible<bool> {
    rig.daemon.kill()?;
    rig.daemon.start_again()?;
    let (roots, before) = (rig.daemon.roots()?, rig.usage()?);
    let mut clients = Vec::new();
    for index in 0..CONNECTIONS {
        let identity = rig.lane(index)?.identity();
        let client = BrokerClient::new(dial(rig.daemon.address, &roots, Some(identity)).await?);
        clients.push((client, rig.request(index, STEADY, CredentialKind::Jwt, 300)?));
    }
    let (start, clients) = (Instant::now(), Arc::new(clients));
    let mut herd = JoinSet::new();
    for index in 0..CALLERS {
        let clients = Arc::clone(&clients);
        herd.spawn(async move {
            let Some((client, request)) = clients.get(index % CONNECTIONS) else { return Err(0) };
            let mut pushed_back = 0_u64;
            while start.elapsed() < LIMIT {
                match client.clone().issue(request.clone()).await {
                    Ok(_) => return Ok((start.elapsed(), pushed_back)),
                    Err(status) if matches!(status.code(), Code::ResourceExhausted | Code::Unavailable) => {
                        pushed_back += 1;
                        tokio::time::sleep(AGAIN * u32::try_from(pushed_back.min(10)).unwrap_or(1)).await;
                    }
                    Err(_) => break,
                }
            }
            Err(pushed_back)
        });
    }
    let (mut times, mut failed, mut pushed_back) = (Vec::new(), 0_u64, 0);
    while let Some(ended) = herd.join_next().await {
        match ended? {
            Ok((time, times_pushed)) => {
                times.push(time);
                pushed_back += times_pushed;
            }
            Err(times_pushed) => {
                failed += 1;
                pushed_back += times_pushed;
            }
        }
    }
    let (all_served, after) = (start.elapsed(), rig.usage()?);
    let held = failed == 0 && all_served < LIMIT && after.rss_mb - before.rss_mb <= MEMORY_MB;
    let row = Measurement::new(HERD, CALLERS, &Series::of(times), after)
        .with("all_served_ms", all_served.as_secs_f64() * 1e3)
        .with("failed", failed as f64)
        .with("pushed_back", pushed_back as f64)
        .with("rss_before_mb", before.rss_mb)
        .with("held", f64::from(u8::from(held)));
    report.add(row);
    Ok(held)
}

const CALLERS: usize = 20_000;
const CONNECTIONS: usize = 80;
const AGAIN: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_secs(20);
const MEMORY_MB: f64 = 400.0;
