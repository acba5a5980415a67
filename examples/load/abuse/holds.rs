//! As many held tasks as are allowed, and some more.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mayfly::pb::broker_client::BrokerClient;
use mayfly::pb::{HoldTaskRequest, OpenTaskRequest};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tonic::transport::Channel;

use super::{HELD_TASKS, Judged, Running, Tally, live};
use crate::Options;
use crate::report::Report;
use crate::rig::{Rig, STEADY};
use crate::support::{Fallible, Identity, dial};

/// Two tenants hold what they get: half each of what the daemon allows.
pub async fn run(rig: &Rig, options: &Options, quiet_p99: f64, report: &mut Report) -> Fallible<bool> {
    let before = rig.usage()?;
    let (address, roots) = (rig.daemon.address, rig.daemon.roots()?);
    // Lanes 0 and 2 are of other tenants than the foreground.
    let lanes = [("t0", rig.lane(0)?.identity().clone()), ("t2", rig.lane(2)?.identity().clone())];
    let running = Running::start(move |tally| async move {
        let mut all = JoinSet::new();
        for (tenant, identity) in lanes {
            for _ in 0..EACH.div_ceil(STREAMS) {
                let client = connect(address, &roots, &identity).await?;
                for _ in 0..STREAMS {
                    all.spawn(hold(client.clone(), tenant, Arc::clone(&tally)));
                }
            }
        }
        while all.join_next().await.is_some() {}
        std::future::pending().await
    })?;
    let started = Instant::now();
    let tried = || running.tally.done.load(Ordering::Relaxed) + running.tally.refused.load(Ordering::Relaxed);
    while tried() < u64::try_from(EACH * 2)? && started.elapsed() < FILL_LIMIT {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eprintln!(
        "{} tasks are held after {:.0} s",
        running.tally.done.load(Ordering::Relaxed),
        started.elapsed().as_secs_f64()
    );
    let lived = live(rig, options.window()).await?;
    let during = rig.usage()?;
    let tally = running.stop();
    let judged = Judged { name: HELD_TASKS, callers: EACH * 2, before, during, quiet_p99, memory_mb: MEMORY_MB };
    let held = tally.done.load(Ordering::Relaxed);
    let counted = held == ALLOWED && tally.refused.load(Ordering::Relaxed) > 0;
    if !counted {
        eprintln!("{HELD_TASKS}: {held} tasks were held, {ALLOWED} are allowed");
    }
    Ok(judged.report(rig, lived, &tally, report).await? && counted)
}

async fn connect(
    address: std::net::SocketAddr,
    roots: &[rustls::pki_types::CertificateDer<'static>],
    identity: &Identity,
) -> Fallible<BrokerClient<Channel>> {
    Ok(BrokerClient::new(dial(address, roots, Some(identity)).await?))
}

/// Opens one task and beats for it until the runtime ends.
async fn hold(mut client: BrokerClient<Channel>, tenant: &'static str, tally: Arc<Tally>) {
    let open = OpenTaskRequest {
        tenant: tenant.to_owned(),
        partner: STEADY.to_owned(),
        purpose: "report".to_owned(),
        hold: true,
        ..OpenTaskRequest::default()
    };
    let task = loop {
        match client.open_task(open.clone()).await {
            Ok(reply) => break reply.into_inner().task,
            // Too fast, which passes; too many, which does not.
            Err(status) if status.code() == tonic::Code::ResourceExhausted => tokio::time::sleep(AGAIN).await,
            Err(status) => return tally.met::<()>(&Err(status)),
        }
    };
    let task_id = task.map(|task| task.task_id).unwrap_or_default();
    loop {
        let first = tokio_stream::once(HoldTaskRequest { task_id: task_id.clone() });
        let beats = first.chain(
            tokio_stream::wrappers::IntervalStream::new(tokio::time::interval(BEAT))
                .map(|_| HoldTaskRequest::default()),
        );
        match client.hold_task(beats).await {
            Ok(reply) => {
                tally.done.fetch_add(1, Ordering::Relaxed);
                let mut replies = reply.into_inner();
                while let Ok(Some(_)) = replies.message().await {}
                return;
            }
            Err(status) if status.code() == tonic::Code::ResourceExhausted => tokio::time::sleep(AGAIN).await,
            Err(status) => return tally.met::<()>(&Err(status)),
        }
    }
}

/// Half of what the daemon allows, and some more.
const EACH: usize = 25_200;
const ALLOWED: u64 = 50_000;
/// On one connection, with room for the calls that open tasks.
const STREAMS: usize = 200;
const BEAT: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(200);
/// 32 KiB for each held task, most of it the HTTP/2 stream's.
const MEMORY_MB: f64 = 1_600.0;
const FILL_LIMIT: Duration = Duration::from_secs(60);
