//! A backup of the whole store, made while load goes on.
//!
//! It is streamed to the operator who asks, and not written by the daemon: so an operator cannot make the daemon write
//! where its user may, the daemon needs no second disk, and the copy is off the host from its first byte. What is
//! streamed is sealed, so the way and the place do not matter.

pub mod file;
pub mod proof;
pub mod replay;

use std::sync::Arc;

use prost::Message;
use tokio::sync::{OwnedMutexGuard, mpsc};

use self::file::{FORMAT, Writer};
use super::{Broker, event, refusal::Refusal};
use crate::{
    identity::Caller,
    ledger::{Snapshot, engine::Table},
    mint::seal::SALT_BYTES,
    model::{Timestamp, secret},
    pb,
    policy::Role,
    records::{self, backup_chunk::Item},
};

type Outlet = mpsc::Sender<Result<pb::CreateBackupResponse, Refusal>>;

impl Broker {
    /// Streams a sealed backup of the store as of its own event, which is on disk before the first byte leaves.
    ///
    /// # Errors
    /// When the caller is no admin of everything, another backup is being made, or the store failed.
    pub async fn create_backup(
        self: Arc<Self>,
        caller: &Caller,
        _request: pb::CreateBackupRequest,
    ) -> Result<mpsc::Receiver<Result<pb::CreateBackupResponse, Refusal>>, Refusal> {
        let operator = self.operator(caller)?;
        operator.require(Role::Admin)?;
        operator.require_everywhere()?;
        let turn = Arc::clone(&self.backups).try_lock_owned().map_err(|_| Refusal::Busy { retry_ms: BUSY_MS })?;
        let now = self.now();
        self.ledger.note_act(vec![event::by(caller, operator.actor(), "backup.created", now)], now).await?;
        let snapshot = self.ledger.snapshot()?;
        let (outlet, pieces) = mpsc::channel(PIECES_WAITING);
        tokio::task::spawn_blocking(move || self.write_backup(&snapshot, now, &outlet, turn));
        Ok(pieces)
    }

    fn write_backup(&self, snapshot: &Snapshot, now: Timestamp, outlet: &Outlet, turn: OwnedMutexGuard<()>) {
        let mut salt = [0; SALT_BYTES];
        let written = secret::fill(&mut salt).map_err(Refusal::from).and_then(|()| {
            let mut stream = Stream { writer: Writer::new(self.rings.seal(), &salt), outlet };
            stream.run(snapshot, self.ledger.engine_name(), now)
        });
        // Whoever went away is told nothing.
        if let Err(refusal) = written
            && !outlet.is_closed()
        {
            let _gone = outlet.blocking_send(Err(refusal));
        }
        drop(turn);
    }
}

struct Stream<'a> {
    writer: Writer,
    outlet: &'a Outlet,
}

impl Stream<'_> {
    fn run(&mut self, snapshot: &Snapshot, engine: &str, now: Timestamp) -> Result<(), Refusal> {
        let meta = &snapshot.meta;
        let header = records::BackupHeader {
            format: FORMAT,
            schema: meta.schema,
            incarnation: meta.incarnation,
            revision: meta.revision,
            audit_head: meta.audit_head.clone(),
            created: now.millis(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            engine: engine.to_owned(),
        };
        self.put(Item::Header(header))?;
        let mut rows = vec![0; Table::CODES];
        for table in Table::ALL {
            let count = self.table(snapshot, table)?;
            if let Some(slot) = rows.get_mut(usize::from(table as u8)) {
                *slot = count;
            }
        }
        self.put(Item::End(records::BackupEnd { rows }))
    }

    fn table(&mut self, snapshot: &Snapshot, table: Table) -> Result<u64, Refusal> {
        let (mut after, mut count) = (Vec::new(), 0);
        loop {
            let page = snapshot.page(table, &after, PAGE_ROWS)?;
            let Some((last, _)) = page.last() else { return Ok(count) };
            after.clone_from(last);
            let mut draft = records::BackupRows { table: table.code(), ..Default::default() };
            let mut bytes = 0;
            for (key, value) in page {
                if bytes > 0 && bytes + key.len() + value.len() > CHUNK_BYTES {
                    let full = records::BackupRows { table: table.code(), ..Default::default() };
                    self.put(Item::Rows(std::mem::replace(&mut draft, full)))?;
                    bytes = 0;
                }
                bytes += key.len() + value.len();
                count += 1;
                draft.keys.push(key);
                draft.values.push(value);
            }
            self.put(Item::Rows(draft))?;
        }
    }

    fn put(&mut self, item: Item) -> Result<(), Refusal> {
        let is_last = matches!(item, Item::End(_));
        let chunk = records::BackupChunk { item: Some(item) }.encode_to_vec();
        let bytes = self.writer.put(&chunk, is_last).map_err(Refusal::fault)?;
        let pieces = bytes.len().div_ceil(PIECE_BYTES);
        for (at, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
            let piece = pb::CreateBackupResponse { data: piece.to_vec(), last: is_last && at + 1 == pieces };
            self.outlet.blocking_send(Ok(piece)).map_err(|_| Refusal::Unavailable("the operator went away"))?;
        }
        Ok(())
    }
}

/// Rows read at a time.
const PAGE_ROWS: usize = 1_024;
/// What a chunk holds, unless one row alone is larger.
const CHUNK_BYTES: usize = 128 << 10;
/// Bytes in one message.
const PIECE_BYTES: usize = 64 << 10;
/// Messages that wait for a slow operator.
const PIECES_WAITING: usize = 16;
const BUSY_MS: u32 = 10_000;
