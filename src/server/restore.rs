//! Making a data folder from a backup, and reading a backup without making one.

mod shipped;

use std::{
    fs::{self, File},
    io::{self, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use self::shipped::Shipped;
use super::{ServerError, assemble, engine_of, host::private_folder, lock, seal_key};
use crate::{
    broker::{
        Refusal,
        backup::{
            file::{self, BackupError, Contents},
            replay::Replayed,
        },
        time::SystemClock,
    },
    config::{Config, SealSource},
    ledger::{
        Filler, OpenError,
        anchor::Found,
        engine::{Engine, EngineError},
        hold_restored,
    },
    mint::seal::Seal,
    model::Clock,
};

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The file is no whole backup.
    #[error("{} is refused, nothing was written", .0.display())]
    Backup(PathBuf, #[source] BackupError),
    /// A file cannot be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// A line of the events is none.
    #[error("line {line} of {} is no event, nothing was written; check it with `mayfly events verify`", .0.display(), line = .1)]
    Events(PathBuf, usize),
    /// The folder holds something.
    #[error("{} is not empty; move it aside, or give another folder", .0.display())]
    NotEmpty(PathBuf),
    /// The engine keeps nothing.
    #[error("the engine `memory` keeps nothing; set store.engine to fjall or sled")]
    Forgets,
    /// The folder cannot be written.
    #[error("cannot write {}; remove the folder and restore again", .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// The anchor cannot be read or written.
    #[error("the anchor {0} cannot be used")]
    Anchor(String, #[source] io::Error),
    /// The engine failed.
    #[error("the store cannot be written; remove the folder and restore again")]
    Engine(#[from] EngineError),
    /// The ledger does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Anything else that keeps a server from its store.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A use case failed.
    #[error("the restored store cannot be settled; remove the folder and restore again")]
    Broker(#[from] Refusal),
}

/// What was restored.
#[derive(Clone, Debug)]
pub struct Restored {
    /// What the backup held.
    pub contents: Contents,
    /// The new incarnation and its revision.
    pub revision: (u64, u64),
    /// What was replayed; `None` without events.
    pub replayed: Option<Replayed>,
}

/// Reads a whole backup and says what it holds; writes nothing.
///
/// # Errors
/// When any bit of it is not as it was written, or the seal key is another.
pub fn verify(seal: &SealSource, path: &Path) -> Result<Contents, RestoreError> {
    read(&Seal::new(&seal_key(seal)?), path)
}

/// Makes the data folder of `config` from a backup. `events` are replayed where they are newer.
///
/// The backup and the events are read whole before anything is written. While it writes, a file `restoring` lies in the
/// folder; a daemon does not start over it. The anchor is replaced last.
///
/// # Errors
/// See [`RestoreError`].
pub async fn restore(config: &Config, path: &Path, events: Option<&Path>) -> Result<Restored, RestoreError> {
    let seal = Seal::new(&seal_key(&config.seal)?);
    let contents = read(&seal, path)?;
    let shipped = events.map(|file| Shipped::read(file, &contents).map(|shipped| (file, shipped))).transpose()?;
    let anchor = super::anchor(config, &seal);
    let unusable = |error| RestoreError::Anchor(anchor.place(), error);
    let past = match anchor.read().map_err(unusable)? {
        Found::Mark(mark) => mark.number,
        Found::Absent | Found::Damaged(_) => 0,
    };
    let folder = &config.data_dir;
    let _lock = begin(folder)?;
    let clock = Arc::new(SystemClock);
    let engine = engine_of(config)?;
    fill(&seal, path, engine.as_ref())?;
    hold_restored(engine.as_ref(), seal.row_key(), past, contents.created, clock.wall())?;
    let (broker, start) = assemble(config, clock, engine, None)?;
    // Before anything is added to what the backup knows.
    let doubts = shipped.as_ref().map(|(file, shipped)| shipped.doubts(file, &broker)).transpose()?;
    broker.settle_start(start).await?;
    let mut replayed = None;
    if let Some((_, shipped)) = shipped {
        let done = replayed.insert(Replayed { doubts: doubts.unwrap_or_default(), ..Replayed::default() });
        for event in &shipped.newer {
            broker.replay(event, done).await?;
        }
    }
    broker.ledger.close();
    let mark = broker.ledger.stored_mark().map_err(ServerError::from)?;
    anchor.write(&mark).map_err(unusable)?;
    fs::remove_file(marker(folder))
        .and_then(|()| sync(folder))
        .map_err(|error| RestoreError::Write(folder.clone(), error))?;
    Ok(Restored { contents, revision: (mark.incarnation, mark.number), replayed })
}

/// The file that is in a data folder while it is being restored.
pub(super) fn marker(folder: &Path) -> PathBuf {
    folder.join("restoring")
}

fn read(seal: &Seal, path: &Path) -> Result<Contents, RestoreError> {
    let opened = File::open(path).map_err(|error| RestoreError::Read(path.to_path_buf(), error))?;
    let read = file::read(seal, BufReader::new(opened), crate::ledger::SCHEMA, |_, _, _| Ok::<(), BackupError>(()));
    read.map_err(|error| RestoreError::Backup(path.to_path_buf(), error))
}

/// Takes an empty folder, and marks it as half restored.
fn begin(folder: &Path) -> Result<File, RestoreError> {
    let failed = |error| RestoreError::Write(folder.to_path_buf(), error);
    private_folder(folder).map_err(failed)?;
    if fs::read_dir(folder).map_err(failed)?.next().is_some() {
        return Err(RestoreError::NotEmpty(folder.to_path_buf()));
    }
    // One that was there may be open to others.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    let mut file = File::options().write(true).create_new(true).open(marker(folder)).map_err(failed)?;
    file.write_all(b"A restore was begun here and has not ended. Remove this folder and restore again.\n")
        .and_then(|()| file.sync_all())
        .and_then(|()| sync(folder))
        .map_err(failed)?;
    Ok(lock(folder)?)
}

fn fill(seal: &Seal, path: &Path, engine: &dyn Engine) -> Result<(), RestoreError> {
    let opened = File::open(path).map_err(|error| RestoreError::Read(path.to_path_buf(), error))?;
    let mut filler = Filler::new(engine);
    file::read(seal, BufReader::new(opened), crate::ledger::SCHEMA, |table, key, value| {
        filler.put(table, key, value).map_err(Failed::Engine)
    })
    .map_err(|failed| match failed {
        Failed::Backup(error) => RestoreError::Backup(path.to_path_buf(), error),
        Failed::Engine(error) => RestoreError::Engine(error),
    })?;
    Ok(filler.flush()?)
}

enum Failed {
    Backup(BackupError),
    Engine(EngineError),
}

impl From<BackupError> for Failed {
    fn from(error: BackupError) -> Self {
        Self::Backup(error)
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
