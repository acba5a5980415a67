//! What a task is about, on the command line: the same words for `task open`, `issue`, `explain` and `exec`.

use std::collections::BTreeMap;

use clap::Args;

/// What a task is about, for policies.
#[derive(Args, Clone, Debug, Default)]
pub struct IntentArgs {
    /// What sort of work it is, for policies: a-z, 0-9 and `-`.
    #[arg(long, value_name = "WORD")]
    pub task_type: Option<String>,
    /// What the work is about, for policies; repeat for more, at most 16. Events show it: no place for secrets.
    #[arg(long = "parameter", value_name = "NAME=VALUE", value_parser = parameter)]
    pub parameters: Vec<(String, String)>,
}

impl IntentArgs {
    /// The type; empty for none.
    #[must_use]
    pub fn task_type(&self) -> String {
        self.task_type.clone().unwrap_or_default()
    }

    /// The parameters by name; of one that is given twice the last.
    #[must_use]
    pub fn parameters(&self) -> BTreeMap<String, String> {
        self.parameters.iter().cloned().collect()
    }
}

/// `NAME=VALUE`.
///
/// # Errors
/// When there is no name.
pub fn parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err("expected NAME=VALUE, as in ticket=INC-4711".to_owned()),
    }
}
