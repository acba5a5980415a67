//! One table of a document, read field by field.

use std::{borrow::Cow, fmt::Display, str::FromStr};

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use crate::{
    model::{TenantName, Timestamp},
    policy::{problem::Problem, trust::TenantTrust},
};

use super::source::{Place, Source};

/// One table, such as a `[[grant]]`.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) noun: &'static str,
    pub(super) table: &'a DeTable<'a>,
    pub(super) source: &'a Source<'a>,
    pub(super) place: Place,
    /// What `{tenant}` stands for in a template; elsewhere braces have no meaning.
    pub(super) tenant: Option<&'a TenantName>,
}

pub(super) type Value<'a> = Spanned<DeValue<'a>>;

impl<'a> Row<'a> {
    /// A table found as `value`; a problem when it is none.
    pub(super) fn new(
        noun: &'static str,
        value: &'a Value<'a>,
        source: &'a Source<'a>,
        tenant: Option<&'a TenantName>,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let place = source.place(value.span().start);
        if let Some(table) = value.get_ref().as_table() {
            return Some(Self { noun, table, source, place, tenant });
        }
        problems.push(Problem {
            path: source.path.to_owned(),
            line: place.line,
            field: noun.to_owned(),
            message: format!("is a {}, not a table", value.get_ref().type_str()),
            help: format!("write [[{noun}]]"),
        });
        None
    }

    /// Refuses fields that are not `known`.
    pub(super) fn only(&self, known: &[&str], problems: &mut Vec<Problem>) {
        for key in self.table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            let name = key.get_ref();
            let help = match nearest(name, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known are {}", known.join(", ")),
            };
            let line = self.source.place(key.span().start).line;
            problems.push(self.problem(line, name, "is not known", help));
        }
    }

    /// Notes a problem with a field, at its line when it is there.
    pub(super) fn wrong(&self, field: &str, message: impl Display, help: impl Display, problems: &mut Vec<Problem>) {
        let line = self.table.get(field).map_or(self.place, |value| self.source.place(value.span().start)).line;
        problems.push(self.problem(line, field, message, help));
    }

    fn problem(&self, line: u32, field: &str, message: impl Display, help: impl Display) -> Problem {
        Problem {
            path: self.source.path.to_owned(),
            line,
            field: format!("{}.{field}", self.noun),
            message: message.to_string(),
            help: help.to_string(),
        }
    }

    pub(super) fn has(&self, field: &str) -> bool {
        self.table.contains_key(field)
    }

    pub(super) fn value(&self, field: &str) -> Option<&'a Value<'a>> {
        self.table.get(field)
    }

    /// A required field; a problem with `help` when it is missing.
    fn required(&self, field: &str, help: &str, problems: &mut Vec<Problem>) -> Option<&'a DeValue<'a>> {
        let value = self.value(field).map(Spanned::get_ref);
        if value.is_none() {
            self.wrong(field, "is missing", help, problems);
        }
        value
    }

    fn fill(&self, text: &'a str) -> Cow<'a, str> {
        match self.tenant {
            Some(tenant) if text.contains(TENANT) => Cow::Owned(text.replace(TENANT, tenant.as_str())),
            Some(_) | None => Cow::Borrowed(text),
        }
    }

    /// A text within a nested value, filled in as those of fields are.
    pub(super) fn fill_text(&self, text: &str) -> String {
        self.tenant.map_or_else(|| text.to_owned(), |tenant| text.replace(TENANT, tenant.as_str()))
    }

    fn text_of(&self, field: &str, value: &'a DeValue<'a>, problems: &mut Vec<Problem>) -> Option<Cow<'a, str>> {
        if let Some(text) = value.as_str() {
            return Some(self.fill(text));
        }
        self.wrong(field, format!("is a {}, not a text", value.type_str()), "write it in quotes", problems);
        None
    }

    /// A required text.
    pub(super) fn text(&self, field: &str, help: &str, problems: &mut Vec<Problem>) -> Option<Cow<'a, str>> {
        let value = self.required(field, help, problems)?;
        self.text_of(field, value, problems)
    }

    /// A text that may be absent: `Some(None)` when it is, `None` when it is wrong.
    pub(super) fn text_if_any(&self, field: &str, problems: &mut Vec<Problem>) -> Option<Option<Cow<'a, str>>> {
        match self.value(field) {
            None => Some(None),
            Some(value) => self.text_of(field, value.get_ref(), problems).map(Some),
        }
    }

    /// A required text for people: 1 to 128 characters, none of them a control character.
    pub(super) fn prose(&self, field: &str, help: &str, problems: &mut Vec<Problem>) -> Option<String> {
        let text = self.text(field, help, problems)?;
        let count = text.chars().count();
        if !(1..=128).contains(&count) || text.trim().is_empty() {
            self.wrong(field, format!("has {count} characters, where 1 to 128 are allowed"), help, problems);
            return None;
        }
        if text.chars().any(char::is_control) {
            self.wrong(field, "has a control character", "write it on one line", problems);
            return None;
        }
        Some(text.into_owned())
    }

    /// A required text that parses.
    pub(super) fn parsed<T: FromStr<Err: Display>>(
        &self,
        field: &str,
        help: &str,
        problems: &mut Vec<Problem>,
    ) -> Option<T> {
        let text = self.text(field, help, problems)?;
        self.parse_text(field, &text, problems)
    }

    pub(super) fn parse_text<T: FromStr<Err: Display>>(
        &self,
        field: &str,
        text: &str,
        problems: &mut Vec<Problem>,
    ) -> Option<T> {
        let wrong = |why: T::Err| self.wrong(field, format!("`{text}` {why}"), "correct it", problems);
        text.parse().map_err(wrong).ok()
    }

    fn array(&self, field: &str, value: &'a DeValue<'a>, problems: &mut Vec<Problem>) -> Option<&'a DeArray<'a>> {
        let Some(array) = value.as_array() else {
            self.wrong(field, format!("is a {}, not a list", value.type_str()), "write [\"...\"]", problems);
            return None;
        };
        if array.len() > TenantTrust::MAX_LIST {
            let message = format!("has {} entries, where {} are allowed", array.len(), TenantTrust::MAX_LIST);
            self.wrong(field, message, "split it into two", problems);
            return None;
        }
        Some(array)
    }

    /// A list of texts that each parse; `help` when it is required and missing or empty.
    pub(super) fn list<T: FromStr<Err: Display>>(
        &self,
        field: &str,
        required: Option<&str>,
        problems: &mut Vec<Problem>,
    ) -> Option<Vec<T>> {
        let value = match (self.value(field), required) {
            (Some(value), _) => value.get_ref(),
            (None, None) => return Some(Vec::new()),
            (None, Some(help)) => return self.required(field, help, problems).and(None),
        };
        let array = self.array(field, value, problems)?;
        if let (true, Some(help)) = (array.is_empty(), required) {
            self.wrong(field, "is empty", help, problems);
            return None;
        }
        // Every entry is looked at, also after a wrong one.
        let items: Vec<Option<T>> = array
            .iter()
            .map(|item| {
                let text = self.text_of(field, item.get_ref(), problems)?;
                self.parse_text(field, &text, problems)
            })
            .collect();
        items.into_iter().collect()
    }

    /// Tables of a required list.
    pub(super) fn tables(&self, field: &'static str, help: &str, problems: &mut Vec<Problem>) -> Option<Vec<Self>> {
        let value = self.required(field, help, problems)?;
        let array = self.array(field, value, problems)?;
        if array.is_empty() {
            self.wrong(field, "is empty", help, problems);
            return None;
        }
        let rows: Vec<Option<Self>> =
            array.iter().map(|item| Self::new(field, item, self.source, self.tenant, problems)).collect();
        rows.into_iter().collect()
    }

    /// A table within, when it is there.
    pub(super) fn table(&self, field: &'static str, help: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        self.required(field, help, problems)?;
        let value = self.value(field)?;
        Self::new(field, value, self.source, self.tenant, problems)
    }

    /// A duration that may be absent: `Some(None)` when it is, `None` when it is wrong; as [`Self::seconds`].
    pub(super) fn seconds_if_any(&self, field: &str, max: u32, problems: &mut Vec<Problem>) -> Option<Option<u32>> {
        if self.has(field) { self.seconds(field, max, None, problems).map(Some) } else { Some(None) }
    }

    /// A whole number within `range`; `default` when absent, which without one is a problem.
    pub(super) fn number(
        &self,
        field: &str,
        range: std::ops::RangeInclusive<u64>,
        default: Option<u64>,
        problems: &mut Vec<Problem>,
    ) -> Option<u64> {
        let value = match (self.value(field), default) {
            (Some(value), _) => value.get_ref(),
            (None, Some(default)) => return Some(default),
            (None, None) => return self.required(field, "write a whole number", problems).and(None),
        };
        let number = value.as_integer().and_then(|i| u64::from_str_radix(i.as_str(), i.radix()).ok());
        self.within(field, number, &range, "", problems)
    }

    /// A duration in seconds, or a text such as `90s`, `5m`, `1h`, `90d`; as [`Self::number`].
    pub(super) fn seconds(
        &self,
        field: &str,
        max: u32,
        default: Option<u32>,
        problems: &mut Vec<Problem>,
    ) -> Option<u32> {
        let value = match (self.value(field), default) {
            (Some(value), _) => value.get_ref(),
            (None, Some(default)) => return Some(default),
            (None, None) => return self.required(field, "write a duration such as \"5m\"", problems).and(None),
        };
        let seconds = match (value.as_str(), value.as_integer()) {
            (Some(text), _) => duration(text),
            (None, Some(number)) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            (None, None) => None,
        };
        let seconds = self.within(field, seconds, &(1..=max.into()), "s", problems)?;
        u32::try_from(seconds).ok()
    }

    fn within(
        &self,
        field: &str,
        number: Option<u64>,
        range: &std::ops::RangeInclusive<u64>,
        unit: &str,
        problems: &mut Vec<Problem>,
    ) -> Option<u64> {
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let help = format!("write {}{unit} to {}{unit}", range.start(), range.end());
            self.wrong(field, "is not within its limits", help, problems);
        }
        number
    }

    /// `true` or `false`; `default` when absent.
    pub(super) fn flag(&self, field: &str, default: bool, problems: &mut Vec<Problem>) -> Option<bool> {
        let Some(value) = self.value(field) else { return Some(default) };
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.wrong(field, "is neither true nor false", "write true or false", problems);
        }
        flag
    }

    /// A required date (its beginning in UTC) or date-time with offset, in quotes or not.
    pub(super) fn time(&self, field: &str, help: &str, problems: &mut Vec<Problem>) -> Option<Timestamp> {
        let value = self.required(field, help, problems)?;
        let text = match (value.as_str(), value.as_datetime()) {
            (Some(text), _) => text.to_owned(),
            (None, Some(at)) => at.to_string(),
            (None, None) => String::new(),
        };
        let parsed = Timestamp::parse_rfc3339(&text).or_else(|| Timestamp::parse_rfc3339(&(text + "T00:00:00Z")));
        if parsed.is_none() {
            let help = "write 2027-01-31 or 2027-01-31T12:00:00Z";
            self.wrong(field, "is neither a date nor a date-time with offset", help, problems);
        }
        parsed
    }
}

fn duration(text: &str) -> Option<u64> {
    let units = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];
    let (digits, factor) = units.into_iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    // Rust reads a sign before a number, too.
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse::<u64>().ok()?.checked_mul(factor)).flatten()
}

/// The known word with the fewest edits to `name`, when they are few.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let (edits, word) = known.iter().map(|word| (edits(name, word), *word)).min()?;
    (edits <= 1.max(word.len() / 3)).then_some(word)
}

fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        let mut left = i + 1;
        next.push(left);
        for ((y, diagonal), above) in b.bytes().zip(&row).zip(row.iter().skip(1)) {
            left = (left + 1).min(above + 1).min(diagonal + usize::from(x != y));
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

const TENANT: &str = "{tenant}";
