//! What a grant allows against what was used of it, and a narrower one that would have been enough.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    broker::{Broker, Refusal, event, trail, view},
    identity::Caller,
    ledger::stream_id,
    model::{CredentialKind, GrantName, TenantName, static_secret},
    pb,
    policy::{Grant, Role},
};

/// What was used of a grant.
#[derive(Debug, Default)]
struct Used {
    issues: u64,
    workloads: BTreeSet<String>,
    purposes: BTreeSet<String>,
    audiences: BTreeSet<String>,
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
            unused: unused(grant, &used),
            ttl_used_seconds: u32::try_from(used.ttl).unwrap_or(u32::MAX),
            proposal: if used.issues == 0 { String::new() } else { proposal(&tenant, &name, grant, &used) },
            since: Some(event::stamp(since)),
        })
    }
}

/// What the grant allows and nobody used, as `field value`.
fn unused(grant: &Grant, used: &Used) -> Vec<String> {
    let missing = |field: &str, granted: Vec<String>, is_used: &dyn Fn(&String) -> bool| {
        let unused = granted.into_iter().filter(|value| !is_used(value));
        unused.map(|value| format!("{field} {value}")).collect::<Vec<_>>()
    };
    let mut all = missing("workload", texts(&grant.workloads), &|value| used.workloads.contains(value));
    all.extend(missing("purpose", texts(&grant.purposes), &|value| used.purposes.contains(value)));
    for pattern in grant.audiences.iter() {
        if !used.audiences.iter().any(|audience| pattern.fits(audience)) {
            all.push(format!("audience {pattern}"));
        }
    }
    let secrets = grant.secrets.iter().filter(|secret| !used.audiences.contains(&static_secret::audience(secret)));
    all.extend(secrets.map(|secret| format!("secret {secret}")));
    let kinds = grant.kinds.iter().map(|kind| kind.word().to_owned()).collect();
    all.extend(missing("kind", kinds, &|value| used.kinds.contains(value.as_str())));
    if used.issues > 0 && used.ttl < u64::from(grant.ttl_max) {
        all.push(format!("ttl_max {}s, {}s were enough", grant.ttl_max, used.ttl));
    }
    all
}

/// The grant with no more than was used: every list a part of the old one's, every limit at most the old one's.
fn proposal(tenant: &TenantName, name: &GrantName, grant: &Grant, used: &Used) -> String {
    let within = |granted: Vec<String>, used: &BTreeSet<String>| {
        granted.into_iter().filter(|value| used.contains(value)).collect::<Vec<_>>()
    };
    let audiences: Vec<String> = used
        .audiences
        .iter()
        .filter(|audience| grant.audiences.iter().any(|pattern| pattern.fits(audience)))
        .cloned()
        .collect();
    // Many exact audiences below one folder say that the folder is meant.
    let audiences = if audiences.len() > AUDIENCES_MOST {
        let fits = |pattern: &&crate::policy::Pattern| audiences.iter().any(|audience| pattern.fits(audience));
        grant.audiences.iter().filter(fits).map(ToString::to_string).collect()
    } else {
        audiences
    };
    let kinds: Vec<String> = grant
        .kinds
        .iter()
        .map(|kind| kind.word().to_owned())
        .filter(|kind| used.kinds.contains(kind.as_str()))
        .collect();
    let ttl_max = u64::from(grant.ttl_max).min(used.ttl.max(1));
    let lines = [
        ("tenant", text(tenant.as_str())),
        ("name", text(name.as_str())),
        ("partner", text(grant.partner.as_str())),
        ("workloads", list(&within(texts(&grant.workloads), &used.workloads))),
        ("purposes", list(&within(texts(&grant.purposes), &used.purposes))),
        ("audiences", list(&audiences)),
        ("actions", list(&texts(&grant.actions))),
        ("kinds", list(&kinds)),
        ("dns_names", list(&grant.dns_names)),
        ("ttl_default", u64::from(grant.ttl_default).min(ttl_max).to_string()),
        ("ttl_max", ttl_max.to_string()),
        ("task_max", grant.task_max_seconds.to_string()),
        ("owner", text(&grant.owner)),
        ("expires", text(&grant.expires.rfc3339())),
        ("revokers", list(&texts(&grant.revokers))),
        ("attest_by", text(&grant.attest_by.rfc3339())),
        ("environment", text(&grant.environment)),
        ("sources", list(&texts(&grant.sources))),
        ("require_binding", grant.require_binding.to_string()),
        ("max_live_leases", grant.max_live_leases.to_string()),
        ("max_leases_per_task", grant.max_leases_per_task.to_string()),
    ];
    let more = [
        grant.attest_every.map(|seconds| format!("attest_every = {seconds}\n")),
        grant.test.then(|| "test = true\n".to_owned()),
        secrets(grant, used),
        grant.max_renewals.map(|most| format!("max_renewals = {most}\n")),
    ];
    let body: String = lines.into_iter().map(|(field, value)| format!("{field} = {value}\n")).collect();
    format!("[[grant]]\n{body}{}", more.into_iter().flatten().collect::<String>())
}

/// Static secrets that were handed out.
fn secrets(grant: &Grant, used: &Used) -> Option<String> {
    let used = grant.secrets.iter().filter(|secret| used.audiences.contains(&static_secret::audience(secret)));
    let used: Vec<String> = used.map(ToString::to_string).collect();
    (!used.is_empty()).then(|| format!("secrets = {}\n", list(&used)))
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

/// A basic string of TOML: what JSON escapes, TOML reads.
fn text(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

fn list(values: &[String]) -> String {
    serde_json::Value::from(values.to_vec()).to_string()
}

/// How far back the audit is read when the request does not say.
const DAYS: u32 = 30;
const DAYS_MOST: u32 = 400;
/// Events looked at.
const EVENTS_MOST: usize = 100_000;
/// Audit pages read at a time.
const PAGES: usize = 256;
/// Entries of a list in the trust map.
const AUDIENCES_MOST: usize = 64;
