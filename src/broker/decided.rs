//! Deciding anew when what a decision rests on has changed while it was on its way.

use super::refusal::Refusal;

/// Decides, and decides anew while the answer is that something has changed or is full; a few times in all.
///
/// `decide` takes the basis first, and looks at everything after that: what changes later is then found by the commit.
///
/// # Errors
/// Those of `decide`; [`Refusal::Busy`] when it was so each time.
pub(super) async fn decided<T, D>(decide: impl Fn() -> D) -> Result<T, Refusal>
where
    D: Future<Output = Result<T, Refusal>>,
{
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
    use std::cell::Cell;

    use super::*;

    /// A decision that is overtaken so often, then one that counts; and how often it was made.
    async fn overtaken(busy: usize) -> (usize, Result<(), Refusal>) {
        let times = Cell::new(0);
        let outcome = decided(|| async {
            times.set(times.get() + 1);
            if times.get() <= busy { Err(Refusal::Busy { retry_ms: 50 }) } else { Ok(()) }
        });
        let outcome = outcome.await;
        (times.get(), outcome)
    }

    #[tokio::test]
    async fn a_decision_is_made_anew_while_it_is_overtaken_and_not_for_ever() {
        for busy in 0..AT_MOST {
            assert!(matches!(overtaken(busy).await, (times, Ok(())) if times == busy + 1));
        }
        assert!(matches!(overtaken(AT_MOST).await, (AT_MOST, Err(Refusal::Busy { .. }))));
    }

    #[tokio::test]
    async fn a_refusal_is_final() {
        let times = Cell::new(0);
        let refused = decided(|| async {
            times.set(times.get() + 1);
            Err::<(), _>(Refusal::Unknown("task"))
        });
        assert!(matches!(refused.await, Err(Refusal::Unknown(_))));
        assert_eq!(times.get(), 1);
    }
}
