//! The seal key and its file.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags};
use zeroize::Zeroizing;

use crate::model::{Secret, id::hex, secret::EntropyUnavailable};

/// The 32 bytes that everything at rest hangs on. Kept outside the data folder.
#[derive(Debug)]
pub struct SealKey(Secret<32>);

/// Why there is no seal key.
#[derive(Debug, thiserror::Error)]
pub enum SealKeyError {
    /// The file could not be made.
    #[error("cannot create seal key file `{path}`; name a new file in a folder that the broker may write")]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The system has no entropy.
    #[error(transparent)]
    EntropyUnavailable(#[from] EntropyUnavailable),
    /// Not 64 hex digits.
    #[error("seal key file `{path}` is not 64 hex digits and a line end; restore it from where you keep its copy")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// Others may read it.
    #[error("seal key file `{path}` has mode {mode:04o}, and {want} are allowed; run `chmod 0600 {path}`")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// What is allowed, for people.
        want: &'static str,
    },
    /// A folder, device or pipe.
    #[error("seal key file `{path}` is no regular file; name a file of 64 hex digits")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Someone else could change it.
    #[error("seal key file `{path}` belongs to user {owner}, not to root or the broker's user; run `chown` on it")]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// It could not be read.
    #[error("cannot read seal key file `{path}`; check the path and that the broker's user may read it")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl SealKey {
    /// A key that is kept nowhere: what it seals is lost with it.
    ///
    /// # Errors
    /// When the system has no entropy.
    pub fn random() -> Result<Self, EntropyUnavailable> {
        Secret::random().map(Self)
    }

    /// Reads a key file: 64 hex digits and a line end, of mode 0600 or 0400, of root's or the broker's own.
    ///
    /// # Errors
    /// Unless it is exactly that.
    pub fn read(path: &Path) -> Result<Self, SealKeyError> {
        Self::read_with(path, &[0o600, 0o400], "0600 and 0400")
    }

    /// Reads a systemd credential (`LoadCredential=`), which the group may read too.
    ///
    /// # Errors
    /// As [`Self::read`], but for mode 0440.
    pub fn read_credential(path: &Path) -> Result<Self, SealKeyError> {
        Self::read_with(path, &[0o400, 0o440, 0o600], "0400, 0440 and 0600")
    }

    /// Makes a new key file of mode 0600; on return it survives a crash.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub fn create(path: &Path) -> Result<Self, SealKeyError> {
        let key = Self::random()?;
        let failed = |source: io::Error| SealKeyError::Create { path: path.to_owned(), source };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(|e| failed(e.into()))?;
        let mut text = Zeroizing::new(hex(key.expose()));
        text.push('\n');
        let mut file = File::from(file);
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(key)
    }

    pub(super) fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }

    fn read_with(path: &Path, modes: &[u32], want: &'static str) -> Result<Self, SealKeyError> {
        let failed = |source: io::Error| SealKeyError::Read { path: path.to_owned(), source };
        // Without NONBLOCK a pipe of that name would stop the start for ever. What is checked is the open file, so
        // that no other one can be put in its place between check and use.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
        let file = File::from(file);
        let facts = file.metadata().map_err(failed)?;
        let (mode, owner) = (facts.mode() & 0o7777, facts.uid());
        if !facts.is_file() {
            return Err(SealKeyError::NotAFile { path: path.to_owned() });
        }
        if !modes.contains(&mode) {
            return Err(SealKeyError::Mode { path: path.to_owned(), mode, want });
        }
        if !is_trusted(owner, rustix::process::geteuid().as_raw()) {
            return Err(SealKeyError::Owner { path: path.to_owned(), owner });
        }
        let mut text = Zeroizing::new(Vec::with_capacity(FILE_BYTES + 1));
        let limit = u64::try_from(FILE_BYTES + 1).unwrap_or(u64::MAX);
        file.take(limit).read_to_end(&mut text).map_err(failed)?;
        parse(&text).map(Self).ok_or_else(|| SealKeyError::Malformed { path: path.to_owned() })
    }
}

/// Whether a file is root's or one's own: whoever else owns it may put another key there at any time.
fn is_trusted(owner: u32, own: u32) -> bool {
    owner == 0 || owner == own
}

fn parse(text: &[u8]) -> Option<Secret<32>> {
    let digits = text.strip_suffix(b"\n").unwrap_or(text);
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    if pairs.len() != 32 {
        return None;
    }
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok()).ok_or(());
    Secret::try_init(|bytes| {
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Ok::<_, ()>(())
    })
    .ok()
}

const FILE_BYTES: usize = 65;

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("temporary folder")
    }

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).expect("written");
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("mode set");
    }

    #[test]
    fn a_created_key_reads_back_and_is_the_owners_alone() {
        let folder = folder();
        let path = folder.path().join("seal.key");
        let key = SealKey::create(&path).expect("created");
        assert_eq!(SealKey::read(&path).expect("read").expose(), key.expose());
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read(&path).expect("there").len(), FILE_BYTES);
        assert_eq!(format!("{key:?}"), "SealKey(Secret<32>(..))");
    }

    #[test]
    fn an_existing_file_or_link_is_never_overwritten() {
        let folder = folder();
        let path = folder.path().join("seal.key");
        SealKey::create(&path).expect("created");
        let before = fs::read(&path).expect("there");
        assert!(matches!(SealKey::create(&path), Err(SealKeyError::Create { .. })));
        assert_eq!(fs::read(&path).expect("there"), before);
        let link = folder.path().join("link");
        symlink(folder.path().join("nowhere"), &link).expect("linked");
        assert!(matches!(SealKey::create(&link), Err(SealKeyError::Create { .. })));
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_with_path_mode_and_mend() {
        let folder = folder();
        let path = folder.path().join("seal.key");
        for mode in [0o644, 0o640, 0o440, 0o660, 0o700, 0o4600] {
            write(&path, &"ab".repeat(32), mode);
            let error = SealKey::read(&path).expect_err("mode").to_string();
            for part in [path.to_str().expect("text"), &format!("{mode:04o}"), "chmod 0600"] {
                assert!(error.contains(part), "{error}");
            }
            fs::remove_file(&path).expect("removed");
        }
        for mode in [0o600, 0o400] {
            write(&path, &"ab".repeat(32), mode);
            assert!(SealKey::read(&path).is_ok());
            fs::remove_file(&path).expect("removed");
        }
        write(&path, &"ab".repeat(32), 0o440);
        assert!(SealKey::read_credential(&path).is_ok());
    }

    #[test]
    fn a_file_of_someone_else_is_refused() {
        let trusted =
            [(0, 0), (0, 1_000), (1_000, 1_000), (1_000, 0), (1_000, 1_001)].map(|(owner, own)| is_trusted(owner, own));
        assert_eq!(trusted, [true, true, true, false, false]);
        let folder = folder();
        let path = folder.path().join("seal.key");
        write(&path, &"ab".repeat(32), 0o600);
        assert!(SealKey::read(&path).is_ok(), "one's own");
        // Only root can give a file away.
        if std::os::unix::fs::chown(&path, Some(4_711), None).is_ok() {
            assert!(matches!(SealKey::read(&path), Err(SealKeyError::Owner { owner: 4_711, .. })));
        }
    }

    #[test]
    fn a_text_that_is_not_64_hex_digits_is_refused_without_showing_it() {
        let folder = folder();
        let path = folder.path().join("seal.key");
        for text in
            ["", "ab", &"ab".repeat(31), &"zz".repeat(32), &"ab".repeat(33), &format!("{}\n\n", "ab".repeat(32))]
        {
            write(&path, text, 0o600);
            let error = SealKey::read(&path).expect_err("malformed");
            assert!(matches!(error, SealKeyError::Malformed { .. }), "{error}");
            assert!(!error.to_string().contains("abab"), "{error}");
        }
    }

    #[test]
    fn folders_loops_and_missing_files_are_refused() {
        let folder = folder();
        assert!(matches!(SealKey::read(folder.path()), Err(SealKeyError::NotAFile { .. })));
        let link = folder.path().join("loop");
        symlink(&link, &link).expect("linked");
        assert!(matches!(SealKey::read(&link), Err(SealKeyError::Read { .. })));
        assert!(matches!(SealKey::read(&folder.path().join("none")), Err(SealKeyError::Read { .. })));
    }
}
