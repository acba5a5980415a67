//! Repair of a fjall store that a damaged journal keeps from opening.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use fjall::Database;

use crate::ledger::engine::EngineError;

/// Moves the journal files that keep the store in `dir` from opening into a new folder `aside-<n>` in it, and returns
/// where they are now. Returns nothing when every journal file can be read.
///
/// Commits before the damage stay: a copy of a file's sound beginning takes its place.
///
/// **What is lost:** the damaged commit and all commits after it in the same file, except rows that had already moved
/// into tables. They were acknowledged: leases, audit events, and revocations among them. Because tables move one at a
/// time, a lost commit may be missing in one table and present in another. So after this the store must be treated
/// like one restored from an old backup: a new incarnation, everything issued before it ended, and the moved files
/// kept as evidence of what the audit no longer shows.
///
/// # Errors
/// [`EngineError::Locked`] when the store is open; [`EngineError::Full`] and [`EngineError::Io`] as the file system
/// says. A failure leaves each file either untouched, or moved with its sound beginning in its place or nothing.
pub fn set_damaged_journal_aside(dir: &Path) -> Result<Vec<PathBuf>, EngineError> {
    let lock = lock(dir)?;
    let moved = set_aside(dir).map_err(failed)?;
    drop(lock);
    Ok(moved)
}

fn set_aside(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut moved = Vec::new();
    let mut aside = None;
    for journal in journals(dir)? {
        let bytes = fs::read(&journal)?;
        if is_sound(dir, &bytes)? {
            continue;
        }
        let sound = sound_beginning(dir, &bytes)?;
        let folder = match aside.take() {
            Some(folder) => folder,
            None => fresh_folder(dir)?,
        };
        let place = folder.join(journal.file_name().unwrap_or_default());
        fs::rename(&journal, &place)?;
        write_synced(&journal, sound)?;
        sync_dir(&folder)?;
        sync_dir(dir)?;
        moved.push(place);
        aside = Some(folder);
    }
    Ok(moved)
}

/// Holds the lock that an open store holds.
fn lock(dir: &Path) -> Result<File, EngineError> {
    let file = File::options().read(true).write(true).open(dir.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(EngineError::Locked),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// The journal files, oldest first.
fn journals(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
        if let Some(number) = number.filter(|_| path.extension().is_some_and(|extension| extension == "jnl")) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// The longest beginning of `bytes` that opens.
///
/// Fjall takes a journal that ends within a commit, and refuses one that goes past a damaged commit's end. So there is
/// one length from which on it refuses, and halving finds it.
fn sound_beginning<'a>(dir: &Path, bytes: &'a [u8]) -> io::Result<&'a [u8]> {
    let (mut sound, mut damaged) = (0, bytes.len());
    while damaged.saturating_sub(sound) > 1 {
        let middle = sound.midpoint(damaged);
        if is_sound(dir, bytes.get(..middle).unwrap_or_default())? {
            sound = middle;
        } else {
            damaged = middle;
        }
    }
    Ok(bytes.get(..sound).unwrap_or_default())
}

/// Whether fjall replays this journal: tried in an empty store of its own, where rows of keyspaces that it does not
/// know are read, checked and dropped.
fn is_sound(dir: &Path, bytes: &[u8]) -> io::Result<bool> {
    let scratch = tempfile::Builder::new().prefix("check-").tempdir_in(dir)?;
    let open = || Database::builder(scratch.path()).worker_threads(1).open();
    drop(open().map_err(io::Error::other)?);
    for journal in journals(scratch.path())? {
        fs::remove_file(journal)?;
    }
    fs::write(scratch.path().join("0.jnl"), bytes)?;
    match open() {
        Ok(_) => Ok(true),
        Err(fjall::Error::JournalRecovery(_)) => Ok(false),
        Err(fjall::Error::Io(error)) => Err(error),
        Err(error) => Err(io::Error::other(error)),
    }
}

fn fresh_folder(dir: &Path) -> io::Result<PathBuf> {
    for n in 1..u32::MAX {
        let folder = dir.join(format!("aside-{n}"));
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn failed(error: io::Error) -> EngineError {
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        EngineError::Full(error.into())
    } else {
        EngineError::Io(error.into())
    }
}
