//! Reads one TOML table field by field, noting every problem and every name that nobody asked for.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    ops::{Range, RangeInclusive},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::problem::Notes;

/// One table of the file, or the absence of one, which reads as all defaults.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    table: Option<&'a DeTable<'a>>,
    path: String,
    offset: usize,
    known: Vec<&'static str>,
    notes: &'a Notes<'a>,
    folder: &'a Path,
}

/// A value and where it stands in the file.
#[derive(Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) offset: usize,
    pub(crate) field: String,
}

/// Who may read a file that the config names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FileRule {
    /// Must exist.
    Public,
    /// Must exist and be readable by its owner only.
    Private,
    /// As [`Self::Private`], but may be missing: it is made at first start.
    PrivateOrMissing,
}

impl<'a> Section<'a> {
    pub(crate) fn root(table: &'a DeTable<'a>, notes: &'a Notes<'a>, folder: &'a Path) -> Self {
        Self { table: Some(table), path: String::new(), offset: 0, known: Vec::new(), notes, folder }
    }

    /// Full name of a field of this section.
    pub(crate) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Notes a problem with the section as a whole.
    pub(crate) fn note(&self, key: &str, wrong: impl Into<String>, mend: impl Into<String>) {
        self.notes.note(self.offset, &self.name(key), wrong, mend);
    }

    /// Notes a problem with a value.
    pub(crate) fn note_at<T>(&self, at: &At<T>, wrong: impl Into<String>, mend: impl Into<String>) {
        self.notes.note(at.offset, &at.field, wrong, mend);
    }

    /// Notes every field that no read asked for.
    pub(crate) fn finish(self) {
        for key in self.table.iter().flat_map(|table| table.keys()) {
            let name: &str = key.get_ref();
            if !self.known.contains(&name) {
                let mend = match nearest(name, &self.known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known here: {}", self.known.join(", ")),
                };
                self.notes.note(key.span().start, &self.name(name), "is not a known field", mend);
            }
        }
    }

    fn take(&mut self, key: &'static str) -> Option<(&'a DeValue<'a>, Range<usize>)> {
        self.known.push(key);
        let value = self.table?.get(key)?;
        Some((value.get_ref(), value.span()))
    }

    fn typed<T>(
        &mut self,
        key: &'static str,
        want: &str,
        read: impl FnOnce(&'a DeValue<'a>) -> Option<T>,
    ) -> Option<At<T>> {
        let (raw, span) = self.take(key)?;
        let field = self.name(key);
        match read(raw) {
            Some(value) => Some(At { value, offset: span.start, field }),
            None => {
                self.notes.note(span.start, &field, format!("is {}", kind(raw)), format!("write {want}"));
                None
            }
        }
    }

    /// Text; empty text is refused.
    pub(crate) fn text(&mut self, key: &'static str, example: &str) -> Option<At<String>> {
        let want = format!("text, as in {key} = \"{example}\"");
        let text = self.typed(key, &want, |raw| raw.as_str().map(str::to_owned))?;
        if text.value.is_empty() {
            self.note_at(&text, "is empty", format!("write {want}, or leave it out"));
            return None;
        }
        Some(text)
    }

    /// Text that must be there.
    pub(crate) fn required_text(&mut self, key: &'static str, example: &str) -> Option<At<String>> {
        let there = self.table.is_some_and(|table| table.contains_key(key));
        let text = self.text(key, example);
        if !there {
            self.note(key, "is missing", format!("add {key} = \"{example}\""));
        }
        text
    }

    /// Text through a parser that says what is wrong.
    pub(crate) fn parsed<T>(
        &mut self,
        key: &'static str,
        example: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<At<T>> {
        let text = self.text(key, example)?;
        self.parse(text, example, parse)
    }

    /// Parses text read before.
    pub(crate) fn parse<T>(
        &self,
        text: At<String>,
        example: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<At<T>> {
        match parse(&text.value) {
            Ok(value) => Some(At { value, offset: text.offset, field: text.field }),
            Err(wrong) => {
                self.note_at(&text, format!("`{}` {wrong}", text.value), format!("write it as in \"{example}\""));
                None
            }
        }
    }

    /// A word out of a closed list.
    pub(crate) fn choice<T: Copy>(&mut self, key: &'static str, words: &[(&'static str, T)]) -> Option<At<T>> {
        let text = self.text(key, words.first().map_or("", |(word, _)| word))?;
        let chosen = self.chosen(&text, words)?;
        Some(At { value: chosen, offset: text.offset, field: text.field })
    }

    fn chosen<T: Copy>(&self, text: &At<String>, words: &[(&'static str, T)]) -> Option<T> {
        let found = words.iter().find(|(word, _)| *word == text.value).map(|(_, value)| *value);
        if found.is_none() {
            let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let mend = format!("write one of \"{}\"", all.join("\", \""));
            self.note_at(text, format!("`{}` is not known", text.value), mend);
        }
        found
    }

    /// Whether a field is there, whatever it holds.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// A text, or a list of them.
    pub(crate) fn one_or_more(&mut self, key: &'static str, example: &str) -> Vec<At<String>> {
        let is_text = self.table.and_then(|table| table.get(key)).is_some_and(|value| value.get_ref().is_str());
        if is_text {
            return self.text(key, example).into_iter().collect();
        }
        self.texts(key, example).map(|list| list.value).unwrap_or_default()
    }

    /// A list of texts.
    pub(crate) fn texts(&mut self, key: &'static str, example: &str) -> Option<At<Vec<At<String>>>> {
        let field = self.name(key);
        let want = format!("a list, as in {key} = [\"{example}\"]");
        let list = self.typed(key, &want, DeValue::as_array)?;
        let mut texts = Vec::new();
        for (index, item) in list.value.iter().enumerate() {
            let (offset, field) = (item.span().start, format!("{field}[{index}]"));
            match item.get_ref().as_str() {
                Some(text) => texts.push(At { value: text.to_owned(), offset, field }),
                None => self.notes.note(offset, &field, format!("is {}", kind(item.get_ref())), "write text in quotes"),
            }
        }
        Some(At { value: texts, offset: list.offset, field: list.field })
    }

    /// A table whose every value is a text or a list of them; at least one, none of them empty.
    pub(crate) fn texts_by_name(
        &mut self,
        key: &'static str,
        example: &str,
    ) -> Option<At<BTreeMap<String, Vec<String>>>> {
        let want = format!("a table of texts, as in {key} = {{ {example} }}");
        let read = |raw: &'a DeValue<'a>| {
            let mut named = BTreeMap::new();
            for (name, value) in raw.as_table()? {
                let texts: Option<Vec<String>> = match value.get_ref() {
                    DeValue::String(text) => Some(vec![text.to_string()]),
                    DeValue::Array(list) => list.iter().map(|one| one.get_ref().as_str().map(str::to_owned)).collect(),
                    DeValue::Integer(_)
                    | DeValue::Float(_)
                    | DeValue::Boolean(_)
                    | DeValue::Datetime(_)
                    | DeValue::Table(_) => None,
                };
                let texts = texts.filter(|texts| !texts.is_empty() && texts.iter().all(|text| !text.is_empty()))?;
                named.insert(name.get_ref().to_string(), texts);
            }
            (!named.is_empty()).then_some(named)
        };
        self.typed(key, &want, read)
    }

    /// A list of words out of a closed list.
    pub(crate) fn choices<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Option<At<Vec<At<T>>>> {
        let list = self.texts(key, words.first().map_or("", |(word, _)| word))?;
        let chosen = list.value.into_iter().filter_map(|text| {
            self.chosen(&text, words).map(|value| At { value, offset: text.offset, field: text.field })
        });
        let value = chosen.collect();
        Some(At { value, offset: list.offset, field: list.field })
    }

    /// A flag.
    pub(crate) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        self.typed(key, "true or false", DeValue::as_bool).map_or(default, |at| at.value)
    }

    /// A whole number within `range`.
    pub(crate) fn whole(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> At<u64> {
        let missing = At { value: default, offset: self.offset, field: self.name(key) };
        let want = format!("a whole number, as in {key} = {default}");
        let read = |raw: &'a DeValue<'a>| {
            raw.as_integer().map(|number| i128::from_str_radix(&number.as_str().replace('_', ""), number.radix()))
        };
        let Some(number) = self.typed(key, &want, read) else { return missing };
        match number.value.ok().and_then(|number| u64::try_from(number).ok()).filter(|n| range.contains(n)) {
            Some(value) => At { value, offset: number.offset, field: number.field },
            None => {
                let mend = format!("write {} to {}; the default is {default}", range.start(), range.end());
                self.notes.note(number.offset, &number.field, "is out of range", mend);
                missing
            }
        }
    }

    /// A ratio from 0 to 1, in millionths.
    pub(crate) fn millionths(&mut self, key: &'static str, default: u32) -> At<u32> {
        let missing = At { value: default, offset: self.offset, field: self.name(key) };
        let read = |raw: &'a DeValue<'a>| match raw {
            DeValue::Float(number) => number.as_str().replace('_', "").parse::<f64>().ok(),
            DeValue::Integer(number) => number.as_str().parse::<f64>().ok(),
            DeValue::String(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                None
            }
        };
        let Some(ratio) = self.typed(key, "a ratio from 0 to 1, as in 0.01", read) else { return missing };
        // NaN lies in no range.
        if !(0.0..=1.0).contains(&ratio.value) {
            self.note_at(&ratio, "is out of range", "write 0 to 1; the default is 0.01");
            return missing;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1,000,000")]
        let value = (ratio.value * 1_000_000.0).round() as u32;
        At { value, offset: ratio.offset, field: ratio.field }
    }

    /// A path; a relative one counts from the config file's folder.
    pub(crate) fn path(&mut self, key: &'static str, example: &str) -> Option<At<PathBuf>> {
        let text = self.text(key, example)?;
        Some(At { value: self.folder.join(&text.value), offset: text.offset, field: text.field })
    }

    /// A path that must be there.
    pub(crate) fn required_path(&mut self, key: &'static str, example: &str) -> Option<At<PathBuf>> {
        let text = self.required_text(key, example)?;
        Some(At { value: self.folder.join(&text.value), offset: text.offset, field: text.field })
    }

    /// Checks a file that the config names.
    pub(crate) fn check_file(&self, path: &At<PathBuf>, rule: FileRule) {
        let shown = path.value.display();
        let found = match std::fs::metadata(&path.value) {
            Ok(found) => found,
            Err(error) => {
                let may_miss = rule == FileRule::PrivateOrMissing && error.kind() == std::io::ErrorKind::NotFound;
                if !may_miss {
                    self.note_at(path, format!("{shown}: {error}"), "name a file that the server's user may read");
                }
                return;
            }
        };
        if !found.is_file() {
            self.note_at(path, format!("{shown} is not a regular file"), "name a file");
        } else if rule != FileRule::Public && !is_private(found.mode(), found.uid()) {
            let mend = format!("run `chmod 0600 {shown}`");
            self.note_at(path, format!("{shown} has mode {:04o}, so others may use it", found.mode() & 0o7777), mend);
        }
    }

    /// An address with a port.
    pub(crate) fn address(&mut self, key: &'static str, example: &str) -> Option<At<SocketAddr>> {
        self.parsed(key, example, |text| {
            text.parse::<SocketAddr>().map_err(|_| "is not an IP address with a port".to_owned())
        })
    }

    /// A table within this one.
    pub(crate) fn section(&mut self, key: &'static str) -> Self {
        let path = self.name(key);
        let table = self.typed(key, &format!("a table, as in [{path}]"), DeValue::as_table);
        let offset = table.as_ref().map_or(self.offset, |table| table.offset);
        Self { table: table.map(|t| t.value), path, offset, known: Vec::new(), notes: self.notes, folder: self.folder }
    }

    /// Tables within a table, each under a name of its own, in order of names.
    pub(crate) fn named(&mut self, key: &'static str) -> Vec<(String, Self)> {
        let path = self.name(key);
        let want = format!("tables, each headed [{path}.NAME]");
        let Some(all) = self.typed(key, &want, DeValue::as_table) else { return Vec::new() };
        let mut sections = Vec::new();
        for (name, item) in all.value {
            let (name, offset) = (name.get_ref().to_string(), name.span().start);
            let path = format!("{path}.{name}");
            match item.get_ref().as_table() {
                Some(table) => {
                    let (notes, folder) = (self.notes, self.folder);
                    sections.push((name, Self { table: Some(table), path, offset, known: Vec::new(), notes, folder }));
                }
                None => self.notes.note(offset, &path, format!("is {}", kind(item.get_ref())), format!("write {want}")),
            }
        }
        sections
    }

    /// A list of tables.
    pub(crate) fn sections(&mut self, key: &'static str) -> Vec<Self> {
        let path = self.name(key);
        let want = format!("tables, each headed [[{path}]]");
        let Some(list) = self.typed(key, &want, DeValue::as_array) else { return Vec::new() };
        let mut sections = Vec::new();
        for (index, item) in list.value.iter().enumerate() {
            let (item, path): (&'a Spanned<DeValue<'a>>, _) = (item, format!("{path}[{index}]"));
            let offset = item.span().start;
            match item.get_ref().as_table() {
                Some(table) => sections.push(Self {
                    table: Some(table),
                    path,
                    offset,
                    known: Vec::new(),
                    notes: self.notes,
                    folder: self.folder,
                }),
                None => self.notes.note(offset, &path, format!("is {}", kind(item.get_ref())), format!("write {want}")),
            }
        }
        sections
    }
}

/// The system's bundle of roots, where distributions keep it.
pub(crate) fn system_roots() -> Option<PathBuf> {
    let known = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];
    known.into_iter().map(PathBuf::from).find(|path| path.is_file())
}

/// Only the owner may read it; or root owns it and lets one group read it.
fn is_private(mode: u32, owner: u32) -> bool {
    mode & 0o077 == 0 || (owner == 0 && mode & 0o037 == 0)
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "a flag",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    known
        .iter()
        .map(|candidate| (distance(name, candidate), *candidate))
        .filter(|(edits, candidate)| *edits <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace) that turn one text into the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut next = vec![i + 1];
        let mut left = i + 1;
        for (y, above) in b.bytes().zip(row.windows(2)) {
            let [corner, up] = above else { continue };
            left = (left + 1).min(up + 1).min(corner + usize::from(x != y));
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}
