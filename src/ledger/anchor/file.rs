//! The anchor as a small file with a code over it, replaced atomically.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::{Anchor, Found, Mark};
use crate::model::{
    Digest,
    id::{hex, unhex},
    secret::MacKey,
};

/// A file of six lines: what it is, the mark, and a code (HMAC-SHA-256, 16 bytes) under a key derived from the seal key.
///
/// ```text
/// mayfly-anchor 1
/// incarnation 9f3c0a55d1e2b847
/// revision 48213
/// audit-head 5f0c...
/// closed no
/// code 0a1b...
/// ```
#[derive(Debug)]
pub struct FileAnchor {
    path: PathBuf,
    key: MacKey,
}

impl FileAnchor {
    /// At `path`; its folder must be there.
    #[must_use]
    pub fn new(path: PathBuf, key: MacKey) -> Self {
        Self { path, key }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn encode(&self, mark: &Mark) -> String {
        let head = hex(&mark.audit_head.0);
        let closed = if mark.closed { "yes" } else { "no" };
        let text = format!(
            "{TITLE}\nincarnation {:016x}\nrevision {}\naudit-head {head}\nclosed {closed}\n",
            mark.incarnation, mark.number
        );
        let code = hex(&self.key.tag(&[text.as_bytes()]));
        format!("{text}code {code}\n")
    }

    fn decode(&self, text: &str) -> Result<Mark, &'static str> {
        let (signed, code) = text.rsplit_once("code ").ok_or("it has no code")?;
        let code = unhex(code.trim_end_matches('\n')).map_err(|_| "its code is no hexadecimal number")?;
        if !self.key.verify(&[signed.as_bytes()], &code) {
            return Err("its code does not fit: it was changed, or made under another seal key");
        }
        let mut lines = signed.lines();
        if lines.next() != Some(TITLE) {
            return Err("it has another version");
        }
        let mut field = |name: &str| {
            let (found, value) = lines.next()?.split_once(' ')?;
            (found == name).then(|| value.to_owned())
        };
        let fields = (field("incarnation"), field("revision"), field("audit-head"), field("closed"));
        let (Some(incarnation), Some(number), Some(head), Some(closed)) = fields else {
            return Err("a line is missing");
        };
        Ok(Mark {
            incarnation: u64::from_str_radix(&incarnation, 16).map_err(|_| "its incarnation is no number")?,
            number: number.parse().map_err(|_| "its revision is no number")?,
            audit_head: unhex(&head).ok().and_then(|head| Digest::from_slice(&head)).ok_or("its audit head is none")?,
            closed: closed == "yes",
        })
    }
}

// === impl Anchor ===

impl Anchor for FileAnchor {
    fn read(&self) -> io::Result<Found> {
        let mut text = String::new();
        match File::open(&self.path).and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text)) {
            Ok(_) => Ok(self.decode(&text).map_or_else(Found::Damaged, Found::Mark)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Absent),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Found::Damaged("it is no text")),
            Err(error) => Err(error),
        }
    }

    fn write(&self, mark: &Mark) -> io::Result<()> {
        let mut draft = self.path.clone().into_os_string();
        draft.push(".new");
        let draft = PathBuf::from(draft);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(self.encode(mark).as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, &self.path)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

const TITLE: &str = "mayfly-anchor 1";
/// More than any anchor has.
const MOST_BYTES: u64 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;

    fn anchor(folder: &Path) -> FileAnchor {
        FileAnchor::new(folder.join("anchor"), MacKey::new(&Secret::random().expect("entropy")))
    }

    fn mark() -> Mark {
        Mark { incarnation: 0xf00d, number: 42, audit_head: Digest::of(b"audit"), closed: true }
    }

    #[test]
    fn what_was_written_is_read_and_the_newest_counts() {
        let folder = tempfile::tempdir().expect("folder");
        let anchor = anchor(folder.path());
        assert_eq!(anchor.read().expect("reads"), Found::Absent);
        anchor.write(&mark()).expect("writes");
        assert_eq!(anchor.read().expect("reads"), Found::Mark(mark()));
        let newer = Mark { number: 43, closed: false, ..mark() };
        anchor.write(&newer).expect("writes");
        assert_eq!(anchor.read().expect("reads"), Found::Mark(newer));
        assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 1, "no draft is left");
    }

    #[test]
    fn an_anchor_with_any_changed_byte_or_length_is_damaged() {
        let folder = tempfile::tempdir().expect("folder");
        let anchor = anchor(folder.path());
        anchor.write(&mark()).expect("writes");
        let whole = fs::read(anchor.path()).expect("file");
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(anchor.path(), &changed).expect("written");
            let found = anchor.read().expect("reads");
            assert!(matches!(found, Found::Damaged(_)) || found == Found::Mark(mark()), "byte {at}: {found:?}");
            fs::write(anchor.path(), &whole[..at]).expect("written");
            assert!(matches!(anchor.read().expect("reads"), Found::Damaged(_)) || at + 1 == whole.len(), "{at} bytes");
        }
    }

    #[test]
    fn an_anchor_of_another_seal_key_is_damaged() {
        let folder = tempfile::tempdir().expect("folder");
        anchor(folder.path()).write(&mark()).expect("writes");
        assert!(matches!(anchor(folder.path()).read().expect("reads"), Found::Damaged(_)));
    }
}
