//! What happened after a backup, as far as a shipped audit tells: cuts and bars are made again, the rest is reported.
//!
//! Everything that was issued before a restore is dead already. What would be lost is what concerns the future: bars,
//! keys that were cut, and authority that was taken away. The last cannot be taken away again from events alone, so it is
//! barred until the trust map is applied anew and an operator lifts the bar.

use std::{collections::BTreeSet, time::Duration};

use super::{
    super::{Broker, Refusal, event, revoke::is_barrable, view},
    proof::End,
};
use crate::{
    ledger::{BarDraft, CutDraft},
    model::{EndReason, Scope, TenantName, Timestamp, Ttl, time::SKEW},
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

impl Replayed {
    /// One more thing to look at. What says so may be forged, so that it has its bounds.
    fn leave(&mut self, line: String) {
        let more = self.left.len() >= LEFT_MOST;
        self.left.insert(if more { LEFT_OUT.to_owned() } else { shortened(&line, LINE_MOST) });
    }
}

impl Broker {
    /// Makes again what an event that is newer than the backup says. Events must come in the order of their revisions.
    ///
    /// Where the audit is not proven, or behind the anchor, an event may be anybody's: nothing of it is taken that an operator
    /// could not have said, and no text is longer than it could have been.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn replay(&self, event: &pb::Event, done: &mut Replayed) -> Result<(), Refusal> {
        done.newer += 1;
        let detail = |name: &str| event.details.iter().find_map(|text| text.strip_prefix(name));
        let scope = detail("scope=").and_then(scope_of);
        let place = shortened(&event.stream, STREAM_MOST);
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
                done.leave(format!("a bar or suspension was lifted, and stands again: {scope}"));
            }
            (
                "scope.revoked" | "scope.barred" | "scope.lifted" | "scope.suspended" | "scope.quarantined"
                | "scope.released",
                None,
            ) => {
                done.leave(format!("an event names no scope: {place} {}", event.sequence));
            }
            ("key.cut", _) => {
                if let Some(key_id) = detail("key_id=").and_then(|text| view::key_id(text).ok()) {
                    self.cut_again(event, &Scope::SigningKey(key_id), done).await?;
                } else {
                    done.leave(format!("an event names no key: {place} {}", event.sequence));
                }
            }
            ("secret.rotated" | "secret.retired", Some(scope)) => {
                let what = "was rotated or retired after the backup, which has the value of before";
                done.leave(format!("{scope} {what}: rotate or retire it here, then lift its bar"));
                self.bar_again(event, scope, false, done).await?;
            }
            ("secret.put", Some(scope)) => {
                done.leave(format!("{scope} was put after the backup: put it again"));
            }
            ("trust.changed" | "trust.applied", _) => self.bar_lost_authority(event, done).await?,
            (
                "operator.certified" | "operator.recovered" | "operator.restored" | "grant.attested"
                | "grant.transferred",
                _,
            ) => {
                done.leave(format!("{}: {}", event.kind, event.details.join(", ")));
            }
            ("owner.noted" | "owner.returned", _) => {
                done.leave(format!("{}: {}; say it again", event.kind, event.details.join(", ")));
            }
            ("person.closed" | "person.removed" | "sign_in.all_ended", _) => {
                let what = format!("{}: {}", event.kind, event.details.join(", "));
                done.leave(format!("{what}; have the directory sync again before `mayfly confirm store`"));
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
        let tenant = tenant(event);
        let place = if tenant.is_empty() { "the trust map" } else { tenant };
        done.leave(format!("the trust map was changed after the backup: apply it again ({place})"));
        for line in &event.details {
            if let Some(scope) = lost(tenant, line) {
                self.bar_again(event, scope, false, done).await?;
            } else if line.starts_with("removed ") || line.starts_with("narrowed ") {
                done.leave(format!("after the backup, in {place}: {line}"));
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
    tenant(of).clone_into(&mut told.tenant);
    told.reason = shortened(&of.reason, REASON_MOST);
    let replays = format!("replays={}/{}", shortened(&of.stream, STREAM_MOST), of.sequence);
    told.details = vec![format!("scope={scope}"), replays];
    told
}

/// Empty for what is no tenant's name.
fn tenant(event: &pb::Event) -> &str {
    event.tenant.parse::<TenantName>().map_or("", |_| &event.tenant)
}

fn operator(event: &pb::Event) -> String {
    shortened(event.actor.strip_prefix("operator:").unwrap_or(&event.actor), OPERATOR_MOST)
}

fn reason(event: &pb::Event) -> String {
    if event.reason.is_empty() {
        return "replayed from the audit after a restore".to_owned();
    }
    shortened(&event.reason, REASON_MOST)
}

/// A text of at most so many bytes, the last of which show that there were more.
fn shortened(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let room = most.saturating_sub(MORE.len());
    let mut kept: String =
        text.char_indices().take_while(|(at, one)| at + one.len_utf8() <= room).map(|(_, c)| c).collect();
    kept.push_str(MORE);
    kept
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
        return view::key_id(key_id).ok().map(Scope::SigningKey);
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

/// As operators may say why; bytes.
const REASON_MOST: usize = 512;
/// An operator's name, and the person who signed in as it; bytes.
const OPERATOR_MOST: usize = 320;
/// A stream's name: a tenant's and a partner's; bytes.
const STREAM_MOST: usize = 128;
/// One thing to look at; bytes.
const LINE_MOST: usize = 1_024;
/// Things to look at.
const LEFT_MOST: usize = 10_000;
const LEFT_OUT: &str = "and more than could be listed: look through the shipped audit";
const MORE: &str = "...";
/// The longest deadline of a task.
const LONGEST_TASK: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        broker::testing::{admin, founded, told},
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
            Scope::SigningKey("k-1".into()),
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

    #[tokio::test]
    async fn what_a_forged_event_says_is_no_longer_than_an_operator_could_have_said_it() {
        let (broker, _) = founded().await;
        let long = |text: &str| format!("{text}{}", "\u{fc}".repeat(1 << 18));
        let forged = |kind: &str, details: Vec<String>| pb::Event {
            kind: kind.into(),
            tenant: long("acme"),
            actor: long("operator:olga"),
            reason: long("because "),
            stream: long("acme/"),
            details,
            ..Default::default()
        };
        let mut done = Replayed::default();
        for event in [
            forged("scope.barred", vec!["scope=workload acme/runner".into()]),
            forged("scope.revoked", vec!["scope=partner globex".into()]),
            forged("scope.revoked", vec![long("scope=signing key k")]),
            forged("scope.lifted", vec![long("scope=grant acme/")]),
            forged("key.cut", vec![long("key_id=k")]),
            // The scope that stands for the trust map has a name that no key has.
            forged("key.cut", vec!["key_id=\0trust map".into()]),
            forged("trust.changed", vec![long("narrowed grant "), long("removed ")]),
            forged("grant.attested", vec![long("attest_by="), long("more=")]),
            forged("person.closed", vec![long("person=")]),
        ] {
            broker.replay(&event, &mut done).await.expect("replays");
        }
        assert_eq!(
            done.barred.iter().map(String::as_str).collect::<Vec<_>>(),
            ["partner globex", "workload acme/runner"]
        );
        assert_eq!(done.cut.iter().map(String::as_str).collect::<Vec<_>>(), ["partner globex"]);
        assert!(done.left.len() >= 6 && done.left.iter().all(|line| line.len() <= LINE_MOST), "{:?}", done.left);
        let events = told(&broker, "scope.").await;
        assert_eq!(events.len(), 3);
        for event in events {
            assert!(prost::Message::encoded_len(&event) < 2_048, "{} bytes", prost::Message::encoded_len(&event));
            assert!(
                event.tenant.is_empty() && event.reason.starts_with("because ") && event.reason.len() <= REASON_MOST
            );
        }
        let listed = broker.list_bars(&admin(), pb::ListBarsRequest::default()).await.expect("lists").bars;
        assert_eq!(listed.len(), 2);
        for bar in listed {
            assert!(bar.operator.starts_with("olga") && bar.operator.len() <= OPERATOR_MOST);
            assert!(bar.reason.starts_with("because ") && bar.reason.len() <= REASON_MOST);
        }
        // However many there are, so many are told.
        for at in 0..LEFT_MOST + 2 {
            done.leave(format!("thing {at}"));
        }
        assert_eq!(done.left.len(), LEFT_MOST + 1);
        assert!(done.left.contains(LEFT_OUT));
    }

    #[test]
    fn a_text_is_cut_between_letters_and_only_where_it_is_too_long() {
        assert_eq!(shortened("abc", 3), "abc");
        assert_eq!(shortened("abcdefg", 6), "abc...");
        assert_eq!(shortened("\u{fc}\u{fc}\u{fc}\u{fc}", 6), "\u{fc}...");
        assert_eq!(shortened("abcd", 3), "...");
    }
}
