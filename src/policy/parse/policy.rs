//! Which policy files are in force, and whether they are right.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::policy::{
    cedar::{Compiled, PolicyFile, PolicyTexts, Sets, Side, compile},
    problem::Problem,
};

use super::{Document, row::Row, words::Words};

/// How the names of policy files end.
const ENDING: &str = ".cedar";

/// Whether a document is one of policies.
pub(super) fn is_policy(document: &Document<'_>) -> bool {
    document.path.ends_with(ENDING)
}

/// The policy files among the documents.
#[derive(Default)]
pub(super) struct Library<'a> {
    files: BTreeMap<String, &'a str>,
    used: BTreeSet<String>,
    /// Sets that were looked at, `None` of those with mistakes: those of several tenants are compiled once.
    checked: BTreeMap<(Side, Vec<String>), Option<Arc<Compiled>>>,
}

impl<'a> Library<'a> {
    pub(super) fn of(documents: &[Document<'a>]) -> Self {
        let files = documents.iter().filter(|document| is_policy(document));
        Self { files: files.map(|file| (file.path.to_owned(), file.text)).collect(), ..Self::default() }
    }

    /// The files that a table names in `enforce` and `shadow`: one or a list, relative to the table's own file.
    pub(super) fn texts(&mut self, row: &Row<'_>, side: Side, problems: &mut Vec<Problem>) -> Option<PolicyTexts> {
        row.only(&["enforce", "shadow"], problems);
        let enforce = self.files(row, "enforce", side, problems);
        let shadow = self.files(row, "shadow", side, problems);
        let texts = PolicyTexts { enforce: enforce?, shadow: shadow? };
        if texts.is_empty() {
            row.wrong("enforce", "and shadow are missing", "write enforce = \"name.cedar\"", problems);
            return None;
        }
        Some(texts)
    }

    fn files(
        &mut self,
        row: &Row<'_>,
        field: &str,
        side: Side,
        problems: &mut Vec<Problem>,
    ) -> Option<Vec<PolicyFile>> {
        let is_text = row.value(field).is_some_and(|value| value.get_ref().as_str().is_some());
        let names: Vec<String> = if is_text {
            vec![row.text(field, "", problems)?.into_owned()]
        } else {
            row.list::<Words>(field, None, problems)?.into_iter().map(|words| words.0).collect()
        };
        let files: Vec<Option<PolicyFile>> = names.iter().map(|name| self.file(row, field, name, problems)).collect();
        let files: Vec<PolicyFile> = files.into_iter().collect::<Option<_>>()?;
        let set: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
        let key = (side, set);
        if !files.is_empty() && !self.checked.contains_key(&key) {
            let compiled = compile(&files, side);
            self.checked.insert(key, compiled.as_ref().ok().cloned().map(Arc::new));
            for mistake in compiled.err().into_iter().flatten() {
                problems.push(Problem {
                    path: mistake.path,
                    line: mistake.line,
                    field: "policy".to_owned(),
                    message: mistake.message,
                    help: mistake.help,
                });
            }
        }
        Some(files)
    }

    /// What was compiled of texts that [`Self::texts`] gave.
    pub(super) fn sets(&self, texts: &PolicyTexts, side: Side) -> Sets {
        let of = |files: &[PolicyFile]| {
            let set = files.iter().map(|file| file.path.clone()).collect();
            self.checked.get(&(side, set)).cloned().flatten()
        };
        Sets::of_checked(of(&texts.enforce), of(&texts.shadow))
    }

    fn file(&mut self, row: &Row<'_>, field: &str, name: &str, problems: &mut Vec<Problem>) -> Option<PolicyFile> {
        let folder = row.source.path.rsplit_once('/').map(|(folder, _)| folder);
        let path = folder.map_or_else(|| name.to_owned(), |folder| format!("{folder}/{name}"));
        match self.files.get(&path) {
            Some(text) => {
                self.used.insert(path.clone());
                Some(PolicyFile { text: (*text).to_owned(), path })
            }
            None => {
                let message = format!("`{name}` is no policy file of this folder");
                let help =
                    "put a file with this name, which ends in .cedar, beside this one, and apply the whole folder";
                row.wrong(field, message, help, problems);
                None
            }
        }
    }

    /// Files that nothing names: whoever wrote them believes them to be in force.
    pub(super) fn leftover(&self) -> Vec<Problem> {
        let left = self.files.keys().filter(|path| !self.used.contains(*path));
        left.map(|path| Problem {
            path: path.clone(),
            line: 0,
            field: "policy".to_owned(),
            message: "is named by no tenant and no guardrails".to_owned(),
            help: "name it in policy = { enforce = \"...\" } of a tenant, or move it out of this folder".to_owned(),
        })
        .collect()
    }
}
