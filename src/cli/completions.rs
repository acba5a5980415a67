//! `mayfly completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, failure::Outcome, output::Output};

/// Prints a completion script for a shell.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  mayfly completions bash > ~/.local/share/bash-completion/completions/mayfly")]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl CompletionsArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When stdout cannot be written to.
    pub fn run(&self, output: &Output) -> Outcome {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "mayfly", &mut script);
        output.line(String::from_utf8_lossy(&script).trim_end())
    }
}
