//! Where rows live: the key of each table, in one place.

use super::engine::Table;
use crate::model::{
    GrantName, LeaseId, PersonId, PersonKey, ScopeId, SecretName, Suspension, TaskId, TenantName, TenantNumber,
    Timestamp,
};

/// The one row of [`super::engine::Table::Meta`].
pub const META: &[u8] = b"state";
/// The row of [`super::engine::Table::Meta`] that proves the seal key; written once, not authenticated.
pub const FOUNDING: &[u8] = b"founding";

/// The row of [`super::engine::Table::Meta`] that is there while nothing is issued until an operator confirms the store.
pub const HOLD: &[u8] = b"hold";

/// Whether a row takes authority away, so that its removal outside the broker must show.
#[must_use]
pub fn is_authority(table: Table, key: &[u8]) -> bool {
    matches!(table, Table::Cuts | Table::Bars) || (table == Table::Meta && key == HOLD)
}

/// Identifies one audit stream: 12 bytes of SHA-256 over `tenant/partner`.
pub type StreamId = [u8; 12];

/// First revision and index of the feed, or a log row, in order.
#[must_use]
pub fn revision(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

/// A feed row: revision and position within it.
#[must_use]
pub fn feed(number: u64, index: u16) -> Vec<u8> {
    [&number.to_be_bytes()[..], &index.to_be_bytes()].concat()
}

/// Reads the leading revision of a feed or log key.
#[must_use]
pub fn leading_revision(key: &[u8]) -> Option<u64> {
    key.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
}

/// An expiry page: minute, then the revision that wrote it.
#[must_use]
pub fn expiry(minute: u32, number: u64) -> Vec<u8> {
    [&minute.to_be_bytes()[..], &number.to_be_bytes()].concat()
}

/// Reads the leading minute of an expiry key.
#[must_use]
pub fn leading_minute(key: &[u8]) -> Option<u32> {
    key.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))
}

/// A cut: scope and revision, so that it still cuts when its value is damaged.
#[must_use]
pub fn cut(scope: ScopeId, number: u64) -> Vec<u8> {
    [&scope.as_bytes()[..], &number.to_be_bytes()].concat()
}

/// The inverse of [`cut`].
#[must_use]
pub fn parse_cut(key: &[u8]) -> Option<(ScopeId, u64)> {
    let (scope, number) = key.split_at_checked(ScopeId::BYTES)?;
    Some((ScopeId::from_slice(scope)?, u64::from_be_bytes(number.try_into().ok()?)))
}

/// A bar.
#[must_use]
pub fn bar(scope: ScopeId) -> Vec<u8> {
    scope.as_bytes().to_vec()
}

/// A suspension: scope and reason, so that it still suspends when its value is damaged.
#[must_use]
pub fn suspension(scope: ScopeId, cause: Suspension) -> Vec<u8> {
    [&scope.as_bytes()[..], &[cause.code()]].concat()
}

/// The inverse of [`bar`] and [`suspension`]: the number after the scope, when there is one.
#[must_use]
pub fn parse_bar(key: &[u8]) -> Option<(ScopeId, Option<u8>)> {
    let (scope, cause) = key.split_at_checked(ScopeId::BYTES)?;
    match cause {
        [] => Some((ScopeId::from_slice(scope)?, None)),
        [code] => Some((ScopeId::from_slice(scope)?, Some(*code))),
        _ => None,
    }
}

/// A live count: scope and minute of expiry.
#[must_use]
pub fn count(scope: ScopeId, minute: u32) -> Vec<u8> {
    [&scope.as_bytes()[..], &minute.to_be_bytes()].concat()
}

/// The inverse of [`count`].
#[must_use]
pub fn parse_count(key: &[u8]) -> Option<(ScopeId, u32)> {
    let (scope, minute) = key.split_at_checked(ScopeId::BYTES)?;
    Some((ScopeId::from_slice(scope)?, u32::from_be_bytes(minute.try_into().ok()?)))
}

/// An audit page: stream and the sequence of its first event.
#[must_use]
pub fn audit(stream: &StreamId, first: u64) -> Vec<u8> {
    [&stream[..], &first.to_be_bytes()].concat()
}

/// The inverse of [`audit`].
#[must_use]
pub fn parse_audit(key: &[u8]) -> Option<(StreamId, u64)> {
    let (stream, first) = key.split_at_checked(12)?;
    Some((stream.try_into().ok()?, u64::from_be_bytes(first.try_into().ok()?)))
}

/// A child of a task.
#[must_use]
pub fn child(parent: TaskId, child: TaskId) -> Vec<u8> {
    [&parent.as_bytes()[..], child.as_bytes()].concat()
}

/// A tenant's row, also the prefix of its leases and tasks.
#[must_use]
pub fn tenant(number: TenantNumber) -> Vec<u8> {
    number.to_bytes().to_vec()
}

/// A tenant's number by its name. The leading byte keeps names apart from numbers.
#[must_use]
pub fn tenant_name(name: &TenantName) -> Vec<u8> {
    [&[TENANT_NAMES], name.as_str().as_bytes()].concat()
}

/// What every key of [`tenant_name`] starts with.
pub const TENANT_NAMES: u8 = 0xff;

/// A key of a tenant: tenant, use, key id.
#[must_use]
pub fn key(number: TenantNumber, use_code: u8, key_id: &str) -> Vec<u8> {
    [&number.to_bytes()[..], &[use_code], key_id.as_bytes()].concat()
}

/// Run-time facts about a grant.
#[must_use]
pub fn grant_state(number: TenantNumber, grant: &GrantName) -> Vec<u8> {
    [&number.to_bytes()[..], grant.as_str().as_bytes()].concat()
}

/// When a grant was used last. The leading byte keeps it apart from a tenant's number.
#[must_use]
pub fn grant_use(number: TenantNumber, grant: &GrantName) -> Vec<u8> {
    [&grant_uses(number)[..], grant.as_str().as_bytes()].concat()
}

/// What every key of [`grant_use`] of a tenant starts with.
#[must_use]
pub fn grant_uses(number: TenantNumber) -> Vec<u8> {
    [&[GRANT_USES][..], &number.to_bytes()].concat()
}

/// What every key of [`grant_use`] starts with.
pub const GRANT_USES: u8 = 0xff;

/// A lease's row.
#[must_use]
pub fn lease(id: LeaseId) -> Vec<u8> {
    id.as_bytes().to_vec()
}

/// A task's row.
#[must_use]
pub fn task(id: TaskId) -> Vec<u8> {
    id.as_bytes().to_vec()
}

/// What a row of [`super::engine::Table::Notices`] is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Notice {
    /// A notification that waits.
    Queued = 1,
    /// How a way out stands.
    Outlet = 2,
    /// For which date an owner was reminded.
    Reminded = 3,
}

/// What the row of this key is.
#[must_use]
pub fn notice_kind(key: &[u8]) -> Option<Notice> {
    let kind = key.first()?;
    [Notice::Queued, Notice::Outlet, Notice::Reminded].into_iter().find(|known| *known as u8 == *kind)
}

/// What every key of an outlet's notifications starts with; an outlet's name has no zero byte.
#[must_use]
pub fn notices(outlet: &str) -> Vec<u8> {
    [&[Notice::Queued as u8], outlet.as_bytes(), &[0]].concat()
}

/// Which of an outlet's notifications go first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Urgency {
    /// Alarms.
    First = 1,
    /// All others.
    Then = 2,
}

/// What every key of an outlet's notifications of this urgency starts with.
///
/// Rows of before there were two have a revision here, whose first byte is 0: they are before the first.
#[must_use]
pub fn urgent_notices(outlet: &str, urgency: Urgency) -> Vec<u8> {
    [&notices(outlet)[..], &[urgency as u8]].concat()
}

/// A notification: outlet, urgency, the revision up to which the audit was read for it, and its place among those of then.
#[must_use]
pub fn notice(outlet: &str, urgency: Urgency, number: u64, index: u16) -> Vec<u8> {
    [&urgent_notices(outlet, urgency)[..], &number.to_be_bytes(), &index.to_be_bytes()].concat()
}

/// The outlet that a notification is for.
#[must_use]
pub fn notice_outlet(key: &[u8]) -> Option<&str> {
    let name = key.get(1..)?.split(|byte| *byte == 0).next()?;
    str::from_utf8(name).ok()
}

/// How an outlet stands.
#[must_use]
pub fn outlet(name: &str) -> Vec<u8> {
    [&[Notice::Outlet as u8], name.as_bytes()].concat()
}

/// For which date a grant's owner was reminded.
#[must_use]
pub fn reminded(number: TenantNumber, grant: &GrantName) -> Vec<u8> {
    [&[Notice::Reminded as u8][..], &number.to_bytes(), grant.as_str().as_bytes()].concat()
}

/// An unmanaged credential; an empty tenant stands for none.
#[must_use]
pub fn unmanaged(tenant: &str, name: &str) -> Vec<u8> {
    [tenant.as_bytes(), b"/", name.as_bytes()].concat()
}
/// A person's row.
#[must_use]
pub fn person(id: &PersonId) -> Vec<u8> {
    [&[PEOPLE][..], &id.0].concat()
}

/// A sign-in's row.
#[must_use]
pub fn sign_in(id: &PersonId) -> Vec<u8> {
    [&[SIGN_INS][..], &id.0].concat()
}

/// What a person's row is found by.
#[must_use]
pub fn person_key(id: &PersonId, key: PersonKey) -> Vec<u8> {
    [&person_keys(id)[..], &key.0].concat()
}

/// What every key of [`person_key`] of a person starts with.
#[must_use]
pub fn person_keys(id: &PersonId) -> Vec<u8> {
    [&[PERSON_KEYS][..], &id.0].concat()
}

/// The inverse of [`person_key`].
#[must_use]
pub fn parse_person_key(key: &[u8]) -> Option<(PersonId, PersonKey)> {
    let (id, key) = key.get(1..)?.split_at_checked(PersonId::BYTES)?;
    Some((PersonId::from_slice(id)?, PersonKey::from_slice(key)?))
}

/// What every key of [`person`] starts with.
pub const PEOPLE: u8 = 1;
/// What every key of [`sign_in`] starts with.
pub const SIGN_INS: u8 = 2;
/// What every key of [`person_key`] starts with.
pub const PERSON_KEYS: u8 = 3;

/// A static secret, in both tables of them.
#[must_use]
pub fn secret(number: TenantNumber, name: &SecretName) -> Vec<u8> {
    [&number.to_bytes()[..], name.as_str().as_bytes()].concat()
}

/// The name in a key of [`secret`].
#[must_use]
pub fn parse_secret(key: &[u8]) -> Option<(TenantNumber, SecretName)> {
    let (number, name) = key.split_first_chunk::<4>()?;
    Some((TenantNumber::from_bytes(*number)?, str::from_utf8(name).ok()?.parse().ok()?))
}

/// What every key of [`secret_holder`] of a secret starts with; no name holds a zero byte.
#[must_use]
pub fn secret_holders(number: TenantNumber, name: &SecretName) -> Vec<u8> {
    [&secret(number, name)[..], &[0]].concat()
}

/// What every key of [`secret_holder`] of a version starts with.
#[must_use]
pub fn secret_holders_of(number: TenantNumber, name: &SecretName, version: u32) -> Vec<u8> {
    [&secret_holders(number, name)[..], &version.to_be_bytes()].concat()
}

/// A task that got a version of a secret.
#[must_use]
pub fn secret_holder(name: &SecretName, version: u32, task: TaskId) -> Vec<u8> {
    [&secret_holders_of(task.tenant(), name, version)[..], task.as_bytes()].concat()
}

/// The version and task in a key of [`secret_holder`].
#[must_use]
pub fn parse_secret_holder(key: &[u8]) -> Option<(u32, TaskId)> {
    let (rest, task) = key.split_last_chunk::<{ TaskId::BYTES }>()?;
    let (_, version) = rest.split_last_chunk::<4>()?;
    Some((u32::from_be_bytes(*version), TaskId::from_bytes(task)?))
}

/// A credential that waits to be picked up, or was.
#[must_use]
pub fn pickup(id: LeaseId) -> Vec<u8> {
    [&[PICKUPS][..], id.as_bytes()].concat()
}

/// One that waits, by the end of its time.
#[must_use]
pub fn pickup_due(until: Timestamp, id: LeaseId) -> Vec<u8> {
    [&[PICKUPS_DUE][..], &until.millis().to_be_bytes(), id.as_bytes()].concat()
}

/// The inverse of [`pickup_due`].
#[must_use]
pub fn parse_pickup_due(key: &[u8]) -> Option<(Timestamp, LeaseId)> {
    let (until, id) = key.strip_prefix(&[PICKUPS_DUE])?.split_first_chunk::<8>()?;
    Some((Timestamp::from_millis(u64::from_be_bytes(*until)), LeaseId::from_bytes(id)?))
}

/// What every key of [`pickup`] starts with.
pub const PICKUPS: u8 = 1;
/// What every key of [`pickup_due`] starts with.
pub const PICKUPS_DUE: u8 = 2;
