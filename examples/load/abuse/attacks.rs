//! What a hostile crowd does.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mayfly::pb::broker_client::BrokerClient;
use mayfly::pb::verifier_client::VerifierClient;
use mayfly::pb::{CredentialKind, IssueRequest, WatchRevocationsRequest};
use rustls::pki_types::CertificateDer;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Tally;
use crate::Options;
use crate::rig::{Rig, STEADY};
use crate::support::{Fallible, Frames, Identity, dial};

/// One kind of attack.
#[derive(Clone, Copy)]
pub struct Attack {
    pub name: &'static str,
    pub callers: usize,
    pub work: fn(Ground, Arc<Tally>) -> Work,
}

/// An attack's work: without end.
pub type Work = Pin<Box<dyn Future<Output = Fallible<()>>>>;

/// What an attacker knows and has.
#[derive(Clone)]
pub struct Ground {
    pub address: SocketAddr,
    pub roots: Vec<CertificateDer<'static>>,
    /// Workloads of one tenant.
    pub workloads: Vec<Identity>,
    pub verifier: Identity,
    pub request: IssueRequest,
    /// Ten times as many callers as a load test has.
    pub callers: usize,
}

impl Ground {
    /// That of the rig's first tenant.
    pub fn of(rig: &Rig, options: &Options) -> Fallible<Self> {
        let workloads = rig.lanes.iter().step_by(TENANTS).map(|lane| lane.identity().clone()).collect();
        Ok(Self {
            address: rig.daemon.address,
            roots: rig.daemon.roots()?,
            workloads,
            verifier: rig.verifier_identity().clone(),
            request: rig.request(0, STEADY, CredentialKind::Jwt, 60)?,
            callers: options.callers() * 10,
        })
    }

    fn workload(&self, index: usize) -> Fallible<&Identity> {
        Ok(self.workloads.get(index % self.workloads.len().max(1)).ok_or("a ground without workloads")?)
    }
}

/// All of them.
pub const ATTACKS: [Attack; 9] = [
    Attack { name: "abuse-tenant-flood", callers: 640, work: |ground, tally| Box::pin(flood(ground, tally)) },
    Attack { name: "abuse-handshakes", callers: CROWD, work: |ground, tally| Box::pin(handshakes(ground, tally)) },
    Attack { name: "abuse-garbage", callers: CROWD, work: |ground, tally| Box::pin(garbage(ground, tally)) },
    Attack { name: "abuse-half-open", callers: SILENT, work: |ground, tally| Box::pin(half_open(ground, tally)) },
    Attack { name: "abuse-rapid-reset", callers: RAW, work: |ground, tally| Box::pin(raw(ground, tally, resets)) },
    Attack { name: "abuse-streams", callers: RAW, work: |ground, tally| Box::pin(raw(ground, tally, streams)) },
    Attack { name: "abuse-pings", callers: RAW, work: |ground, tally| Box::pin(raw(ground, tally, pings)) },
    Attack { name: "abuse-headers", callers: RAW, work: |ground, tally| Box::pin(raw(ground, tally, headers)) },
    Attack { name: "abuse-slow-watchers", callers: WATCHERS, work: |ground, tally| Box::pin(watchers(ground, tally)) },
];

/// One tenant asks with ten times the callers.
async fn flood(ground: Ground, tally: Arc<Tally>) -> Fallible<()> {
    let mut all = JoinSet::new();
    for index in 0..ground.callers.div_ceil(STREAMS) {
        let client = BrokerClient::new(dial(ground.address, &ground.roots, Some(ground.workload(index)?)).await?);
        for _ in 0..STREAMS.min(ground.callers) {
            let (mut client, request, tally) = (client.clone(), ground.request.clone(), Arc::clone(&tally));
            all.spawn(async move {
                loop {
                    let answer = client.issue(request.clone()).await;
                    tally.met(&answer);
                    if answer.is_err() {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            });
        }
    }
    forever(all).await
}

/// TLS without a certificate, one call, and again.
async fn handshakes(ground: Ground, tally: Arc<Tally>) -> Fallible<()> {
    let mut all = JoinSet::new();
    for _ in 0..CROWD {
        let (ground, tally) = (ground.clone(), Arc::clone(&tally));
        all.spawn(async move {
            loop {
                if let Ok(channel) = dial(ground.address, &ground.roots, None).await {
                    tally.met(&BrokerClient::new(channel).issue(ground.request.clone()).await);
                }
            }
        });
    }
    forever(all).await
}

/// Bytes that are no TLS, or begin like it.
async fn garbage(ground: Ground, tally: Arc<Tally>) -> Fallible<()> {
    let mut all = JoinSet::new();
    for index in 0..CROWD {
        let (address, tally) = (ground.address, Arc::clone(&tally));
        all.spawn(async move {
            let start: &[u8] = if index % 2 == 0 { &[22, 3, 1, 64, 0] } else { b"GET / HTTP/1.1\r\n\r\n" };
            let bytes = [start, &[0xa5; 8_000]].concat();
            loop {
                let Ok(mut stream) = TcpStream::connect(address).await else { continue };
                let sent = stream.write_all(&bytes).await;
                // Closed by the daemon, or after a moment by us.
                let mut answer = [0; 64];
                let read = tokio::io::AsyncReadExt::read(&mut stream, &mut answer);
                let _ = tokio::time::timeout(Duration::from_millis(50), read).await;
                let count = if sent.is_ok() { &tally.done } else { &tally.refused };
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    forever(all).await
}

/// Connections that say nothing; each that is closed comes again.
async fn half_open(ground: Ground, tally: Arc<Tally>) -> Fallible<()> {
    let mut open = std::collections::VecDeque::new();
    loop {
        match TcpStream::connect(ground.address).await {
            Ok(stream) => {
                tally.done.fetch_add(1, Ordering::Relaxed);
                open.push_back(stream);
            }
            Err(_) => {
                tally.refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
            }
        }
        if open.len() > SILENT {
            open.pop_front();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Frames by hand, on connections that begin anew whenever they end.
async fn raw(ground: Ground, tally: Arc<Tally>, burst: fn(&Frames, u32) -> Vec<u8>) -> Fallible<()> {
    let mut all = JoinSet::new();
    for index in 0..RAW {
        let (ground, tally, identity) = (ground.clone(), Arc::clone(&tally), ground.workload(index)?.clone());
        all.spawn(async move {
            loop {
                let opened = Frames::open(ground.address, &ground.roots, Some(&identity), ISSUE).await;
                let Ok(mut frames) = opened else {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                };
                for number in 0..1_000 {
                    let bytes = burst(&frames, number * 100);
                    if frames.send(&bytes).await.is_err() {
                        break;
                    }
                    tally.done.fetch_add(100, Ordering::Relaxed);
                }
                tally.refused.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    forever(all).await
}

fn resets(frames: &Frames, from: u32) -> Vec<u8> {
    let both = |at: u32| [frames.request(at * 2 + 1), Frames::reset(at * 2 + 1)].concat();
    (from..from + 100).flat_map(both).collect()
}

fn streams(frames: &Frames, from: u32) -> Vec<u8> {
    (from..from + 100).flat_map(|at| frames.request(at * 2 + 1)).collect()
}

fn pings(_: &Frames, _: u32) -> Vec<u8> {
    Frames::ping().repeat(100)
}

fn headers(frames: &Frames, from: u32) -> Vec<u8> {
    frames.huge_request(from * 2 + 1, 1 << 20)
}

/// Watchers that never read, as many as are let in.
async fn watchers(ground: Ground, tally: Arc<Tally>) -> Fallible<()> {
    let mut open = Vec::new();
    for _ in 0..WATCHERS.div_ceil(STREAMS) {
        let channel = dial(ground.address, &ground.roots, Some(&ground.verifier)).await?;
        let mut verifier = VerifierClient::new(channel);
        for _ in 0..STREAMS {
            let asked = verifier.watch_revocations(WatchRevocationsRequest::default()).await;
            tally.met(&asked);
            open.extend(asked.ok());
        }
    }
    std::future::pending().await
}

async fn forever(mut all: JoinSet<()>) -> Fallible<()> {
    while all.join_next().await.is_some() {}
    std::future::pending().await
}

const ISSUE: &str = "/mayfly.v1.Broker/Issue";
const TENANTS: usize = 4;
const CROWD: usize = 64;
const SILENT: usize = 6_000;
const RAW: usize = 8;
const WATCHERS: usize = 1_200;
/// On one connection; the daemon allows 256.
const STREAMS: usize = 200;
const PAUSE: Duration = Duration::from_millis(5);
