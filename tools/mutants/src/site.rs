//! A place in a source file where something can be changed, and the text that makes the change switchable.

use std::ops::Range;

/// One change of the program.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mutant {
    /// What `MUTANT` is set to for it; 0 is none.
    pub id: u32,
    /// What is changed, for people: `>= becomes >`.
    pub change: String,
}

/// Mutants that share their text: they are built, or given up, together.
#[derive(Clone, Debug)]
pub struct Site {
    /// Path of the file from the package's root.
    pub path: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// Name of the function around it.
    pub function: String,
    /// The line's text, trimmed.
    pub source: String,
    /// Its mutants.
    pub mutants: Vec<Mutant>,
    /// What has to be written where.
    pub edits: Vec<Edit>,
}

impl Site {
    /// Where a mutant stands and what it does: the same from run to run while the file stays as it is.
    pub fn key(&self, mutant: &Mutant) -> String {
        format!("{}:{}:{} {}", self.path, self.line, self.column, mutant.change)
    }

    /// The same for people, and without the line's number: it holds while the line stays as it is, wherever it moves.
    pub fn told(&self, mutant: &Mutant, file: &str) -> String {
        let indent =
            file.lines().nth(self.line.saturating_sub(1)).map_or(0, |line| line.len() - line.trim_start().len());
        let at = self.column.saturating_sub(indent);
        format!("`{}` `{}`: {} at {at}: `{}`", self.path, self.function, mutant.change, self.source)
    }

    /// The module that it stands in: `mint::opaque`.
    pub fn module(&self) -> String {
        let path = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        path.trim_end_matches("/mod").replace('/', "::")
    }

    /// The folder below `src/` that it belongs to.
    pub fn folder(&self) -> &str {
        self.path.trim_start_matches("src/").split(['/', '.']).next().unwrap_or_default()
    }
}

/// Text to write into a file. Ranges of different sites nest and never cross.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Before and after a piece.
    Around(Range<usize>, String, String),
    /// In a piece's stead.
    Instead(Range<usize>, String),
}

/// A file with its sites written into it.
#[derive(Debug, Default)]
pub struct Rendered {
    /// The new text.
    pub text: String,
    /// Where each site stands in it, by its index in what was rendered.
    pub ranges: Vec<Range<usize>>,
}

/// Writes sites into a file's text; of sites that begin together, those listed first are the outer ones.
pub fn render(text: &str, sites: &[&Site]) -> Rendered {
    let mut pieces: Vec<Piece<'_>> = Vec::new();
    for (index, site) in sites.iter().enumerate() {
        let rank = i64::try_from(index).unwrap_or(i64::MAX);
        for edit in &site.edits {
            match edit {
                Edit::Around(range, before, after) => {
                    pieces.push(Piece { at: range.start, rank: (1, rank), skip: 0, text: before, index });
                    // What ends here ends from the inside out, and before anything that begins here.
                    pieces.push(Piece { at: range.end, rank: (0, -rank), skip: 0, text: after, index });
                }
                Edit::Instead(range, text) => {
                    pieces.push(Piece { at: range.start, rank: (1, rank), skip: range.len(), text, index });
                }
            }
        }
    }
    pieces.sort_by_key(|piece| (piece.at, piece.rank));
    let mut done = Rendered { text: String::new(), ranges: vec![usize::MAX..0; sites.len()] };
    let mut at = 0;
    for piece in pieces {
        done.text.push_str(&text[at..piece.at]);
        let range = &mut done.ranges[piece.index];
        range.start = range.start.min(done.text.len());
        done.text.push_str(piece.text);
        range.end = done.text.len();
        at = piece.at + piece.skip;
    }
    done.text.push_str(&text[at..]);
    done
}

struct Piece<'a> {
    at: usize,
    rank: (i8, i64),
    skip: usize,
    text: &'a str,
    index: usize,
}
