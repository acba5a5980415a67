//! `mayfly revoke`, and the progress of the clean-up behind it.

use clap::Args;
use tonic::{Streaming, transport::Channel};

use crate::pb::{self, admin_client::AdminClient};

use super::{
    cell::{Record, printable, rfc3339},
    failure::{Failure, Outcome},
    found,
    output::{Format, Output, table},
    scope::ScopeArgs,
    session::Session,
};

/// Ends everything in a scope, at once and for good, and bars it from asking again.
#[derive(Args, Clone, Debug)]
#[command(after_help = REVOKE_HELP)]
pub struct RevokeArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Instead of a scope: the lease of a credential in hand, read from stdin (`-`) or a file. A JWT, a reference
    /// token, a PEM certificate, a serial, a jti or a SHA-256.
    #[arg(long, value_name = "-|FILE", conflicts_with_all = ["kind", "name"], required_unless_present = "kind")]
    credential: Option<String>,
    /// Say what would end, and end nothing.
    #[arg(long)]
    dry_run: bool,
    /// Why, for the audit.
    #[arg(long, required_unless_present = "dry_run")]
    reason: Option<String>,
    /// Leave issuing and renewing in the scope possible.
    #[arg(long)]
    without_bar: bool,
    /// Wait until the clean-up behind it is done. Access has ended before that.
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
}

impl RevokeArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        let scope = self.scope.scope()?;
        // The generated message holds plain text; it is wiped from our own buffer at least.
        let credential = self.credential.as_deref().map(found::read).transpose()?;
        let request = pb::RevokeRequest {
            scope,
            credential: credential.map(|text| text.to_string()).unwrap_or_default(),
            dry_run: self.dry_run,
            reason: self.reason.unwrap_or_default(),
            without_bar: self.without_bar,
        };
        let mut client = session.admin().await?;
        let reply = client.revoke(request).await?.into_inner();
        show(&session.output, &reply, self.dry_run)?;
        match reply.revision {
            Some(revision) if self.wait && reply.changed => watch(session, client, revision).await,
            Some(_) | None => Ok(()),
        }
    }
}

fn show(output: &Output, reply: &pb::RevokeResponse, dry_run: bool) -> Outcome {
    if output.format() == Format::Json {
        return output.one(&reply.fields());
    }
    output.line(&headline(reply, dry_run))?;
    reply.exposure.iter().try_for_each(|exposure| output.line(&exposure_line(exposure)))?;
    if reply.sample.is_empty() { Ok(()) } else { output.line(&format!("\n{}", table(&reply.sample))) }
}

fn headline(reply: &pb::RevokeResponse, dry_run: bool) -> String {
    let what = format!("{} leases and {} tasks", reply.leases, reply.tasks);
    if dry_run {
        let bar = if reply.barred { ", and bar the scope" } else { "" };
        return format!("dry run: would end {what}{bar}");
    }
    if !reply.changed {
        return "everything had ended before; nothing was written".to_owned();
    }
    let at = reply.effective.as_ref().map(rfc3339).unwrap_or_default();
    let revision = reply.revision.as_ref().map(super::cell::revision_text).unwrap_or_default();
    let bar = if reply.barred { "; the scope is barred until `mayfly lift`" } else { "" };
    format!("revoked at {at}, revision {revision}: ended {what}{bar}")
}

pub(super) fn exposure_line(exposure: &pb::Exposure) -> String {
    let until = exposure.until.as_ref().map_or_else(|| "dead now".to_owned(), |t| format!("until {}", rfc3339(t)));
    let checked_by = printable(&exposure.checked_by);
    match printable(&exposure.explanation) {
        explanation if explanation.is_empty() => format!("  {checked_by}: {until}"),
        explanation => format!("  {checked_by}: {until} ({explanation})"),
    }
}

/// Follows a clean-up until it is done, and shows where it stands.
///
/// # Errors
/// When the broker refuses, or the stream ends before the clean-up does.
pub async fn watch(session: &Session, mut client: AdminClient<Channel>, revision: pb::Revision) -> Outcome {
    let request = pb::GetRevocationRequest { revision: Some(revision) };
    let mut stream: Streaming<pb::RevocationStatus> = client.watch_revocation(request).await?.into_inner();
    while let Some(status) = stream.message().await? {
        session.output.progress(&format!("clean-up: {} leases walked", status.leases_walked));
        if status.done {
            session.output.progress_done();
            return session.output.one(&status.fields());
        }
    }
    Err(Failure::Rpc(Box::new(tonic::Status::unavailable("the stream ended before the clean-up was done"))))
}

const REVOKE_HELP: &str = "\
Access ends with the one commit that this command waits for. Anything wider than a task is barred as well, so that who
holds the partner's certificate cannot simply ask again; --without-bar leaves that out, `mayfly lift` undoes it.

Examples:
  mayfly revoke partner globex --dry-run
  mayfly revoke partner globex --reason 'incident 4711' --wait
  mayfly revoke grant acme/ci-deploy --reason 'no longer used'
  # a token from a log
  grep -o 'eyJ[^ ]*' build.log | head -1 | mayfly revoke --credential - --reason 'found in a log'";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposure_is_said_by_the_way_of_checking() {
        let dead = pb::Exposure { checked_by: "introspection".into(), ..pb::Exposure::default() };
        assert_eq!(exposure_line(&dead), "  introspection: dead now");
        let until = Some(prost_types::Timestamp { seconds: 1_763_000_000, nanos: 0 });
        let left = pb::Exposure { checked_by: "key set only".into(), until, explanation: "copies".into() };
        assert_eq!(exposure_line(&left), "  key set only: until 2025-11-13T02:13:20Z (copies)");
    }

    #[test]
    fn a_dry_run_never_says_revoked() {
        let reply = pb::RevokeResponse { leases: 3, tasks: 1, barred: true, changed: true, ..Default::default() };
        assert_eq!(headline(&reply, true), "dry run: would end 3 leases and 1 tasks, and bar the scope");
        assert!(headline(&reply, false).starts_with("revoked at"));
        let again = pb::RevokeResponse::default();
        assert!(headline(&again, false).contains("had ended before"));
    }
}
