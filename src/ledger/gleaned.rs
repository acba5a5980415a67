//! What the rows of a backup say of its audit, picked up while they are read: no store is needed for that.

use std::collections::BTreeMap;

use super::{
    codec::Codec,
    engine::Table,
    journal::{Head, stream_name},
    keys::{self, StreamId},
};
use crate::{
    model::{Digest, TenantNumber, secret::MacKey},
    records,
};

/// Where the streams of a store stand, and the public keys of the broker's own. Memory grows with streams, not events.
#[derive(Debug)]
pub struct Gleaned {
    codec: Codec,
    last: BTreeMap<StreamId, Head>,
    names: BTreeMap<StreamId, String>,
    keys: Vec<(u32, [u8; 32])>,
}

impl Gleaned {
    /// For rows under this row key.
    #[must_use]
    pub fn new(row_key: MacKey) -> Self {
        Self { codec: Codec::new(row_key), last: BTreeMap::new(), names: BTreeMap::new(), keys: Vec::new() }
    }

    /// Looks at a row. Those of one table must come in the order of their keys.
    pub fn take(&mut self, table: Table, key: &[u8], value: &[u8]) {
        if table == Table::Audit {
            self.page(key, value);
        } else if table == Table::Streams {
            let read = self.codec.decode::<records::StreamRecord>(table, key, value);
            if let (Ok(id), Ok(record)) = (StreamId::try_from(key), read) {
                self.names.insert(id, stream_name(&record.tenant, &record.partner));
            }
        } else if table == Table::Keys && key.starts_with(&TenantNumber::BROKER.to_bytes()) {
            let read = self.codec.decode::<records::KeyRecord>(table, key, value);
            self.keys.extend(read.ok().and_then(|row| Some((row.key_use, row.public_key.try_into().ok()?))));
        }
    }

    /// Where each stream ends, by name; one whose last page does not read is not among them.
    #[must_use]
    pub fn heads(&self) -> BTreeMap<String, Head> {
        let named = |(id, head): (&StreamId, &Head)| Some((self.names.get(id)?.clone(), *head));
        self.last.iter().filter_map(named).collect()
    }

    /// Public keys of 32 bytes that the broker itself has for a use.
    #[must_use]
    pub fn keys_for(&self, use_code: u8) -> Vec<[u8; 32]> {
        self.keys.iter().filter(|(of, _)| *of == u32::from(use_code)).map(|(_, key)| *key).collect()
    }

    fn page(&mut self, key: &[u8], value: &[u8]) {
        let Some((id, first)) = keys::parse_audit(key) else { return };
        let page = self.codec.decode::<records::AuditPage>(Table::Audit, key, value);
        match page.ok().and_then(|page| Some((page.events.len() as u64, Digest::from_slice(&page.after)?))) {
            Some((events, hash)) => {
                self.last.insert(id, Head { sequence: first.saturating_add(events).saturating_sub(1), hash });
            }
            None => {
                self.last.remove(&id);
            }
        }
    }
}
