//! A document and its lines.

use super::Document;

/// Where something is defined.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Index of the document.
    pub(super) document: usize,
    /// From 1.
    pub(super) line: u32,
}

/// A document whose offsets can be told as lines.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) document: usize,
    pub(super) path: &'a str,
    line_ends: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(super) fn new(index: usize, document: &Document<'a>) -> Self {
        let line_ends = document.text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at).collect();
        Self { document: index, path: document.path, line_ends }
    }

    /// The place of a byte.
    pub(super) fn place(&self, offset: usize) -> Place {
        let before = self.line_ends.partition_point(|end| *end < offset);
        Place { document: self.document, line: u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1) }
    }
}
