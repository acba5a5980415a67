//! Events and checkpoints as JSON lines: what sinks ship, what `ExportEvents` yields, what is verified offline.
//!
//! One object a line, told apart by `type`. Names are stable and are the contract's; empty fields are left out; times
//! are RFC 3339 with as many digits as they have; hashes and signatures are lower-case hex; a revision is
//! `<16 hex digits of incarnation>.<number>`. Parsing gives back the same message, and so the same hash.

use std::io::{self, BufRead, Read};

use serde::{Deserialize, Serialize};

use super::verify::{Report, Verifier};
use crate::pb::{Checkpoint, CredentialKind, Event, Revision, StreamHead};

mod text;

/// One line, as a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// An event with its hashes.
    Event(Box<Event>),
    /// A checkpoint.
    Checkpoint(Box<Checkpoint>),
}

/// Why there is no line for a message, or no message for a line.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A time beyond the years 0 to 9999.
    #[error("a time has no RFC 3339 form")]
    Time,
    /// Not JSON, or not of the expected form.
    #[error("the line is not of the expected form")]
    Json(#[source] serde_json::Error),
    /// JSON that another text would stand for too, so it was not written here.
    #[error("the line is not in its one canonical form")]
    Form,
    /// Longer than [`MAX_LINE_BYTES`].
    #[error("the line is too long")]
    Length,
}

/// The line for an event, without its end.
///
/// # Errors
/// [`ExportError::Time`].
pub fn event_line(event: &Event) -> Result<String, ExportError> {
    write(&Line::Event(Box::new(EventLine::of(event)?)))
}

/// The line for a checkpoint, without its end.
///
/// # Errors
/// [`ExportError::Time`].
pub fn checkpoint_line(checkpoint: &Checkpoint) -> Result<String, ExportError> {
    write(&Line::Checkpoint(Box::new(CheckpointLine::of(checkpoint)?)))
}

/// The message that a line stands for.
///
/// # Errors
/// For anything that [`event_line`] and [`checkpoint_line`] would not have written.
pub fn parse(line: &[u8]) -> Result<Item, ExportError> {
    if line.len() > MAX_LINE_BYTES {
        return Err(ExportError::Length);
    }
    match serde_json::from_slice(line).map_err(ExportError::Json)? {
        Line::Event(event) => event.message().map(|event| Item::Event(Box::new(event))),
        Line::Checkpoint(checkpoint) => checkpoint.message().map(|item| Item::Checkpoint(Box::new(item))),
    }
}

/// Verifies a file of lines. It is read twice, so that checkpoints may stand anywhere in it.
///
/// # Errors
/// When it cannot be opened or read. What is wrong inside is in the report.
pub fn verify_lines<R: BufRead, V: Fn(&[u8], &[u8], &[u8]) -> bool>(
    mut open: impl FnMut() -> io::Result<R>,
    mut verifier: Verifier<V>,
) -> io::Result<Report> {
    each_line(open()?, |number, line| match parse(line) {
        Ok(Item::Checkpoint(checkpoint)) => verifier.checkpoint(&checkpoint),
        Ok(Item::Event(_)) => {}
        Err(_) => verifier.unreadable(number),
    })?;
    let mut verifier = verifier.events();
    each_line(open()?, |_, line| {
        if let Ok(Item::Event(event)) = parse(line) {
            verifier.event(&event);
        }
    })?;
    Ok(verifier.finish())
}

fn each_line(mut from: impl BufRead, mut take: impl FnMut(u64, &[u8])) -> io::Result<()> {
    let mut line = Vec::new();
    let limit = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX).saturating_add(2);
    for number in 1.. {
        line.clear();
        if from.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        if !text.is_empty() {
            take(number, text);
        }
    }
    Ok(())
}

fn write(line: &Line) -> Result<String, ExportError> {
    serde_json::to_string(line).map_err(ExportError::Json)
}

/// One object with all names; `type` tells which.
#[derive(Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line {
    Event(Box<EventLine>),
    Checkpoint(Box<CheckpointLine>),
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct EventLine {
    stream: String,
    sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    decision: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    actor: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    proof: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    source: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    tenant: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    partner: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    workload: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    grant: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    task_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    lease_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    purpose: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    audiences: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    credential_sha256: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    credential_kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    trust_hash: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    policies: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    policy_set: String,
    hash: String,
    previous_hash: String,
}

impl EventLine {
    fn of(event: &Event) -> Result<Self, ExportError> {
        let e = event.clone();
        Ok(Self {
            stream: e.stream,
            sequence: e.sequence,
            revision: e.revision.map(text::revision),
            at: e.at.map(text::time).transpose()?,
            kind: e.kind,
            decision: e.decision,
            actor: e.actor,
            proof: e.proof,
            source: e.source,
            tenant: e.tenant,
            partner: e.partner,
            workload: e.workload,
            grant: e.grant,
            task_id: e.task_id,
            lease_id: e.lease_id,
            purpose: e.purpose,
            audiences: e.audiences,
            credential_sha256: e.credential_sha256,
            credential_kind: text::kind(e.credential_kind),
            expires: e.expires.map(text::time).transpose()?,
            trust_hash: e.trust_hash,
            reason: e.reason,
            details: e.details,
            policies: e.policies,
            policy_set: e.policy_set,
            hash: text::bytes(&e.hash),
            previous_hash: text::bytes(&e.previous_hash),
        })
    }

    fn message(self) -> Result<Event, ExportError> {
        Ok(Event {
            stream: self.stream,
            sequence: self.sequence,
            revision: self.revision.as_deref().map(text::parse_revision).transpose()?,
            at: self.at.as_deref().map(text::parse_time).transpose()?,
            kind: self.kind,
            decision: self.decision,
            actor: self.actor,
            proof: self.proof,
            source: self.source,
            tenant: self.tenant,
            partner: self.partner,
            workload: self.workload,
            grant: self.grant,
            task_id: self.task_id,
            lease_id: self.lease_id,
            purpose: self.purpose,
            audiences: self.audiences,
            credential_sha256: self.credential_sha256,
            credential_kind: text::parse_kind(&self.credential_kind)?,
            expires: self.expires.as_deref().map(text::parse_time).transpose()?,
            trust_hash: self.trust_hash,
            reason: self.reason,
            details: self.details,
            policies: self.policies,
            policy_set: self.policy_set,
            hash: text::parse_bytes(&self.hash)?,
            previous_hash: text::parse_bytes(&self.previous_hash)?,
        })
    }
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct CheckpointLine {
    number: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    revision: Option<String>,
    heads: Vec<HeadLine>,
    merkle_root: String,
    previous_hash: String,
    hash: String,
    signature: String,
    key_id: String,
    public_key: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct HeadLine {
    stream: String,
    sequence: u64,
    hash: String,
    first_sequence: u64,
}

impl CheckpointLine {
    fn of(checkpoint: &Checkpoint) -> Result<Self, ExportError> {
        let head = |head: &StreamHead| HeadLine {
            stream: head.stream.clone(),
            sequence: head.sequence,
            hash: text::bytes(&head.hash),
            first_sequence: head.first_sequence,
        };
        Ok(Self {
            number: checkpoint.number,
            at: checkpoint.at.map(text::time).transpose()?,
            revision: checkpoint.revision.map(text::revision),
            heads: checkpoint.heads.iter().map(head).collect(),
            merkle_root: text::bytes(&checkpoint.merkle_root),
            previous_hash: text::bytes(&checkpoint.previous_hash),
            hash: text::bytes(&checkpoint.hash),
            signature: text::bytes(&checkpoint.signature),
            key_id: checkpoint.key_id.clone(),
            public_key: text::bytes(&checkpoint.public_key),
        })
    }

    fn message(self) -> Result<Checkpoint, ExportError> {
        let head = |head: HeadLine| -> Result<StreamHead, ExportError> {
            Ok(StreamHead {
                hash: text::parse_bytes(&head.hash)?,
                stream: head.stream,
                sequence: head.sequence,
                first_sequence: head.first_sequence,
            })
        };
        Ok(Checkpoint {
            number: self.number,
            at: self.at.as_deref().map(text::parse_time).transpose()?,
            revision: self.revision.as_deref().map(text::parse_revision).transpose()?,
            heads: self.heads.into_iter().map(head).collect::<Result<_, _>>()?,
            merkle_root: text::parse_bytes(&self.merkle_root)?,
            previous_hash: text::parse_bytes(&self.previous_hash)?,
            hash: text::parse_bytes(&self.hash)?,
            signature: text::parse_bytes(&self.signature)?,
            key_id: self.key_id,
            public_key: text::parse_bytes(&self.public_key)?,
        })
    }
}

/// The longest line taken: a checkpoint of 10,000 streams fits.
pub const MAX_LINE_BYTES: usize = 8 << 20;

#[cfg(test)]
mod tests;
