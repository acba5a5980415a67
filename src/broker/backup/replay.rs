//! What happened after a backup, as far as a shipped audit tells: cuts and bars are made again, the rest is reported.
//!
//! Everything that was issued before a restore is dead already. What would be lost is what concerns the future: bars,
//! keys that were cut, and authority that was taken away. The last cannot be taken away again from events alone, so it is
//! barred until the trust map is applied anew and an operator lifts the bar.

use std::{collections::BTreeSet, time::Duration};

use super::{
    super::{Broker, Refusal, event, revoke::is_barrable},
    proof::End,
};
use crate::{
    ledger::{BarDraft, CutDraft},
    model::{EndReason, Scope, Timestamp, Ttl, time::SKEW},
    pb,
};

/// What a replay did.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Replayed {
    /// Events that are newer than the backup.
    pub newer: u64,
    /// Scopes that were barred.
    pub barred: BTreeSet<String>,
    /// Scopes that were cut.
    pub cut: BTreeSet<String>,
    /// What an operator must look at: one line each.
    pub left: BTreeSet<String>,
    /// Why the audit may not be whole or true: one line each. It was replayed all the same.
    pub doubts: Vec<String>,
}

impl Broker {
    /// Makes again what an event that is newer than the backup says. Events must come in the order of their revisions.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn replay(&self, event: &pb::Event, done: &mut Replayed) -> Result<(), Refusal> {
        done.newer += 1;
        let detail = |name: &str| event.details.iter().find_map(|text| text.strip_prefix(name));
        let scope = detail("scope=").and_then(scope_of);
        match (event.kind.as_str(), scope) {
            ("scope.revoked", Some(scope)) => {
                self.cut_again(event, &scope, done).await?;
                // It does not say whether a bar went with the cut; it is taken that it did.
                if is_barrable(&scope) {
                    self.bar_again(event, scope, false, done).await?;
                }
            }
            ("scope.barred" | "scope.suspended" | "scope.quarantined", Some(scope)) => {
                let suspend = event.details.iter().any(|text| text == "suspend=true");
                self.bar_again(event, scope, suspend, done).await?;
            }
            ("scope.lifted" | "scope.released", Some(scope)) => {
                done.left.insert(format!("a bar or suspension was lifted, and stands again: {scope}"));
            }
            (
                "scope.revoked" | "scope.barred" | "scope.lifted" | "scope.suspended" | "scope.quarantined"
                | "scope.released",
                None,
            ) => {
                done.left.insert(format!("an event names no scope: {} {}", event.stream, event.sequence));
            }
            ("key.cut", _) => {
                if let Some(key_id) = detail("key_id=") {
                    self.cut_again(event, &Scope::SigningKey(key_id.to_owned()), done).await?;
                }
            }
            ("secret.rotated" | "secret.retired", Some(scope)) => {
                let what = "was rotated or retired after the backup, which has the value of before";
                done.left.insert(format!("{scope} {what}: rotate or retire it here, then lift its bar"));
                self.bar_again(event, scope, false, done).await?;
            }
            ("secret.put", Some(scope)) => {
                done.left.insert(format!("{scope} was put after the backup: put it again"));
            }
            ("trust.changed" | "trust.applied", _) => self.bar_lost_authority(event, done).await?,
            (
                "operator.certified" | "operator.recovered" | "operator.restored" | "grant.attested"
                | "grant.transferred",
                _,
            ) => {
                done.left.insert(format!("{}: {}", event.kind, event.details.join(", ")));
            }
            ("owner.noted" | "owner.returned", _) => {
                done.left.insert(format!("{}: {}; say it again", event.kind, event.details.join(", ")));
            }
            ("person.closed" | "person.removed" | "sign_in.all_ended", _) => {
                let what = format!("{}: {}", event.kind, event.details.join(", "));
                done.left.insert(format!("{what}; have the directory sync again before `mayfly confirm store`"));
            }
            _ => {}
        }
        Ok(())
    }

    /// Puts into the audit what was replayed, and whether the audit that it came from was shown to be whole; where it was
    /// not, whoever restored has accepted that.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn note_replay(&self, end: &End, done: &Replayed) -> Result<(), Refusal> {
        let now = self.now();
        let mut told = event::own("store.replayed", now);
        told.details = vec![
            format!("newer={}", done.newer),
            format!("cut={}", done.cut.len()),
            format!("barred={}", done.barred.len()),
            format!("doubts={}", done.doubts.len()),
        ];
        match end {
            End::Proven(mark) => {
                told.details.push(format!("proven_to={:016x}:{}", mark.incarnation, mark.number));
            }
            End::Unproven(why) => {
                told.details.push("unproven=accepted".to_owned());
                told.reason.clone_from(why);
            }
        }
        self.ledger.note_act(vec![told], now).await?;
        Ok(())
    }

    /// Each thing of a tenant that lost authority is barred; the rest of the map is the operator's to apply.
    async fn bar_lost_authority(&self, event: &pb::Event, done: &mut Replayed) -> Result<(), Refusal> {
        let place = if event.tenant.is_empty() { "the trust map" } else { event.tenant.as_str() };
        done.left.insert(format!("the trust map was changed after the backup: apply it again ({place})"));
        for line in &event.details {
            if let Some(scope) = lost(&event.tenant, line) {
                self.bar_again(event, scope, false, done).await?;
            } else if line.starts_with("removed ") || line.starts_with("narrowed ") {
                done.left.insert(format!("after the backup, in {place}: {line}"));
            }
        }
        Ok(())
    }

    async fn cut_again(&self, event: &pb::Event, scope: &Scope, done: &mut Replayed) -> Result<(), Refusal> {
        let now = self.now();
        let draft = CutDraft {
            scope: scope.clone(),
            why: EndReason::Revoked,
            bar: false,
            operator: operator(event),
            reason: reason(event),
            covers_until: now.after(LONGEST_TASK + Ttl::MAX.duration() + SKEW),
            event: again("scope.revoked", event, scope, now),
            now,
            resets_time: false,
        };
        self.ledger.cut(draft).await?;
        done.cut.insert(scope.to_string());
        Ok(())
    }

    async fn bar_again(
        &self,
        event: &pb::Event,
        scope: Scope,
        suspend: bool,
        done: &mut Replayed,
    ) -> Result<(), Refusal> {
        let now = self.now();
        let mut told = again("scope.barred", event, &scope, now);
        if suspend {
            told.details.push("suspend=true".into());
        }
        done.barred.insert(scope.to_string());
        let draft = BarDraft { scope, suspend, operator: operator(event), reason: reason(event), event: told, now };
        self.ledger.bar(draft).await?;
        Ok(())
    }
}

/// The replayed event says where it comes from.
fn again(kind: &str, of: &pb::Event, scope: &Scope, now: Timestamp) -> pb::Event {
    let mut told = event::own(kind, now);
    told.tenant.clone_from(&of.tenant);
    told.reason.clone_from(&of.reason);
    told.details = vec![format!("scope={scope}"), format!("replays={}/{}", of.stream, of.sequence)];
    told
}

fn operator(event: &pb::Event) -> String {
    event.actor.strip_prefix("operator:").unwrap_or(&event.actor).to_owned()
}

fn reason(event: &pb::Event) -> String {
    if event.reason.is_empty() { "replayed from the audit after a restore".to_owned() } else { event.reason.clone() }
}

/// `removed grant NAME: ...` or `narrowed workload NAME: ...` of a tenant.
fn lost(tenant: &str, line: &str) -> Option<Scope> {
    let rest = line.strip_prefix("removed ").or_else(|| line.strip_prefix("narrowed "))?;
    let name = |rest: &str| rest.split(':').next().unwrap_or_default().trim().to_owned();
    if let Some(rest) = rest.strip_prefix("grant ") {
        return Some(Scope::Grant(tenant.parse().ok()?, name(rest).parse().ok()?));
    }
    if let Some(rest) = rest.strip_prefix("workload ") {
        return Some(Scope::Workload(tenant.parse().ok()?, name(rest).parse().ok()?));
    }
    if let Some(rest) = rest.strip_prefix("partner ") {
        return Some(Scope::Partner(name(rest).parse().ok()?));
    }
    Some(Scope::Tenant(name(rest.strip_prefix("tenant ")?).parse().ok()?))
}

/// The inverse of the text of a scope in events.
fn scope_of(text: &str) -> Option<Scope> {
    if text == "everything" {
        return Some(Scope::Everything);
    }
    if let Some(key_id) = text.strip_prefix("signing key ") {
        return Some(Scope::SigningKey(key_id.to_owned()));
    }
    let (noun, name) = text.split_once(' ')?;
    let pair = || name.split_once('/');
    Some(match noun {
        "grant" => Scope::Grant(pair()?.0.parse().ok()?, pair()?.1.parse().ok()?),
        "workload" => Scope::Workload(pair()?.0.parse().ok()?, pair()?.1.parse().ok()?),
        "partner" => match name.split_once(" in tenant ") {
            Some((partner, tenant)) => Scope::PartnerInTenant(tenant.parse().ok()?, partner.parse().ok()?),
            None => Scope::Partner(name.parse().ok()?),
        },
        "proof" => {
            let digest = crate::model::id::unhex(name).ok()?;
            Scope::Proof(crate::model::Digest::from_slice(&digest)?)
        }
        "issuer" => Scope::Issuer(name.parse().ok()?),
        "secret" => Scope::Secret(pair()?.0.parse().ok()?, pair()?.1.parse().ok()?),
        "task" => Scope::Task(name.parse().ok()?),
        "lease" => Scope::Lease(name.parse().ok()?),
        "tenant" => Scope::Tenant(name.parse().ok()?),
        _ => return None,
    })
}

/// The longest deadline of a task.
const LONGEST_TASK: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        broker::testing::founded,
        ledger::{Hold, Refused},
        model::{Digest, LeaseId, TaskId, TenantNumber},
    };

    #[test]
    fn every_scope_is_read_back_from_its_text() {
        let task = TaskId::fresh(TenantNumber::new(1).expect("number")).expect("entropy");
        let (tenant, partner) = ("acme".parse().expect("name"), "globex".parse().expect("name"));
        let scopes = [
            Scope::Everything,
            Scope::Grant("acme".parse().expect("name"), "deploy".parse().expect("name")),
            Scope::Issuer("github".parse().expect("name")),
            Scope::Lease(LeaseId::fresh(task).expect("entropy")),
            Scope::Partner("globex".parse().expect("name")),
            Scope::PartnerInTenant(tenant, partner),
            Scope::Proof(Digest::of(b"proof")),
            Scope::Secret("acme".parse().expect("name"), "stripe".parse().expect("name")),
            Scope::SigningKey("k 1".into()),
            Scope::Task(task),
            Scope::Tenant("acme".parse().expect("name")),
            Scope::Workload("acme".parse().expect("name"), "runner".parse().expect("name")),
        ];
        for scope in scopes {
            assert_eq!(scope_of(&scope.to_string()), Some(scope));
        }
        assert_eq!(scope_of("planet earth"), None);
    }

    #[tokio::test]
    async fn what_was_barred_cut_or_narrowed_after_the_backup_is_barred_again_and_a_lift_is_only_told() {
        let (broker, _) = founded().await;
        let event = |kind: &str, details: &[&str]| pb::Event {
            kind: kind.into(),
            tenant: "acme".into(),
            actor: "operator:olga".into(),
            details: details.iter().map(|text| (*text).to_owned()).collect(),
            ..Default::default()
        };
        let mut done = Replayed::default();
        for event in [
            event("scope.revoked", &["scope=partner globex"]),
            event("scope.barred", &["scope=workload acme/runner", "suspend=true"]),
            event("scope.lifted", &["scope=partner globex"]),
            event("scope.suspended", &["scope=grant acme/idle", "suspend=true", "cause=dormant"]),
            event("scope.quarantined", &["scope=tenant acme", "suspend=true", "until=2027-01-01T00:00:00Z"]),
            event("scope.released", &["scope=tenant acme", "cause=quarantine"]),
            event("trust.changed", &["version=2", "narrowed grant deploy: ttl_max 300s -> 60s", "added grant read"]),
            event("key.cut", &["use=token", "key_id=k1"]),
            event("person.closed", &["person=ann@acme.example"]),
            event("person.removed", &["person=bob@acme.example"]),
            event("sign_in.all_ended", &["person=eve@acme.example"]),
        ] {
            broker.replay(&event, &mut done).await.expect("replays");
        }
        let partner = broker.ledger.scope(Scope::Partner("globex".parse().expect("name")).id());
        assert!(partner.cut > 0 && partner.bar > 0);
        let workload = Scope::Workload("acme".parse().expect("name"), "runner".parse().expect("name"));
        assert!(broker.ledger.scope(workload.id()).suspend);
        assert!(broker.ledger.scope(Scope::Tenant("acme".parse().expect("name")).id()).suspend);
        assert!(broker.ledger.scope(Scope::SigningKey("k1".into()).id()).cut > 0);
        let barred: Vec<_> = done.barred.iter().map(String::as_str).collect();
        assert_eq!(
            barred,
            ["grant acme/deploy", "grant acme/idle", "partner globex", "tenant acme", "workload acme/runner"]
        );
        assert!(done.left.iter().any(|line| line.contains("lifted")));
        for person in ["ann", "bob", "eve"] {
            let told = |line: &&String| line.contains(&format!("person={person}@")) && line.contains("sync again");
            assert_eq!(done.left.iter().filter(told).count(), 1, "{person} is left out: {:?}", done.left);
        }
    }

    #[tokio::test]
    async fn nobody_signs_in_to_a_store_that_is_held() {
        let (broker, _) = founded().await;
        let draft = |token: &[u8]| crate::ledger::SignInDraft {
            id: crate::model::PersonId::fresh().expect("entropy"),
            record: crate::records::SignInRecord::default(),
            token: Digest::of(token),
            key: Digest::of(b"key"),
            token_until: broker.now().after(Duration::from_secs(600)),
            event: event::own("sign_in.began", broker.now()),
            now: broker.now(),
        };
        for hold in Hold::STORE {
            broker.ledger.holds().set(hold);
            let refused = broker.ledger.sign_in(draft(b"one")).await.expect_err("held");
            assert!(matches!(refused, Refused::Held(why) if why == hold.explanation()), "{refused:?}");
            broker.ledger.holds().clear(hold);
        }
        broker.ledger.sign_in(draft(b"one")).await.expect("the token is not used up by a refusal");
    }
}
