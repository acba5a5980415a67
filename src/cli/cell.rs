//! Records as ordered fields: one description for JSON and for tables.

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::{model::id::hex, pb};

/// What can be shown: as a JSON object, as a row, or field by field.
pub trait Record {
    /// Headings of a table with the names of the fields below them.
    const COLUMNS: &'static [(&'static str, &'static str)];

    /// All fields, in order. The names are the same whatever is set.
    fn fields(&self) -> Fields;
}

/// Named values in the order they are shown.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<(&'static str, Item)>);

/// One value of a field.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Item {
    /// A JSON scalar, or a list of them.
    Plain(Value),
    /// A record within.
    Record(Fields),
    /// A list of records within.
    Records(Vec<Fields>),
}

impl Fields {
    /// No fields yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Text; empty counts as not set.
    #[must_use]
    pub fn text(self, name: &'static str, text: &str) -> Self {
        self.plain(name, if text.is_empty() { Value::Null } else { text.into() })
    }

    /// A list of texts.
    #[must_use]
    pub fn words(self, name: &'static str, words: &[String]) -> Self {
        self.plain(name, words.into())
    }

    /// A number.
    #[must_use]
    pub fn number(self, name: &'static str, number: impl Into<u64>) -> Self {
        self.plain(name, number.into().into())
    }

    /// Yes or no.
    #[must_use]
    pub fn flag(self, name: &'static str, flag: bool) -> Self {
        self.plain(name, flag.into())
    }

    /// Bytes as hex; empty counts as not set.
    #[must_use]
    pub fn hex(self, name: &'static str, bytes: &[u8]) -> Self {
        self.text(name, &hex(bytes))
    }

    /// A time as RFC 3339 text.
    #[must_use]
    pub fn time(self, name: &'static str, time: Option<&prost_types::Timestamp>) -> Self {
        self.text(name, &time.map(rfc3339).unwrap_or_default())
    }

    /// A revision as `INCARNATION:NUMBER`.
    #[must_use]
    pub fn revision(self, name: &'static str, revision: Option<&pb::Revision>) -> Self {
        self.text(name, &revision.map(revision_text).unwrap_or_default())
    }

    /// A record within, or null.
    #[must_use]
    pub fn record(mut self, name: &'static str, record: Option<Self>) -> Self {
        self.0.push((name, record.map_or(Item::Plain(Value::Null), Item::Record)));
        self
    }

    /// Records within.
    #[must_use]
    pub fn records(mut self, name: &'static str, records: Vec<Self>) -> Self {
        self.0.push((name, Item::Records(records)));
        self
    }

    /// One line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        // Strings, numbers and maps with text keys always serialize.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The cell below a heading.
    #[must_use]
    pub fn cell(&self, name: &str) -> String {
        self.0.iter().find(|(other, _)| *other == name).map(|(_, item)| item.cell()).unwrap_or_default()
    }

    /// Name and cell of every field; records within are spread out with dotted names.
    #[must_use]
    pub fn spread(&self) -> Vec<(String, String)> {
        let mut rows = Vec::new();
        for (name, item) in &self.0 {
            match item {
                Item::Record(fields) => {
                    rows.extend(fields.spread().into_iter().map(|(inner, cell)| (format!("{name}.{inner}"), cell)));
                }
                Item::Records(records) => {
                    for (at, fields) in records.iter().enumerate() {
                        let inner = fields.spread().into_iter();
                        rows.extend(inner.map(|(inner, cell)| (format!("{name}.{at}.{inner}"), cell)));
                    }
                }
                Item::Plain(_) => rows.push(((*name).to_owned(), item.cell())),
            }
        }
        rows
    }

    /// The names, in order.
    #[cfg(test)]
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|(name, _)| *name).collect()
    }

    fn plain(mut self, name: &'static str, value: Value) -> Self {
        self.0.push((name, Item::Plain(value)));
        self
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|(name, item)| (name, item)))
    }
}

impl Item {
    fn cell(&self) -> String {
        match self {
            Self::Plain(value) => value_cell(value),
            Self::Record(fields) => fields.json(),
            Self::Records(records) => format!("{} records", records.len()),
        }
    }
}

fn value_cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(flag) => if *flag { "yes" } else { "no" }.to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => printable(text),
        Value::Array(values) if values.is_empty() => "-".to_owned(),
        Value::Array(values) => values.iter().map(value_cell).collect::<Vec<_>>().join(","),
        Value::Object(_) => value.to_string(),
    }
}

/// The text with control characters escaped, so that nothing a stranger wrote can steer the terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if hidden(c) {
            out.extend(c.escape_default())
        } else {
            out.push(c)
        }
        out
    })
}

/// RFC 3339 in UTC, with a fraction of a second only when there is one.
#[must_use]
pub fn rfc3339(time: &prost_types::Timestamp) -> String {
    let nanos = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    time::OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|t| t.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_else(|| format!("{}s", time.seconds))
}

/// `INCARNATION:NUMBER`, the incarnation as 16 hex digits: as text, because JSON readers round 64-bit numbers.
#[must_use]
pub fn revision_text(revision: &pb::Revision) -> String {
    format!("{:016x}:{}", revision.incarnation, revision.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc3339_to_the_millisecond_they_carry() {
        let at = |seconds, nanos| rfc3339(&prost_types::Timestamp { seconds, nanos });
        assert_eq!(at(1_763_000_000, 0), "2025-11-13T02:13:20Z");
        assert_eq!(at(1_763_000_000, 5_000_000), "2025-11-13T02:13:20.005Z");
        assert_eq!(at(i64::MAX, 0), format!("{}s", i64::MAX));
    }

    #[test]
    fn a_cell_cannot_steer_the_terminal_nor_turn_its_text_around() {
        assert_eq!(printable("a\u{1b}[2Jb\u{9b}\n\u{202e}c"), "a\\u{1b}[2Jb\\u{9b}\\n\\u{202e}c");
        assert_eq!(printable("grün"), "grün");
    }

    #[test]
    fn fields_keep_their_order_and_unset_ones_are_null() {
        let fields = Fields::new().text("z", "").hex("y", &[1, 255]).words("x", &[]).number("a", 1_u32).flag("b", true);
        assert_eq!(fields.json(), r#"{"z":null,"y":"01ff","x":[],"a":1,"b":true}"#);
        let outer = Fields::new().record("inner", Some(fields)).record("none", None);
        assert_eq!(outer.spread()[1], ("inner.y".to_owned(), "01ff".to_owned()));
        assert!(outer.json().ends_with(r#""none":null}"#));
    }
}
