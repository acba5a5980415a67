//! The form of a backup file.
//!
//! ```text
//! "mayfly backup 1\n" (16 bytes) | salt (32 bytes) | chunk | chunk | ... | last chunk
//!
//! chunk = length of what follows (4 bytes, big endian; the top bit marks the last) | AES-256-GCM of a BackupChunk
//! ```
//!
//! Each chunk is sealed with the 48 bytes of the beginning, its number and whether it is the last as associated data.

use std::io::{self, Read};

use prost::Message;

use crate::{
    ledger::engine::Table,
    mint::seal::{Opener, SALT_BYTES, Seal, Sealer, StreamError},
    model::{Digest, Timestamp},
    records::{BackupChunk, BackupHeader, backup_chunk::Item},
};

/// Why a file is no whole backup of this store's seal key.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It cannot be read.
    #[error("the backup cannot be read")]
    Read(#[source] io::Error),
    /// It begins otherwise.
    #[error("this is no mayfly backup, or one of another format")]
    Magic,
    /// It ends too early.
    #[error("the backup is cut off")]
    CutOff,
    /// A chunk was changed, or the key is another.
    #[error(transparent)]
    Sealed(#[from] StreamError),
    /// A chunk is longer than one row can be.
    #[error("a chunk of the backup is too long")]
    TooLong,
    /// Sealed rightly, and not as any version writes it.
    #[error("the backup does not read: {0}")]
    Form(&'static str),
    /// Made from a newer store.
    #[error("the backup has schema {found}, this version knows up to {known}; use the version that made it")]
    Newer {
        /// What it says.
        found: u32,
        /// What we know.
        known: u32,
    },
}

/// What a backup holds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Contents {
    /// Schema of the store.
    pub schema: u32,
    /// Incarnation and number.
    pub revision: (u64, u64),
    /// Hash over all audit.
    pub audit_head: Digest,
    /// When it was made.
    pub created: Timestamp,
    /// By which version.
    pub version: String,
    /// From which engine.
    pub engine: String,
    /// Rows by table.
    pub rows: Vec<(Table, u64)>,
}

/// Turns chunks into the bytes of a file.
#[derive(Debug)]
pub struct Writer {
    preamble: Option<Vec<u8>>,
    sealer: Sealer,
}

impl Writer {
    /// Under a key of its own.
    #[must_use]
    pub fn new(seal: &Seal, salt: &[u8; SALT_BYTES]) -> Self {
        let preamble = [&MAGIC[..], salt].concat();
        Self { sealer: seal.sealer(salt, &preamble), preamble: Some(preamble) }
    }

    /// The next bytes of the file.
    ///
    /// # Errors
    /// When a chunk is too long, or follows the last.
    pub fn put(&mut self, chunk: &[u8], is_last: bool) -> Result<Vec<u8>, BackupError> {
        let sealed = self.sealer.seal(chunk, is_last)?;
        let length = u32::try_from(sealed.len()).ok().filter(|length| *length <= CHUNK_MOST);
        let length = length.ok_or(BackupError::TooLong)? | if is_last { LAST } else { 0 };
        let mut bytes = self.preamble.take().unwrap_or_default();
        bytes.extend(length.to_be_bytes());
        bytes.extend(sealed);
        Ok(bytes)
    }
}

/// Reads a whole backup; `row` hears every row, in table and key order.
///
/// What `row` has heard counts only when this succeeds: the end may show that the file is cut off.
///
/// # Errors
/// See [`BackupError`]; and what `row` returns.
pub fn read<E: From<BackupError>>(
    seal: &Seal,
    file: impl Read,
    known_schema: u32,
    mut row: impl FnMut(Table, Vec<u8>, Vec<u8>) -> Result<(), E>,
) -> Result<Contents, E> {
    let mut chunks = Chunks::begin(seal, file)?;
    let Some(Item::Header(header)) = chunks.next()? else { return Err(BackupError::Form("it has no header").into()) };
    let mut contents = contents(&header, known_schema)?;
    let mut counts = vec![0_u64; Table::CODES];
    loop {
        match chunks.next()? {
            Some(Item::Rows(rows)) => {
                let table = Table::from_code(rows.table).ok_or(BackupError::Form("it has an unknown table"))?;
                if rows.keys.len() != rows.values.len() {
                    return Err(BackupError::Form("a row has no value").into());
                }
                let count = usize::try_from(rows.table).ok().and_then(|at| counts.get_mut(at));
                *count.ok_or(BackupError::Form("it has an unknown table"))? += rows.keys.len() as u64;
                rows.keys.into_iter().zip(rows.values).try_for_each(|(key, value)| row(table, key, value))?;
            }
            Some(Item::End(end)) => {
                chunks.end()?;
                // A backup of before knows fewer tables.
                let known = end.rows.iter().copied().chain(std::iter::repeat(0)).take(counts.len().max(end.rows.len()));
                if !known.eq(counts.iter().copied()) {
                    return Err(BackupError::Form("rows are missing").into());
                }
                let count = |table: Table| counts.get(usize::from(table as u8)).copied().unwrap_or_default();
                contents.rows = Table::ALL.into_iter().map(|table| (table, count(table))).collect();
                return Ok(contents);
            }
            Some(Item::Header(_)) | None => return Err(BackupError::Form("a chunk is in the wrong place").into()),
        }
    }
}

fn contents(header: &BackupHeader, known: u32) -> Result<Contents, BackupError> {
    if header.format != FORMAT {
        return Err(BackupError::Magic);
    }
    if header.schema > known {
        return Err(BackupError::Newer { found: header.schema, known });
    }
    Ok(Contents {
        schema: header.schema,
        revision: (header.incarnation, header.revision),
        audit_head: Digest::from_slice(&header.audit_head).unwrap_or_default(),
        created: Timestamp::from_millis(header.created),
        version: header.version.clone(),
        engine: header.engine.clone(),
        rows: Vec::new(),
    })
}

struct Chunks<R> {
    file: R,
    opener: Opener,
    is_over: bool,
}

impl<R: Read> Chunks<R> {
    fn begin(seal: &Seal, mut file: R) -> Result<Self, BackupError> {
        let mut preamble = [0; MAGIC.len() + SALT_BYTES];
        exactly(&mut file, &mut preamble)?;
        let (magic, salt) = preamble.split_at(MAGIC.len());
        let salt = salt.first_chunk().filter(|_| magic == MAGIC).ok_or(BackupError::Magic)?;
        Ok(Self { opener: seal.opener(salt, &preamble), file, is_over: false })
    }

    fn next(&mut self) -> Result<Option<Item>, BackupError> {
        let mut length = [0; 4];
        exactly(&mut self.file, &mut length)?;
        let length = u32::from_be_bytes(length);
        self.is_over = length & LAST != 0;
        let length = length & !LAST;
        if length > CHUNK_MOST {
            return Err(BackupError::TooLong);
        }
        // Grows with what is there, not with what the length claims.
        let mut sealed = Vec::new();
        let got = (&mut self.file).take(length.into()).read_to_end(&mut sealed).map_err(BackupError::Read)?;
        if u32::try_from(got) != Ok(length) {
            return Err(BackupError::CutOff);
        }
        let chunk = self.opener.open(sealed, self.is_over)?;
        let chunk = BackupChunk::decode(chunk.expose()).map_err(|_| BackupError::Form("a chunk is no record"))?;
        Ok(chunk.item)
    }

    /// Nothing may follow.
    fn end(&mut self) -> Result<(), BackupError> {
        let mut rest = [0; 1];
        let more = self.file.read(&mut rest).map_err(BackupError::Read)?;
        if !self.is_over || more > 0 { Err(BackupError::Form("its end is not at its end")) } else { Ok(()) }
    }
}

fn exactly(file: &mut impl Read, bytes: &mut [u8]) -> Result<(), BackupError> {
    file.read_exact(bytes).map_err(|error| {
        if error.kind() == io::ErrorKind::UnexpectedEof { BackupError::CutOff } else { BackupError::Read(error) }
    })
}

/// The format that this version writes and reads.
pub const FORMAT: u32 = 1;
const MAGIC: [u8; 16] = *b"mayfly backup 1\n";
const LAST: u32 = 1 << 31;
/// No row is longer: the engines take 128 MiB in one commit.
const CHUNK_MOST: u32 = 160 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        mint::seal::SealKey,
        records::{BackupEnd, BackupRows},
    };

    fn backup(seal: &Seal) -> Vec<u8> {
        let header = BackupHeader { format: FORMAT, schema: 1, revision: 7, ..Default::default() };
        let rows = BackupRows { table: 1, keys: vec![b"k".to_vec()], values: vec![b"v".to_vec()] };
        let mut counts = vec![0; Table::CODES];
        counts[1] = 1;
        let mut writer = Writer::new(seal, &[3; SALT_BYTES]);
        let items = [Item::Header(header), Item::Rows(rows), Item::End(BackupEnd { rows: counts })];
        let mut put = |item: Item| {
            let is_last = matches!(item, Item::End(_));
            writer.put(&BackupChunk { item: Some(item) }.encode_to_vec(), is_last).expect("seals")
        };
        items.into_iter().flat_map(&mut put).collect()
    }

    fn reads(seal: &Seal, bytes: &[u8], schema: u32) -> Result<Contents, BackupError> {
        read(seal, bytes, schema, |_, _, _| Ok(()))
    }

    #[test]
    fn what_was_written_is_read() {
        let seal = Seal::new(&SealKey::random().expect("entropy"));
        let mut seen = Vec::new();
        let contents = read(&seal, backup(&seal).as_slice(), 1, |table, key, value| {
            seen.push((table, key, value));
            Ok::<(), BackupError>(())
        });
        assert_eq!(contents.expect("reads").revision, (0, 7));
        assert_eq!(seen, [(Table::Leases, b"k".to_vec(), b"v".to_vec())]);
        assert!(matches!(reads(&seal, &backup(&seal), 0), Err(BackupError::Newer { found: 1, known: 0 })));
    }

    #[test]
    fn a_backup_with_any_changed_bit_is_refused() {
        let seal = Seal::new(&SealKey::random().expect("entropy"));
        let whole = backup(&seal);
        for bit in 0..whole.len() * 8 {
            let mut changed = whole.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(reads(&seal, &changed, 1).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_backup_that_is_cut_off_goes_on_or_has_another_key_is_refused() {
        let seal = Seal::new(&SealKey::random().expect("entropy"));
        let whole = backup(&seal);
        for length in 0..whole.len() {
            assert!(reads(&seal, &whole[..length], 1).is_err(), "{length} bytes");
        }
        assert!(reads(&seal, &[whole.as_slice(), b"x"].concat(), 1).is_err());
        assert!(reads(&Seal::new(&SealKey::random().expect("entropy")), &whole, 1).is_err());
    }
}
