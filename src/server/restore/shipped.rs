//! An audit that was shipped off the host: what of it is newer than a backup, and what speaks against it.
//!
//! What a replay does can only take away, so what is in doubt is replayed too. But what was cut out of the file is not
//! barred again: so everything that is not proven is told.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use super::RestoreError;
use crate::{
    audit::{
        export::{self, Item},
        finding::FindingKind,
        verify::{Coverage, Start, Verifier},
    },
    broker::backup::{file::Contents, proof::Heads},
    ledger::Head,
    mint::audit_key,
    pb,
};

/// A file of events and checkpoints, read whole.
pub(super) struct Shipped {
    path: PathBuf,
    /// Bytes of whole lines.
    whole: u64,
    /// Events that are newer than the backup, in the order of the file.
    pub(super) newer: Vec<pb::Event>,
}

impl Shipped {
    /// Reads the file. A last line without its end, as a crash of a sink leaves it, is passed over.
    pub(super) fn read(path: &Path, contents: &Contents) -> Result<Self, RestoreError> {
        let unreadable = |error| RestoreError::Read(path.to_path_buf(), error);
        let mut lines = BufReader::new(File::open(path).map_err(unreadable)?);
        let (mut shipped, mut line) = (Self { path: path.to_path_buf(), whole: 0, newer: Vec::new() }, Vec::new());
        for number in 1_usize.. {
            line.clear();
            let bytes = lines.by_ref().take(LINE_MOST).read_until(b'\n', &mut line).map_err(unreadable)?;
            if bytes as u64 == LINE_MOST {
                return Err(RestoreError::Events(path.to_path_buf(), number));
            }
            if bytes == 0 || line.pop() != Some(b'\n') {
                break;
            }
            shipped.whole += bytes as u64;
            match export::parse(&line) {
                Ok(Item::Event(event)) if is_newer(&event, contents) => shipped.newer.push(*event),
                Ok(Item::Event(_) | Item::Checkpoint(_)) => {}
                Err(_) => return Err(RestoreError::Events(path.to_path_buf(), number)),
            }
        }
        Ok(shipped)
    }

    /// What speaks against the file, and what nothing vouches for: one line each, for people. `heads` and `keys` are the
    /// backup's; what is behind the last signature is in doubt unless it is proven otherwise.
    pub(super) fn doubts(
        &self,
        heads: &Heads,
        keys: &[[u8; 32]],
        is_proven: bool,
    ) -> Result<Vec<String>, RestoreError> {
        let open = || File::open(&self.path).map(|file| BufReader::new(file.take(self.whole)));
        doubts(heads, keys, is_proven, open).map_err(|error| RestoreError::Read(self.path.clone(), error))
    }
}

fn doubts<R: BufRead>(
    heads: &Heads,
    keys: &[[u8; 32]],
    is_proven: bool,
    open: impl Fn() -> io::Result<R>,
) -> io::Result<Vec<String>> {
    // Without a key that is known, whichever comes first would be taken as given.
    let trusted = if keys.is_empty() { vec![[0; 32]] } else { keys.to_vec() };
    let verifier = Verifier::new(Start::AsGiven, Coverage::All, trusted, audit_key::verify);
    let report = export::verify_lines(&open, verifier)?;
    let head = |stream: &str| heads.get(stream).copied().unwrap_or_default();
    let mut found = Vec::new();
    for finding in &report.findings {
        // What the backup holds itself need not be in the file.
        let is_backed_up = finding.sequence <= head(&finding.stream).sequence
            && matches!(finding.kind, FindingKind::Removed | FindingKind::Missing)
            && !finding.stream.is_empty();
        if !is_backed_up {
            found.push(format!("the audit does not verify: {finding}"));
        }
    }
    found.extend(seams(heads, is_proven, open()?)?);
    let more = (found.len() as u64).saturating_sub(DOUBTS_MOST) + report.more_findings;
    found.truncate(usize::try_from(DOUBTS_MOST).unwrap_or(usize::MAX));
    if more > 0 {
        found.push(format!("the audit does not verify in {more} more places; see `mayfly events verify`"));
    }
    Ok(found)
}

/// Where the file does not join the backup, and what no checkpoint in it signs.
fn seams(heads: &Heads, is_proven: bool, mut lines: impl BufRead) -> io::Result<Vec<String>> {
    let (mut found, mut line) = (Vec::new(), Vec::new());
    let (mut reached, mut signed): (BTreeMap<String, u64>, BTreeMap<String, u64>) = Default::default();
    while lines.read_until(b'\n', &mut line)? > 0 {
        match export::parse(line.strip_suffix(b"\n").unwrap_or(&line)) {
            Ok(Item::Checkpoint(checkpoint)) => {
                for head in checkpoint.heads {
                    let most = signed.entry(head.stream).or_default();
                    *most = head.sequence.max(*most);
                }
            }
            Ok(Item::Event(event)) => {
                let Head { sequence: last, hash } = heads.get(&event.stream).copied().unwrap_or_default();
                let before = reached.get(&event.stream).copied().unwrap_or(last).max(last);
                let name = &event.stream;
                if event.sequence > before + 1 {
                    found.push(format!("the audit lacks events {} to {} of {name}", before + 1, event.sequence - 1));
                }
                let is_other = (event.sequence == last && event.hash != hash.0)
                    || (event.sequence == last + 1 && event.previous_hash != hash.0);
                if is_other {
                    found.push(format!("the audit tells another history of {name} than the backup"));
                }
                reached.insert(event.stream, before.max(event.sequence));
            }
            Err(_) => {}
        }
        line.clear();
    }
    if !is_proven {
        found.extend(unsigned(heads, &reached, &signed));
    }
    Ok(found)
}

/// Which events no checkpoint signs.
fn unsigned(heads: &Heads, reached: &BTreeMap<String, u64>, signed: &BTreeMap<String, u64>) -> Vec<String> {
    let mut found = Vec::new();
    if signed.is_empty() {
        found.push("no checkpoint is in the audit: nothing shows that it is whole".to_owned());
    }
    for (stream, &last) in reached {
        let known = heads.get(stream).map_or(0, |head| head.sequence).max(signed.get(stream).copied().unwrap_or(0));
        let from = known.saturating_add(1);
        if last >= from {
            found.push(format!(
                "no checkpoint in the audit signs events {from} to {last} of {stream}, nor that none followed"
            ));
        }
    }
    found
}

fn is_newer(event: &pb::Event, contents: &Contents) -> bool {
    let revision = event.revision.unwrap_or_default();
    if revision.incarnation == contents.revision.0 {
        return revision.number > contents.revision.1;
    }
    event.at.is_some_and(|at| u64::try_from(at.seconds).unwrap_or(0) >= contents.created.seconds())
}

/// Lines told; the rest is counted.
const DOUBTS_MOST: u64 = 20;
/// Longer than any line of an export.
const LINE_MOST: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::{chain, checkpoint::Statement},
        mint::audit_key::AuditKey,
        model::Digest,
    };

    /// Events 1 to `count` of one stream.
    fn chained(count: u64) -> Vec<pb::Event> {
        let mut previous = chain::GENESIS;
        let event = |sequence| {
            let mut event =
                pb::Event { stream: "acme/-".into(), sequence, kind: "scope.barred".into(), ..Default::default() };
            previous = chain::seal_event(&mut event, previous);
            event
        };
        (1..=count).map(event).collect()
    }

    fn head(event: &pb::Event) -> Head {
        Head { sequence: event.sequence, hash: Digest::from_slice(&event.hash).expect("sealed") }
    }

    /// Says where `last` is the last event.
    fn signed(key: &AuditKey, last: &pb::Event) -> String {
        let head = pb::StreamHead {
            stream: last.stream.clone(),
            sequence: last.sequence,
            hash: last.hash.clone(),
            first_sequence: 1,
        };
        let statement = Statement {
            number: 7,
            at: prost_types::Timestamp { seconds: 1, nanos: 0 },
            revision: pb::Revision { incarnation: 1, number: 1 },
            heads: vec![head],
            previous: Digest::of(b"the one before"),
        };
        let checkpoint = statement.sign(&key.key_id(), key.public_key(), |hash| key.sign(hash));
        export::checkpoint_line(&checkpoint).expect("line")
    }

    fn told(heads: &Heads, key: &AuditKey, events: &[pb::Event], more: &[String]) -> Vec<String> {
        let lines: Vec<_> = events.iter().map(|event| export::event_line(event).expect("line")).collect();
        let file = [&lines[..], more].concat().join("\n") + "\n";
        doubts(heads, &[*key.public_key()], false, || Ok(file.as_bytes())).expect("in memory")
    }

    #[test]
    fn a_shipped_audit_that_joins_the_backup_and_is_signed_to_its_end_is_not_in_doubt() {
        let (key, _) = AuditKey::generate().expect("entropy");
        let events = chained(6);
        let heads = Heads::from([("acme/-".to_owned(), head(&events[2]))]);
        let end = [signed(&key, &events[5])];
        for from in 0..=3 {
            assert_eq!(told(&heads, &key, &events[from..], &end), [""; 0], "from {from}");
        }
        let tail = told(&heads, &key, &events[1..], &[signed(&key, &events[4])]);
        assert!(matches!(&tail[..], [only] if only.contains("signs events 6 to 6 of acme/-")), "{tail:?}");
    }

    #[test]
    fn whatever_was_left_out_changed_added_or_told_otherwise_is_told() {
        let (key, _) = AuditKey::generate().expect("entropy");
        let events = chained(6);
        let heads = Heads::from([("acme/-".to_owned(), head(&events[2]))]);
        let end = [signed(&key, &events[5])];
        let without = |at: usize| [&events[..at], &events[at + 1..]].concat();
        for at in 3..6 {
            assert!(!told(&heads, &key, &without(at), &end).is_empty(), "event {} was left out", at + 1);
            let mut changed = events.clone();
            changed[at].kind = "scope.lifted".into();
            assert!(!told(&heads, &key, &changed, &end).is_empty(), "event {} was changed", at + 1);
        }
        let mut added = events.clone();
        let mut forged = pb::Event { sequence: 7, ..events[5].clone() };
        chain::seal_event(&mut forged, head(&events[5]).hash);
        added.push(forged);
        assert!(told(&heads, &key, &added, &end)[0].contains("signs events 7 to 7 of acme/-"));
        // Written anew from the beginning, so that it is sound in itself.
        let mut other = Vec::new();
        let mut previous = chain::GENESIS;
        for event in &events {
            let mut event = pb::Event { reason: "otherwise".into(), ..event.clone() };
            previous = chain::seal_event(&mut event, previous);
            other.push(event);
        }
        let history = told(&heads, &key, &other, &[]);
        assert!(history.iter().any(|line| line.contains("another history")), "{history:?}");
        let (foreign, _) = AuditKey::generate().expect("entropy");
        let signed_by_another = told(&heads, &key, &events, &[signed(&foreign, &events[5])]);
        assert!(signed_by_another.iter().any(|line| line.contains("not trusted")), "{signed_by_another:?}");
        let gap = told(&heads, &key, &events[4..], &end);
        assert!(gap.iter().any(|line| line.contains("lacks events 4 to 4 of acme/-")), "{gap:?}");
        // A stream that the backup does not know begins with its first event.
        assert!(!told(&Heads::new(), &key, &events[1..], &end).is_empty());
    }
    #[test]
    fn what_no_checkpoint_signs_is_no_doubt_where_the_anchor_proves_it_and_all_else_still_is() {
        let (key, _) = AuditKey::generate().expect("entropy");
        let events = chained(6);
        let heads = Heads::from([("acme/-".to_owned(), head(&events[2]))]);
        let file = |events: &[pb::Event]| {
            let lines: Vec<_> = events.iter().map(|event| export::event_line(event).expect("line")).collect();
            lines.join("\n") + "\n"
        };
        let told =
            |file: &str, keys: &[[u8; 32]]| doubts(&heads, keys, true, || Ok(file.as_bytes())).expect("in memory");
        let own = [*key.public_key()];
        assert_eq!(told(&file(&events), &own), [""; 0]);
        let gap = told(&file(&events[4..]), &own);
        assert!(gap.iter().any(|line| line.contains("lacks events 4 to 4")), "{gap:?}");
        // A backup whose keys do not read trusts nobody, rather than whoever comes first.
        let signed = file(&events) + &signed(&key, &events[5]) + "\n";
        assert_eq!(told(&signed, &own), [""; 0]);
        assert!(told(&signed, &[]).iter().any(|line| line.contains("not trusted")));
    }
}
