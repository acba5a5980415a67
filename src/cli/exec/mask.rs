//! Finds secrets in a stream of bytes, however it is cut into pieces, and puts `***` in their place.
//!
//! Found are a secret itself, its lines when it has several, a JWT's signature alone, and what base64, base64url (at any
//! alignment, wrapped or not, once or twice) and percent-encoding make of it. Not found is what a program that means to
//! leak it makes of it: masking is for accidents.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
    fmt,
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use zeroize::Zeroizing;

/// What is looked for: the newest secrets, [`MOST`] of them.
pub struct Patterns {
    /// Of each secret, oldest first.
    secrets: VecDeque<Vec<Pattern>>,
    /// Places in `secrets`, by the two bytes that a pattern begins with; or one and a line end, where it may wrap.
    starts: HashMap<[u8; 2], Vec<(usize, usize)>>,
    /// Whether a pattern begins with a byte.
    firsts: Vec<bool>,
}

struct Pattern {
    bytes: Zeroizing<Vec<u8>>,
    /// Whether line ends may stand within, as programs wrap base64.
    wraps: bool,
}

/// One stream on its way.
#[derive(Default)]
pub struct Masker {
    /// What may be the beginning of a secret.
    held: Zeroizing<Vec<u8>>,
    /// How much of it was let through already, because nothing followed for a while.
    shown: usize,
}

/// How a pattern lies in the bytes that begin at some place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fit {
    No,
    /// All that there is fits; more is needed to know.
    Partly,
    /// With so many bytes.
    Whole(usize),
}

impl Patterns {
    /// Nothing to look for yet.
    #[must_use]
    pub fn new() -> Self {
        Self { secrets: VecDeque::new(), starts: HashMap::new(), firsts: vec![false; 256] }
    }

    /// Looks for one more secret from now on. Of a job that runs for long the oldest, which have long ended, are dropped.
    pub fn add(&mut self, secret: &str) {
        let known = self.secrets.len();
        self.secrets.push_back(Vec::new());
        self.forms(secret.trim_end());
        if self.secrets.back().is_some_and(Vec::is_empty) {
            // All known already: a key that was renewed.
            self.secrets.truncate(known);
        }
        while self.secrets.len() > MOST {
            self.secrets.pop_front();
        }
        self.index();
    }

    /// All forms of a secret.
    fn forms(&mut self, secret: &str) {
        self.push(secret.as_bytes(), false);
        if let Some((_, signature)) = secret.rsplit_once('.').filter(|(front, _)| front.contains('.')) {
            self.push(signature.as_bytes(), false);
        }
        if secret.contains('\n') {
            let lines = secret.lines().filter(|line| !line.starts_with("-----"));
            lines.for_each(|line| self.push(line.as_bytes(), false));
            self.push(Zeroizing::new(secret.replace('\n', "\\n")).as_bytes(), false);
        }
        for upper in [true, false] {
            self.push(&percent(secret, upper), false);
        }
        for once in base64_forms(secret.as_bytes()) {
            base64_forms(&once).into_iter().for_each(|twice| self.push(&twice, true));
            self.push(&once, true);
        }
    }

    fn push(&mut self, bytes: &[u8], wraps: bool) {
        let is_known = self.secrets.iter().flatten().any(|known| known.bytes.as_slice() == bytes);
        if bytes.len() < LEAST || is_known {
            return;
        }
        if let Some(newest) = self.secrets.back_mut() {
            newest.push(Pattern { bytes: Zeroizing::new(bytes.to_vec()), wraps });
        }
    }

    fn index(&mut self) {
        self.starts.clear();
        self.firsts.fill(false);
        for (secret, patterns) in self.secrets.iter().enumerate() {
            for (at, pattern) in patterns.iter().enumerate() {
                let (Some(first), Some(second)) = (pattern.bytes.first(), pattern.bytes.get(1)) else { continue };
                if let Some(mark) = self.firsts.get_mut(usize::from(*first)) {
                    *mark = true;
                }
                let seconds = [Some(*second), pattern.wraps.then_some(b'\n'), pattern.wraps.then_some(b'\r')];
                for second in seconds.into_iter().flatten() {
                    self.starts.entry([*first, second]).or_default().push((secret, at));
                }
            }
        }
    }

    /// Those that may begin like `text`, which has two bytes or more.
    fn candidates(&self, text: &[u8]) -> impl Iterator<Item = &Pattern> {
        let places = match text {
            [first, second, ..] => self.starts.get(&[*first, *second]),
            [] | [_] => None,
        };
        let pattern = |(secret, at): &(usize, usize)| self.secrets.get(*secret).and_then(|all| all.get(*at));
        places.into_iter().flatten().filter_map(pattern)
    }

    fn begins(&self, first: u8) -> bool {
        self.firsts.get(usize::from(first)).copied().unwrap_or(false)
    }

    /// The longest pattern that lies at the beginning of `text`.
    fn fit(&self, text: &[u8]) -> Fit {
        match text {
            [] => return Fit::No,
            [first, ..] if !self.begins(*first) => return Fit::No,
            [_] => return Fit::Partly,
            [_, _, ..] => {}
        }
        let mut best = Fit::No;
        for pattern in self.candidates(text) {
            match (pattern.fit(text), best) {
                // A longer one may still come true: wait for it, lest its end be let through.
                (Fit::Partly, _) => return Fit::Partly,
                (Fit::Whole(long), Fit::Whole(known)) if long <= known => {}
                (Fit::Whole(long), _) => best = Fit::Whole(long),
                (Fit::No, _) => {}
            }
        }
        best
    }
}

impl Pattern {
    fn fit(&self, text: &[u8]) -> Fit {
        let mut wanted = self.bytes.iter();
        let (mut next, mut line_ends) = (wanted.next(), 0);
        for (at, byte) in text.iter().enumerate() {
            match next {
                Some(want) if want == byte => (next, line_ends) = (wanted.next(), 0),
                // One line end, of one or two bytes: text that goes on after an empty line is another.
                Some(_) if self.wraps && at > 0 && line_ends < 2 && matches!(byte, b'\n' | b'\r') => line_ends += 1,
                Some(_) => return Fit::No,
                None => return Fit::Whole(at),
            }
            if next.is_none() {
                return Fit::Whole(at + 1);
            }
        }
        Fit::Partly
    }
}

impl Masker {
    /// Takes more bytes in and returns what is safe to show.
    pub fn push(&mut self, patterns: &Patterns, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        self.let_through(patterns, false)
    }

    /// Nothing came for a while: what is held and too short to tell is shown, and still counts when more comes.
    pub fn idle(&mut self) -> Vec<u8> {
        if self.held.len() > SHORT {
            return Vec::new();
        }
        let out = self.held.get(self.shown..).unwrap_or_default().to_vec();
        self.shown = self.held.len();
        out
    }

    /// Nothing comes any more.
    pub fn finish(&mut self, patterns: &Patterns) -> Vec<u8> {
        self.let_through(patterns, true)
    }

    /// Whether anything is held back.
    #[cfg(test)]
    fn holds(&self) -> bool {
        self.held.len() > self.shown
    }

    fn let_through(&mut self, patterns: &Patterns, is_last: bool) -> Vec<u8> {
        let (mut out, mut at) = (Vec::with_capacity(self.held.len()), 0);
        while let Some(rest) = self.held.get(at..).filter(|rest| !rest.is_empty()) {
            match patterns.fit(rest) {
                Fit::Whole(long) => {
                    out.extend_from_slice(MASK);
                    at += long;
                }
                Fit::Partly if !is_last => break,
                Fit::Partly => match whole_at_end(patterns, rest) {
                    Some(long) => {
                        out.extend_from_slice(MASK);
                        at += long;
                    }
                    None => at += show(rest, at, self.shown, &mut out),
                },
                Fit::No => at += show(rest, at, self.shown, &mut out),
            }
        }
        self.held = Zeroizing::new(self.held.get(at..).unwrap_or_default().to_vec());
        self.shown = self.shown.saturating_sub(at);
        out
    }
}

/// Lets the first byte of `rest`, which stands at `at`, through, unless it was already.
fn show(rest: &[u8], at: usize, shown: usize, out: &mut Vec<u8>) -> usize {
    if at >= shown {
        out.extend(rest.first());
    }
    1
}

/// The longest pattern at the beginning of the last bytes of all, where no longer one can come true.
fn whole_at_end(patterns: &Patterns, rest: &[u8]) -> Option<usize> {
    let whole = patterns.candidates(rest).filter_map(|pattern| match pattern.fit(rest) {
        Fit::Whole(long) => Some(long),
        Fit::Partly | Fit::No => None,
    });
    whole.max()
}

/// What base64 can make of `bytes` wherever they stand in a longer text: in both alphabets, at each of three alignments,
/// without what depends on their neighbours.
fn base64_forms(bytes: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut forms = Vec::new();
    for before in 0..3_usize {
        let padded = Zeroizing::new([[0_u8, 0].get(..before).unwrap_or_default(), bytes].concat());
        // Characters that stand for the neighbour before, if only in part; and those that are whole.
        let (from, to) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let text = Zeroizing::new(engine.encode(padded.as_slice()));
            forms.push(Zeroizing::new(text.as_bytes().get(from..to).unwrap_or_default().to_vec()));
        }
    }
    forms
}

/// Percent-encoding (RFC 3986 section 2.1) of all but unreserved characters.
fn percent(text: &str, upper: bool) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(text.len() * 3));
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            let code: Cow<'_, str> = if upper { format!("%{byte:02X}") } else { format!("%{byte:02x}") }.into();
            out.extend_from_slice(code.as_bytes());
        }
    }
    out
}

impl Default for Patterns {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patterns").field("secrets", &self.secrets.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Masker").field("held", &self.held.len()).finish_non_exhaustive()
    }
}

/// What stands in the place of a secret.
pub const MASK: &[u8] = b"***";
/// Secrets that are looked for: of a job with eight that are renewed, the last eight of each.
const MOST: usize = 64;
/// Shorter texts would be found everywhere.
const LEAST: usize = 12;
/// So much of a secret may be shown when nothing follows for a while: a prompt that ends like one begins must appear.
const SHORT: usize = 3;

#[cfg(test)]
mod tests;
