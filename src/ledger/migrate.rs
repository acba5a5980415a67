//! Store schemas: older ones move forward, newer ones are refused.

use super::engine::{Batch, Engine, EngineError};

/// The schema that this code writes.
pub const SCHEMA: u32 = 3;

/// One step from a schema to the next: the rows to change, in one atomic batch together with the new schema number.
pub type Step = fn(&dyn Engine) -> Result<Batch, EngineError>;

/// The store cannot be used with this version.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Written by a newer version.
    #[error("the store has schema {found}, this version knows up to {SCHEMA}; run the newer version that wrote it")]
    Newer {
        /// What the store says.
        found: u32,
    },
    /// Older than any step reaches.
    #[error("the store has schema {found}, which no version of this line can move forward")]
    TooOld {
        /// What the store says.
        found: u32,
    },
}

/// The steps that lead from `found` to [`SCHEMA`], oldest first.
///
/// # Errors
/// When there is no way.
pub fn path(found: u32) -> Result<&'static [Step], SchemaError> {
    if found > SCHEMA {
        return Err(SchemaError::Newer { found });
    }
    let from = found.checked_sub(FIRST_SCHEMA).and_then(|at| usize::try_from(at).ok());
    from.and_then(|at| STEPS.get(at..)).ok_or(SchemaError::TooOld { found })
}

/// The oldest schema that was ever released.
const FIRST_SCHEMA: u32 = 1;
/// `STEPS[n]` leads from schema `FIRST_SCHEMA + n` to the next.
const STEPS: [Step; 2] = [only_new_fields, only_new_fields];

/// 2 added fields that are empty in rows of 1, 3 rows that an older version would not heed; the next commit writes the
/// number.
fn only_new_fields(_: &dyn Engine) -> Result<Batch, EngineError> {
    Ok(Batch::default())
}
