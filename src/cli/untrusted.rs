//! What the command line reads that others may have written, for tests that try anything on it.

use std::path::Path;

use super::{job, policy, unmanaged};

pub use super::exec::endpoint::{Endpoint, SOCKET};

/// A job file: how many jobs it has, when it is one.
#[must_use]
pub fn job_file(text: &str) -> Option<usize> {
    job::file::parse(Path::new(job::FILE), text).ok().map(|file| file.jobs.len())
}

/// A list of unmanaged credentials, CSV or JSON: how many it has, when nothing in it is wrong.
#[must_use]
pub fn unmanaged(text: &str) -> Option<usize> {
    unmanaged::file::parse(text).ok().map(|entries| entries.len())
}

/// A table of policy cases: how many it has, when it is one.
#[must_use]
pub fn policy_cases(text: &str) -> Option<usize> {
    policy::table::parse(text).ok().map(|cases| cases.len())
}
