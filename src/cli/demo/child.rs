//! A process of the demo's own, killed on every way out.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child as Process, Command, Stdio},
    time::Duration,
};

use tokio::sync::mpsc;

use crate::{
    cli::failure::{Failure, Outcome},
    client::Address,
};

/// A running process that said where it listens. Dropping it kills the process and waits until it is gone.
#[derive(Debug)]
pub struct Child {
    process: Process,
    /// Where it listens.
    pub address: Address,
}

impl Child {
    /// Starts this program with other arguments, and waits until it prints `ready URL`. Its stderr goes to `log`.
    ///
    /// # Errors
    /// When it cannot be started, or does not get ready within a minute.
    pub async fn start(what: &str, arguments: &[&str], log: &Path) -> Outcome<Self> {
        let program = std::env::current_exe().map_err(|error| Failure::io("find this program", error))?;
        let errors = File::options().create(true).append(true).open(log);
        let errors = errors.map_err(|error| Failure::file("open", log, error))?;
        // The stdin is a pipe that closes with this process, which a resource server takes as its end.
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        // What the user's shell says about another broker is not meant for this one.
        ENVIRONMENT.iter().for_each(|name| {
            command.env_remove(name);
        });
        let process = command.spawn().map_err(|error| Failure::io(format!("start {what}"), error))?;
        // Owned from here on, so that it is killed if it does not get ready.
        let mut child = Self { process, address: Address::Https { host: String::new(), port: 0 } };
        match child.ready().await {
            Some(address) => {
                child.address = address;
                Ok(child)
            }
            None => Err(Failure::Internal(format!("{what} did not get ready; its log ends so:\n{}", tail(log)))),
        }
    }

    /// Kills the process as a crash would (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Outcome {
        self.process.kill().map_err(|error| Failure::io("kill the process", error))?;
        self.process.wait().map(drop).map_err(|error| Failure::io("wait for the process", error))
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Whether it is gone.
    pub fn is_over(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(Some(_)))
    }

    async fn ready(&mut self) -> Option<Address> {
        let output = self.process.stdout.take()?;
        let (sender, mut lines) = mpsc::unbounded_channel();
        // Reads to the end, so that the process never meets a full or broken pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Nobody listens any more once it is ready.
                let _ = sender.send(line);
            }
        });
        let ready = async {
            while let Some(line) = lines.recv().await {
                if let Some(address) = ready_line(&line) {
                    return Some(address);
                }
            }
            None
        };
        tokio::time::timeout(READY_WITHIN, ready).await.ok().flatten()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only when the process is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The address in `ready https://HOST:PORT`.
pub(super) fn ready_line(line: &str) -> Option<Address> {
    line.strip_prefix("ready ")?.trim_end().parse().ok()
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default().join("\n")
}

/// The variables that the global options also read.
const ENVIRONMENT: [&str; 6] =
    ["MAYFLY_SERVER", "MAYFLY_CA", "MAYFLY_CERT", "MAYFLY_KEY", "MAYFLY_IDENTITY", "MAYFLY_SERVER_NAME"];
const READY_WITHIN: Duration = Duration::from_secs(60);
const TAIL_LINES: usize = 20;
