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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_way_from_each_schema_of_before_and_from_no_other() {
        for (found, steps) in [(1, 2), (2, 1), (SCHEMA, 0)] {
            assert_eq!(path(found).map(<[Step]>::len).ok(), Some(steps), "{found}");
        }
        assert!(matches!(path(SCHEMA + 1), Err(SchemaError::Newer { found }) if found == SCHEMA + 1));
        assert!(matches!(path(0), Err(SchemaError::TooOld { found: 0 })));
    }
}
