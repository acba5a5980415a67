//! What a grant says about audiences and actions.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidPattern {
    /// Too short or too long.
    #[error("has {0} bytes, where 1 to 255 are allowed")]
    Length(usize),
    /// A space, a control character or no ASCII.
    #[error("has a byte at {0} that is not printable ASCII")]
    Byte(usize),
    /// A `*` that is not the last segment, or nothing before it.
    #[error("has a `*` that is not a last segment after a named one")]
    Star,
}

/// An exact text, or all paths below one: `https://api.example/orders/*`.
///
/// A final `/*` stands for one or more further segments: `orders/*` fits `orders/7` and `orders/7/lines`, but neither
/// `orders`, `orders/` nor `orders-old`. What fits below a `/*` has only segments of letters, digits and `-._~:@`, none
/// of them `.` or `..`, so that no server can read it as another path. A `*` anywhere else, or alone, is refused.
///
/// Invariant: 1 to 255 bytes of printable ASCII without space.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// The greatest length in bytes.
    pub const MAX_BYTES: usize = 255;

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `asked` is what this allows.
    #[must_use]
    pub fn fits(&self, asked: &str) -> bool {
        match self.folder() {
            None => &*self.0 == asked,
            Some(folder) => asked.strip_prefix(folder).is_some_and(is_plain_path),
        }
    }

    /// Whether all that `other` allows is allowed by this too.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self.folder(), other.folder()) {
            (Some(mine), Some(theirs)) => theirs == mine || theirs.strip_prefix(mine).is_some_and(is_plain_folder),
            (None, Some(_)) => false,
            (_, None) => self.fits(&other.0),
        }
    }

    /// Whether something is allowed by both.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// What stands before the `*`, with its `/`.
    fn folder(&self) -> Option<&str> {
        self.0.strip_suffix('*')
    }
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        if text.is_empty() || text.len() > Self::MAX_BYTES {
            return Err(InvalidPattern::Length(text.len()));
        }
        if let Some(at) = text.bytes().position(|b| !b.is_ascii_graphic()) {
            return Err(InvalidPattern::Byte(at));
        }
        let named = match text.strip_suffix("/*") {
            None => text,
            // `https://*` would be every host there is.
            Some(folder) if folder.is_empty() || folder.ends_with('/') => return Err(InvalidPattern::Star),
            Some(folder) => folder,
        };
        if named.contains('*') {
            return Err(InvalidPattern::Star);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

fn is_plain_path(rest: &str) -> bool {
    rest.split('/').all(|segment| !matches!(segment, "" | "." | "..") && segment.bytes().all(is_plain))
}

/// As [`is_plain_path`], with a `/` at its end.
fn is_plain_folder(rest: &str) -> bool {
    rest.strip_suffix('/').is_some_and(is_plain_path)
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().expect("a pattern")
    }

    #[test]
    fn a_star_is_only_a_last_segment_after_a_named_one() {
        for bad in ["*", "/*", "https://*", "a*", "a/*/b", "a/**", "a/*b", "*/a", "a b", "", "ü", &"x".repeat(256)] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
        for good in ["a", "a/*", "https://api.example/*", &"x".repeat(255)] {
            assert!(good.parse::<Pattern>().is_ok(), "{good}");
        }
    }

    #[test]
    fn a_folder_fits_whole_segments_below_it_and_no_detour() {
        let orders = pattern("https://api.example/orders/*");
        for good in ["https://api.example/orders/7", "https://api.example/orders/7/lines"] {
            assert!(orders.fits(good), "{good}");
        }
        for bad in [
            "https://api.example/orders",
            "https://api.example/orders/",
            "https://api.example/orders-old/7",
            "https://api.example/orders/../admin",
            "https://api.example/orders/%2e%2e/admin",
            "https://api.example/orders/..\\admin",
            "https://api.example/orders//7",
            "https://api.example/orders/7?x=1",
            "https://api.example/orders/*",
        ] {
            assert!(!orders.fits(bad), "{bad}");
        }
    }

    #[test]
    fn covering_is_fitting_for_all_that_the_other_fits() {
        for (wide, narrow, covers) in [
            ("a/*", "a/*", true),
            ("a/*", "a/b/*", true),
            ("a/*", "a/b", true),
            ("a/*", "a", false),
            ("a/b/*", "a/*", false),
            ("a", "a/*", false),
            ("a/*", "ab/*", false),
            ("a/*", "a/../b/*", false),
        ] {
            assert_eq!(pattern(wide).covers(&pattern(narrow)), covers, "{wide} {narrow}");
        }
    }
}
