//! The ordered key-value engine below the ledger.
//!
//! Only what an embedded store *and* a clustered one can do is asked for. Key layout and codecs live above, once.

mod batch;
pub mod faulty;
pub mod fjall;
pub mod memory;
mod pins;
#[cfg(feature = "sled")]
pub mod sled;
mod slot;
#[cfg(test)]
mod tests;

use std::ops::Bound;

/// One kind of row. The discriminant is stable: an engine may use it as a key prefix.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Table {
    /// The ledger's own state: schema, revision, time mark.
    Meta = 0,
    /// Leases by id. Hot.
    Leases = 1,
    /// Tasks by id. Hot.
    Tasks = 2,
    /// Child tasks by parent.
    Children = 3,
    /// What ends when, by minute.
    Expiry = 4,
    /// Cuts by scope and revision.
    Cuts = 5,
    /// Bars by scope.
    Bars = 6,
    /// Idempotency keys.
    Retries = 7,
    /// Live counts by scope and expiry minute.
    Counts = 8,
    /// Audit pages by stream and sequence. Hot.
    Audit = 9,
    /// What each commit wrote to the audit, by revision.
    Log = 10,
    /// Audit streams.
    Streams = 11,
    /// Revocation feed, by revision.
    Feed = 12,
    /// Trust map, by tenant.
    Trust = 13,
    /// Sealed keys.
    Keys = 14,
    /// Run-time facts about grants.
    GrantStates = 15,
    /// Tasks that a holder keeps alive.
    Held = 16,
    /// Audit checkpoints, by number.
    Checkpoints = 17,
    /// Positions that audit sinks have acknowledged.
    Sinks = 18,
    /// Identity tokens that were used.
    Spent = 19,
    /// Notifications that wait, how each way out stands, and reminders that were told.
    Notices = 24,
    /// Credentials that others issued and nobody here manages.
    Unmanaged = 25,
    /// People that a company's directory told of, and their sign-ins.
    People = 28,
    /// Leave to use grants, asked for and given.
    Approvals = 20,
    /// Static secrets by tenant and name, without their values.
    Secrets = 29,
    /// The newest value of each, sealed.
    SecretValues = 30,
    /// Tasks that got one, by version.
    SecretHolders = 31,
    /// Credentials that wait to be picked up, or were.
    Pickups = 32,
    /// Asks that suspensions be lifted.
    Appeals = 33,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 29] = [
        Self::Meta,
        Self::Leases,
        Self::Tasks,
        Self::Children,
        Self::Expiry,
        Self::Cuts,
        Self::Bars,
        Self::Retries,
        Self::Counts,
        Self::Audit,
        Self::Log,
        Self::Streams,
        Self::Feed,
        Self::Trust,
        Self::Keys,
        Self::GrantStates,
        Self::Held,
        Self::Checkpoints,
        Self::Sinks,
        Self::Spent,
        Self::Notices,
        Self::Unmanaged,
        Self::People,
        Self::Approvals,
        Self::Secrets,
        Self::SecretValues,
        Self::SecretHolders,
        Self::Pickups,
        Self::Appeals,
    ];

    /// More than the greatest [`Self::code`]: numbers in between may belong to nothing.
    pub const CODES: usize = 34;

    /// The number in backups: the discriminant.
    #[must_use]
    pub fn code(self) -> u32 {
        u32::from(self as u8)
    }

    /// The inverse of [`Self::code`].
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.code() == code)
    }

    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Leases => "leases",
            Self::Tasks => "tasks",
            Self::Children => "children",
            Self::Expiry => "expiry",
            Self::Cuts => "cuts",
            Self::Bars => "bars",
            Self::Retries => "retries",
            Self::Counts => "counts",
            Self::Audit => "audit",
            Self::Log => "log",
            Self::Streams => "streams",
            Self::Feed => "feed",
            Self::Trust => "trust",
            Self::Keys => "keys",
            Self::GrantStates => "grant_states",
            Self::Held => "held",
            Self::Checkpoints => "checkpoints",
            Self::Sinks => "sinks",
            Self::Spent => "spent",
            Self::Notices => "notices",
            Self::Unmanaged => "unmanaged",
            Self::People => "people",
            Self::Approvals => "approvals",
            Self::Secrets => "secrets",
            Self::SecretValues => "secret_values",
            Self::SecretHolders => "secret_holders",
            Self::Pickups => "pickups",
            Self::Appeals => "appeals",
        }
    }
}

/// Names a state that is kept readable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pin(u64);

/// A key with its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// The direction of a scan.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Order {
    /// From the least key up.
    Ascending,
    /// From the greatest key down.
    Descending,
}

/// The keys of a scan.
pub type Range<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// One change to one row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Op {
    /// Writes a row, replacing what was there.
    Put(Table, Vec<u8>, Vec<u8>),
    /// Removes a row; absent is fine.
    Delete(Table, Vec<u8>),
}

/// What must be true of the store for a commit to happen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Compare {
    /// The row's table.
    pub table: Table,
    /// The row's key.
    pub key: Vec<u8>,
    /// Its value; `None` for absent.
    pub expected: Option<Vec<u8>>,
}

/// Several changes that happen together or not at all. Later operations on a row win over earlier ones.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Conditions; all must hold.
    pub compares: Vec<Compare>,
    /// Changes, in order.
    pub ops: Vec<Op>,
}

/// How a commit ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Committed {
    /// Everything is on disk and visible.
    Applied,
    /// A condition did not hold; nothing happened.
    Conflict,
}

/// What a commit may hold at most.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Operations in one batch.
    pub ops: usize,
    /// Bytes of keys and values in one batch.
    pub bytes: usize,
}

/// How full the engine is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Bytes written but not yet in their place: a sign to slow down.
    pub buffered_bytes: u64,
}

/// Why the engine could not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Another process has the store open.
    #[error("the store is in use by another process")]
    Locked,
    /// There is no room left.
    #[error("no space is left for the store")]
    Full(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The outcome of a commit is not known: it may or may not be on disk. Re-read before going on.
    #[error("the outcome of a commit is unknown")]
    Unknown(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store's files cannot be read as they are.
    #[error("the store is damaged: {explanation}")]
    Damaged {
        /// What and where, and what to do.
        explanation: String,
        /// What the engine said.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// Anything else that kept it from reading or opening.
    #[error("the store failed")]
    Io(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// An ordered key-value store with atomic, durable commits.
///
/// One process has it open at a time. Only one thread commits; any thread reads.
pub trait Engine: Send + Sync + std::fmt::Debug {
    /// The name in config and reports.
    fn name(&self) -> &'static str;

    /// One row, as of the last applied commit.
    ///
    /// # Errors
    /// When the row cannot be read.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError>;

    /// Up to `limit` rows of one snapshot within `range`.
    ///
    /// # Errors
    /// When rows cannot be read.
    fn scan(&self, table: Table, range: Range<'_>, order: Order, limit: usize) -> Result<Vec<Row>, EngineError>;

    /// Applies a batch atomically. On return of [`Committed::Applied`] it survives a crash of process and machine.
    ///
    /// # Errors
    /// [`EngineError::Full`] when nothing was written for want of room; [`EngineError::Unknown`] when it may have been.
    fn commit(&self, batch: &Batch) -> Result<Committed, EngineError>;

    /// Keeps the state as of the last applied commit readable while commits go on, until [`Engine::unpin`].
    ///
    /// # Errors
    /// When the engine keeps no older state.
    fn pin(&self) -> Result<Pin, EngineError> {
        Err(EngineError::Io(std::io::Error::from(std::io::ErrorKind::Unsupported).into()))
    }

    /// As an ascending [`Engine::scan`], of a pinned state.
    ///
    /// # Errors
    /// When rows cannot be read, or the state is kept no more: the store was reopened, or too much has changed.
    fn scan_pinned(&self, _pin: Pin, _: Table, _: Range<'_>, _limit: usize) -> Result<Vec<Row>, EngineError> {
        Err(pins::lost())
    }

    /// Lets a pinned state go.
    fn unpin(&self, _pin: Pin) {}

    /// What one commit may hold.
    fn limits(&self) -> Limits;

    /// How full it is.
    fn usage(&self) -> Usage;

    /// Tries to bring a failed store back without a restart, once there is room or the disk works again. What was
    /// durable stays; what was unknown is decided.
    ///
    /// # Errors
    /// When it still cannot be used.
    fn recover(&self) -> Result<(), EngineError>;
}

/// The range of all keys that start with `prefix`; the second value is the owned upper bound to borrow from.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}
