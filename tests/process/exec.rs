//! `mayfly exec` from outside: its command's life, the task's, and the broker's.

mod away;
mod codes;
mod federated;
mod fresh;
mod identity;
mod lint;
mod rig;
mod secrets;
mod signals;
