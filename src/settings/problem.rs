//! What is wrong with a config file: everything at once, each with its place and its mend.

use std::{cell::RefCell, fmt, path::PathBuf};

/// One thing to mend in a config file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// Line, from 1; 0 when it is about the file as a whole.
    pub line: usize,
    /// Dotted name of the field, as in `limits.connections` or `listener[1].address`; empty for a syntax error.
    pub field: String,
    /// What is wrong.
    pub wrong: String,
    /// What to do about it.
    pub mend: String,
}

/// Why a config file is refused.
///
/// Invariant: at least one problem, in the order of lines.
#[derive(Debug, Eq, PartialEq)]
pub struct Problems {
    file: PathBuf,
    found: Vec<Problem>,
}

impl Problems {
    /// Every problem, in the order of lines.
    #[must_use]
    pub fn found(&self) -> &[Problem] {
        &self.found
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.found.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}", self.file.display())?;
            if problem.line > 0 {
                write!(f, ":{}", problem.line)?;
            }
            if !problem.field.is_empty() {
                write!(f, ": {}", problem.field)?;
            }
            write!(f, ": {}; {}", problem.wrong, problem.mend)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Where a reader leaves the problems it meets.
#[derive(Debug)]
pub(crate) struct Notes<'a> {
    text: &'a str,
    found: RefCell<Vec<Problem>>,
}

impl<'a> Notes<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, found: RefCell::default() }
    }

    /// Notes one problem at byte `offset` of the file.
    pub(crate) fn note(&self, offset: usize, field: &str, wrong: impl Into<String>, mend: impl Into<String>) {
        let before = self.text.bytes().take(offset).filter(|&b| b == b'\n').count();
        self.found.borrow_mut().push(Problem {
            line: before + 1,
            field: field.to_owned(),
            wrong: wrong.into(),
            mend: mend.into(),
        });
    }

    /// The value when nothing was noted.
    pub(crate) fn close<T>(self, value: Option<T>, file: PathBuf) -> Result<T, Problems> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|problem| problem.line);
        match value {
            Some(value) if found.is_empty() => Ok(value),
            Some(_) | None => Err(Problems { file, found }),
        }
    }
}

/// A file that cannot be read at all.
pub(crate) fn unreadable(file: PathBuf, error: &std::io::Error) -> Problems {
    let found = vec![Problem {
        line: 0,
        field: String::new(),
        wrong: format!("cannot be read: {error}"),
        mend: "name a file that the server's user may read".to_owned(),
    }];
    Problems { file, found }
}
