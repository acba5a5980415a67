//! Answers that were given before. What policies can look at is known by name ([`super::question::Needs`]), so what they
//! say of two questions with the same values there is the same: asking Cedar again would cost most of an issue's decision.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use super::verdict::Verdict;

/// Answers of one set of policies about one (action, partner, workload, grant, audience). Goes with the version.
#[derive(Debug, Default)]
pub(super) struct Memo(RwLock<HashMap<Box<[u8]>, Verdict>>);

/// Answers kept at most; then they are forgotten. Few questions differ in what policies look at, but for time.
const ANSWERS_MOST: usize = 32;

impl Memo {
    /// The answer to a question of these values, from `ask` unless it was given before. What could not be evaluated is
    /// asked again.
    pub(super) fn answer(&self, values: Vec<u8>, ask: impl FnOnce() -> Verdict) -> Verdict {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(values.as_slice()).cloned();
        if let Some(known) = known {
            return known;
        }
        let verdict = ask();
        if verdict.errors.is_empty() {
            let mut answers = self.0.write().unwrap_or_else(PoisonError::into_inner);
            if answers.len() >= ANSWERS_MOST {
                answers.clear();
            }
            answers.insert(values.into_boxed_slice(), verdict.clone());
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(allowed: bool, errors: &[&str]) -> Verdict {
        Verdict { allowed, policies: Vec::new(), errors: errors.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn an_answer_is_given_again_for_the_same_values_only() {
        let memo = Memo::default();
        assert!(memo.answer(vec![1], || verdict(true, &[])).allowed);
        assert!(memo.answer(vec![1], || unreachable!("known")).allowed);
        assert!(!memo.answer(vec![2], || verdict(false, &[])).allowed);
        assert!(!memo.answer(vec![1, 0], || verdict(false, &[])).allowed);
    }

    #[test]
    fn what_could_not_be_evaluated_is_asked_again() {
        let memo = Memo::default();
        assert!(!memo.answer(vec![1], || verdict(false, &["overflow"])).allowed);
        assert!(memo.answer(vec![1], || verdict(true, &[])).allowed);
    }

    #[test]
    fn answers_take_bounded_room() {
        let memo = Memo::default();
        for number in 0..=255_u8 {
            memo.answer(vec![number], || verdict(true, &[]));
        }
        assert!(memo.0.read().expect("a lock").len() <= ANSWERS_MOST);
    }
}
