//! Questions of resource servers.

use std::sync::Arc;

use mayfly::pb::{CredentialKind, IntrospectRequest};
use tonic::Status;

use crate::Options;
use crate::report::{Measurement, Report};
use crate::rig::{Rig, STEADY};
use crate::series::closed_loop;
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
                let reply = client.introspect(request.ok_or_else(missing)?).await?.into_inner();
                if reply.active { Ok(()) } else { Err(Status::internal("a live token was called inactive")) }
            }
        }
    })
    .await?;
    report.add(Measurement::new("introspect", callers, &series.checked("introspect")?, rig.usage()?));
    Ok(())
}

const POOL: usize = 2_000;
