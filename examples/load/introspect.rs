//! Questions of resource servers.

use std::sync::Arc;
use std::time::Duration;

use mayfly::pb::{CredentialKind, IntrospectRequest, IntrospectResponse};
use tonic::Status;

use crate::Options;
use crate::report::{Measurement, Report};
use crate::rig::{Held, Rig, STEADY};
use crate::series::{Series, closed_loop, open_loop};
use crate::support::Fallible;

/// Asks about live tokens, each caller with a step of its own through the pool.
pub async fn run(options: &Options, report: &mut Report) -> Fallible<()> {
    let rig = Rig::start(options).await?;
    let mut pool = Vec::new();
    for index in 0..POOL {
        pool.push(rig.issue(index, STEADY, CredentialKind::Jwt).await?.ask);
    }
    let pool: Arc<[IntrospectRequest]> = pool.into();
    let callers = options.callers();
    let mut clients = Vec::new();
    for index in 0..callers {
        clients.push(rig.verifier(index)?);
    }
    let clients = clients.as_slice();
    let series = closed_loop(callers, options.window(), move |caller| {
        let (client, pool) = (clients.get(caller).cloned(), Arc::clone(&pool));
        let mut at = caller;
        move || {
            at = (at + 61) % pool.len().max(1);
            let (client, request) = (client.clone(), pool.get(at).cloned());
            async move {
                let missing = || Status::internal("a caller too many");
                let mut client = client.ok_or_else(missing)?;
                active(client.introspect(request.ok_or_else(missing)?).await?.into_inner())
            }
        }
    })
    .await?;
    report.add(Measurement::new("introspect", callers, &series.checked("introspect")?, rig.usage()?));
    Ok(())
}

/// Asks `rate` times a second about the credentials in turn, whatever the answers.
pub async fn asking_at(rig: &Rig, about: &[Held], rate: u32, window: Duration) -> Fallible<Series> {
    // A step that shares no factor with a power of two reaches every sample, none next to the one before.
    let step = 61;
    open_loop(rate, window, |index| {
        let request = about.get(index * step % about.len().max(1)).map(|held| held.ask.clone());
        let client = rig.verifier(index);
        async move {
            let mut client = client.map_err(|error| Status::internal(error.to_string()))?;
            let request = request.ok_or_else(|| Status::internal("nothing to ask about"))?;
            active(client.introspect(request).await?.into_inner())
        }
    })
    .await
}

/// A reply counts when it calls the credential active.
fn active(reply: IntrospectResponse) -> Result<(), Status> {
    if reply.active { Ok(()) } else { Err(Status::internal("a live token was called inactive")) }
}

const POOL: usize = 2_000;
