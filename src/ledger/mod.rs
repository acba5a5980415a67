//! What is true: leases, tasks, cuts, bars, audit, in an ordered key-value engine.

pub mod engine;
