//! Breaches that happened, replayed step by step through the real API: what the attacker does, and where it ends.

mod klue;
mod litellm;
mod mini_shai_hulud;
mod reviewdog;
mod shai_hulud;
