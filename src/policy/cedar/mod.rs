//! Policy as code: Cedar policies that are asked after the trust map has allowed a request, and can only refuse it.
//!
//! Text comes with the trust map ([`PolicyTexts`]), is checked when it is applied ([`compile()`]), compiled once a
//! version where no request waits for it ([`Sets`]), narrowed to who asks for what ([`cell`]) and asked ([`judge()`]).
//! Whatever cannot be evaluated refuses: Cedar itself skips a policy that errs, also one that forbids.

mod bounds;
mod cell;
mod compile;
mod explain;
mod judge;
mod memo;
mod question;
mod sets;
mod text;
mod verdict;

#[cfg(test)]
mod tests;

pub use compile::SCHEMA;
pub(super) use compile::{Compiled, Side, compile};
pub(super) use explain::policies;
pub(super) use judge::{Judged, asks, judge};
pub use question::PolicyAction;
pub(super) use question::Question;
pub(super) use sets::Sets;
pub use text::{PolicyFile, PolicyTexts};
pub use verdict::{Difference, PolicyRefusal, RefusedBy, Verdict};
