//! Files that only their owner may read, written whole or not at all.

use std::{
    fs::{DirBuilder, File},
    io::Write,
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use super::failure::{Failure, Outcome};

/// Makes a folder, and those above it, that only its owner may enter; one that is there stays as it is.
///
/// # Errors
/// When it cannot be made.
pub fn folder(path: &Path) -> Outcome {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| Failure::file("make", path, error))
}

/// Writes `folder/name` with mode 0600, durable on return. An older file is replaced in one step.
///
/// # Errors
/// When it cannot be written.
pub fn write(folder: &Path, name: &str, bytes: &[u8]) -> Outcome {
    let path = folder.join(name);
    let failed = |error| Failure::file("write", &path, error);
    // A temporary file has mode 0600 from its creation, and a new name in the same folder is one step.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(&path).map_err(|error| failed(error.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_private_file_is_its_owners_alone_even_where_an_open_one_was() {
        let parent = tempfile::tempdir().expect("folder");
        let path = parent.path().join("a/b");
        folder(&path).expect("made");
        std::fs::write(path.join("key.pem"), "old").expect("write");
        write(&path, "key.pem", b"new").expect("written");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&path.join("key.pem")), mode(&path)), (0o600, 0o700));
        assert_eq!(std::fs::read(path.join("key.pem")).expect("reads"), b"new");
        assert_eq!(std::fs::read_dir(&path).expect("lists").count(), 1, "leaves nothing beside it");
    }
}
