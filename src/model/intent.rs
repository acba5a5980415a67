//! What a task is for beyond its purpose, and which policies said that it may be.

use std::collections::BTreeMap;

use super::secret::Digest;

/// What a workload says it is about to do: told once, when the task is opened, and looked at by policies whenever
/// something is issued or renewed under the task.
///
/// Invariant: within the limits below. It is a claim of the workload's, and it is shown to operators: no place for
/// secrets.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Intent {
    task_type: String,
    parameters: BTreeMap<String, String>,
}

/// Why an intent is none.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidIntent {
    /// The task's type.
    #[error("is not 1 to {} bytes of `[a-z0-9-]`", Intent::MAX_TYPE_BYTES)]
    Type,
    /// Too many parameters.
    #[error("has {0} entries of at most {max}", max = Intent::MAX_PARAMETERS)]
    Count(usize),
    /// A parameter's name.
    #[error("has a name that is not 1 to {} bytes of `[a-z0-9_.-]`", Intent::MAX_NAME_BYTES)]
    Name,
    /// A parameter's value.
    #[error("has a value (of `{0}`) of more than {max} bytes, or with a control character", max = Intent::MAX_VALUE_BYTES)]
    Value(String),
}

impl InvalidIntent {
    /// The field of the contract that is wrong.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::Type => "task_type",
            Self::Count(_) | Self::Name | Self::Value(_) => "parameters",
        }
    }
}

impl Intent {
    /// Bytes of a task's type.
    pub const MAX_TYPE_BYTES: usize = 63;
    /// Parameters of one task.
    pub const MAX_PARAMETERS: usize = 16;
    /// Bytes of a parameter's name.
    pub const MAX_NAME_BYTES: usize = 63;
    /// Bytes of a parameter's value.
    pub const MAX_VALUE_BYTES: usize = 256;

    /// An intent; `None` when nothing is told.
    ///
    /// # Errors
    /// When something is beyond its limits.
    pub fn new(task_type: &str, parameters: BTreeMap<String, String>) -> Result<Option<Self>, InvalidIntent> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if task_type.len() > Self::MAX_TYPE_BYTES || !task_type.bytes().all(plain) {
            return Err(InvalidIntent::Type);
        }
        if parameters.len() > Self::MAX_PARAMETERS {
            return Err(InvalidIntent::Count(parameters.len()));
        }
        for (name, value) in &parameters {
            let named = |b: u8| plain(b) || b == b'_' || b == b'.';
            if !(1..=Self::MAX_NAME_BYTES).contains(&name.len()) || !name.bytes().all(named) {
                return Err(InvalidIntent::Name);
            }
            if value.len() > Self::MAX_VALUE_BYTES || value.chars().any(char::is_control) {
                return Err(InvalidIntent::Value(name.clone()));
            }
        }
        let told = !task_type.is_empty() || !parameters.is_empty();
        Ok(told.then(|| Self { task_type: task_type.to_owned(), parameters }))
    }

    /// What sort of work it is; empty when it was not told.
    #[must_use]
    pub fn task_type(&self) -> &str {
        &self.task_type
    }

    /// What the work is about, by name.
    #[must_use]
    pub fn parameters(&self) -> &BTreeMap<String, String> {
        &self.parameters
    }

    /// As events tell it.
    #[must_use]
    pub fn details(&self) -> Vec<String> {
        let told = Some(&self.task_type).filter(|text| !text.is_empty()).map(|text| format!("task_type={text}"));
        told.into_iter()
            .chain(self.parameters.iter().map(|(name, value)| format!("parameter.{name}={value}")))
            .collect()
    }
}

/// Which policies allowed something, and of which set.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ruling {
    /// Ids of the policies that permitted it, in order; at most [`Ruling::MAX_POLICIES`] are noted.
    pub policies: Vec<String>,
    /// SHA-256 over the tenant's policies and the guardrails in force.
    pub set: Digest,
}

impl Ruling {
    /// Policies that are noted of one decision.
    pub const MAX_POLICIES: usize = 16;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(count: usize, name: usize, value: usize) -> BTreeMap<String, String> {
        (0..count).map(|at| (format!("{at:0name$}"), "v".repeat(value))).collect()
    }

    #[test]
    fn an_intent_holds_at_its_limits_and_not_one_past() {
        let of = |task_type: usize, parameters| Intent::new(&"t".repeat(task_type), parameters);
        assert_eq!(of(0, BTreeMap::new()), Ok(None));
        assert!(of(63, parameters(16, 63, 256)).is_ok_and(|intent| intent.is_some()));
        assert_eq!(of(64, BTreeMap::new()), Err(InvalidIntent::Type));
        assert_eq!(of(1, parameters(17, 2, 1)), Err(InvalidIntent::Count(17)));
        assert_eq!(of(1, parameters(1, 64, 1)), Err(InvalidIntent::Name));
        assert!(matches!(of(1, parameters(1, 1, 257)), Err(InvalidIntent::Value(_))));
    }

    #[test]
    fn an_event_tells_what_was_told_and_no_more() {
        let of = |task_type: &str, count| Intent::new(task_type, parameters(count, 1, 1)).expect("within limits");
        assert_eq!(
            of("release", 2).map(|intent| intent.details()).unwrap_or_default(),
            ["task_type=release", "parameter.0=v", "parameter.1=v"]
        );
        assert_eq!(of("", 1).map(|intent| intent.details()).unwrap_or_default(), ["parameter.0=v"]);
    }

    #[test]
    fn what_could_forge_a_line_is_no_intent() {
        let one = |name: &str, value: &str| Intent::new("", BTreeMap::from([(name.to_owned(), value.to_owned())]));
        assert!(one("ticket", "INC-1 späť").is_ok());
        assert_eq!(one("", "x"), Err(InvalidIntent::Name));
        assert_eq!(one("a=b", "x"), Err(InvalidIntent::Name));
        assert!(matches!(one("a", "x\ny"), Err(InvalidIntent::Value(_))));
        assert_eq!(Intent::new("De ploy", BTreeMap::new()), Err(InvalidIntent::Type));
    }
}
