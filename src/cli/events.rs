//! `mayfly events`: reading, keeping and checking the audit.

use std::{
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use prost_types::Timestamp;
use tonic::Streaming;

use crate::{
    audit::export as lines,
    model::{LeaseId, PartnerName, TaskId, TenantName},
    pb::{self, export_events_response::Item},
};

use super::{
    arg::{self, LimitArgs},
    cell::Record,
    failure::{Failure, Outcome},
    issue::text,
    page,
    session::Session,
};

mod verify;

pub use verify::VerifyArgs;

/// Audit events.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = EVENTS_HELP)]
pub enum EventsCommand {
    /// Lists events, oldest first.
    List(ListArgs),
    /// Prints events as they are committed, as JSON lines, until interrupted.
    Tail(TailArgs),
    /// Writes whole streams with their signed checkpoints as JSON lines.
    Export(ExportArgs),
    Verify(VerifyArgs),
}

/// Which streams.
#[derive(Args, Clone, Debug)]
pub struct StreamArgs {
    /// Only this tenant's.
    #[arg(long)]
    tenant: Option<TenantName>,
    /// Only this partner's.
    #[arg(long)]
    partner: Option<PartnerName>,
}

/// Arguments of `events list`.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    streams: StreamArgs,
    /// Only events of this task.
    #[arg(long, value_name = "ID")]
    task: Option<TaskId>,
    /// Only events of this lease.
    #[arg(long, value_name = "ID")]
    lease: Option<LeaseId>,
    /// Only kinds that start so, such as `lease.`
    #[arg(long, default_value = "", hide_default_value = true, value_name = "PREFIX")]
    kind: String,
    /// Only events from then on.
    #[arg(long, value_parser = arg::time, value_name = "TIME")]
    from: Option<Timestamp>,
    /// Only events before.
    #[arg(long, value_parser = arg::time, value_name = "TIME")]
    to: Option<Timestamp>,
    #[command(flatten)]
    limit: LimitArgs,
}

/// Arguments of `events tail`.
#[derive(Args, Clone, Debug)]
pub struct TailArgs {
    #[command(flatten)]
    streams: StreamArgs,
    /// Start after this revision, as events show it; now when left out.
    #[arg(long, value_parser = arg::revision, value_name = "REVISION")]
    after: Option<pb::Revision>,
}

/// Arguments of `events export`.
#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    #[command(flatten)]
    streams: StreamArgs,
    /// Write into this file, whole or not at all; else to stdout.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl EventsCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses, a file cannot be written, or the check finds something.
    pub async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::List(args) => args.run(session).await,
            Self::Tail(args) => args.run(session).await,
            Self::Export(args) => args.run(session).await,
            Self::Verify(args) => args.run(session).await,
        }
    }
}

impl ListArgs {
    async fn run(self, session: &Session) -> Outcome {
        let client = session.admin().await?;
        let request = pb::ListEventsRequest {
            page: None,
            tenant: text(self.streams.tenant.as_ref()),
            partner: text(self.streams.partner.as_ref()),
            task_id: text(self.task.as_ref()),
            lease_id: text(self.lease.as_ref()),
            kind_prefix: self.kind,
            from: self.from,
            to: self.to,
        };
        let events = page::collect(session, self.limit.limit, |page| {
            let (mut client, request) = (client.clone(), pb::ListEventsRequest { page: Some(page), ..request.clone() });
            async move {
                let reply = client.list_events(request).await?.into_inner();
                Ok((reply.events, reply.next_page_token))
            }
        });
        session.output.list(&events.await?)
    }
}

impl TailArgs {
    async fn run(self, session: &Session) -> Outcome {
        let request = pb::TailEventsRequest {
            tenant: text(self.streams.tenant.as_ref()),
            partner: text(self.streams.partner.as_ref()),
            after: self.after,
        };
        let mut events = session.admin().await?.tail_events(request).await?.into_inner();
        while let Some(event) = events.message().await? {
            session.output.line(&event.fields().json())?;
        }
        Err(tonic::Status::unavailable("the broker closed the stream").into())
    }
}

impl ExportArgs {
    async fn run(self, session: &Session) -> Outcome {
        let request = pb::ExportEventsRequest {
            tenant: text(self.streams.tenant.as_ref()),
            partner: text(self.streams.partner.as_ref()),
        };
        let stream = session.admin().await?.export_events(request).await?.into_inner();
        let count = match &self.out {
            None => export(session, stream, |line| session.output.line(line)).await?,
            Some(path) => export_file(session, stream, path).await?,
        };
        session.output.remark(&format!("{count} events and checkpoints"));
        Ok(())
    }
}

async fn export(
    session: &Session,
    mut stream: Streaming<pb::ExportEventsResponse>,
    mut write: impl FnMut(&str) -> Outcome,
) -> Outcome<u64> {
    let mut count = 0_u64;
    while let Some(message) = stream.message().await? {
        // The lines that `events verify FILE` and the sinks know, not those of `--output json`.
        let line = match message.item {
            Some(Item::Event(event)) => lines::event_line(&event),
            Some(Item::Checkpoint(checkpoint)) => lines::checkpoint_line(&checkpoint),
            None => continue,
        };
        write(&line.map_err(|error| Failure::Internal(error.to_string()))?)?;
        count += 1;
        if count.is_multiple_of(PROGRESS_EVERY) {
            session.output.progress(&format!("{count} events and checkpoints"));
        }
    }
    session.output.progress_done();
    Ok(count)
}

async fn export_file(session: &Session, stream: Streaming<pb::ExportEventsResponse>, path: &Path) -> Outcome<u64> {
    let failed = |error| Failure::file("write", path, error);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    let mut writer = BufWriter::new(file.as_file_mut());
    let count = export(session, stream, |line| writeln!(writer, "{line}").map_err(failed)).await?;
    writer.flush().map_err(failed)?;
    drop(writer);
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(count)
}

const PROGRESS_EVERY: u64 = 1000;

const EVENTS_HELP: &str = "\
Examples:
  mayfly events list --tenant acme --kind lease. --from 2026-11-01
  mayfly events tail --partner globex | jq -c '{at, kind, reason}'
  mayfly events export --tenant acme --out acme-audit.jsonl
  mayfly events verify
  mayfly events verify acme-audit.jsonl --tenant acme --trusted-key c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";
