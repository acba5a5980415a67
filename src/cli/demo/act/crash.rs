//! A crash of the daemon, and what is remembered after it.

use std::time::Instant;

use crate::{
    cli::{
        demo::{
            report::Report,
            stage::{Stage, request},
            trust::{Partner, Tenant},
        },
        failure::Outcome,
    },
    pb::CredentialKind,
};

/// Kills the daemon with SIGKILL, starts it anew on the same folder and looks at every credential again.
pub(super) async fn play(stage: &mut Stage, report: &mut Report<'_>) -> Outcome {
    let since = Instant::now();
    let took = stage.crash_and_restart().await?;
    let what = format!("kill -9: the daemon is back on its folder in {} ms", took.as_millis());
    report.prove("crash", what, since, None)?;
    let since = Instant::now();
    let broken = stage.all_refused(&stage.dead).await?;
    report.prove("crash", format!("all {} dead credentials are dead", stage.dead.len()), since, broken)?;
    let since = Instant::now();
    let broken = stage.all_welcome(&stage.live).await?;
    report.prove("crash", format!("all {} live ones live", stage.live.len()), since, broken)?;
    let since = Instant::now();
    let asked = request(Tenant::Globex, Partner::Klue, CredentialKind::Jwt);
    let credential = stage.issue(Tenant::Globex, asked).await?;
    let broken = stage.all_welcome(std::slice::from_ref(&credential)).await?;
    report.prove("crash", "and a new one is issued", since, broken)?;
    stage.live.push(credential);
    Ok(())
}
