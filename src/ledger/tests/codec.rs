//! Rows of leases, tasks and approvals: what is written is read, and what no version writes is not taken.

use prost::Message;

use super::{
    approve::asked,
    harness::{Bed, Kind, row_key},
};
use crate::{
    ledger::{
        codec::{Codec, Unreadable, scope_from, scope_name},
        engine::Table,
    },
    model::{
        Approval, ApprovalId, ApprovalVote, ClientKey, CredentialKind, Delegator, Digest, EndReason, Intent, Lease,
        LeaseId, OpenedWith, Pace, Ruling, Scope, ScopeId, SecretVersion, Task, TaskId, TaskLimits, TenantNumber,
        Voter,
        approval::Closed,
        task::{HeldSecret, LiveBucket},
    },
    records,
};

fn lease_id() -> LeaseId {
    LeaseId::fresh(task_id()).unwrap()
}

fn task_id() -> TaskId {
    TaskId::fresh(TenantNumber::new(1).unwrap()).unwrap()
}

fn secret() -> SecretVersion {
    SecretVersion { name: "stripe".parse().unwrap(), number: 3 }
}

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// A task of which everything is told.
fn full_task(bed: &Bed) -> Task {
    let parameters = [("ticket".to_owned(), "INC-1".to_owned())].into();
    let opened_with =
        OpenedWith { issuer: "github".parse().unwrap(), subject: "repo:x".to_owned(), token: digest("token") };
    let limits = TaskLimits {
        audiences: vec!["https://a".to_owned()],
        actions: vec!["read".to_owned()],
        kinds: vec![CredentialKind::Jwt, CredentialKind::Secret],
        ttl_max: 9,
    };
    let pace = Pace { began: bed.now, in_minute: 2, total: 3, resources: vec![(4, bed.now), (5, bed.now)] };
    Task {
        parent: Some(task_id()),
        ended: Some((EndReason::Abandoned, bed.now)),
        held: true,
        leases_issued: 7,
        live: vec![LiveBucket { grant: "read".parse().unwrap(), minute: 8, count: 9 }],
        proofs: vec![ScopeId::signing_key("a"), ScopeId::signing_key("b")],
        parent_lease: Some(lease_id()),
        client_key: Some(ClientKey { key: digest("key"), until: bed.now, exclusive: true }),
        opened_with: Some(Box::new(opened_with)),
        job_url: Some("https://ci.example/1".into()),
        intent: Intent::new("release", parameters).unwrap().map(Box::new),
        approvals: vec![ApprovalId::fresh(TenantNumber::new(1).unwrap()).unwrap()],
        pace: Some(Box::new(pace)),
        limits: Some(Box::new(limits)),
        secrets: vec![HeldSecret { version: secret(), lease: lease_id(), times: 2 }],
        secrets_overflow: true,
        ..bed.new_task()
    }
}

/// A lease of which everything is told.
fn full_lease(bed: &Bed) -> Lease {
    Lease {
        dns_names: vec!["a.example".to_owned()],
        bound: Some(digest("bound")),
        spki: Some(digest("spki")),
        parent: Some(lease_id()),
        proofs: vec![ScopeId::signing_key("a")],
        renewals: 4,
        broker_made_key: true,
        ended: Some((EndReason::Narrowed, bed.now)),
        delegated: vec![Delegator { workload: "above".parse().unwrap(), task: task_id() }],
        ruling: Some(Box::new(Ruling { policies: vec!["p".to_owned()], set: digest("set") })),
        secret: Some(Box::new(secret())),
        pickup_until: Some(bed.now),
        svid: true,
        ..bed.new_lease(&bed.new_task())
    }
}

#[test]
fn a_lease_and_a_task_come_back_whole_with_everything_and_with_nothing_told() {
    let (bed, codec) = (Bed::new(Kind::Memory), Codec::new(row_key()));
    for task in [bed.new_task(), full_task(&bed)] {
        assert_eq!(codec.decode_task(task.id, &codec.encode_task(&task)), Ok(task));
    }
    for lease in [bed.new_lease(&bed.new_task()), full_lease(&bed)] {
        assert_eq!(codec.decode_lease(lease.id, &codec.encode_lease(&lease)), Ok(lease));
    }
}

#[test]
fn an_approval_comes_back_whole_with_everything_and_with_nothing_told() {
    let (bed, codec) = (Bed::new(Kind::Memory), Codec::new(row_key()));
    let vote = |person: Option<Digest>, voter| ApprovalVote {
        operator: "anna".parse().unwrap(),
        at: bed.now,
        key: "k1".to_owned(),
        person,
        voter,
        proofs: vec![ScopeId::signing_key("a")],
        basis: 5,
    };
    let voter = Voter { names: vec!["anna".to_owned()], subjects: vec!["00u".to_owned()] };
    let full = Approval {
        task: Some(task_id()),
        asked_person: Some(digest("olga")),
        votes: vec![vote(None, None), vote(Some(digest("anna")), Some(voter))],
        until: Some(bed.now),
        used_by: Some(task_id()),
        closed: Some((Closed::Withdrawn, bed.now)),
        ..asked(&bed)
    };
    for approval in [asked(&bed), full] {
        assert_eq!(codec.decode_approval(approval.id, &codec.encode_approval(&approval)), Ok(approval));
    }
}

/// What the row of a task says after a change of its record.
fn changed(bed: &Bed, change: impl FnOnce(&mut records::TaskRecord)) -> Result<Task, Unreadable> {
    let (codec, task) = (Codec::new(row_key()), full_task(bed));
    let mut record: records::TaskRecord =
        codec.decode(Table::Tasks, task.id.as_bytes(), &codec.encode_task(&task)).unwrap();
    change(&mut record);
    codec.decode_task(task.id, &codec.encode(Table::Tasks, task.id.as_bytes(), &record))
}

#[test]
fn what_would_allow_more_by_being_half_read_is_not_read_at_all() {
    let bed = Bed::new(Kind::Memory);
    assert!(changed(&bed, |_| ()).is_ok());
    type Change = fn(&mut records::TaskRecord);
    let table: [(&str, Change); 8] = [
        ("limits", |row| row.limits.as_mut().unwrap().kinds.push(99)),
        ("pace", |row| _ = row.pace.as_mut().unwrap().last.pop()),
        ("proof_scopes", |row| _ = row.proof_scopes.pop()),
        ("approvals", |row| _ = row.approvals.pop()),
        ("parent", |row| _ = row.parent.pop()),
        ("parent_lease", |row| _ = row.parent_lease.pop()),
        ("client_key", |row| _ = row.client_key.pop()),
        ("token_sha256", |row| _ = row.token_sha256.pop()),
    ];
    for (field, change) in table {
        assert_eq!(changed(&bed, change), Err(Unreadable::Field(field)));
    }
}

#[test]
fn a_row_is_read_by_the_key_place_and_version_that_it_was_written_for() {
    let (codec, record) = (Codec::new(row_key()), records::CountRecord { live: 7 });
    let row = codec.encode(Table::Bars, b"key", &record);
    let read = |table, key: &[u8], row: &[u8]| codec.decode::<records::CountRecord>(table, key, row);
    assert_eq!(read(Table::Bars, b"key", &row), Ok(records::CountRecord { live: 7 }));
    assert_eq!(read(Table::Bars, b"kez", &row), Err(Unreadable::Mac));
    assert_eq!(read(Table::Cuts, b"key", &row), Err(Unreadable::Mac));
    assert_eq!(read(Table::Bars, b"key", row.split_at(15).0), Err(Unreadable::Short));
    // One that carries no code: its frame alone.
    let mut row = codec.encode(Table::Counts, b"key", &record);
    assert_eq!(row.len(), 1 + record.encoded_len());
    row[0] += 1;
    assert_eq!(read(Table::Counts, b"key", &row), Err(Unreadable::Version(2)));
    assert_eq!(read(Table::Counts, b"key", &[]), Err(Unreadable::Short));
}

#[test]
fn every_scope_is_named_in_records_as_it_is() {
    let (tenant, partner) = (|| "acme".parse().unwrap(), || "north".parse().unwrap());
    for scope in [
        Scope::Everything,
        Scope::Lease(lease_id()),
        Scope::Task(task_id()),
        Scope::Grant(tenant(), "read".parse().unwrap()),
        Scope::Workload(tenant(), "runner".parse().unwrap()),
        Scope::Proof(digest("proof")),
        Scope::PartnerInTenant(tenant(), partner()),
        Scope::Partner(partner()),
        Scope::Tenant(tenant()),
        Scope::SigningKey("k1".to_owned()),
        Scope::Issuer("github".parse().unwrap()),
        Scope::Secret(tenant(), "stripe".parse().unwrap()),
    ] {
        assert_eq!(scope_from(&scope_name(&scope)), Ok(scope));
    }
    assert_eq!(scope_from(&records::ScopeName::default()), Err(Unreadable::Field("scope")));
}
