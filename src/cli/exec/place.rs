//! A folder of this user's alone, in memory where there is such a place, gone when this process ends.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock, statfs};

use crate::cli::{
    failure::{Failure, Outcome},
    job,
};

/// The folder. Removed on drop; what a killed process left is removed by the next one.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    /// Locked while we live.
    _lock: File,
}

impl Place {
    /// Makes one below `base`, or in the first of: `XDG_RUNTIME_DIR`, `/dev/shm`, the folder for temporary files.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make(base: Option<&Path>) -> Outcome<Self> {
        let base = base.map_or_else(self::base, Path::to_path_buf);
        sweep(&base);
        let failed = |error| Failure::file("make a private folder in", &base, error);
        for _ in 0..ATTEMPTS {
            let path = base.join(format!("{PREFIX}{:016x}", crate::client::random()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(failed(error)),
            }
            let lock = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path.join(LOCK));
            let lock = lock.map_err(failed)?;
            // Somebody who cleans up may have been faster: then it is his.
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() && path.join(LOCK).exists() {
                return Ok(Self { path, _lock: lock });
            }
        }
        Err(failed(io::ErrorKind::AlreadyExists.into()))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What stays is swept by the next one.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Writes a file with mode 0600 in one step: a reader sees the old one or the new one, whole.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A temporary file has mode 0600 from its creation. It need not outlive the system, so nothing is flushed.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// The first place that is in memory, or else the folder for temporary files.
#[must_use]
pub fn base() -> PathBuf {
    let own = rustix::process::geteuid().as_raw();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute() && path.metadata().is_ok_and(|found| found.is_dir() && found.uid() == own));
    let shared = PathBuf::from("/dev/shm");
    runtime.or_else(|| is_in_memory(&shared).then_some(shared)).unwrap_or_else(std::env::temp_dir)
}

/// Whether files there lie in memory (`statfs(2)`: tmpfs or ramfs).
fn is_in_memory(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| matches!(found.f_type, TMPFS | RAMFS))
}

/// Removes what processes that were killed left behind: folders of ours that nobody has locked.
fn sweep(base: &Path) {
    let own = rustix::process::geteuid().as_raw();
    let Ok(entries) = std::fs::read_dir(base) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let path = entry.path();
        // Never through a link, and never what is not ours.
        let Ok(found) = path.symlink_metadata() else { continue };
        if !found.is_dir() || found.uid() != own {
            continue;
        }
        let is_free = match File::open(path.join(LOCK)) {
            Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
            // Being made just now, or its maker died in between.
            Err(_) => found.modified().ok().and_then(|at| at.elapsed().ok()).is_some_and(|age| age > A_WHILE),
        };
        if is_free {
            // First what its note names: without the note nobody would know of it.
            job::sweep(&path);
            let _ = std::fs::remove_dir_all(&path);
        }
    }
}

const PREFIX: &str = "mayfly-exec-";
const LOCK: &str = ".lock";
const ATTEMPTS: usize = 8;
const A_WHILE: Duration = Duration::from_secs(60);
/// Magic numbers of `statfs(2)`.
const TMPFS: i64 = 0x0102_1994;
const RAMFS: i64 = 0x8584_58f6;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_place_is_its_owners_alone_and_goes_with_him() {
        let base = tempfile::tempdir().expect("folder");
        let place = Place::make(Some(base.path())).expect("made");
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(place.path()), 0o700);
        let file = place.path().join("token");
        write(&file, b"first").expect("written");
        write(&file, b"second").expect("replaced");
        assert_eq!((mode(&file), std::fs::read(&file).expect("reads")), (0o600, b"second".to_vec()));
        let path = place.path().to_owned();
        drop(place);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_lives_stays() {
        let base = tempfile::tempdir().expect("folder");
        let living = Place::make(Some(base.path())).expect("made");
        let left = base.path().join(format!("{PREFIX}left"));
        std::fs::create_dir(&left).expect("made");
        std::fs::write(left.join(LOCK), b"").expect("written");
        let fresh = base.path().join(format!("{PREFIX}fresh"));
        std::fs::create_dir(&fresh).expect("made");
        let other = base.path().join("other");
        std::fs::create_dir(&other).expect("made");
        let next = Place::make(Some(base.path())).expect("made");
        assert!(!left.exists() && living.path().exists() && next.path().exists() && fresh.exists() && other.exists());
    }
}
