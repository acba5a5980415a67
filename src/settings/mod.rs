//! TOML files that people write: read field by field, with every problem told at once, each with its line and its mend.

#![cfg_attr(not(feature = "server"), allow(dead_code, reason = "the config has more kinds of fields than a job file"))]

pub(crate) mod problem;
pub(crate) mod read;

pub use problem::{Problem, Problems};
