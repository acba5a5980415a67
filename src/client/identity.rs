//! The certificate and key a client proves itself with, and the roots it trusts, from files.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

/// A client certificate chain and its private key, both PEM.
///
/// The key is wiped on drop and absent from `Debug`.
#[derive(Clone)]
pub struct Identity {
    certificate_pem: Vec<u8>,
    key_pem: Zeroizing<Vec<u8>>,
}

/// Why a file of an identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnusableFile {
    /// It cannot be opened or read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A private key that others than its owner may read, write or run.
    #[error("{} has mode {mode:04o}; a private key must have mode 0600 or 0400", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a regular file, such as a folder or a device.
    #[error("{} is not a regular file", path.display())]
    Irregular {
        /// The file.
        path: PathBuf,
    },
    /// Larger than any certificate chain or key.
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What is allowed.
        limit: u64,
    },
}

impl Identity {
    /// Takes a PEM chain, leaf first, and the PEM private key of its leaf.
    #[must_use]
    pub fn new(certificate_pem: Vec<u8>, key_pem: Zeroizing<Vec<u8>>) -> Self {
        Self { certificate_pem, key_pem }
    }

    /// Reads both files.
    ///
    /// # Errors
    /// When a file cannot be read, is larger than 256 KiB, or the key has a mode other than 0600 or 0400.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, UnusableFile> {
        let certificate_pem = read_limited(&open(certificate)?, certificate)?;
        Ok(Self { certificate_pem: certificate_pem.to_vec(), key_pem: read_key(key)? })
    }

    /// The certificate chain, leaf first, PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &[u8] {
        &self.certificate_pem
    }

    /// The private key, PEM. Every caller is a place to review.
    #[must_use]
    pub fn expose_key_pem(&self) -> &[u8] {
        &self.key_pem
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("certificate_bytes", &self.certificate_pem.len()).finish_non_exhaustive()
    }
}

/// Reads a PEM file of root certificates.
///
/// # Errors
/// When it cannot be read or is larger than 256 KiB.
pub fn read_ca(path: &Path) -> Result<Vec<u8>, UnusableFile> {
    Ok(read_limited(&open(path)?, path)?.to_vec())
}

/// Reads a private key file after checking who else could.
///
/// # Errors
/// When it cannot be read, is larger than 256 KiB, or has a mode other than 0600 or 0400.
pub fn read_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, UnusableFile> {
    let file = open(path)?;
    // The mode is that of the open file, so that a swap between check and read gains nothing.
    let metadata = file.metadata().map_err(|source| UnusableFile::Unreadable { path: path.into(), source })?;
    let mode = metadata.permissions().mode() & 0o7777;
    if !matches!(mode, 0o600 | 0o400) {
        return Err(UnusableFile::Exposed { path: path.into(), mode });
    }
    read_limited(&file, path)
}

fn open(path: &Path) -> Result<File, UnusableFile> {
    let unreadable = |source| UnusableFile::Unreadable { path: path.into(), source };
    // Looked at before it is opened: opening a pipe without a writer would block.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(UnusableFile::Irregular { path: path.into() });
    }
    File::open(path).map_err(unreadable)
}

fn read_limited(file: &File, path: &Path) -> Result<Zeroizing<Vec<u8>>, UnusableFile> {
    // Room for all that is allowed, so that growing leaves no copy of a key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(64 * 1024));
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| UnusableFile::Unreadable { path: path.into(), source })?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX_BYTES) {
        Ok(bytes)
    } else {
        Err(UnusableFile::TooLarge { path: path.into(), limit: MAX_BYTES })
    }
}

const MAX_BYTES: u64 = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &tempfile::TempDir, mode: u32, bytes: &[u8]) -> PathBuf {
        let path = folder.path().join(format!("f{mode:o}-{}", bytes.len()));
        std::fs::write(&path, bytes).expect("write");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
        path
    }

    #[test]
    fn a_key_file_that_others_could_use_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        for mode in [0o600, 0o400] {
            assert!(read_key(&file(&folder, mode, b"k")).is_ok(), "{mode:o}");
        }
        for mode in [0o644, 0o640, 0o604, 0o620, 0o700, 0o4600] {
            let refused = read_key(&file(&folder, mode, b"k"));
            assert!(matches!(refused, Err(UnusableFile::Exposed { mode: m, .. }) if m == mode), "{mode:o}");
        }
    }

    #[test]
    fn a_file_holds_at_its_limit_and_not_one_past() {
        let folder = tempfile::tempdir().expect("folder");
        assert_eq!(read_ca(&file(&folder, 0o644, &vec![b'x'; 256 * 1024])).expect("at the limit").len(), 256 * 1024);
        let refused = read_ca(&file(&folder, 0o644, &vec![b'x'; 256 * 1024 + 1]));
        assert!(matches!(refused, Err(UnusableFile::TooLarge { .. })));
    }

    #[test]
    fn a_folder_is_no_key_and_an_absent_file_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        assert!(matches!(read_key(folder.path()), Err(UnusableFile::Irregular { .. })));
        let absent = folder.path().join("absent.pem");
        let error = read_key(&absent).expect_err("absent");
        assert!(error.to_string().contains("absent.pem"), "{error}");
    }

    #[test]
    fn an_identity_does_not_show_its_key() {
        let identity = Identity::new(b"cert".to_vec(), Zeroizing::new(b"hunter2".to_vec()));
        assert!(!format!("{identity:?}").contains("hunter2"));
        assert!(!format!("{identity:?}").contains("104, 117"));
    }
}
