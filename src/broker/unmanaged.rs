//! Credentials that other systems issued and that nobody here manages: known by name, owner and place, never by value.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Broker, Refusal,
    event::{self, stamp, unstamp},
    page,
    revoke::check_reason,
    task::revision,
    view,
    who::Operator,
};
use crate::{
    identity::Caller,
    ledger::{Refused, UnmanagedCommit, keys},
    model::{
        GrantName, PartnerName, TenantName, Timestamp,
        shape::looks_like_a_secret,
        unmanaged::{AT_ONCE, KINDS},
    },
    pb,
    policy::Role,
    records,
};

impl Broker {
    /// Registers unmanaged credentials, all or none.
    ///
    /// # Errors
    /// When the caller is no admin. What is wrong with the entries is in the reply.
    pub async fn add_unmanaged(
        &self,
        caller: &Caller,
        request: pb::AddUnmanagedRequest,
    ) -> Result<pb::AddUnmanagedResponse, Refusal> {
        let operator = self.operator(caller)?;
        operator.require(Role::Admin)?;
        if !request.dry_run {
            check_reason(&request.reason)?;
        }
        if request.credentials.is_empty() || request.credentials.len() > AT_ONCE {
            return Err(Refusal::invalid("credentials", format!("must be 1 to {AT_ONCE}; send the rest after them")));
        }
        let now = self.now();
        let mut response = pb::AddUnmanagedResponse::default();
        let mut commit = UnmanagedCommit { now, ..UnmanagedCommit::default() };
        let (mut seen, mut tenants) = (BTreeSet::new(), BTreeSet::new());
        for (at, credential) in request.credentials.iter().enumerate() {
            let mut problems = problems(credential, now);
            if !seen.insert((&credential.tenant, &credential.name)) {
                problems.push(("name", "is given twice; leave out one of the two".to_owned()));
            }
            let before =
                if problems.is_empty() { self.may_register(&operator, credential, &mut problems)? } else { None };
            let index = u32::try_from(at).unwrap_or(u32::MAX);
            let problem =
                |(field, problem): (&str, String)| pb::UnmanagedProblem { index, field: field.into(), problem };
            response.problems.extend(problems.into_iter().map(problem));
            let record = record(credential, &operator, now);
            let kind = match before {
                Some(before) if is_same(&before, &record) => {
                    response.unchanged += 1;
                    continue;
                }
                Some(_) => {
                    response.changed += 1;
                    "unmanaged.changed"
                }
                None => {
                    response.added += 1;
                    tenants.insert(record.tenant.clone());
                    "unmanaged.registered"
                }
            };
            commit.events.push(told(caller, &operator, kind, &record, &request.reason, now));
            commit.puts.push(record);
        }
        for tenant in tenants {
            let known = self.ledger.unmanaged(&keys::unmanaged(&tenant, ""), &[], TENANT_MOST + 1)?.0.len();
            let new = commit.puts.iter().filter(|record| record.tenant == tenant).count();
            if known + new > TENANT_MOST {
                return Err(Refusal::Quota("tenant's unmanaged credentials"));
            }
        }
        if response.problems.is_empty() && !request.dry_run && !commit.puts.is_empty() {
            response.revision = Some(revision(&self.ledger.change_unmanaged(commit).await?));
        }
        Ok(response)
    }

    /// The one that is there, when the operator's scope reaches both it and what it is to become.
    fn may_register(
        &self,
        operator: &Operator,
        credential: &pb::UnmanagedCredential,
        problems: &mut Vec<(&'static str, String)>,
    ) -> Result<Option<records::UnmanagedRecord>, Refusal> {
        let tenant: Option<TenantName> = view::optional_id("tenant", &credential.tenant)?;
        if !reaches(operator, &credential.tenant, &credential.partner)
            || tenant.is_some_and(|name| self.registry.number(&name).is_none())
        {
            problems.push(("tenant", "is none within your scope, or its partner is not".to_owned()));
            return Ok(None);
        }
        let before = match self.ledger.unmanaged_one(&credential.tenant, &credential.name) {
            // A damaged one is written anew.
            Err(Refused::StoreFailed) if !self.ledger.holds().in_doubt() => None,
            found => found?,
        };
        if before.as_ref().is_some_and(|before| !reaches(operator, &before.tenant, &before.partner)) {
            problems.push(("name", "is taken; choose another".to_owned()));
        }
        Ok(before)
    }

    /// Forgets an unmanaged credential.
    ///
    /// # Errors
    /// When the caller is no admin, or there is none within its scope.
    pub async fn remove_unmanaged(
        &self,
        caller: &Caller,
        request: pb::RemoveUnmanagedRequest,
    ) -> Result<pb::RemoveUnmanagedResponse, Refusal> {
        let operator = self.operator(caller)?;
        operator.require(Role::Admin)?;
        check_reason(&request.reason)?;
        let known = self.ledger.unmanaged_one(&request.tenant, &request.name)?;
        let Some(record) = known.filter(|known| reaches(&operator, &known.tenant, &known.partner)) else {
            return Ok(pb::RemoveUnmanagedResponse::default());
        };
        let now = self.now();
        let commit = UnmanagedCommit {
            deletes: vec![(record.tenant.clone(), record.name.clone())],
            events: vec![told(caller, &operator, "unmanaged.removed", &record, &request.reason, now)],
            now,
            ..UnmanagedCommit::default()
        };
        let receipt = self.ledger.change_unmanaged(commit).await?;
        Ok(pb::RemoveUnmanagedResponse { removed: true, revision: Some(revision(&receipt)) })
    }

    /// Unmanaged credentials within an operator's scope, with what is wrong with each.
    ///
    /// # Errors
    /// When the caller is no operator, the page is none, or the store failed.
    pub async fn list_unmanaged(
        &self,
        caller: &Caller,
        request: pb::ListUnmanagedRequest,
    ) -> Result<pb::ListUnmanagedResponse, Refusal> {
        let (operator, ask) = self.looks(caller, request.page.as_ref())?;
        let now = self.now();
        let prefix = if request.tenant.is_empty() { Vec::new() } else { keys::unmanaged(&request.tenant, "") };
        let keep = |record: &records::UnmanagedRecord| {
            let wanted = reaches(&operator, &record.tenant, &record.partner)
                && (request.partner.is_empty() || request.partner == record.partner)
                && (request.owner.is_empty() || request.owner == record.owner);
            Ok(wanted.then(|| shown(record, now)))
        };
        let fetch = |prefix: &[u8], after: &[u8], limit| self.ledger.unmanaged(prefix, after, limit);
        let key = |record: &records::UnmanagedRecord| keys::unmanaged(&record.tenant, &record.name);
        let (credentials, next_page_token) = page::scan(&ask, &[prefix], fetch, key, keep).await?;
        Ok(pb::ListUnmanagedResponse { credentials, next_page_token })
    }
}

fn reaches(operator: &Operator, tenant: &str, partner: &str) -> bool {
    let (tenant, partner): (Option<TenantName>, Option<PartnerName>) = (tenant.parse().ok(), partner.parse().ok());
    operator.reaches(tenant.as_ref(), partner.as_ref())
}

/// Everything that is wrong with an entry. Nothing that was given is repeated: it may be a secret.
fn problems(credential: &pb::UnmanagedCredential, now: Timestamp) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let mut note = |field, problem: &str| found.push((field, problem.to_owned()));
    const NAME: &str = "is not of 1 to 63 bytes of [a-z0-9-]";
    if credential.name.parse::<GrantName>().is_err() {
        note("name", NAME);
    }
    for (field, text) in [("tenant", &credential.tenant), ("partner", &credential.partner)] {
        if !text.is_empty() && text.parse::<TenantName>().is_err() {
            note(field, NAME);
        }
    }
    if !KINDS.contains(&credential.kind.as_str()) {
        found.push(("kind", format!("is none of {}", KINDS.join(", "))));
    }
    let texts = [
        ("name", &credential.name),
        ("owner", &credential.owner),
        ("purpose", &credential.purpose),
        ("location", &credential.location),
        ("revocation", &credential.revocation),
    ];
    for (field, text) in texts {
        if text.chars().count() > TEXT_MOST || text.chars().any(char::is_control) {
            found.push((field, format!("is longer than {TEXT_MOST} characters, or not one line")));
        }
        if looks_like_a_secret(text) {
            let mend = "looks like the secret itself; write where it is kept, and replace it: it was just sent here";
            found.push((field, mend.to_owned()));
        }
    }
    let fingerprint = &credential.fingerprint;
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if !(fingerprint.is_empty() || fingerprint.len() == 64 && fingerprint.bytes().all(hex)) {
        let mend = "is not a SHA-256 in 64 lower-case hex digits; `--fingerprint-of FILE` makes one";
        found.push(("fingerprint", mend.to_owned()));
    }
    for (field, at) in [("created", &credential.created), ("rotated", &credential.rotated)] {
        if at.as_ref().is_some_and(|at| unstamp(at) > now.after(DAY)) {
            found.push((field, "lies in the future".to_owned()));
        }
    }
    found
}

fn record(credential: &pb::UnmanagedCredential, operator: &Operator, now: Timestamp) -> records::UnmanagedRecord {
    let millis = |at: &Option<prost_types::Timestamp>| at.as_ref().map_or(0, |at| unstamp(at).millis());
    records::UnmanagedRecord {
        tenant: credential.tenant.clone(),
        name: credential.name.clone(),
        partner: credential.partner.clone(),
        kind: credential.kind.clone(),
        owner: credential.owner.clone(),
        purpose: credential.purpose.clone(),
        location: credential.location.clone(),
        fingerprint: credential.fingerprint.clone(),
        created: millis(&credential.created),
        rotated: millis(&credential.rotated),
        expires: millis(&credential.expires),
        revocation: credential.revocation.clone(),
        operator: operator.name.to_string(),
        registered: now.millis(),
    }
}

/// Whether two entries say the same, whoever said it and when.
fn is_same(one: &records::UnmanagedRecord, other: &records::UnmanagedRecord) -> bool {
    let (operator, registered) = (other.operator.clone(), other.registered);
    records::UnmanagedRecord { operator, registered, ..one.clone() } == *other
}

fn told(
    caller: &Caller,
    operator: &Operator,
    kind: &str,
    record: &records::UnmanagedRecord,
    reason: &str,
    now: Timestamp,
) -> pb::Event {
    let mut event = event::by(caller, operator.actor(), kind, now);
    (event.tenant, event.partner) = (record.tenant.clone(), record.partner.clone());
    event.reason = reason.to_owned();
    event.details.extend([
        format!("name={}", record.name),
        format!("kind={}", record.kind),
        format!("owner={}", record.owner),
        format!("fingerprint={}", record.fingerprint),
    ]);
    event
}

fn shown(record: &records::UnmanagedRecord, now: Timestamp) -> pb::UnmanagedCredential {
    let time = |millis: u64| (millis > 0).then(|| stamp(Timestamp::from_millis(millis)));
    pb::UnmanagedCredential {
        tenant: record.tenant.clone(),
        name: record.name.clone(),
        partner: record.partner.clone(),
        kind: record.kind.clone(),
        owner: record.owner.clone(),
        purpose: record.purpose.clone(),
        location: record.location.clone(),
        fingerprint: record.fingerprint.clone(),
        created: time(record.created),
        rotated: time(record.rotated),
        expires: time(record.expires),
        revocation: record.revocation.clone(),
        operator: record.operator.clone(),
        registered: time(record.registered),
        reasons: reasons(record, now),
    }
}

/// Why a credential is not under control, in words that stay.
fn reasons(record: &records::UnmanagedRecord, now: Timestamp) -> Vec<String> {
    let at = Timestamp::from_millis;
    let missing = [
        ("no owner", record.owner.is_empty()),
        ("no purpose", record.purpose.is_empty()),
        ("no location", record.location.is_empty()),
        ("no revocation", record.revocation.is_empty()),
        ("no expiry", record.expires == 0),
        ("expired", record.expires > 0 && at(record.expires) <= now),
        ("expires in more than a year", record.expires > 0 && at(record.expires) > now.after(DAY * 366)),
        ("never rotated", record.rotated == 0),
        ("not rotated for 90 days", record.rotated > 0 && at(record.rotated).after(DAY * 90) <= now),
        ("test token", record.kind == "test-token"),
    ];
    missing.into_iter().filter(|(_, is_so)| *is_so).map(|(word, _)| word.to_owned()).collect()
}

/// Entries of one tenant, and of none.
const TENANT_MOST: usize = 10_000;
const TEXT_MOST: usize = 128;
const DAY: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests;
