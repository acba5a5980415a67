//! Deciding anew when what a decision rests on has changed while it was on its way.

use super::refusal::Refusal;

/// Decides, and decides anew while the answer is that something has changed or is full; a few times in all.
///
/// `decide` takes the basis first, and looks at everything after that: what changes later is then found by the commit.
///
/// # Errors
/// Those of `decide`; [`Refusal::Busy`] when it was so each time.
pub(super) async fn decided<T>(mut decide: impl AsyncFnMut() -> Result<T, Refusal>) -> Result<T, Refusal> {
    for _ in 1..AT_MOST {
        match decide().await {
            Err(Refusal::Busy { .. }) => {}
            outcome => return outcome,
        }
    }
    decide().await
}

/// How often a request is decided when what it rests on keeps changing.
const AT_MOST: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    async fn after(busy: usize) -> (usize, Result<usize, Refusal>) {
        let mut times = 0;
        let outcome = decided(async || {
            times += 1;
            if times <= busy { Err(Refusal::Busy { retry_ms: 50 }) } else { Ok(times) }
        });
        let outcome = outcome.await;
        (times, outcome)
    }

    #[tokio::test]
    async fn a_decision_is_made_anew_while_it_is_overtaken_and_not_for_ever() {
        for busy in 0..AT_MOST {
            assert!(matches!(after(busy).await, (times, Ok(last)) if times == busy + 1 && last == times));
        }
        assert!(matches!(after(AT_MOST).await, (AT_MOST, Err(Refusal::Busy { .. }))));
    }

    #[tokio::test]
    async fn a_refusal_is_final() {
        let mut times = 0;
        let refused = decided(async || {
            times += 1;
            Err::<(), _>(Refusal::Unknown("task"))
        });
        assert!(matches!(refused.await, Err(Refusal::Unknown(_))));
        assert_eq!(times, 1);
    }
}
