//! `mayfly exec` from outside: its command's life, the task's, and the broker's.

mod away;
mod codes;
pub mod federated;
mod fresh;
mod identity;
mod lint;
pub mod rig;
mod secrets;
mod signals;
mod upgrade;
