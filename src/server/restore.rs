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
use super::{
    ServerError,
    host::private_folder,
    lock,
    open::{anchor, assemble, engine_of, seal_key},
};
use crate::{
    broker::{
        Refusal,
        backup::{
            file::{self, BackupError, Contents},
            proof::{self, End},
            replay::Replayed,
        },
        rings::KeyUse,
        time::SystemClock,
    },
    config::{Config, SealSource},
    ledger::{
        Anchor, FileAnchor, Filler, Gleaned, OpenError,
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
    /// Nothing shows that the audit after the backup is whole, and nobody has said that it need not be.
    #[error("what happened after the backup is not proven to be in the audit, nothing was written: {}; {UNPROVEN_MEND}", .0.join("; "))]
    Unproven(Vec<String>),
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
    /// Whether the audit after the backup is whole.
    pub end: End,
    /// What was replayed; `None` without events.
    pub replayed: Option<Replayed>,
}

/// What to restore from.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The backup.
    pub backup: &'a Path,
    /// A shipped audit: what is newer in it than the backup is replayed.
    pub events: Option<&'a Path>,
    /// The anchor that the audit must reach; `None` for the one in the configuration's place.
    pub anchor: Option<&'a Path>,
    /// Whether to go on when it does not, or there is none.
    pub accept_unproven: bool,
}

/// Reads a whole backup and says what it holds; writes nothing.
///
/// # Errors
/// When any bit of it is not as it was written, or the seal key is another.
pub fn verify(seal: &SealSource, path: &Path) -> Result<Contents, RestoreError> {
    Ok(read(&Seal::new(&seal_key(seal)?), path)?.0)
}

/// Makes the data folder of `config` from a backup. Events are replayed where they are newer.
///
/// Backup, events and anchor are read whole before anything is written, and nothing is where the events do not reach the
/// anchor, unless that is accepted. While it writes, a file `restoring` lies in the folder; a daemon does not start over
/// it. The anchor is replaced last.
///
/// # Errors
/// See [`RestoreError`].
pub async fn restore(config: &Config, from: &Sources<'_>) -> Result<Restored, RestoreError> {
    let seal = Seal::new(&seal_key(&config.seal)?);
    let (contents, gleaned) = read(&seal, from.backup)?;
    let shipped = from.events.map(|file| Shipped::read(file, &contents)).transpose()?;
    let anchor = anchor(config, &seal);
    let unusable = |error| RestoreError::Anchor(anchor.place(), error);
    let own = anchor.read().map_err(unusable)?;
    let noted = match from.anchor {
        Some(file) => noted(file, &seal)?,
        None => own.clone(),
    };
    let heads = gleaned.heads();
    let newer = shipped.iter().flat_map(|shipped| &shipped.newer);
    let mut end = proof::end(&contents, &heads, newer, &noted);
    if let (Some(why), true) = (outdated(&own, &noted), end.is_proven()) {
        end = End::Unproven(why);
    }
    let keys = gleaned.keys_for(KeyUse::Audit.code());
    let doubts = shipped.as_ref().map(|shipped| shipped.doubts(&heads, &keys, end.is_proven())).transpose()?;
    if let (End::Unproven(why), false) = (&end, from.accept_unproven) {
        return Err(RestoreError::Unproven([vec![why.clone()], doubts.unwrap_or_default()].concat()));
    }
    // Neither of them knows a later state than the store that is made now.
    let past = [own, noted].iter().filter_map(number).max().unwrap_or_default();
    let folder = &config.data_dir;
    let _lock = begin(folder)?;
    let clock = Arc::new(SystemClock);
    let engine = engine_of(config)?;
    if fill(&seal, from.backup, engine.as_ref())? != contents {
        return Err(RestoreError::Backup(from.backup.to_path_buf(), BackupError::Form("it changed while it was read")));
    }
    hold_restored(engine.as_ref(), seal.row_key(), past, contents.created, clock.wall())?;
    let (broker, start) = assemble(config, clock, engine, None)?;
    broker.settle_start(start).await?;
    let mut replayed = None;
    if let Some(shipped) = shipped {
        let done = replayed.insert(Replayed { doubts: doubts.unwrap_or_default(), ..Replayed::default() });
        for event in &shipped.newer {
            broker.replay(event, done).await?;
        }
    }
    broker.note_replay(&end, replayed.as_ref().unwrap_or(&Replayed::default())).await?;
    broker.ledger.close();
    let mark = broker.ledger.stored_mark().map_err(ServerError::from)?;
    anchor.write(&mark).map_err(unusable)?;
    fs::remove_file(marker(folder))
        .and_then(|()| sync(folder))
        .map_err(|error| RestoreError::Write(folder.clone(), error))?;
    Ok(Restored { contents, revision: (mark.incarnation, mark.number), end, replayed })
}

/// What an anchor in another place notes. One that was named and is not there is a slip, and no missing anchor.
fn noted(file: &Path, seal: &Seal) -> Result<Found, RestoreError> {
    let anchor = FileAnchor::new(file.to_path_buf(), seal.anchor_key());
    match anchor.read() {
        Ok(Found::Absent) => Err(RestoreError::Anchor(anchor.place(), io::ErrorKind::NotFound.into())),
        Ok(found) => Ok(found),
        Err(error) => Err(RestoreError::Anchor(anchor.place(), error)),
    }
}

/// Why an anchor that was given proves nothing beside the one in its own place, which may note what came later.
fn outdated(own: &Found, given: &Found) -> Option<String> {
    let (Found::Mark(own), Found::Mark(given)) = (own, given) else { return None };
    let is_older = own.incarnation != given.incarnation || own.number > given.number;
    is_older.then(|| {
        let (incarnation, number) = (own.incarnation, own.number);
        format!(
            "the anchor in its own place notes {incarnation:016x}:{number}, which the one that was given does not reach"
        )
    })
}

fn number(found: &Found) -> Option<u64> {
    match found {
        Found::Mark(mark) => Some(mark.number),
        Found::Absent | Found::Damaged(_) => None,
    }
}

/// The file that is in a data folder while it is being restored.
pub(super) fn marker(folder: &Path) -> PathBuf {
    folder.join("restoring")
}

fn read(seal: &Seal, path: &Path) -> Result<(Contents, Gleaned), RestoreError> {
    let opened = File::open(path).map_err(|error| RestoreError::Read(path.to_path_buf(), error))?;
    let mut gleaned = Gleaned::new(seal.row_key());
    let read = file::read(seal, BufReader::new(opened), crate::ledger::SCHEMA, |table, key, value| {
        gleaned.take(table, &key, &value);
        Ok::<(), BackupError>(())
    });
    Ok((read.map_err(|error| RestoreError::Backup(path.to_path_buf(), error))?, gleaned))
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

fn fill(seal: &Seal, path: &Path, engine: &dyn Engine) -> Result<Contents, RestoreError> {
    let opened = File::open(path).map_err(|error| RestoreError::Read(path.to_path_buf(), error))?;
    let mut filler = Filler::new(engine);
    let contents = file::read(seal, BufReader::new(opened), crate::ledger::SCHEMA, |table, key, value| {
        filler.put(table, key, value).map_err(Failed::Engine)
    })
    .map_err(|failed| match failed {
        Failed::Backup(error) => RestoreError::Backup(path.to_path_buf(), error),
        Failed::Engine(error) => RestoreError::Engine(error),
    })?;
    filler.flush()?;
    Ok(contents)
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

const UNPROVEN_MEND: &str = "give the whole audit with --events, and the anchor of the lost store with --anchor where it is not in \
     its place, or say --accept-unproven and revoke by hand what may be missing";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ledger::Mark, model::Digest};

    fn found(incarnation: u64, number: u64) -> Found {
        Found::Mark(Mark { incarnation, number, audit_head: Digest::of(b""), closed: false })
    }

    #[test]
    fn an_older_copy_of_the_anchor_proves_nothing_beside_a_newer_one_in_its_place() {
        for (own, given, is_outdated) in [
            (found(1, 500), found(1, 300), true),
            (found(2, 100), found(1, 300), true),
            (found(1, 300), found(1, 300), false),
            (found(1, 200), found(1, 300), false),
            (Found::Absent, found(1, 300), false),
        ] {
            assert_eq!(outdated(&own, &given).is_some(), is_outdated, "{own:?} {given:?}");
        }
    }
}
