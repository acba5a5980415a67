//! `mayfly restore`: a data folder from a backup.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use clap::Args;

use super::{
    backup,
    failure::{Failure, Outcome},
    local::{self, EngineArg},
    output::Output,
};
use crate::{
    broker::backup::proof::End,
    config::{Config, Engine, SealSource},
    server::restore::{self, RestoreError, Restored, Sources},
};

/// Makes a data folder from a backup. Everything that was issued before is dead, and nothing is issued until an
/// operator says `mayfly confirm store`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct RestoreArgs {
    /// The backup.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The server's configuration: says the data folder, the seal key, the engine and the anchor.
    #[arg(long, value_name = "FILE", required_unless_present = "data")]
    config: Option<PathBuf>,
    /// Instead of a configuration: the data folder, for `serve --dev`.
    #[arg(long, value_name = "DIR", conflicts_with = "config", requires = "seal_key")]
    data: Option<PathBuf>,
    /// With --data: the seal key; it is copied into the folder.
    #[arg(long, value_name = "FILE", requires = "data")]
    seal_key: Option<PathBuf>,
    /// With --data: the store engine.
    #[arg(long, value_enum, default_value_t = EngineArg::Fjall, conflicts_with = "config")]
    engine: EngineArg,
    /// The audit as a file sink or `events export` wrote it: bars, cuts and lost authority in it that are newer than the
    /// backup are barred again. It must be whole up to the anchor, or nothing is written; what else speaks against it is told
    /// as `not proven`, and replayed all the same: it can only take away.
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// The anchor of the store that was lost, where it is not in the configuration's place. The audit after the backup
    /// must reach the state that it notes: then no acknowledged revocation or bar is missing from it.
    #[arg(long, value_name = "FILE")]
    anchor: Option<PathBuf>,
    /// Restores although nothing proves that the audit after the backup is whole: what may have been revoked or barred
    /// since is for you to find and to revoke again. It is noted in the audit.
    #[arg(long)]
    accept_unproven: bool,
}

impl RestoreArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the backup or the folder cannot be used.
    pub async fn run(self, output: &Output) -> Outcome {
        let config = match (&self.config, &self.data, &self.seal_key) {
            (Some(file), _, _) => local::load(file)?,
            (None, Some(data), Some(key)) => {
                let seal = SealSource::KeyFile(key.clone());
                Config { engine: self.engine.into(), seal, ..Config::dev(data, DEV_PORT) }
            }
            (None, _, _) => return Err(Failure::Usage("give --config, or --data with --seal-key".into())),
        };
        if config.engine == Engine::Memory {
            return Err(of(RestoreError::Forgets));
        }
        let sources = Sources {
            backup: &self.file,
            events: self.events.as_deref(),
            anchor: self.anchor.as_deref(),
            accept_unproven: self.accept_unproven,
        };
        let restored = restore::restore(&config, &sources).await.map_err(of)?;
        if let (Some(data), Some(key)) = (&self.data, &self.seal_key) {
            let copy = data.join("seal.key");
            fs::copy(key, &copy)
                .and_then(|_| fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)))
                .map_err(|error| Failure::file("write", &copy, error))?;
        }
        backup::show(&restored.contents, output)?;
        tell(&restored, output)
    }
}

/// What is left to do, on standard error.
fn tell(restored: &Restored, output: &Output) -> Outcome {
    let (incarnation, number) = restored.revision;
    output.remark(&format!("restored as {incarnation:016x}:{number}; everything issued before is dead"));
    match &restored.replayed {
        Some(done) => {
            output.remark(&format!("{} events were newer than the backup", done.newer));
            done.cut.iter().for_each(|scope| output.remark(&format!("cut again: {scope}")));
            done.barred.iter().for_each(|scope| output.remark(&format!("barred again: {scope}")));
            done.doubts.iter().for_each(|line| output.remark(&format!("not proven: {line}")));
            done.left.iter().for_each(|line| output.remark(&format!("look at: {line}")));
        }
        None => output.remark("no events were given: nothing is replayed"),
    }
    match &restored.end {
        End::Proven(mark) => {
            let noted = format!("{:016x}:{}", mark.incarnation, mark.number);
            output.remark(&format!("proven: nothing is missing up to the anchor's revision {noted}"));
        }
        End::Unproven(why) => {
            output.remark(&format!("not proven: {why}"));
            output.remark("bar what may have been revoked or off-boarded since the backup");
        }
    }
    output.remark(&format!(
        "nothing is issued until: mayfly confirm store --incarnation {incarnation:016x} --reason ..."
    ));
    Ok(())
}

/// A failed restore as the command line tells it: a backup that was changed is a failed check.
pub(super) fn of(error: RestoreError) -> Failure {
    let problem = crate::model::Chain(&error).to_string();
    match error {
        RestoreError::Backup(..) | RestoreError::Unproven(_) => Failure::CheckFailed(problem),
        RestoreError::Read(..)
        | RestoreError::Events(..)
        | RestoreError::NotEmpty(_)
        | RestoreError::Forgets
        | RestoreError::Anchor(..) => Failure::Usage(problem),
        RestoreError::Server(error) => local::failed(error),
        RestoreError::Write(..) | RestoreError::Engine(_) | RestoreError::Open(_) | RestoreError::Broker(_) => {
            Failure::Internal(problem)
        }
    }
}

const DEV_PORT: u16 = 7443;

const HELP: &str = "\
Examples:
  mayfly restore mayfly.backup --config /var/lib/mayfly.toml --events /var/log/mayfly/audit.jsonl
  mayfly restore mayfly.backup --config /var/lib/mayfly.toml --events audit.jsonl --anchor /mnt/other/mayfly.anchor
  mayfly restore mayfly.backup --data ./restored --seal-key ./mayfly-data/seal.key --accept-unproven";
