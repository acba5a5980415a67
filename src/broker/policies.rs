//! What policies said that operators ought to know: where those in shadow would decide otherwise, and which cannot be
//! read.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{
    Broker, event,
    refusal::Refusal,
    registry::Tenant,
    view,
    who::{Operator, Workload},
};
use crate::{
    identity::Caller,
    model::{Digest, GrantName, PartnerName, Purpose, TenantName, Timestamp, WorkloadName},
    pb,
    policy::{Denied, Difference, PolicyAction, RefusedBy, Role, Verdict},
};

/// What policies said since the start. Nothing of it is kept over a restart: events tell it.
#[derive(Debug, Default)]
pub struct PolicyLog {
    differences: Mutex<Differences>,
    unreadable: Mutex<BTreeMap<TenantName, (Digest, String)>>,
    /// Held while policies are compiled, by the thread that does: one at a time, also where nobody waits for it any more.
    compiling: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct Differences {
    kinds: HashMap<Kind, Seen>,
    untold: u64,
}

/// What makes two differences one of a kind.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Kind {
    tenant: TenantName,
    partner: PartnerName,
    workload: WorkloadName,
    grant: Option<GrantName>,
    action: PolicyAction,
    enforced: (&'static str, Vec<String>),
    shadow: (&'static str, Vec<String>),
}

#[derive(Clone, Debug)]
struct Seen {
    count: u64,
    first: Timestamp,
    last: Timestamp,
    told: Timestamp,
    audience: String,
    errors: Vec<String>,
}

/// Whether to tell one more difference.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Tell {
    /// As an event.
    Yes,
    /// One of its kind was told within the hour, or there is no room.
    No,
}

impl PolicyLog {
    fn note(&self, kind: Kind, difference: &Difference, now: Timestamp) -> Tell {
        let mut known = self.differences.lock().unwrap_or_else(PoisonError::into_inner);
        if known.kinds.len() >= KINDS_MOST && !known.kinds.contains_key(&kind) {
            known.untold += 1;
            return Tell::No;
        }
        let is_new = !known.kinds.contains_key(&kind);
        let (audience, errors) = (difference.audience.clone(), difference.shadow.errors.clone());
        let seen = known.kinds.entry(kind).or_insert_with(|| Seen {
            count: 0,
            first: now,
            last: now,
            told: now,
            audience: String::new(),
            errors: Vec::new(),
        });
        (seen.count, seen.last, seen.audience, seen.errors) = (seen.count.saturating_add(1), now, audience, errors);
        let is_due = is_new || seen.told.after(TOLD_EVERY) <= now;
        if is_due {
            seen.told = now;
            return Tell::Yes;
        }
        Tell::No
    }
}

impl Broker {
    /// Counts where policies in shadow would decide otherwise; the first of a kind in an hour becomes an event.
    pub(super) fn note_differences(
        &self,
        caller: &Caller,
        workload: &Workload,
        partner: &PartnerName,
        purpose: &Purpose,
        differences: &[Difference],
        now: Timestamp,
    ) {
        for difference in differences {
            metrics::counter!("mayfly_policy_differences_total", "shadow" => difference.shadow.word()).increment(1);
            let said = |verdict: &Verdict| (verdict.word(), verdict.policies.clone());
            let kind = Kind {
                tenant: workload.tenant.trust.name().clone(),
                partner: partner.clone(),
                workload: workload.name.clone(),
                grant: difference.grant.clone(),
                action: difference.action,
                enforced: said(&difference.enforced),
                shadow: said(&difference.shadow),
            };
            if self.policies.note(kind, difference, now) == Tell::No {
                continue;
            }
            let mut event = event::by(caller, workload.actor(), "policy.differs", now);
            event.tenant = workload.tenant.trust.name().to_string();
            event.partner = partner.to_string();
            event.workload = workload.name.to_string();
            event.grant = difference.grant.as_ref().map(ToString::to_string).unwrap_or_default();
            event.purpose = purpose.to_string();
            event.audiences = Some(difference.audience.clone()).filter(|text| !text.is_empty()).into_iter().collect();
            event.trust_hash = workload.tenant.hash.to_string();
            event.policies.clone_from(&difference.shadow.policies);
            event.details.extend([
                format!("action={}", difference.action.word()),
                format!("enforced={}", difference.enforced.word()),
                format!("shadow={}", difference.shadow.word()),
            ]);
            event.details.extend(difference.enforced.policies.iter().map(|id| format!("enforced_policy={id}")));
            event.details.extend(difference.shadow.errors.iter().map(|error| format!("error={error}")));
            self.note_later(vec![event], now);
        }
    }

    /// Waits until a tenant's policies are compiled, which is on the way to every decision: no thread that serves requests
    /// compiles any, and nothing is decided before.
    ///
    /// Those of an apply are compiled with it; others when they are first needed after a start.
    ///
    /// # Errors
    /// [`Refusal::Busy`] when it had to wait and they are compiled now: what was found before is to be looked at anew.
    /// [`Refusal::Unavailable`] when that takes too long: it goes on, and who comes again finds it done.
    pub(super) async fn policies_ready(&self, tenant: &Arc<Tenant>) -> Result<(), Refusal> {
        self.policies_ready_within(tenant, COMPILED_WITHIN).await
    }

    async fn policies_ready_within(&self, tenant: &Arc<Tenant>, patience: Duration) -> Result<(), Refusal> {
        let global = self.registry.global();
        let is_ready = || tenant.trust.is_compiled() && global.is_compiled();
        if is_ready() {
            return Ok(());
        }
        let compiling = async {
            let one_at_a_time = Arc::clone(&self.policies.compiling).lock_owned().await;
            if is_ready() {
                return;
            }
            let (tenant, global) = (Arc::clone(tenant), Arc::clone(&global));
            let registry = Arc::clone(&self.registry);
            let compiled = tokio::task::spawn_blocking(move || {
                global.compile();
                tenant.trust.compile();
                // An apply may have brought later ones meanwhile.
                registry.keep_compiled(tenant.number, tenant.version, tenant.trust.compiled());
                drop(one_at_a_time);
            });
            let _lost = compiled.await;
        };
        // Also where the compiling thread was lost: it is not decided without.
        let _late = tokio::time::timeout(patience, compiling).await;
        Err(if is_ready() {
            Refusal::Busy { retry_ms: 0 }
        } else {
            Refusal::Unavailable("the tenant's policies are being compiled")
        })
    }

    /// Keeps in mind whose policies cannot be read.
    pub(super) fn note_policy(&self, tenant: &Tenant, denied: &Denied) {
        let Some(refusal) = denied.policy().filter(|refusal| refusal.by == RefusedBy::Unreadable) else { return };
        let mut known = self.policies.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < UNREADABLE_MOST || known.contains_key(tenant.trust.name()) {
            known.insert(tenant.trust.name().clone(), (tenant.hash, refusal.errors.join("; ")));
        }
    }

    /// Tenants of an operator's whose policies could not be read when they were asked, as they are now.
    pub(super) fn unreadable_policies(&self, operator: &Operator) -> Vec<String> {
        let mut known = self.policies.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|name, (hash, _)| {
            self.registry.tenant(&self.ledger, name).is_ok_and(|now| now.is_some_and(|now| now.hash == *hash))
        });
        let seen = known.iter().filter(|(name, _)| operator.reaches(Some(name), None));
        seen.map(|(name, (_, why))| format!("{name}: {why}")).collect()
    }

    /// Where policies in shadow would have decided otherwise.
    ///
    /// # Errors
    /// When the caller is no operator, or the tenant is unknown to it.
    pub async fn list_policy_differences(
        &self,
        caller: &Caller,
        request: pb::ListPolicyDifferencesRequest,
    ) -> Result<pb::ListPolicyDifferencesResponse, Refusal> {
        let operator = self.operator(caller)?;
        operator.require(Role::Auditor)?;
        let only: Option<TenantName> = view::optional_id("tenant", &request.tenant)?;
        if let Some(tenant) = &only {
            let known = self.registry.tenant(&self.ledger, tenant)?.is_some_and(|tenant| operator.knows(&tenant));
            if !known {
                return Err(Refusal::Unknown("tenant"));
            }
        }
        let known = self.policies.differences.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = |kind: &Kind| {
            only.as_ref().is_none_or(|tenant| *tenant == kind.tenant)
                && operator.reaches(Some(&kind.tenant), Some(&kind.partner))
        };
        let mut rows: Vec<(&Kind, &Seen)> = known.kinds.iter().filter(|(kind, _)| wanted(kind)).collect();
        rows.sort_by_key(|(_, seen)| std::cmp::Reverse((seen.last, seen.count)));
        let differences = rows.into_iter().take(LISTED_MOST).map(|(kind, seen)| shown(kind, seen)).collect();
        let untold = if operator.reaches(None, None) { known.untold } else { 0 };
        Ok(pb::ListPolicyDifferencesResponse { differences, untold })
    }
}

/// What has not happened yet shows as zero, so that a rate sees its first time.
pub(super) fn begin_counting() {
    for word in ["allowed", "refused", "error"] {
        metrics::counter!("mayfly_policy_differences_total", "shadow" => word).increment(0);
    }
}

fn shown(kind: &Kind, seen: &Seen) -> pb::PolicyDifference {
    pb::PolicyDifference {
        tenant: kind.tenant.to_string(),
        partner: kind.partner.to_string(),
        workload: kind.workload.to_string(),
        grant: kind.grant.as_ref().map(ToString::to_string).unwrap_or_default(),
        action: kind.action.word().to_owned(),
        enforced: kind.enforced.0.to_owned(),
        shadow: kind.shadow.0.to_owned(),
        enforced_policies: kind.enforced.1.clone(),
        shadow_policies: kind.shadow.1.clone(),
        audience: seen.audience.clone(),
        count: seen.count,
        first: Some(event::stamp(seen.first)),
        last: Some(event::stamp(seen.last)),
        errors: seen.errors.clone(),
    }
}

/// Kinds of differences that are kept apart.
const KINDS_MOST: usize = 10_000;
/// Differences in one answer.
const LISTED_MOST: usize = 1_000;
/// Tenants whose unreadable policies are kept in mind.
const UNREADABLE_MOST: usize = 1_000;
/// How long a request waits for policies to be compiled: as long as the largest set takes on a busy machine.
const COMPILED_WITHIN: Duration = Duration::from_secs(10);
/// How often one kind becomes an event.
const TOLD_EVERY: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::testing::{TRUST, admin, founded, worker};

    fn difference() -> Difference {
        let verdict = |allowed| Verdict { allowed, policies: Vec::new(), errors: Vec::new() };
        Difference {
            action: PolicyAction::IssueToken,
            grant: None,
            audience: "https://api.example".into(),
            enforced: verdict(true),
            shadow: verdict(false),
        }
    }

    fn kind(workload: usize) -> Kind {
        Kind {
            tenant: "acme".parse().expect("a name"),
            partner: "zeta".parse().expect("a name"),
            workload: format!("w{workload}").parse().expect("a name"),
            grant: None,
            action: PolicyAction::IssueToken,
            enforced: ("allowed", Vec::new()),
            shadow: ("refused", Vec::new()),
        }
    }

    #[test]
    fn the_first_of_a_kind_in_an_hour_is_told_and_all_are_counted() {
        let (log, at) = (PolicyLog::default(), |seconds: u64| Timestamp::from_seconds(1_000_000 + seconds));
        assert_eq!(log.note(kind(1), &difference(), at(0)), Tell::Yes);
        assert_eq!(log.note(kind(1), &difference(), at(3_599)), Tell::No);
        assert_eq!(log.note(kind(2), &difference(), at(3_599)), Tell::Yes);
        assert_eq!(log.note(kind(1), &difference(), at(3_600)), Tell::Yes);
        let known = log.differences.lock().expect("lock");
        assert_eq!(known.kinds.get(&kind(1)).map(|seen| seen.count), Some(3));
    }

    const POLICY: &str = "@id(\"all\") permit(principal, action, resource);";

    async fn with_policies() -> Arc<Broker> {
        let (broker, _) = founded().await;
        broker.apply(&admin(), pb::ApplyOptions::default(), broker_trust(POLICY)).await.expect("applies");
        broker
    }

    fn broker_trust(policy: &str) -> Vec<pb::TrustDocument> {
        let trust =
            TRUST.replacen("name = \"acme\"\n", "name = \"acme\"\n    policy = { enforce = \"all.cedar\" }\n", 1);
        let rails = "[guardrails]\nenforce = \"rails.cedar\"\n";
        let documents = [
            ("trust.toml", format!("{trust}\n{rails}")),
            ("all.cedar", policy.to_owned()),
            ("rails.cedar", "@id(\"none\") forbid(principal, action, resource) when { context.hour > 23 };".to_owned()),
        ];
        documents.map(|(path, text)| pb::TrustDocument { path: path.to_owned(), text }).to_vec()
    }

    fn acme(broker: &Broker) -> Arc<Tenant> {
        broker.registry.tenant(&broker.ledger, &"acme".parse().expect("a name")).expect("reads").expect("is there")
    }

    fn asking() -> pb::IssueRequest {
        pb::IssueRequest {
            tenant: "acme".into(),
            partner: "zeta".into(),
            purpose: "work".into(),
            kind: pb::CredentialKind::Jwt.into(),
            audiences: vec!["https://api.example".into()],
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn what_was_applied_is_compiled_before_the_first_request_asks() {
        let broker = with_policies().await;
        assert!(acme(&broker).trust.is_compiled() && broker.registry.global().is_compiled());
        // Read again, for whatever reason, it is not compiled again.
        let number = acme(&broker).number;
        broker.registry.changed(&[("acme".parse().expect("a name"), number)]);
        broker.registry.reload_global(&broker.ledger);
        assert!(acme(&broker).trust.is_compiled() && broker.registry.global().is_compiled());
        broker.policies_ready(&acme(&broker)).await.expect("nothing to wait for");
    }

    #[tokio::test]
    async fn after_a_start_no_request_decides_before_the_policies_are_compiled_elsewhere() {
        let broker = with_policies().await;
        let number = acme(&broker).number;
        let (registry, name) = (&broker.registry, "acme".parse().expect("a name"));
        // As after a start: nothing was compiled of what is stored.
        let other = "{\"name\":\"acme\",\"issuer\":null,\"token_algorithm\":\"ES256\",\"max_live_leases\":1,\
                     \"workloads\":{},\"grants\":{},\"verifiers\":{}}";
        let other = crate::policy::TenantTrust::from_bytes(other.as_bytes()).expect("a trust map");
        other.compile();
        registry.keep_compiled(number, acme(&broker).version, other.compiled());
        registry.changed(&[(name, number)]);
        let tenant = acme(&broker);
        assert!(!tenant.trust.is_compiled(), "what was compiled of another is no good");
        let held = broker.policies.compiling.lock().await;
        let refused = broker.policies_ready_within(&tenant, Duration::ZERO).await;
        assert!(matches!(refused, Err(Refusal::Unavailable(_))), "{refused:?}");
        assert!(!tenant.trust.is_compiled(), "a request compiled");
        drop(held);
        let reply = broker.issue(&worker(), asking()).await.expect("waits and is decided");
        assert!(reply.lease.is_some());
        assert!(acme(&broker).trust.is_compiled());
    }

    #[tokio::test]
    async fn however_many_give_up_one_thread_compiles() {
        let broker = with_policies().await;
        let tenant = acme(&broker);
        for _ in 0..20 {
            // Of the same text, read anew: nothing is compiled of it.
            let fresh = uncompiled(&tenant);
            let refused = broker.policies_ready_within(&fresh, Duration::ZERO).await;
            assert!(refused.is_err());
            // Who gave up left the place to nobody before the thread is done.
            let is_free = broker.policies.compiling.try_lock().is_ok();
            assert!(!is_free || fresh.trust.is_compiled());
            drop(broker.policies.compiling.lock().await);
            assert!(fresh.trust.is_compiled());
        }
    }

    /// A tenant as it was read, with nothing compiled.
    fn uncompiled(tenant: &Tenant) -> Arc<Tenant> {
        let trust = crate::policy::TenantTrust::from_bytes(&tenant.trust.to_bytes()).expect("a trust map");
        Arc::new(Tenant {
            number: tenant.number,
            trust,
            hash: tenant.hash,
            version: tenant.version,
            attested: HashMap::new(),
            life: HashMap::new(),
            uses: HashMap::new(),
        })
    }

    #[tokio::test]
    async fn what_is_compiled_late_takes_the_place_of_nothing_newer() {
        let broker = with_policies().await;
        let late = uncompiled(&acme(&broker));
        let text = broker_trust("@id(\"other\") permit(principal, action, resource);");
        broker.apply(&admin(), pb::ApplyOptions::default(), text).await.expect("applies");
        let newer = acme(&broker);
        assert!(newer.version > late.version && newer.trust.is_compiled());
        // The request that began before the apply ends its compiling after it.
        let _waited = broker.policies_ready(&late).await;
        assert!(late.trust.is_compiled());
        let read_again = || {
            broker.registry.changed(&[("acme".parse().expect("a name"), newer.number)]);
            acme(&broker)
        };
        assert!(read_again().trust.is_compiled(), "the newer ones are to be compiled once more");
        assert!(!broker.registry.keep_compiled(late.number, late.version, late.trust.compiled()));
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let (log, now) = (PolicyLog::default(), Timestamp::from_seconds(1));
        for workload in 0..KINDS_MOST {
            assert_eq!(log.note(kind(workload), &difference(), now), Tell::Yes);
        }
        assert_eq!(log.note(kind(KINDS_MOST), &difference(), now), Tell::No);
        assert_eq!(log.note(kind(0), &difference(), now), Tell::No);
        assert_eq!(log.differences.lock().expect("lock").untold, 1);
    }
}
