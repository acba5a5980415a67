//! Trust files to a trust map, or all that is wrong with them.

mod check;
mod demand;
mod federated;
mod gather;
mod grant;
mod item;
mod policy;
mod row;
mod source;
mod template;
mod words;

use toml::{Spanned, de::DeTable};

use std::sync::Arc;

use crate::model::{IssuerRules, Timestamp};

use super::{
    problem::{Problem, Problems},
    trust::{GlobalTrust, TrustMap},
};

use gather::Gather;
use policy::{Library, is_policy};
use source::Source;

/// One file: TOML, or policies where its name ends in `.cedar`.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    /// What messages call it, and what policy files are named by.
    pub path: &'a str,
    /// TOML or Cedar.
    pub text: &'a str,
}

/// What the documents are meant to replace.
#[derive(Clone, Copy, Debug)]
pub enum Extent<'a> {
    /// The whole trust map.
    Whole,
    /// Only the tenants they name. Partners and operators are those given, and the documents may define none.
    NamedTenants(&'a GlobalTrust),
}

/// Reads a trust map. Any document may hold any of `[[tenant]]`, `[[partner]]`, `[[operator]]`, `[[verifier]]`,
/// `[[workload]]`, `[[grant]]` and `[[template]]`, and one of them `[guardrails]`; their order does not matter. Policy files
/// hold what tenants and guardrails name.
///
/// `now` bounds how far ahead a grant may end. A grant that has ended already is read: it gives nothing.
///
/// # Errors
/// All problems at once. References are checked only when every document is TOML.
pub fn parse(documents: &[Document<'_>], extent: Extent<'_>, now: Timestamp) -> Result<TrustMap, Problems> {
    parse_with(documents, extent, &[], now)
}

/// As [`parse()`], where workloads may also prove themselves with identity tokens of these issuers.
///
/// # Errors
/// As [`parse()`]. A binding that would fit too much is a problem.
pub fn parse_with(
    documents: &[Document<'_>],
    extent: Extent<'_>,
    issuers: &[Arc<IssuerRules>],
    now: Timestamp,
) -> Result<TrustMap, Problems> {
    let sources: Vec<Source<'_>> = documents.iter().enumerate().map(|(i, d)| Source::new(i, d)).collect();
    let mut problems = Vec::new();
    let tables: Vec<(&Source<'_>, Spanned<DeTable<'_>>)> = sources
        .iter()
        .zip(documents)
        .filter(|(_, document)| !is_policy(document))
        .filter_map(|(source, document)| Some((source, table(source, document, &mut problems)?)))
        .collect();
    let whole = tables.len() == documents.iter().filter(|document| !is_policy(document)).count();
    let mut gather = Gather::new(&sources, extent, issuers, now, problems);
    gather.library = Library::of(documents);
    tables.iter().for_each(|(source, table)| gather.tenants(source, table.get_ref()));
    tables.iter().for_each(|(source, table)| gather.items(source, table.get_ref(), whole));
    if whole {
        tables.iter().for_each(|(source, table)| gather.templates(source, table.get_ref()));
        gather.check();
        gather.problems.extend(gather.library.leftover());
    }
    gather.finish()
}

fn table<'a>(
    source: &Source<'_>,
    document: &Document<'a>,
    problems: &mut Vec<Problem>,
) -> Option<Spanned<DeTable<'a>>> {
    let (table, errors) = DeTable::parse_recoverable(document.text);
    problems.extend(errors.iter().map(|error| Problem {
        path: source.path.to_owned(),
        line: source.place(error.span().map_or(0, |span| span.start)).line,
        field: "toml".to_owned(),
        message: error.message().replace('\n', ", "),
        help: "correct the TOML".to_owned(),
    }));
    errors.is_empty().then_some(table)
}
