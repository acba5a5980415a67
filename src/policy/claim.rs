//! What a binding asks of a claim.

use std::{fmt, str::FromStr};

use regex::Regex;
use regex_syntax::hir::{Class, Hir, HirKind};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::sorted::Sorted;
use crate::identity::oidc::ClaimValue;

/// What a binding asks of a claim.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimRule {
    /// To be one of these texts, exactly.
    OneOf(Vec<String>),
    /// To fit this pattern as a whole.
    Pattern(ClaimPattern),
}

/// A regular expression for a whole claim: it stands for `\A(?:p)\z`.
///
/// Invariant: compiles within 64 KiB; has text that every match holds; nothing in it but written slashes matches `/`.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ClaimPattern(String);

/// Why a text is no pattern for claims.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidClaimPattern {
    /// No regular expression.
    #[error("is no regular expression: {0}")]
    Syntax(String),
    /// Matches what lies in another folder, repository or branch.
    #[error("can match across `/`: write each `/`, and `[^/]+` or narrower between them")]
    CrossesSlash,
    /// Matches anything.
    #[error("has no text that every match holds, so it fits anything")]
    FitsAnything,
    /// `^` or `$`: the whole claim is matched as it is.
    #[error("has an anchor; the whole claim is matched in any case")]
    Anchor,
    /// Too long, or too large once compiled.
    #[error("is longer than {max} bytes, or too large once compiled", max = ClaimPattern::MAX_BYTES)]
    TooLarge,
}

impl ClaimPattern {
    /// Bytes of the longest.
    pub const MAX_BYTES: usize = 512;

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Compiled, for the whole claim.
    ///
    /// # Errors
    /// When it is no regular expression, or too large.
    pub(super) fn compiled(&self) -> Result<Regex, regex::Error> {
        compile(&self.0)
    }
}

impl FromStr for ClaimPattern {
    type Err = InvalidClaimPattern;

    fn from_str(text: &str) -> Result<Self, InvalidClaimPattern> {
        if text.len() > Self::MAX_BYTES {
            return Err(InvalidClaimPattern::TooLarge);
        }
        let syntax = |error: String| InvalidClaimPattern::Syntax(error.lines().last().unwrap_or_default().to_owned());
        let mut parser = regex_syntax::ParserBuilder::new().nest_limit(16).build();
        let hir = parser.parse(text).map_err(|error| syntax(error.to_string()))?;
        if has_anchor(&hir) {
            return Err(InvalidClaimPattern::Anchor);
        }
        if crosses_slash(&hir) {
            return Err(InvalidClaimPattern::CrossesSlash);
        }
        if !holds_text(&hir) {
            return Err(InvalidClaimPattern::FitsAnything);
        }
        match compile(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(regex::Error::CompiledTooBig(_)) => Err(InvalidClaimPattern::TooLarge),
            Err(error) => Err(syntax(error.to_string())),
        }
    }
}

fn compile(text: &str) -> Result<Regex, regex::Error> {
    // The group keeps `a|b` from being anchored by halves.
    regex::RegexBuilder::new(&format!(r"\A(?:{text})\z")).size_limit(COMPILED_MAX_BYTES).build()
}

fn below(hir: &Hir) -> &[Hir] {
    hir.kind().subs()
}

fn has_anchor(hir: &Hir) -> bool {
    matches!(hir.kind(), HirKind::Look(_)) || below(hir).iter().any(has_anchor)
}

/// Whether something that can stand for many texts can stand for one with `/`.
fn crosses_slash(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Class(class) => class_has_slash(class),
        HirKind::Repetition(repeated) => has_slash(&repeated.sub) || crosses_slash(&repeated.sub),
        HirKind::Empty | HirKind::Look(_) | HirKind::Literal(_) => false,
        HirKind::Capture(_) | HirKind::Concat(_) | HirKind::Alternation(_) => below(hir).iter().any(crosses_slash),
    }
}

fn has_slash(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Literal(literal) => literal.0.contains(&b'/'),
        HirKind::Class(class) => class_has_slash(class),
        HirKind::Empty | HirKind::Look(_) => false,
        HirKind::Repetition(_) | HirKind::Capture(_) | HirKind::Concat(_) | HirKind::Alternation(_) => {
            below(hir).iter().any(has_slash)
        }
    }
}

fn class_has_slash(class: &Class) -> bool {
    match class {
        Class::Unicode(class) => class.ranges().iter().any(|range| range.start() <= '/' && '/' <= range.end()),
        Class::Bytes(class) => class.ranges().iter().any(|range| range.start() <= b'/' && b'/' <= range.end()),
    }
}

/// Whether every match holds some written text.
fn holds_text(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Literal(_) => true,
        HirKind::Capture(_) | HirKind::Concat(_) => below(hir).iter().any(holds_text),
        HirKind::Alternation(ways) => ways.iter().all(holds_text),
        HirKind::Repetition(repeated) => repeated.min > 0 && holds_text(&repeated.sub),
        HirKind::Empty | HirKind::Look(_) | HirKind::Class(_) => false,
    }
}

/// A rule, ready to be asked.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    OneOf(Sorted<String>),
    Pattern(Regex),
    /// A pattern that this version cannot compile: it fits nothing.
    Nothing,
}

impl Asked {
    pub(super) fn of(rule: &ClaimRule) -> Self {
        match rule {
            ClaimRule::OneOf(texts) => Self::OneOf(texts.clone().into()),
            ClaimRule::Pattern(pattern) => pattern.compiled().map_or(Self::Nothing, Self::Pattern),
        }
    }

    /// Whether a claim is as asked; of a list, whether an entry is.
    pub(super) fn fits(&self, value: &ClaimValue) -> bool {
        value.all().iter().any(|text| match self {
            Self::OneOf(texts) => texts.has(text),
            Self::Pattern(regex) => regex.is_match(text),
            Self::Nothing => false,
        })
    }
}

impl fmt::Display for ClaimRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneOf(texts) => match texts.as_slice() {
                [one] => write!(f, "{one:?}"),
                many => write!(f, "{many:?}"),
            },
            Self::Pattern(pattern) => write!(f, "{{ pattern = '{}' }}", pattern.0),
        }
    }
}

impl Serialize for ClaimPattern {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ClaimPattern {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // Checked when it was applied: a later version that knows better must not make the whole row unreadable.
        String::deserialize(from).map(Self)
    }
}

const COMPILED_MAX_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_for_the_whole_claim_and_never_for_half_of_it() {
        let fits = |pattern: &str, text: &str| {
            let rule = ClaimRule::Pattern(pattern.parse().expect(pattern));
            Asked::of(&rule).fits(&ClaimValue::One(text.to_owned()))
        };
        assert!(fits("main|release-[0-9]+", "release-7"));
        for other in ["main2", "xmain", "release-7\n", "release-", "xrelease-7", "mainrelease-7", "main\n"] {
            assert!(!fits("main|release-[0-9]+", other), "{other:?}");
        }
        assert!(fits(
            r"acme/ci/\.github/workflows/[a-z]+\.yml@refs/heads/main",
            "acme/ci/.github/workflows/x.yml@refs/heads/main"
        ));
        assert!(!fits(r"refs/heads/rel-[^/]+", "refs/heads/rel-a/b"));
    }

    #[test]
    fn a_pattern_that_fits_too_much_is_refused_with_its_reason() {
        use InvalidClaimPattern::{Anchor, CrossesSlash, FitsAnything};
        for (pattern, why) in [
            (".*", CrossesSlash),
            ("acme/.*", CrossesSlash),
            ("acme/.+/main", CrossesSlash),
            (r"acme/\S+", CrossesSlash),
            ("acme/[^x]+", CrossesSlash),
            ("acme(/[a-z]+)*", CrossesSlash),
            ("acme(?:/[a-z]+)?", CrossesSlash),
            ("[!-~]+", CrossesSlash),
            ("[!-/]+x", CrossesSlash),
            ("[/-9]+x", CrossesSlash),
            ("(?-u:[!-~])+x", CrossesSlash),
            ("(?-u:[!-/])+x", CrossesSlash),
            ("(?-u:[/-9])+x", CrossesSlash),
            ("(?-u:[!-/a-z])+x", CrossesSlash),
            ("(?s:.)x", CrossesSlash),
            ("[^/]*", FitsAnything),
            ("[a-z]+", FitsAnything),
            ("(?:main)?", FitsAnything),
            ("main|[a-z]*", FitsAnything),
            ("", FitsAnything),
            ("^main$", Anchor),
            (r"main\b", Anchor),
        ] {
            assert_eq!(pattern.parse::<ClaimPattern>(), Err(why), "{pattern}");
        }
        for good in ["[!-.]+x", "[0-9]+x", "(?-u:[!-.])+x", "(?-u:[0-9])+x", "acme/[a-z]+/main"] {
            assert!(good.parse::<ClaimPattern>().is_ok(), "{good}");
        }
        for bad in ["(", "a{1000000}", "[z-a]"] {
            assert!(bad.parse::<ClaimPattern>().is_err(), "{bad}");
        }
        assert_eq!("a".repeat(513).parse::<ClaimPattern>(), Err(InvalidClaimPattern::TooLarge));
        assert!("a".repeat(512).parse::<ClaimPattern>().is_ok());
    }
}
