//! Whole lives of a broker in one thread: seeded callers, an unreliable disk and clock, crashes at every boundary, and
//! a plain model of what the callers were told. One seed is one world; the same seed is the same world.
//!
//! ```text
//! chance --> callers --> broker --> ledger --> disk        stepped by hand, one commit at a time
//!                |                     |
//!                +---- said -----------+--> model --laws--> fine, or what is wrong
//! ```
//!
//! Not simulated: threads, real files (the engines' own tests and the process tests have those), the network, and
//! holders' streams.

#![allow(clippy::wildcard_enum_match_arm, reason = "a world picks out what it acts on; the rest is nothing to it")]

mod acts;
mod brokered;
mod callers;
mod chance;
mod disk;
mod ground;
mod hands;
mod laws;
mod model;
mod operators;
mod said;
mod seeds;
mod upkeep;
mod world;
