//! Audit pages: the events of one stream in one commit, chained by hash.

use std::{
    collections::HashMap,
    ops::Bound,
    sync::{Mutex, PoisonError},
};

use prost::Message;

use super::{
    engine::{Order, Table, prefix_end},
    keys::{self, StreamId},
    refused::Refused,
    shared::Shared,
};
use crate::{
    model::{Digest, Topic},
    pb, records,
};

/// Where a stream stands.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Head {
    /// Sequence of its last event; 0 for none.
    pub sequence: u64,
    /// Hash of its last event; zero for none.
    pub hash: Digest,
}

/// The id of the stream of a tenant and partner; both may be empty.
#[must_use]
pub fn stream_id(tenant: &str, partner: &str) -> StreamId {
    let digest = Digest::of_parts(&[tenant.as_bytes(), b"/", partner.as_bytes()]);
    let mut id = [0; 12];
    for (to, from) in id.iter_mut().zip(digest.0) {
        *to = from;
    }
    id
}

/// The name of a stream: `tenant/partner`, with `-` for none.
#[must_use]
pub fn stream_name(tenant: &str, partner: &str) -> String {
    let or_dash = |name: &str| if name.is_empty() { "-".to_owned() } else { name.to_owned() };
    format!("{}/{}", or_dash(tenant), or_dash(partner))
}

/// The hash over all audit once a commit has left a stream at `head`; within a commit, streams go by their ids.
#[must_use]
pub fn audit_hash(before: Digest, stream: &StreamId, head: Head) -> Digest {
    Digest::of_parts(&[&before.0, stream, &head.sequence.to_be_bytes(), &head.hash.0])
}

/// A page in the making.
#[derive(Debug)]
pub struct PageDraft {
    /// Sequence of its first event.
    pub first: u64,
    before: Digest,
    after: Digest,
    events: Vec<Vec<u8>>,
    /// Whether somebody may have to be told of one of them.
    pub notable: bool,
}

impl PageDraft {
    /// Continues a stream.
    #[must_use]
    pub fn after(head: Head) -> Self {
        Self { first: head.sequence + 1, before: head.hash, after: head.hash, events: Vec::new(), notable: false }
    }

    /// Adds one event.
    pub fn append(&mut self, event: &pb::Event, stream: String, revision: pb::Revision) {
        self.notable |= Topic::may_be_of(&event.kind);
        let mut event = event.clone();
        event.stream = stream;
        event.sequence = self.first + self.events.len() as u64;
        event.revision = Some(revision);
        (event.hash, event.previous_hash) = (Vec::new(), Vec::new());
        let bytes = event.encode_to_vec();
        self.after = crate::audit::chain::hash(self.after, &bytes);
        self.events.push(bytes);
    }

    /// Where the stream stands after the page.
    #[must_use]
    pub fn head(&self) -> Head {
        Head { sequence: self.first + self.events.len() as u64 - 1, hash: self.after }
    }

    /// The page as a record.
    #[must_use]
    pub fn record(self, revision: u64) -> records::AuditPage {
        records::AuditPage {
            events: self.events,
            before: self.before.0.to_vec(),
            after: self.after.0.to_vec(),
            revision,
        }
    }
}

/// The heads of streams seen lately. Only the committer changes them.
#[derive(Debug, Default)]
pub struct Heads {
    known: Mutex<HashMap<StreamId, Head>>,
}

impl Heads {
    /// Where a stream stands, from memory or from its last page.
    pub(super) fn load(&self, shared: &Shared, id: StreamId) -> Result<Head, Refused> {
        if let Some(&head) = self.lock().get(&id) {
            return Ok(head);
        }
        let head = read_head(shared, id)?;
        let mut known = self.lock();
        if known.len() >= HEADS_MOST {
            known.clear();
        }
        known.insert(id, head);
        Ok(head)
    }

    pub(super) fn set(&self, heads: &[(StreamId, Head)]) {
        self.lock().extend(heads.iter().copied());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<StreamId, Head>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a stream stands, from its last page.
pub(super) fn read_head(shared: &Shared, id: StreamId) -> Result<Head, Refused> {
    let end = prefix_end(&id);
    let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let rows = shared
        .engine
        .scan(Table::Audit, (Bound::Included(&id), upper), Order::Descending, 1)
        .map_err(|e| shared.fault(&e))?;
    let Some((key, value)) = rows.into_iter().next() else { return Ok(Head::default()) };
    let page: Result<records::AuditPage, _> = shared.codec.decode(Table::Audit, &key, &value);
    let first = keys::parse_audit(&key).map_or(0, |(_, first)| first);
    match page {
        Ok(page) => Ok(Head {
            sequence: first + (page.events.len() as u64).saturating_sub(1),
            hash: Digest::from_slice(&page.after).unwrap_or_default(),
        }),
        Err(e) => {
            // The stream goes on after a gap that verification will show: no audit, no issue, but one damaged page
            // must not silence a partner for ever.
            shared.aside.note(Table::Audit, &key, &e);
            Ok(Head { sequence: first + PAGE_GAP, hash: Digest::of(&value) })
        }
    }
}

/// Streams whose heads are kept in memory at most; more are read anew.
const HEADS_MOST: usize = 200_000;
/// How far a stream jumps past a damaged last page: more events than one page can hold.
const PAGE_GAP: u64 = 1 << 20;
