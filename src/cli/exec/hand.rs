//! Hands credentials over: into the environment, files and descriptors of the child.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Seek, Write},
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd},
};
use zeroize::Zeroizing;

use super::{
    need::{Need, Way, variables},
    place,
};
use crate::{
    cli::{
        failure::{Failure, Outcome},
        session::{CA_FILE, CERTIFICATE_FILE, KEY_FILE},
    },
    client::{Body, Credential},
};

/// Descriptors with the numbers that the job wants, still empty.
///
/// Taken before anything else opens a file, so that the numbers are free.
#[derive(Debug, Default)]
pub struct Descriptors(Vec<(i32, OwnedFd)>);

impl Descriptors {
    /// Takes the numbers that `needs` name.
    ///
    /// # Errors
    /// When one is in use: whoever started us left it open.
    pub fn take(needs: &[Need]) -> Outcome<Self> {
        let mut taken = Vec::new();
        for way in needs.iter().flat_map(|need| &need.ways) {
            let Way::Fd(number) = way else { continue };
            let failed = |error: rustix::io::Errno| Failure::io(format!("make descriptor {number}"), error.into());
            let memory = memfd_create("mayfly", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).map_err(failed)?;
            let there = if memory.as_raw_fd() == *number {
                memory
            } else {
                fcntl_dupfd_cloexec(&memory, *number).map_err(failed)?
            };
            if there.as_raw_fd() != *number {
                return Err(Failure::Usage(format!("descriptor {number} is open already; choose another for fd")));
            }
            taken.push((*number, there));
        }
        Ok(Self(taken))
    }

    /// Fills one, once; nobody can change it afterwards.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn fill(&self, number: i32, bytes: &[u8]) -> io::Result<()> {
        let Some((_, descriptor)) = self.0.iter().find(|(taken, _)| *taken == number) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut file = File::from(descriptor.try_clone()?);
        file.write_all(bytes)?;
        file.rewind()?;
        let all = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        fcntl_add_seals(&file, all)?;
        Ok(())
    }

    /// The next process that is started inherits them; none before did.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn let_inherit(&self) -> io::Result<()> {
        self.0.iter().try_for_each(|(_, descriptor)| fcntl_setfd(descriptor, FdFlags::empty()))?;
        Ok(())
    }
}

/// Variables of the child's environment.
pub type Variables = Vec<(String, Zeroizing<String>)>;

/// The variables that carry a credential.
///
/// # Errors
/// When it is a static secret that no variable can hold.
pub fn environment(need: &Need, credential: &Credential) -> Outcome<Variables> {
    let mut all = Vec::new();
    for way in &need.ways {
        let Way::Env(name) = way else { continue };
        let values = match &credential.body {
            Body::Token(token) => vec![token.clone()],
            Body::Certificate { chain_pem, key_pem, roots_pem, .. } => {
                vec![Zeroizing::new(chain_pem.clone()), key_pem.clone(), Zeroizing::new(roots_pem.clone())]
            }
            Body::Secret { value, .. } => match str::from_utf8(value) {
                Ok(text) if !text.contains('\0') => vec![Zeroizing::new(text.to_owned())],
                Ok(_) | Err(_) => {
                    let name = &need.name;
                    return Err(Failure::Usage(format!("the secret of `{name}` is no text for env; use file or fd")));
                }
            },
        };
        all.extend(variables(name, need.wanted.kind).into_iter().zip(values));
    }
    Ok(all)
}

/// The bytes of one stream that carries all of a credential: a token or static secret alone, or certificates and their key.
#[must_use]
pub fn stream(credential: &Credential) -> Zeroizing<Vec<u8>> {
    match &credential.body {
        Body::Token(token) => Zeroizing::new(token.as_bytes().to_vec()),
        Body::Certificate { chain_pem, key_pem, .. } => {
            Zeroizing::new([chain_pem.as_bytes(), key_pem.as_bytes()].concat())
        }
        Body::Secret { value, .. } => value.clone(),
    }
}

/// Where the files of a need lie.
#[must_use]
pub fn files(need: &Need, place: Option<&Path>) -> Vec<PathBuf> {
    let absolute = |path: &PathBuf| place.map_or_else(|| path.clone(), |place| place.join(path));
    let paths = need.ways.iter().filter_map(|way| match way {
        Way::File(path) => Some(absolute(path)),
        Way::Env(_) | Way::Fd(_) | Way::Endpoint => None,
    });
    paths.collect()
}

/// What was written for a command, so that just that is removed after it.
#[derive(Clone, Debug, Default)]
pub struct Written(Arc<Mutex<BTreeSet<PathBuf>>>);

impl Written {
    /// Writes a file of a credential.
    fn write(&self, path: PathBuf, bytes: &[u8]) -> io::Result<()> {
        place::write(&path, bytes)?;
        self.lock().insert(path);
        Ok(())
    }

    /// A folder of a certificate, made where it is not there.
    fn folder(&self, path: &Path) -> io::Result<()> {
        folder(path)?;
        self.lock().insert(path.to_path_buf());
        Ok(())
    }

    /// Removes it all; of folders, those that are empty then.
    pub fn remove(&self) {
        // In this order a folder comes after what is in it.
        for path in std::mem::take(&mut *self.lock()).iter().rev() {
            // What cannot be removed is of no use any more: its task is over.
            let _ = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir(path));
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        // Every change under the lock leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a credential's files: `path` itself for a token or static secret, a folder of three for a certificate. Each is replaced in one
/// step; of a certificate that is renewed only its own file changes, since the key stays.
///
/// # Errors
/// When one cannot be written.
pub fn write_files(paths: &[PathBuf], credential: &Credential, written: &Written) -> io::Result<()> {
    for path in paths {
        let about = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        match &credential.body {
            Body::Token(token) => {
                path.parent().map_or(Ok(()), folder).and_then(|()| written.write(path.clone(), token.as_bytes()))
            }
            Body::Secret { value, .. } => {
                path.parent().map_or(Ok(()), folder).and_then(|()| written.write(path.clone(), value))
            }
            // The key first: a reader that sees the certificate finds its key.
            Body::Certificate { chain_pem, key_pem, roots_pem, .. } => written
                .folder(path)
                .and_then(|()| written.write(path.join(KEY_FILE), key_pem.as_bytes()))
                .and_then(|()| written.write(path.join(CA_FILE), roots_pem.as_bytes()))
                .and_then(|()| written.write(path.join(CERTIFICATE_FILE), chain_pem.as_bytes())),
        }
        .map_err(about)?;
    }
    Ok(())
}

fn folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
