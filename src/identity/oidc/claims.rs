//! What a token says, flat: members of objects by their path.

use std::{collections::BTreeMap, fmt};

use super::{fault::TokenFault, json::Json};

/// The claims of a token, by name. Members of objects are named with `/`: `kubernetes.io/namespace`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Claims(BTreeMap<String, ClaimValue>);

/// What a claim says. Numbers and flags are kept as text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ClaimValue {
    /// One thing.
    One(String),
    /// A list.
    Many(Vec<String>),
}

impl ClaimValue {
    /// All that it says.
    #[must_use]
    pub fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl fmt::Display for ClaimValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(one) => f.write_str(&shown(one)),
            Self::Many(many) => {
                let shown: Vec<String> = many.iter().take(8).map(|one| shown(one)).collect();
                write!(f, "[{}]", shown.join(", "))
            }
        }
    }
}

impl Claims {
    /// The most claims, members of objects included.
    pub const MAX: usize = 128;
    /// Bytes of a claim's name or text.
    pub const MAX_TEXT: usize = 4_096;

    /// # Errors
    /// [`TokenFault::Claims`] when a limit is passed, or two paths meet in one name.
    pub(super) fn of(members: &BTreeMap<String, Json>) -> Result<Self, TokenFault> {
        let mut claims = Self::default();
        claims.add("", members)?;
        Ok(claims)
    }

    /// What a claim says.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&ClaimValue> {
        self.0.get(name)
    }

    /// The one text of a claim.
    #[must_use]
    pub fn one(&self, name: &str) -> Option<&str> {
        match self.0.get(name)? {
            ClaimValue::One(one) => Some(one),
            ClaimValue::Many(_) => None,
        }
    }

    /// In the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ClaimValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    fn add(&mut self, prefix: &str, members: &BTreeMap<String, Json>) -> Result<(), TokenFault> {
        for (name, value) in members {
            let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
            let value = match value {
                Json::Object(below) => {
                    self.add(&name, below)?;
                    continue;
                }
                Json::List(items) => ClaimValue::Many(items.iter().filter_map(plain).collect()),
                Json::Null => continue,
                Json::Bool(_) | Json::Number(_) | Json::Text(_) => ClaimValue::One(plain(value).unwrap_or_default()),
            };
            let long = |text: &String| text.len() > Self::MAX_TEXT;
            if long(&name) || value.all().iter().any(long) {
                return Err(TokenFault::Claims("one is longer than 4,096 bytes"));
            }
            if self.0.insert(name, value).is_some() {
                return Err(TokenFault::Claims("two have one name"));
            }
            if self.0.len() > Self::MAX {
                return Err(TokenFault::Claims("they are more than 128"));
            }
        }
        Ok(())
    }
}

fn plain(value: &Json) -> Option<String> {
    match value {
        Json::Bool(flag) => Some(flag.to_string()),
        Json::Number(number) => Some(number.to_string()),
        Json::Text(text) => Some(text.clone()),
        Json::Null | Json::List(_) | Json::Object(_) => None,
    }
}

/// A foreign text as logs and events may show it: what is not plain becomes `?`, and it is cut.
#[must_use]
pub fn shown(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    let mut shown: String = text.chars().take(SHOWN_MAX).map(plain).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push_str("...");
    }
    shown
}

const SHOWN_MAX: usize = 200;
