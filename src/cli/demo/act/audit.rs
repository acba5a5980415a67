//! What the audit says, and whether it can be believed.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Write as _},
    path::Path,
    time::Instant,
};

use crate::{
    audit::{
        Start, Verifier, export,
        verify::{Coverage, Report as Verified},
    },
    cli::{
        demo::{SabotageArg, report::Report, stage::Stage},
        failure::{Failure, Outcome},
    },
    mint::audit_key,
    pb::{ExportEventsRequest, ListEventsRequest, Page, VerifyEventsRequest, export_events_response::Item},
};

use super::unless;

/// Reads the audit, has the broker verify it, and verifies an export without the broker.
pub(super) async fn play(stage: &mut Stage, report: &mut Report<'_>) -> Outcome {
    let since = Instant::now();
    let kinds = kinds(stage).await?;
    let missing: Vec<_> = STORY.into_iter().filter(|kind| !kinds.contains_key(*kind)).collect();
    let broken = unless(missing.is_empty(), format!("no event of kind {}", missing.join(", ")));
    report.prove("audit", "the events tell this story", since, broken)?;
    let told: Vec<_> = kinds.iter().map(|(kind, count)| format!("{kind} x{count}")).collect();
    report.tell(&told.join(", "))?;

    let since = Instant::now();
    let reply = stage.admin.verify_events(VerifyEventsRequest::default()).await?.into_inner();
    let broken = reply.findings.first().map(|finding| format!("{} {}", finding.kind, finding.explanation));
    let what = format!("the broker verifies {} events in {} chains", reply.events, reply.streams);
    report.prove("audit", what, since, broken)?;

    let file = stage.folder().join("audit.jsonl");
    let since = Instant::now();
    export_to(stage, &file).await?;
    if stage.sabotage == Some(SabotageArg::Audit) {
        flip_one_bit(&file)?;
    }
    let verified = verify(&file)?;
    let broken = verified.findings.first().map(ToString::to_string);
    let what =
        format!("an export is verified without it: {} events, {} checkpoints", verified.events, verified.checkpoints);
    report.prove("audit", what, since, broken)
}

async fn kinds(stage: &mut Stage) -> Outcome<BTreeMap<String, usize>> {
    let (mut kinds, mut token) = (BTreeMap::new(), String::new());
    loop {
        let asked = ListEventsRequest { page: Some(Page { size: 1000, token }), ..ListEventsRequest::default() };
        let reply = stage.admin.list_events(asked).await?.into_inner();
        for event in reply.events {
            *kinds.entry(event.kind).or_insert(0) += 1;
        }
        token = reply.next_page_token;
        if token.is_empty() {
            return Ok(kinds);
        }
    }
}

async fn export_to(stage: &mut Stage, path: &Path) -> Outcome {
    let failed = |error| Failure::file("write", path, error);
    let unwritable = |error: export::ExportError| Failure::Internal(format!("an event: {error}"));
    let mut file = File::create(path).map_err(failed)?;
    let mut stream = stage.admin.export_events(ExportEventsRequest::default()).await?.into_inner();
    while let Some(message) = stream.message().await? {
        let line = match message.item {
            Some(Item::Event(event)) => export::event_line(&event).map_err(unwritable)?,
            Some(Item::Checkpoint(checkpoint)) => export::checkpoint_line(&checkpoint).map_err(unwritable)?,
            None => continue,
        };
        writeln!(file, "{line}").map_err(failed)?;
    }
    file.flush().map_err(failed)
}

pub(in crate::cli::demo) fn verify(path: &Path) -> Outcome<Verified> {
    let verifier = Verifier::new(Start::AsGiven, Coverage::All, Vec::new(), audit_key::verify);
    export::verify_lines(|| File::open(path).map(BufReader::new), verifier)
        .map_err(|error| Failure::file("read", path, error))
}

/// Sabotage: makes one `lease.issued` say `mease.issued`.
pub(in crate::cli::demo) fn flip_one_bit(path: &Path) -> Outcome {
    let mut bytes = std::fs::read(path).map_err(|error| Failure::file("read", path, error))?;
    let at = bytes.windows(TARGET.len()).position(|window| window == TARGET);
    let byte = at.and_then(|at| bytes.get_mut(at)).ok_or_else(|| Failure::Internal("no event to alter".into()))?;
    *byte ^= 1;
    std::fs::write(path, bytes).map_err(|error| Failure::file("write", path, error))
}

const TARGET: &[u8] = b"lease.issued";
/// What must have been written down by now.
const STORY: [&str; 6] =
    ["trust.applied", "lease.issued", "lease.renewed", "task.completed", "scope.revoked", "scope.lifted"];
