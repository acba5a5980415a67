//! The anchor as a small file of two slots with a code over each, written in turn.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{Anchor, Found, Mark};
use crate::model::{
    Digest,
    id::{hex, unhex},
    secret::MacKey,
};

/// A file of two slots of 4,096 bytes. Each holds seven lines, a code (HMAC-SHA-256, 16 bytes, under a key derived from
/// the seal key) last among them, and then nothing but line ends.
///
/// ```text
/// mayfly-anchor 2
/// write 17
/// incarnation 9f3c0a55d1e2b847
/// revision 48213
/// audit-head 5f0c...
/// closed no
/// code 0a1b...
/// ```
///
/// A write goes into the slot that does not hold the newest mark: it costs one flush, and one that is cut off leaves the
/// newest mark whole.
#[derive(Debug)]
pub struct FileAnchor {
    path: PathBuf,
    key: MacKey,
}

/// A mark, and how many were written before it.
type Written = (u64, Mark);

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

    fn encode(&self, write: u64, mark: &Mark) -> Vec<u8> {
        let head = hex(&mark.audit_head.0);
        let closed = if mark.closed { "yes" } else { "no" };
        let text = format!(
            "{TITLE}\nwrite {write}\nincarnation {:016x}\nrevision {}\naudit-head {head}\nclosed {closed}\n",
            mark.incarnation, mark.number
        );
        let code = hex(&self.key.tag(&[text.as_bytes()]));
        let mut slot = format!("{text}code {code}\n").into_bytes();
        slot.resize(SLOT_BYTES, b'\n');
        slot
    }

    fn decode(&self, slot: &[u8]) -> Result<Written, &'static str> {
        let text = std::str::from_utf8(slot).map_err(|_| "it is no text")?;
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
        let fields = (field("write"), field("incarnation"), field("revision"), field("audit-head"), field("closed"));
        let (Some(write), Some(incarnation), Some(number), Some(head), Some(closed)) = fields else {
            return Err("a line is missing");
        };
        let mark = Mark {
            incarnation: u64::from_str_radix(&incarnation, 16).map_err(|_| "its incarnation is no number")?,
            number: number.parse().map_err(|_| "its revision is no number")?,
            audit_head: unhex(&head).ok().and_then(|head| Digest::from_slice(&head)).ok_or("its audit head is none")?,
            closed: closed == "yes",
        };
        Ok((write.parse().map_err(|_| "its write is no number")?, mark))
    }

    /// The newest mark, or why there is none; `None` without a file.
    fn newest(&self) -> io::Result<Option<Result<Written, &'static str>>> {
        let mut whole = Vec::new();
        match File::open(&self.path).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut whole)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let slots: Vec<_> = whole.chunks(SLOT_BYTES).map(|slot| self.decode(slot)).collect();
        let newest = slots.iter().flatten().max_by_key(|(write, _)| *write).copied();
        let why = slots.first().copied().and_then(Result::err).unwrap_or("it is empty");
        Ok(Some(newest.ok_or(why)))
    }

    /// Writes into the slot that `write` falls to; what lies in the other stays.
    fn overwrite(&self, write: u64, mark: &Mark) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(&self.path)?;
        file.write_all_at(&self.encode(write, mark), (write % SLOTS) * SLOT_BYTES_WIDE)?;
        file.sync_data()
    }

    /// Puts a whole new file in the place of whatever is there.
    fn replace(&self, mark: &Mark) -> io::Result<()> {
        let mut draft = self.path.clone().into_os_string();
        draft.push(".new");
        let draft = PathBuf::from(draft);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&self.encode(0, mark))?;
        file.write_all(&[b'\n'; SLOT_BYTES])?;
        file.sync_all()?;
        fs::rename(&draft, &self.path)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

// === impl Anchor ===

impl Anchor for FileAnchor {
    fn read(&self) -> io::Result<Found> {
        Ok(match self.newest()? {
            None => Found::Absent,
            Some(Ok((_, mark))) => Found::Mark(mark),
            Some(Err(why)) => Found::Damaged(why),
        })
    }

    fn write(&self, mark: &Mark) -> io::Result<()> {
        match self.newest()? {
            Some(Ok((write, _))) => self.overwrite(write.wrapping_add(1), mark),
            Some(Err(_)) | None => self.replace(mark),
        }
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

const TITLE: &str = "mayfly-anchor 2";
/// A block of most file systems: a write of one slot does not touch the other.
const SLOT_BYTES: usize = 4_096;
const SLOT_BYTES_WIDE: u64 = 4_096;
const SLOTS: u64 = 2;
/// What an anchor has; more is not looked at.
const MOST_BYTES: u64 = SLOTS * SLOT_BYTES_WIDE;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;

    fn anchor(folder: &Path) -> FileAnchor {
        FileAnchor::new(folder.join("anchor"), MacKey::new(&Secret::random().expect("entropy")))
    }

    fn mark(number: u64) -> Mark {
        Mark { incarnation: 0xf00d, number, audit_head: Digest::of(b"audit"), closed: number == 42 }
    }

    #[test]
    fn what_was_written_is_read_and_the_newest_counts() {
        let folder = tempfile::tempdir().expect("folder");
        let anchor = anchor(folder.path());
        assert_eq!(anchor.read().expect("reads"), Found::Absent);
        // Also a lower revision: after a restore the newest is not the highest.
        for number in [42, 43, 44, 7, 8] {
            anchor.write(&mark(number)).expect("writes");
            assert_eq!(anchor.read().expect("reads"), Found::Mark(mark(number)));
        }
        assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 1, "no draft is left");
        assert_eq!(fs::metadata(anchor.path()).expect("file").len(), MOST_BYTES, "it does not grow");
    }

    #[test]
    fn a_write_that_is_cut_off_anywhere_leaves_the_mark_before_it() {
        let folder = tempfile::tempdir().expect("folder");
        let anchor = anchor(folder.path());
        anchor.write(&mark(1)).expect("writes");
        anchor.write(&mark(2)).expect("writes");
        let before = fs::read(anchor.path()).expect("file");
        anchor.write(&mark(3)).expect("writes");
        let after = fs::read(anchor.path()).expect("file");
        let last = (0..after.len()).rfind(|&at| before[at] != after[at]).expect("something was written");
        for cut in 0..=last {
            let torn = [&after[..cut], &before[cut..]].concat();
            fs::write(anchor.path(), &torn).expect("written");
            assert_eq!(anchor.read().expect("reads"), Found::Mark(mark(2)), "{cut} bytes");
        }
        anchor.write(&mark(4)).expect("writes");
        assert_eq!(anchor.read().expect("reads"), Found::Mark(mark(4)), "the next write mends it");
    }

    #[test]
    fn an_anchor_with_any_changed_byte_or_length_is_damaged() {
        let folder = tempfile::tempdir().expect("folder");
        let anchor = anchor(folder.path());
        anchor.write(&mark(42)).expect("writes");
        let whole = fs::read(anchor.path()).expect("file");
        let written = whole.iter().rposition(|&byte| byte != b'\n').expect("text");
        for at in 0..=written {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(anchor.path(), &changed).expect("written");
            assert!(matches!(anchor.read().expect("reads"), Found::Damaged(_)), "byte {at}");
            fs::write(anchor.path(), &whole[..at]).expect("written");
            assert!(matches!(anchor.read().expect("reads"), Found::Damaged(_)), "{at} bytes");
        }
    }

    #[test]
    fn an_anchor_of_another_version_is_not_read_as_this_one() {
        let folder = tempfile::tempdir().expect("folder");
        let anchor = anchor(folder.path());
        for (title, found) in [
            (TITLE, Found::Mark(Mark { closed: false, ..mark(7) })),
            ("mayfly-anchor 3", Found::Damaged("it has another version")),
        ] {
            let head = hex(&Digest::of(b"audit").0);
            let text = format!("{title}\nwrite 1\nincarnation f00d\nrevision 7\naudit-head {head}\nclosed no\n");
            let code = hex(&anchor.key.tag(&[text.as_bytes()]));
            fs::write(anchor.path(), format!("{text}code {code}\n")).expect("written");
            assert_eq!(anchor.read().expect("reads"), found);
        }
    }

    #[test]
    fn an_anchor_of_another_seal_key_is_damaged() {
        let folder = tempfile::tempdir().expect("folder");
        anchor(folder.path()).write(&mark(1)).expect("writes");
        assert!(matches!(anchor(folder.path()).read().expect("reads"), Found::Damaged(_)));
    }
}
