//! Policy text to a checked set, or everything that is wrong with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    str::FromStr,
    sync::LazyLock,
};

use cedar_policy::{Effect, Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use miette::Diagnostic;

use crate::model::Digest;

use super::{
    bounds::{beyond, on_deep_stack},
    text::{PolicyFile, PolicyTexts, hash},
};

/// The vocabulary, as `mayfly policy schema` prints it.
pub const SCHEMA: &str = include_str!("schema.cedarschema");

/// The vocabulary, read once. A test holds that it is one.
pub(super) static VOCABULARY: LazyLock<Option<Schema>> =
    LazyLock::new(|| Schema::from_cedarschema_str(SCHEMA).ok().map(|(schema, _)| schema));

/// One policy, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) policy: Policy,
    pub(super) path: String,
    pub(super) line: u32,
}

/// A checked set.
#[derive(Clone, Debug)]
pub(in crate::policy) struct Compiled {
    pub(super) policies: Vec<Entry>,
    pub(super) hash: Digest,
    /// All its text, for what of the context it mentions.
    pub(super) text: String,
}

impl Compiled {
    /// `alpha.cedar:12`, of a policy by its id.
    pub(super) fn place(&self, id: &str) -> Option<String> {
        let is = |entry: &&Entry| AsRef::<str>::as_ref(entry.policy.id()) == id;
        self.policies.iter().find(is).map(|entry| format!("{}:{}", entry.path, entry.line))
    }
}

/// Something to mend in a policy file.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(in crate::policy) struct Mistake {
    pub(in crate::policy) path: String,
    /// From 1; 0 when it is no one line's fault.
    pub(in crate::policy) line: u32,
    pub(in crate::policy) message: String,
    pub(in crate::policy) help: String,
}

/// What a set is for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(in crate::policy) enum Side {
    /// A tenant's own: some policy of it must permit.
    Tenant,
    /// Everyone's guardrails: they only forbid.
    Guardrails,
}

/// Mistakes of one kind that are told of one file: each costs a look through the file for its line.
const TOLD_MOST: usize = 100;

/// What ids of guardrails begin with, so that they cannot be taken for a tenant's.
pub(super) const GUARDRAILS: &str = "guardrails/";

/// Reads and checks a set.
///
/// # Errors
/// All that is wrong: syntax, ids, limits, what does not fit the schema, and what can never apply.
pub(in crate::policy) fn compile(files: &[PolicyFile], side: Side) -> Result<Compiled, Vec<Mistake>> {
    on_deep_stack(|| compile_here(files, side)).unwrap_or_else(|| {
        let path = files.first().map(|file| file.path.clone()).unwrap_or_default();
        let message = "could not be read: there is no thread to read it on".to_owned();
        Err(vec![Mistake { path, line: 0, message, help: "try again".to_owned() }])
    })
}

fn compile_here(files: &[PolicyFile], side: Side) -> Result<Compiled, Vec<Mistake>> {
    let mut reading = Reading { side, mistakes: Vec::new(), entries: Vec::new(), ids: BTreeSet::new() };
    let bytes: usize = files.iter().map(|file| file.text.len()).sum();
    if bytes > PolicyTexts::MAX_BYTES {
        let path = files.first().map(|file| file.path.as_str()).unwrap_or_default();
        let message = format!("the set has {bytes} bytes, where {} are allowed", PolicyTexts::MAX_BYTES);
        reading.wrong(path, 0, message, "shorten it");
        return Err(reading.mistakes);
    }
    files.iter().for_each(|file| reading.file(file));
    if reading.entries.len() > PolicyTexts::MAX_POLICIES {
        let path = files.first().map(|file| file.path.as_str()).unwrap_or_default();
        let message =
            format!("the set has {} policies, where {} are allowed", reading.entries.len(), PolicyTexts::MAX_POLICIES);
        reading.wrong(path, 0, message, "join some, or say more of it in grants");
    }
    if reading.mistakes.is_empty() {
        reading.validate(files);
    }
    if reading.mistakes.is_empty() {
        let text = files.iter().map(|file| file.text.as_str()).collect::<Vec<_>>().join("\n");
        return Ok(Compiled { policies: reading.entries, hash: hash(files), text });
    }
    reading.mistakes.sort_unstable();
    reading.mistakes.dedup();
    Err(reading.mistakes)
}

struct Reading {
    side: Side,
    mistakes: Vec<Mistake>,
    entries: Vec<Entry>,
    ids: BTreeSet<String>,
}

impl Reading {
    fn wrong(&mut self, path: &str, line: u32, message: impl Display, help: &str) {
        // One line each, however Cedar breaks its own.
        let message = message.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        self.mistakes.push(Mistake { path: path.to_owned(), line, message, help: help.to_owned() });
    }

    fn file(&mut self, file: &PolicyFile) {
        if let Some((at, why)) = beyond(&file.text) {
            return self.wrong(&file.path, line_at(&file.text, at), why, "split the policy, or flatten it");
        }
        let set = match PolicySet::from_str(&file.text) {
            Ok(set) => set,
            Err(errors) => {
                for error in errors.iter().take(TOLD_MOST) {
                    let line = line_of(&file.text, error);
                    self.wrong(&file.path, line, error, "correct the Cedar");
                }
                return;
            }
        };
        if set.templates().next().is_some() {
            self.wrong(&file.path, 0, "holds a template", "write the policy out; templates are not for this");
        }
        let mut from = 0;
        // As they stand in the file: a law of the tests holds Cedar to that.
        for policy in set.policies() {
            let text = policy.to_cedar().unwrap_or_default();
            let at = file.text.get(from..).and_then(|rest| rest.find(&text)).map(|at| at + from);
            from = at.map_or(from, |at| at + text.len());
            let line = at.map_or(0, |at| line_at(&file.text, at));
            self.policy(policy, &file.path, line);
        }
    }

    fn policy(&mut self, policy: &Policy, path: &str, line: u32) {
        let Some(id) = policy.annotation("id") else {
            self.wrong(path, line, "a policy has no id", "write @id(\"name\") before it; events and leases call it so");
            return;
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if !(1..=PolicyTexts::MAX_ID_BYTES).contains(&id.len()) || !id.bytes().all(plain) {
            self.wrong(path, line, "an id is not 1 to 64 letters, digits, `.`, `_` and `-`", "give it another");
            return;
        }
        if self.side == Side::Guardrails && policy.effect() == Effect::Permit {
            let help = "write forbid ... unless; what permits belongs to a tenant";
            self.wrong(path, line, format!("`{id}` permits, and guardrails only forbid"), help);
        }
        let id = if self.side == Side::Guardrails { format!("{GUARDRAILS}{id}") } else { id.to_owned() };
        if !self.ids.insert(id.clone()) {
            self.wrong(path, line, format!("`{id}` is the id of another policy too"), "give each an id of its own");
            return;
        }
        let policy = policy.new_id(PolicyId::new(id));
        self.entries.push(Entry { policy, path: path.to_owned(), line });
    }

    /// Against the schema, strictly. What Cedar only warns of is a mistake here: a policy that can never apply, and text
    /// that does not read as it runs.
    fn validate(&mut self, files: &[PolicyFile]) {
        let Some(schema) = VOCABULARY.as_ref() else {
            return self.wrong("", 0, "the vocabulary of policies cannot be read", "report this");
        };
        let mut set = PolicySet::new();
        for entry in &self.entries {
            if let Err(error) = set.add(entry.policy.clone()) {
                return self.mistakes.push(Mistake {
                    path: entry.path.clone(),
                    line: entry.line,
                    message: error.to_string(),
                    help: "give each policy an id of its own".to_owned(),
                });
            }
        }
        let places: BTreeMap<String, (String, u32)> = self
            .entries
            .iter()
            .map(|entry| (entry.policy.id().to_string(), (entry.path.clone(), entry.line)))
            .collect();
        let result = Validator::new(schema.clone()).validate(&set, ValidationMode::Strict);
        let errors = result.validation_errors().take(TOLD_MOST).map(|error| {
            let help = error.help().map(|help| help.to_string());
            (error.policy_id().to_string(), error.to_string(), help, offset(error))
        });
        let warnings = result.validation_warnings().take(TOLD_MOST).map(|warning| {
            let help = warning.help().map(|help| help.to_string());
            (warning.policy_id().to_string(), warning.to_string(), help, offset(warning))
        });
        let found: Vec<_> = errors.chain(warnings).collect();
        for (id, message, help, at) in found {
            let (path, line) = places.get(&id).cloned().unwrap_or_default();
            let text = files.iter().find(|file| file.path == path).map(|file| file.text.as_str());
            let line = at.zip(text).map_or(line, |(at, text)| line_at(text, at));
            let help = help.unwrap_or_else(|| "see `mayfly policy schema`".to_owned());
            self.wrong(&path, line, message, &help.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
}

/// Where a diagnostic points, in bytes.
fn offset(diagnostic: &dyn Diagnostic) -> Option<usize> {
    diagnostic.labels()?.next().map(|label| label.offset())
}

fn line_of(text: &str, diagnostic: &dyn Diagnostic) -> u32 {
    offset(diagnostic).map_or(0, |at| line_at(text, at))
}

/// The line of a byte, from 1.
fn line_at(text: &str, at: usize) -> u32 {
    let before = text.bytes().take(at).filter(|b| *b == b'\n').count();
    u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vocabulary_is_a_schema() {
        if let Err(error) = Schema::from_cedarschema_str(SCHEMA) {
            panic!("{:?}", miette::Report::new(error));
        }
    }
}
