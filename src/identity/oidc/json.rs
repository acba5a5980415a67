//! JSON that has one meaning: no member twice (RFC 8259 section 4 leaves that open), and bounded.

use std::{cell::Cell, collections::BTreeMap, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A value in which no object has a member twice.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// A flag.
    Bool(bool),
    /// A number, as it stands.
    Number(serde_json::Number),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Self>),
    /// Members by name.
    Object(BTreeMap<String, Self>),
}

/// Why a text is no such JSON.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct JsonFault(#[from] serde_json::Error);

impl Json {
    /// The most objects within objects.
    pub const MAX_DEPTH: usize = 6;
    /// The most values in all.
    pub const MAX_VALUES: usize = 1_024;

    /// Reads one value and nothing behind it.
    ///
    /// # Errors
    /// When it is no JSON, has a member twice, or passes a limit.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonFault> {
        let left = Cell::new(Self::MAX_VALUES);
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let value = Reader { depth: Self::MAX_DEPTH, left: &left }.deserialize(&mut reader)?;
        reader.end()?;
        Ok(value)
    }

    /// The members, when it is an object.
    #[must_use]
    pub fn members(&self) -> Option<&BTreeMap<String, Self>> {
        match self {
            Self::Object(members) => Some(members),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) | Self::List(_) => None,
        }
    }

    /// The text, when it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Object(_) | Self::List(_) => None,
        }
    }

    /// The entries, when it is a list.
    #[must_use]
    pub fn list(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) => Some(items),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Object(_) | Self::Text(_) => None,
        }
    }
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    depth: usize,
    left: &'a Cell<usize>,
}

impl Reader<'_> {
    fn below<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("is nested too deeply"))?;
        Ok(Self { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Json, D::Error> {
        let left = self.left.get().checked_sub(1).ok_or_else(|| D::Error::custom("has too many values"))?;
        self.left.set(left);
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json, E> {
        serde_json::Number::from_f64(value).map(Json::Number).ok_or_else(|| E::custom("has a number that is none"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let below = self.below()?;
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(below)? {
            items.push(item);
        }
        Ok(Json::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let below = self.below()?;
        let mut members = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(below)?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("has a member twice"));
            }
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        Json::parse(text.as_bytes()).expect_err(text).to_string()
    }

    #[test]
    fn a_member_twice_is_refused_at_any_depth_and_however_it_is_escaped() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"x":{"a":1,"\u0061":2}}"#, r#"[{"a":[{"b":1,"b":2}]}]"#] {
            assert!(fault(text).contains("twice"), "{text}");
        }
        assert!(Json::parse(br#"{"a":{"a":1},"b":{"a":2}}"#).is_ok());
    }

    #[test]
    fn depth_and_count_hold_at_their_limits_and_not_one_past() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Json::parse(nested(Json::MAX_DEPTH).as_bytes()).is_ok());
        assert!(fault(&nested(Json::MAX_DEPTH + 1)).contains("deeply"));
        assert!(fault(&nested(100_000)).contains("deeply"));
        let long = |count: usize| format!("[{}]", vec!["1"; count].join(","));
        assert!(Json::parse(long(Json::MAX_VALUES - 1).as_bytes()).is_ok());
        assert!(fault(&long(Json::MAX_VALUES)).contains("many"));
    }

    #[test]
    fn nothing_may_follow_and_nothing_may_miss() {
        for text in ["", "{", r#"{"a":1}{"#, "{}x", "NaN", "1e999", "\u{feff}{}"] {
            fault(text);
        }
    }
}
