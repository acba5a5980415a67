//! What a grant allows against what was used of it, and a narrower one that would have been enough.

mod narrow;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, time::Duration};

use crate::{
    broker::{Broker, Refusal, event, trail, view},
    identity::Caller,
    ledger::stream_id,
    model::{CredentialKind, GrantName, TenantName},
    pb,
    policy::Role,
};

/// What was used of a grant.
#[derive(Debug, Default)]
struct Used {
    issues: u64,
    workloads: BTreeSet<String>,
    purposes: BTreeSet<String>,
    audiences: BTreeSet<String>,
    actions: BTreeSet<String>,
    /// Whether all the actions of the grant were given at once, or an older version did not note which.
    all_actions: bool,
    kinds: BTreeSet<&'static str>,
    ttl: u64,
}

impl Used {
    fn note(&mut self, event: pb::Event) {
        self.issues += 1;
        let (at, until) = (event.at.as_ref().map(event::unstamp), event.expires.as_ref().map(event::unstamp));
        if let (Some(at), Some(until)) = (at, until) {
            self.ttl = self.ttl.max(until.since(at.floor_second()).as_secs());
        }
        self.workloads.insert(event.workload);
        self.purposes.insert(event.purpose);
        self.audiences.extend(event.audiences);
        let kind = u32::try_from(event.credential_kind).ok().and_then(CredentialKind::from_code);
        self.kinds.extend(kind.map(CredentialKind::word));
        match event.details.iter().find_map(|text| text.strip_prefix(event::ACTIONS)) {
            Some(actions) => self.actions.extend(actions.split_ascii_whitespace().map(str::to_owned)),
            // A static secret can do what it can.
            None => self.all_actions |= kind != Some(CredentialKind::Secret),
        }
    }
}

impl Broker {
    /// What a grant allows and nobody used, from the audit of its partner in its tenant.
    ///
    /// # Errors
    /// When the caller is no operator, or may not know of the grant.
    pub async fn get_drift(
        &self,
        caller: &Caller,
        request: pb::GetDriftRequest,
    ) -> Result<pb::GetDriftResponse, Refusal> {
        let operator = self.operator(caller)?;
        operator.require(Role::Auditor)?;
        let tenant: TenantName = view::id("tenant", &request.tenant)?;
        let name: GrantName = view::id("grant", &request.grant)?;
        let days = match request.days {
            0 => DAYS,
            days if days <= DAYS_MOST => days,
            _ => return Err(Refusal::invalid("days", format!("is more than {DAYS_MOST}"))),
        };
        let known = self.registry.tenant(&self.ledger, &tenant)?.ok_or(Refusal::Unknown("grant"))?;
        let grant = known.trust.grants().get(&name).ok_or(Refusal::Unknown("grant"))?;
        if !operator.reaches(Some(&tenant), Some(&grant.partner)) {
            return Err(Refusal::Unknown("grant"));
        }
        let since = self.now().before(Duration::from_secs(u64::from(days) * 86_400));
        let id = stream_id(tenant.as_str(), grant.partner.as_str());
        let (mut used, mut seen, mut truncated) = (Used::default(), 0_usize, false);
        let mut next = Some(trail::sequence_at(&self.ledger, &id, since)?);
        while let Some(from) = next {
            let (events, more) = trail::events_from(&self.ledger, &id, from, PAGES)?;
            seen += events.len();
            next = more;
            let of_grant = |event: &pb::Event| {
                event.grant == name.as_str() && matches!(event.kind.as_str(), "lease.issued" | "lease.renewed")
            };
            events.into_iter().filter(of_grant).for_each(|event| used.note(event));
            if seen >= EVENTS_MOST && next.is_some() {
                truncated = true;
                break;
            }
            tokio::task::yield_now().await;
        }
        Ok(pb::GetDriftResponse {
            issues: used.issues,
            truncated,
            unused: narrow::unused(grant, &used),
            ttl_used_seconds: u32::try_from(used.ttl).unwrap_or(u32::MAX),
            proposal: if used.issues == 0 { String::new() } else { narrow::proposal(&tenant, &name, grant, &used) },
            since: Some(event::stamp(since)),
        })
    }
}

/// How far back the audit is read when the request does not say.
const DAYS: u32 = 30;
const DAYS_MOST: u32 = 400;
/// Events looked at.
const EVENTS_MOST: usize = 100_000;
/// Audit pages read at a time.
const PAGES: usize = 256;
