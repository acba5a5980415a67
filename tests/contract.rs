//! The contract does not break its clients: whatever `proto/baseline` holds still means the same.
//!
//! Adding is free. Removing, renaming, renumbering or retyping is not, and neither is moving a field into or out of a
//! oneof. `scripts/check-proto --accept` makes the present contract the baseline, on purpose and visibly in review.

#[cfg(test)]
#[path = "contract"]
mod contract {
    mod compare;
    mod laws;
}
