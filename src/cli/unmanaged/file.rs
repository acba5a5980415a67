//! Lists of unmanaged credentials as CSV (RFC 4180) or JSON, with the line of each entry and of each problem.

use std::{fs::File, io::Read, path::Path};

use prost_types::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    cli::{
        arg,
        failure::{Failure, Outcome},
    },
    pb,
};

/// One entry as files spell it. Nothing else is taken: a column `secret` is a mistake.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Entry {
    tenant: String,
    name: String,
    partner: String,
    kind: String,
    owner: String,
    purpose: String,
    location: String,
    fingerprint: String,
    created: String,
    rotated: String,
    expires: String,
    revocation: String,
}

/// Entries, each with the line that it begins in.
pub(in crate::cli) type Entries = Vec<(u64, pb::UnmanagedCredential)>;

/// Reads a file: JSON when it begins with `[`, else CSV.
///
/// # Errors
/// When it cannot be read, or anything in it is wrong: everything at once, each with its line.
pub(super) fn read(path: &Path) -> Outcome<Entries> {
    let file = File::open(path).map_err(|error| Failure::file("read", path, error))?;
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| Failure::file("read", path, error))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(Failure::Usage(format!("{} holds more than {MAX_BYTES} bytes", path.display())));
    }
    parse(&text).map_err(|wrong| {
        let lines = wrong.into_iter().map(|(line, wrong)| format!("{}:{line}: {wrong}", path.display()));
        Failure::Usage(format!("{}\nnothing was sent", lines.collect::<Vec<_>>().join("\n")))
    })
}

/// Reads the text of a file.
///
/// # Errors
/// All that is wrong with it, at once.
pub(in crate::cli) fn parse(text: &str) -> Result<Entries, Wrong> {
    if text.trim_start().starts_with('[') { json(text) } else { csv(text) }
}

/// What is wrong, by line. Never what was found there: it may be a secret.
pub(in crate::cli) type Wrong = Vec<(u64, String)>;

fn csv(text: &str) -> Result<Entries, Wrong> {
    let mut reader = csv::ReaderBuilder::new().flexible(false).trim(csv::Trim::All).from_reader(text.as_bytes());
    let headings = reader.headers().map_err(|_| vec![(1, "is no line of headings".to_owned())])?.clone();
    let mut wrong: Wrong = headings
        .iter()
        .filter(|heading| !FIELDS.contains(heading))
        .map(|_| (1, format!("has a heading that is none of {}", FIELDS.join(", "))))
        .collect();
    for needed in ["name", "kind"] {
        if !headings.iter().any(|heading| heading == needed) {
            wrong.push((1, format!("has no heading {needed}")));
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let mut entries = Vec::new();
    for record in reader.records() {
        match record {
            Ok(record) => {
                let line = record.position().map_or(0, csv::Position::line);
                match record.deserialize::<Entry>(Some(&headings)) {
                    Ok(entry) => add(&mut entries, &mut wrong, line, entry),
                    Err(_) => wrong.push((line, "is no entry".to_owned())),
                }
            }
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line);
                wrong.push((line, "has more or fewer fields than the headings, or is not UTF-8".to_owned()));
            }
        }
    }
    if wrong.is_empty() { Ok(entries) } else { Err(wrong) }
}

fn json(text: &str) -> Result<Entries, Wrong> {
    let line_of = |offset: usize| 1 + text.bytes().take(offset).filter(|&b| b == b'\n').count() as u64;
    let list: Vec<&RawValue> = serde_json::from_str(text)
        .map_err(|error| vec![(error.line() as u64, "is no JSON list of objects".to_owned())])?;
    let (mut entries, mut wrong) = (Vec::new(), Vec::new());
    for raw in list {
        // Each is a part of the text, so its place is where it begins.
        let offset = raw.get().as_ptr().addr().saturating_sub(text.as_ptr().addr());
        match serde_json::from_str::<Entry>(raw.get()) {
            Ok(entry) => add(&mut entries, &mut wrong, line_of(offset), entry),
            Err(error) => {
                let line = line_of(offset) + (error.line() as u64).saturating_sub(1);
                wrong.push((line, format!("is no object whose fields are texts out of {}", FIELDS.join(", "))));
            }
        }
    }
    if wrong.is_empty() { Ok(entries) } else { Err(wrong) }
}

fn add(entries: &mut Entries, wrong: &mut Wrong, line: u64, entry: Entry) {
    let mut time = |field: &str, text: &str| -> Option<Timestamp> {
        if text.is_empty() {
            return None;
        }
        let read = arg::time(text).ok();
        if read.is_none() {
            wrong.push((line, format!("`{field}` is no date and no RFC 3339 time, such as 2027-01-31")));
        }
        read
    };
    let (created, rotated, expires) =
        (time("created", &entry.created), time("rotated", &entry.rotated), time("expires", &entry.expires));
    let credential = pb::UnmanagedCredential {
        tenant: entry.tenant,
        name: entry.name,
        partner: entry.partner,
        kind: entry.kind,
        owner: entry.owner,
        purpose: entry.purpose,
        location: entry.location,
        fingerprint: entry.fingerprint,
        created,
        rotated,
        expires,
        revocation: entry.revocation,
        ..Default::default()
    };
    entries.push((line, credential));
}

const FIELDS: [&str; 12] = [
    "tenant",
    "name",
    "partner",
    "kind",
    "owner",
    "purpose",
    "location",
    "fingerprint",
    "created",
    "rotated",
    "expires",
    "revocation",
];
const MAX_BYTES: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_keep_their_lines_also_behind_one_that_has_several() {
        let csv = csv("name,kind,purpose,expires\na,api-key,\"two\nlines\",2027-01-31\nb,other,,\n").expect("reads");
        let lines: Vec<_> = csv.iter().map(|(line, entry)| (*line, entry.name.as_str())).collect();
        assert_eq!(lines, [(2, "a"), (4, "b")]);
        assert!(csv[0].1.expires.is_some() && csv[1].1.expires.is_none());
        let json = json("[\n {\"name\": \"a\", \"kind\": \"other\"},\n\n {\"name\": \"b\"}]").expect("reads");
        let lines: Vec<_> = json.iter().map(|(line, entry)| (*line, entry.name.as_str())).collect();
        assert_eq!(lines, [(2, "a"), (4, "b")]);
    }

    #[test]
    fn every_problem_has_its_line_and_shows_nothing_that_was_there() {
        let wrong = csv("name,kind,expires\na,other,soon\nb,other\nc,other,2027-01-31\nd,other,hunter2\n");
        let wrong = wrong.expect_err("refused");
        assert_eq!(wrong.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 3, 5]);
        let headed = csv("name,secret\na,hunter2\n").expect_err("refused");
        assert_eq!(headed.len(), 2, "{headed:?}");
        let listed = json("[{\"name\": \"a\"},\n{\"name\": \"b\",\n\"secret\": \"hunter2\"}]").expect_err("refused");
        assert_eq!(listed.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [3]);
        assert_eq!(json("[{\"name\":\n").expect_err("refused")[0].0, 2);
        assert!(!format!("{wrong:?}{headed:?}{listed:?}").contains("hunter2"));
    }
}
