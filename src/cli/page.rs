//! Following the pages of a list.

use tonic::Status;

use crate::pb;

use super::{
    failure::{Failure, Outcome},
    session::Session,
};

/// Asks page by page until the list or `limit` ends; 0 means no limit.
///
/// # Errors
/// What `fetch` returns, and a page token that repeats itself.
pub async fn collect<R, P>(session: &Session, limit: u32, mut fetch: impl FnMut(pb::Page) -> P) -> Outcome<Vec<R>>
where
    P: Future<Output = Result<(Vec<R>, String), Status>>,
{
    let most = if limit == 0 { usize::MAX } else { usize::try_from(limit).unwrap_or(usize::MAX) };
    let mut records = Vec::new();
    let mut token = String::new();
    loop {
        let left = u32::try_from(most.saturating_sub(records.len())).unwrap_or(u32::MAX);
        let page = pb::Page { size: left.min(PAGE_SIZE), token: token.clone() };
        let (mut more, next) = fetch(page).await?;
        records.append(&mut more);
        session.output.progress(&format!("{} so far", records.len()));
        if next.is_empty() || records.len() >= most {
            session.output.progress_done();
            if !next.is_empty() || records.len() > most {
                session.output.remark(&format!("stopped at {limit}; --limit 0 shows all"));
            }
            records.truncate(most);
            return Ok(records);
        }
        if next == token {
            return Err(Failure::Internal("the broker repeats a page token".into()));
        }
        token = next;
    }
}

const PAGE_SIZE: u32 = 500;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{
        output::{Format, Output, captured::Written},
        session::GlobalArgs,
    };

    #[derive(Debug, Parser)]
    struct Globals {
        #[command(flatten)]
        global: GlobalArgs,
    }

    fn session() -> Session {
        let globals = Globals::parse_from(["mayfly"]);
        Session::new(globals.global, Output::captured(Format::Json, false, Written::default()))
    }

    /// A list of `length` numbers, in pages of at most 100.
    async fn numbers(page: pb::Page, length: u32) -> Result<(Vec<u32>, String), Status> {
        let from: u32 = page.token.parse().unwrap_or(0);
        let to = (from + page.size.min(100)).min(length);
        Ok(((from..to).collect(), if to < length { to.to_string() } else { String::new() }))
    }

    #[tokio::test]
    async fn a_list_is_followed_to_its_end_or_its_limit() {
        for (limit, length, want) in [(0, 250, 250), (1000, 0, 0), (1000, 250, 250), (150, 250, 150), (100, 100, 100)] {
            let all = collect(&session(), limit, |page| numbers(page, length)).await.expect("lists");
            assert_eq!(all, (0..want).collect::<Vec<_>>(), "limit {limit}, length {length}");
        }
    }

    #[tokio::test]
    async fn a_token_that_repeats_itself_ends_the_list_with_an_error() {
        let repeat = |_| async { Ok((vec![1], "same".to_owned())) };
        let failure = collect(&session(), 0, repeat).await.expect_err("repeats");
        assert!(matches!(failure, Failure::Internal(_)));
    }

    #[tokio::test]
    async fn a_broker_that_sends_more_than_asked_is_cut_at_the_limit() {
        let flood = |_| async { Ok((vec![1; 50], String::new())) };
        assert_eq!(collect(&session(), 20, flood).await.expect("lists").len(), 20);
    }
}
