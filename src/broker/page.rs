//! Pages of lists: how much is asked for, and where to go on.

use super::refusal::Refusal;
use crate::{
    ledger::Refused,
    model::id::{hex, unhex},
    pb,
};

/// What a caller asks of a list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PageAsk {
    /// Entries wanted: 1 to [`PAGE_MAX`].
    pub size: usize,
    /// The key after which to go on; empty for the beginning.
    pub after: Vec<u8>,
}

impl PageAsk {
    /// Reads the page of a request; none is the first one of [`PAGE_DEFAULT`] entries.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] for a size beyond [`PAGE_MAX`] and a token that no call returned.
    pub fn of(page: Option<&pb::Page>) -> Result<Self, Refusal> {
        let (size, token) = page.map_or((0, ""), |page| (page.size, page.token.as_str()));
        let size = match usize::try_from(size).unwrap_or(usize::MAX) {
            0 => PAGE_DEFAULT,
            size if size <= PAGE_MAX => size,
            _ => return Err(Refusal::invalid("page.size", format!("is more than {PAGE_MAX}"))),
        };
        let bad = || Refusal::invalid("page.token", "is none that a call returned; start without one");
        if token.len() > TOKEN_MAX_BYTES {
            return Err(bad());
        }
        Ok(Self { size, after: unhex(token).map_err(|_| bad())? })
    }

    /// The key as text, for lists in name order.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] when the token is of another list.
    pub fn after_text(&self) -> Result<&str, Refusal> {
        str::from_utf8(&self.after).map_err(|_| Refusal::invalid("page.token", "is of another list"))
    }
}

/// The token that goes on after a key.
#[must_use]
pub fn token(key: &[u8]) -> String {
    hex(key)
}

/// Entries of one page, and the token of the next; empty at the end.
pub type Filled<T> = (Vec<T>, String);

/// Takes the page out of entries in key order, which begin behind `ask.after`.
pub fn take<T>(ask: &PageAsk, entries: impl Iterator<Item = (Vec<u8>, T)>) -> Filled<T> {
    let mut items = Vec::new();
    for (key, item) in entries {
        items.push(item);
        if items.len() >= ask.size {
            return (items, token(&key));
        }
    }
    (items, String::new())
}

/// Scans rows under key prefixes, in ascending order, until the page is full, nothing is left or [`SCAN_MOST`] rows were
/// looked at: then the page is short and its token goes on.
///
/// `fetch(prefix, after, limit)` reads rows, `key` says where a row lies, `keep` makes its entry or leaves it out.
///
/// # Errors
/// What `fetch` and `keep` return.
pub async fn scan<R, T>(
    ask: &PageAsk,
    prefixes: &[Vec<u8>],
    fetch: impl Fn(&[u8], &[u8], usize) -> Result<(Vec<R>, Option<Vec<u8>>), Refused>,
    key: impl Fn(&R) -> Vec<u8>,
    keep: impl Fn(&R) -> Result<Option<T>, Refusal>,
) -> Result<Filled<T>, Refusal> {
    let (mut items, mut seen) = (Vec::new(), 0);
    for prefix in prefixes {
        let Some(mut after) = begin(prefix, &ask.after) else { continue };
        loop {
            let (rows, next) = fetch(prefix, &after, SCAN_ROWS)?;
            for row in &rows {
                seen += 1;
                items.extend(keep(row)?);
                if items.len() >= ask.size || seen >= SCAN_MOST {
                    return Ok((items, token(&key(row))));
                }
            }
            drop(rows);
            let Some(next) = next else { break };
            after = next;
            tokio::task::yield_now().await;
        }
    }
    Ok((items, String::new()))
}

/// Where to begin under a prefix when the list goes on after `after`; `None` when the prefix lies before it.
///
/// A token never leads out of the prefix, whatever it says.
fn begin(prefix: &[u8], after: &[u8]) -> Option<Vec<u8>> {
    if after.starts_with(prefix) {
        return Some(after.to_vec());
    }
    (prefix > after).then(Vec::new)
}

/// Entries of a page when none are asked for.
pub const PAGE_DEFAULT: usize = 100;
/// Entries of a page at most.
pub const PAGE_MAX: usize = 1_000;
/// Rows that one call looks at, at most.
pub const SCAN_MOST: usize = 20_000;
const SCAN_ROWS: usize = 1_024;
const TOKEN_MAX_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(size: u32, token: &str) -> Result<PageAsk, Refusal> {
        PageAsk::of(Some(&pb::Page { size, token: token.into() }))
    }

    #[test]
    fn a_page_has_100_entries_unless_told_and_at_most_1000() {
        assert_eq!(PageAsk::of(None).unwrap(), PageAsk { size: 100, after: Vec::new() });
        assert_eq!(ask(0, "").unwrap().size, 100);
        assert_eq!(ask(1_000, "").unwrap().size, 1_000);
        assert!(matches!(ask(1_001, ""), Err(Refusal::Invalid { field: "page.size", .. })));
    }

    #[test]
    fn a_token_comes_back_as_the_key_it_was_made_of() {
        assert_eq!(ask(1, &token(b"\x40\xff")).unwrap().after, b"\x40\xff");
        for bad in ["4", "zz", &"00".repeat(300)] {
            assert!(matches!(ask(1, bad), Err(Refusal::Invalid { field: "page.token", .. })), "{bad}");
        }
    }

    #[test]
    fn a_token_never_leads_out_of_the_prefix() {
        assert_eq!(begin(b"b", b"ba"), Some(b"ba".to_vec()));
        assert_eq!(begin(b"b", b"a"), Some(Vec::new()));
        assert_eq!(begin(b"b", b"c"), None);
        assert_eq!(begin(b"", b"c"), Some(b"c".to_vec()));
    }

    #[tokio::test]
    async fn pages_of_a_scan_hold_every_row_once_in_order() {
        let rows: Vec<u8> = (0..250).collect();
        let fetch = |prefix: &[u8], after: &[u8], limit: usize| {
            assert!(prefix.is_empty());
            let left = rows.iter().filter(|row| after.is_empty() || [**row].as_slice() > after);
            let page: Vec<u8> = left.copied().take(limit).collect();
            let next = (page.len() == limit).then(|| vec![*page.last().unwrap()]);
            Ok((page, next))
        };
        let (mut all, mut next) = (Vec::new(), String::new());
        loop {
            let ask = ask(7, &next).unwrap();
            let keep = |row: &u8| Ok(row.is_multiple_of(2).then_some(*row));
            let (items, more) = scan(&ask, &[Vec::new()], fetch, |row| vec![*row], keep).await.unwrap();
            all.extend(items);
            next = more;
            if next.is_empty() {
                break;
            }
        }
        assert_eq!(all, rows.iter().copied().filter(|row| row.is_multiple_of(2)).collect::<Vec<_>>());
    }
}
