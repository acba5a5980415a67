//! `mayfly backup`: a sealed copy of the whole store, made while the daemon serves, and checked anywhere.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};

use super::{
    cell::Fields,
    failure::{Failure, Outcome},
    local,
    output::Output,
    restore::of,
    session::Session,
};
use crate::{
    broker::{backup::file::Contents, event},
    config::SealSource,
    pb,
    server::restore,
};

/// What there is to do with backups.
#[derive(Clone, Debug, Subcommand)]
pub enum BackupCommand {
    /// Writes a backup of the running daemon's store to a file here.
    Create(CreateArgs),
    /// Reads a whole backup with the seal key, and says what it holds. Exit code 4 when anything in it was changed.
    Verify(VerifyArgs),
}

/// Arguments of `backup create`.
#[derive(Args, Clone, Debug)]
#[command(after_help = CREATE_HELP)]
pub struct CreateArgs {
    /// The file to write; there must be none yet. It appears when it is whole.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Arguments of `backup verify`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  mayfly backup verify mayfly.backup --seal-key /etc/mayfly/seal.key")]
pub struct VerifyArgs {
    /// The backup.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The server's configuration, which says where the seal key is.
    #[arg(long, value_name = "FILE", required_unless_present = "seal_key")]
    config: Option<PathBuf>,
    /// The seal key.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    seal_key: Option<PathBuf>,
}

impl BackupCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses, a file cannot be used, or a backup is not as it was made.
    pub async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::Create(args) => create(&args.out, session).await,
            Self::Verify(args) => {
                let seal = match (&args.config, args.seal_key) {
                    (_, Some(key)) => SealSource::KeyFile(key),
                    (Some(file), None) => local::load(file)?.seal,
                    (None, None) => return Err(Failure::Usage("give --config or --seal-key".into())),
                };
                let contents = restore::verify(&seal, &args.file).map_err(of)?;
                show(&contents, &session.output)
            }
        }
    }
}

/// Shows what a backup holds.
pub(super) fn show(contents: &Contents, output: &Output) -> Outcome {
    let (incarnation, number) = contents.revision;
    let rows: u64 = contents.rows.iter().map(|(_, rows)| rows).sum();
    let fields = Fields::new()
        .revision("revision", Some(&pb::Revision { incarnation, number }))
        .time("created", Some(&event::stamp(contents.created)))
        .hex("audit_head", &contents.audit_head.0)
        .text("version", &contents.version)
        .text("engine", &contents.engine)
        .number("schema", contents.schema)
        .number("rows", rows);
    let held = contents.rows.iter().filter(|(_, rows)| *rows > 0);
    output.one(&held.fold(fields, |fields, (table, rows)| fields.number(table.name(), *rows)))
}

async fn create(out: &Path, session: &Session) -> Outcome {
    if out.exists() {
        return Err(Failure::Usage(format!("{} is there already; give another name", out.display())));
    }
    let mut pieces = session.admin().await?.create_backup(pb::CreateBackupRequest {}).await?.into_inner();
    let mut partial = out.as_os_str().to_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let failed = |error| Failure::file("write", out, error);
    // Never through a link, nor into a file that others may read or hold open.
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial);
    let mut file = opened.map_err(|error| Failure::file("make", &partial, error))?;
    let partial = Partial(partial);
    let (mut bytes, mut is_whole) = (0_u64, false);
    while let Some(piece) = pieces.message().await? {
        file.write_all(&piece.data).map_err(failed)?;
        bytes += piece.data.len() as u64;
        is_whole = piece.last;
        session.output.progress(&format!("{bytes} bytes"));
    }
    session.output.progress_done();
    if !is_whole {
        return Err(Failure::Internal("the backup ended before its end; make another".into()));
    }
    file.sync_all().map_err(failed)?;
    // Never over what came to be there meanwhile.
    fs::hard_link(&partial.0, out).map_err(failed)?;
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    session.output.one(&Fields::new().text("file", &out.display().to_string()).number("bytes", bytes))
}

/// A file that is not whole yet; it goes whatever happens.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // It may not have come to be.
        let _gone = fs::remove_file(&self.0);
    }
}

const CREATE_HELP: &str = "\
The file is sealed under the seal key, which is not in it: keep both, and apart.

Example:
  mayfly backup create --out mayfly-2026-11-22.backup";
