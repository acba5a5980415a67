//! An identity provider tells what happened to people (Shared Signals Framework 1.0, RISC and CAEP).

use std::{collections::BTreeSet, net::SocketAddr};

use super::{
    Broker, event,
    people::{CLOSINGS_MOST, Called, PEOPLE_MOST, Signals},
    refusal::Refusal,
    sign_in::source_text,
};
use crate::{
    config::SubjectFormat,
    identity::oidc::{EventSubject, SecurityEvent, TokenFault, UnverifiedToken, shown},
    ledger::Refused,
    model::{PersonId, Timestamp, person::folded},
    pb, records,
};

/// Why an event was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// It is not to be believed, or not for us.
    #[error(transparent)]
    Token(#[from] TokenFault),
    /// The broker: to be told again.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Whom an event is about.
struct Meant {
    /// All that the directory and sign-ins know the person by.
    called: Called,
    /// The directory's rows of this person, not of others who once had the name.
    own: BTreeSet<PersonId>,
    /// As events name the person.
    name: String,
}

/// What happened to somebody.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Happened {
    /// The account is not to be used any more.
    Closed,
    /// The account may be used again.
    Opened,
    /// What began before is over.
    SessionRevoked,
}

impl Broker {
    /// Takes an event. One that came before changes nothing.
    ///
    /// # Errors
    /// When it is not to be believed, or could not be acted on: the transmitter tells it again then.
    pub async fn take_event(&self, text: &str, source: Option<SocketAddr>) -> Result<(), NotTaken> {
        let signals = self.people.signals.as_ref().ok_or(Refusal::Unknown("transmitter"))?;
        let told = match self.believed(signals, text).await {
            Ok(told) => told,
            Err(fault) => {
                self.event_refused(source, &fault.to_string());
                return Err(fault.into());
            }
        };
        if self.ledger.is_spent(&told.digest).map_err(Refusal::from)? {
            return Ok(());
        }
        for (kind, subject) in told.events() {
            self.happened(signals, &told, kind, subject, source).await?;
        }
        // Last: what was not acted on must come again. Acts are such that a second time changes nothing.
        match self.ledger.spend_once(told.digest, told.forgotten, self.now()).await {
            Ok(_) | Err(Refused::TokenSpent { .. }) => Ok(()),
            Err(refused) => Err(Refusal::from(refused).into()),
        }
    }

    async fn believed(&self, signals: &Signals, text: &str) -> Result<SecurityEvent, TokenFault> {
        let token = UnverifiedToken::parse_event(text)?;
        if token.claimed_issuer() != signals.rules.url {
            return Err(TokenFault::UnknownIssuer(token.shown_issuer()));
        }
        let keys = signals.provider.keys_for(token.claimed_key_id(), self.now()).await?;
        token.verify_event(&signals.rules, &keys, self.now())
    }

    async fn happened(
        &self,
        signals: &Signals,
        told: &SecurityEvent,
        kind: &str,
        subject: Option<EventSubject>,
        source: Option<SocketAddr>,
    ) -> Result<(), Refusal> {
        let now = self.now();
        let mut event = event::own("signal.taken", now);
        (event.actor, event.source) = (ACTOR.to_owned(), source_text(source));
        event.details = vec![format!("type={}", shown(kind)), format!("jti={}", told.id)];
        let what = match kind.strip_prefix(SCHEMAS) {
            Some("risc/event-type/account-disabled" | "risc/event-type/account-purged") => Happened::Closed,
            Some("risc/event-type/account-enabled") => Happened::Opened,
            Some("caep/event-type/session-revoked") => Happened::SessionRevoked,
            // A question whether we listen, or what is not ours to act on.
            Some(_) | None => {
                self.ledger.note_act(vec![event], now).await?;
                return Ok(());
            }
        };
        let Some(Meant { called, own, name }) = subject.and_then(|subject| self.meant(signals, subject)) else {
            event.kind = "signal.unmatched".to_owned();
            event.decision = event::REFUSED.into();
            event.reason = "it names nobody in a format that the config believes".to_owned();
            tracing::warn!(kind = %shown(kind), "an event of the identity provider names nobody that can be told");
            self.ledger.note_act(vec![event], now).await?;
            return Ok(());
        };
        event.details.push(format!("person={name}"));
        self.note_person(what, &called, told.issued, event.clone(), now).await?;
        if what == Happened::Closed || (what == Happened::SessionRevoked && signals.session_revoked_leaves) {
            let reason = "the identity provider says that the owner has left".to_owned();
            event = pb::Event { kind: "scope.suspended".to_owned(), reason, details: Vec::new(), ..event };
            self.owner_left(&called, &own, &name, event).await?;
        }
        Ok(())
    }

    /// Notes it, and with that ends what began before.
    async fn note_person(
        &self,
        what: Happened,
        called: &Called,
        issued: Timestamp,
        mut taken: pb::Event,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let _writing = self.people.writing.lock().await;
        let kind = match what {
            Happened::Closed => "person.closed",
            Happened::Opened => "person.opened",
            Happened::SessionRevoked => "sign_in.all_ended",
        };
        let mut gone = self.idle_marks(now);
        let mut puts = Vec::new();
        if what == Happened::Opened {
            puts = self.opened_marks(called, issued, now);
            taken.details.push(format!("opened={}", puts.len()));
        } else {
            let most = if what == Happened::Closed { CLOSINGS_MOST } else { PEOPLE_MOST };
            let (id, mut mark) = self.mark(called, most, now)?;
            if what == Happened::Closed {
                let before = if mark.active { 0 } else { mark.changed };
                (mark.active, mark.changed) = (false, issued.millis().max(before));
            }
            mark.ended_until = now.millis();
            gone.retain(|idle| *idle != id);
            puts.push((id, mark));
        }
        let noted = pb::Event { kind: kind.to_owned(), ..taken.clone() };
        let events = if puts.is_empty() { vec![taken] } else { vec![taken, noted] };
        self.put_people(puts, gone, events, now).await?;
        Ok(())
    }

    /// Marks that an event opens: those of events that were not issued after it, and none of whom the directory removed.
    /// What had ended stays over.
    fn opened_marks(
        &self,
        called: &Called,
        issued: Timestamp,
        now: Timestamp,
    ) -> Vec<(PersonId, records::PersonRecord)> {
        let mut opened = Vec::new();
        for (id, row) in self.people.about(called) {
            if !row.provisioned && !row.active && !row.removed && row.changed <= issued.millis() {
                let row = records::PersonRecord::clone(&row);
                opened.push((id, records::PersonRecord { active: true, changed: now.millis(), ..row }));
            }
        }
        opened
    }

    /// Whom a subject means.
    fn meant(&self, signals: &Signals, subject: EventSubject) -> Option<Meant> {
        let believes = |format: SubjectFormat| signals.subjects.contains(&format).then_some(());
        let by_subject = |subject: &str| Called { subjects: [subject.to_owned()].into(), ..Called::default() };
        let mut own = BTreeSet::new();
        let (mut called, name) = match subject {
            EventSubject::Email(email) => {
                believes(SubjectFormat::Email)?;
                (Called::by_name(&email), email)
            }
            EventSubject::IssuerAndSubject(issuer, subject) => {
                believes(SubjectFormat::IssuerAndSubject)?;
                let door = self.people.door.as_ref().map(|door| door.rules.issuer.url.as_str());
                let known = issuer == signals.rules.url || Some(issuer.as_str()) == door;
                known.then_some(())?;
                (by_subject(&subject), subject)
            }
            EventSubject::Opaque(id) => {
                believes(SubjectFormat::Opaque)?;
                let known = id.parse().ok().and_then(|id| Some((id, self.people.row(&id)?)));
                let called = known.map(|(id, row)| {
                    own.insert(id);
                    Called::of(&row)
                });
                (called.unwrap_or_else(|| by_subject(&id)), id)
            }
        };
        self.add_signed_in(&mut called)?;
        if own.is_empty() {
            own = self.add_provisioned(&mut called);
            // What the directory calls the person may be what the provider does.
            self.add_signed_in(&mut called)?;
        }
        called.operator = None;
        called.names.retain(|name| !self.is_anothers(name, &own));
        Some(Meant { called, own, name: shown(&name) })
    }

    /// The mail addresses and further ids of sign-ins that have an id; `None` when they cannot be read.
    fn add_signed_in(&self, called: &mut Called) -> Option<()> {
        let sign_ins = self.ledger.sign_ins().ok()?;
        let is = |called: &Called, row: &records::SignInRecord| {
            called.subjects.contains(&row.subject) || called.subjects.contains(&row.directory_id)
        };
        let meant: Vec<_> = sign_ins.iter().filter(|row| is(called, row)).collect();
        for row in meant {
            called.names.extend(Some(folded(&row.email)).filter(|name| !name.is_empty()));
            called.subjects.extend([&row.subject, &row.directory_id].into_iter().filter(|id| !id.is_empty()).cloned());
        }
        Some(())
    }

    /// What the directory says of those who have such an id, or such a name now: a name of before may be another's.
    fn add_provisioned(&self, called: &mut Called) -> BTreeSet<PersonId> {
        let is_own = |row: &records::PersonRecord| {
            let named = called.names.contains(&folded(&row.user_name)) || called.subjects.contains(&row.external_id);
            row.provisioned && named
        };
        let about = self.people.about(called).into_iter();
        let own: Vec<_> = about.filter(|(_, row)| is_own(row)).collect();
        for (_, row) in &own {
            let also = Called::of(row);
            called.names.extend(also.names);
            called.subjects.extend(also.subjects);
        }
        own.into_iter().map(|(id, _)| id).collect()
    }

    fn event_refused(&self, source: Option<SocketAddr>, why: &str) {
        let now = self.now();
        tracing::info!(source = ?source, why, "an event of an identity provider was refused");
        if !self.refusals.tells("", now) {
            return;
        }
        let mut event = event::own("signal.refused", now);
        event.decision = event::REFUSED.into();
        (event.actor, event.source) = ("unknown".to_owned(), source_text(source));
        event.details.push(format!("why={why}"));
        self.note_later(vec![event], now);
    }
}

const ACTOR: &str = "shared_signals";
const SCHEMAS: &str = "https://schemas.openid.net/secevent/";
