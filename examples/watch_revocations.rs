//! Follows the feed of revocations as a resource server does, and sees a partner being cut off.
//!
//! `cargo run --example watch_revocations`, after `cargo build`.

mod support;

use std::time::Duration;

use mayfly::pb::{
    CredentialKind, RevocationKind, RevokeRequest, Scope, ScopeKind, WatchRevocationsRequest, WatchRevocationsResponse,
};
use support::{Fallible, Stage};
use tokio::time::timeout;
use tonic::Streaming;

#[tokio::main]
async fn main() -> Fallible<()> {
    let stage = Stage::set().await?;
    let mut broker = stage.workload(&stage.identity("worker")?).await?;
    let lease = broker.issue(Stage::request(CredentialKind::Opaque)).await?.into_inner().lease;
    let basis = lease.and_then(|lease| lease.basis).ok_or("a reply without a basis")?;

    // Resume after a revision that is known: nothing that happened since is missed.
    let mut verifier = stage.verifier().await?;
    let watch = WatchRevocationsRequest { after: Some(basis), ..WatchRevocationsRequest::default() };
    let mut feed = verifier.watch_revocations(watch).await?.into_inner();

    let revoke = RevokeRequest {
        scope: Some(Scope { kind: ScopeKind::Partner.into(), partner: "courier".into(), ..Scope::default() }),
        reason: "example".into(),
        ..RevokeRequest::default()
    };
    let reply = stage.operator().await?.revoke(revoke).await?.into_inner();
    let revision = reply.revision.ok_or("a reply without a revision")?;
    println!("partner courier revoked at revision {}: {} leases end", revision.number, reply.leases);
    for exposure in &reply.exposure {
        println!("  {}: {}", exposure.checked_by, exposure.explanation);
    }

    let cut = timeout(PATIENCE, first_cut(&mut feed)).await.map_err(|_| "no cut within ten seconds")??;
    println!("the feed brought the cut of revision {cut}");

    // The revoke barred the partner as well: asking again is refused.
    match broker.issue(Stage::request(CredentialKind::Opaque)).await {
        Ok(_) => return Err("a revoked partner obtained a credential".into()),
        Err(status) => println!("asking again: {:?}: {}", status.code(), status.message()),
    }
    if cut == revision.number { Ok(()) } else { Err("the feed told of another cut".into()) }
}

/// Reads the feed up to the first cut and returns its revision. Messages without events are heartbeats.
async fn first_cut(feed: &mut Streaming<WatchRevocationsResponse>) -> Fallible<u64> {
    while let Some(message) = feed.message().await? {
        let cut = message.events.iter().find(|event| event.kind() == RevocationKind::Cut);
        if let Some(revision) = cut.and_then(|event| event.revision) {
            return Ok(revision.number);
        }
    }
    Err("the feed ended".into())
}

const PATIENCE: Duration = Duration::from_secs(10);
