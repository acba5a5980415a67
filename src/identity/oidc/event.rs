//! Security event tokens (RFC 8417) of the Shared Signals Framework: what happened to whom.

use std::{collections::BTreeMap, sync::Arc};

use super::{claims::shown, fault::TokenFault, json::Json, keys::KeySet, token::UnverifiedToken};
use crate::model::{Digest, IssuerRules, Timestamp, time::SKEW};

/// What a transmitter tells. Proves nobody.
#[derive(Clone, Debug)]
pub struct SecurityEvent {
    /// `jti`, as events of ours may show it.
    pub id: String,
    /// SHA-256 over issuer and `jti`: by this it is known again.
    pub digest: Digest,
    /// When it was issued, by its own word.
    pub issued: Timestamp,
    /// Until when it could come again.
    pub forgotten: Timestamp,
    events: BTreeMap<String, Json>,
    subject: Option<Json>,
}

/// Whom an event is about (RFC 9493 section 3.2).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EventSubject {
    /// A mail address.
    Email(String),
    /// Issuer and subject.
    IssuerAndSubject(String, String),
    /// An id that both sides know.
    Opaque(String),
}

impl UnverifiedToken {
    /// Checks it as an event of this transmitter, for this receiver.
    ///
    /// # Errors
    /// When it is not to be believed, not for us, or from too long ago.
    pub fn verify_event(
        self,
        rules: &Arc<IssuerRules>,
        keys: &KeySet,
        now: Timestamp,
    ) -> Result<SecurityEvent, TokenFault> {
        self.check_signature(rules, keys)?;
        let claims = self.checked_claims()?;
        let audience = claims.value("aud").ok_or(TokenFault::Claim("aud"))?;
        if !audience.all().contains(&rules.audience) {
            return Err(TokenFault::Audience { found: audience.to_string(), want: rules.audience.clone() });
        }
        let issued = self.date("iat")?.ok_or(TokenFault::Claim("iat"))?;
        if issued > now.after(SKEW) {
            return Err(TokenFault::Early(issued));
        }
        let forgotten = issued.after(rules.max_age);
        if forgotten <= now {
            return Err(TokenFault::TooOld(issued));
        }
        if let Some(expires) = self.date("exp")?.filter(|expires| *expires <= now) {
            return Err(TokenFault::Expired(expires));
        }
        let id = claims.one("jti").filter(|id| (1..=255).contains(&id.len())).ok_or(TokenFault::Claim("jti"))?;
        let events = self.members().get("events").and_then(Json::members).ok_or(TokenFault::Claim("events"))?;
        if events.is_empty() || events.len() > EVENTS_MOST {
            return Err(TokenFault::Claim("events"));
        }
        // Shared Signals Framework 1.0 section 4.1.2: so that it is never taken for a token of somebody.
        if claims.value("sub").is_some() {
            return Err(TokenFault::Claim("sub"));
        }
        Ok(SecurityEvent {
            id: shown(id),
            digest: Digest::of_parts(&[b"event\n", rules.url.as_bytes(), b"\n", id.as_bytes()]),
            issued,
            forgotten,
            events: events.clone(),
            subject: self.members().get("sub_id").cloned(),
        })
    }
}

impl SecurityEvent {
    /// Types of what happened, each with whom it is about; `None` where that cannot be told.
    pub fn events(&self) -> impl Iterator<Item = (&str, Option<EventSubject>)> {
        self.events.iter().map(|(kind, event)| {
            // Before the framework was final the subject was within the event.
            let within = event.members().and_then(|members| members.get("subject"));
            (kind.as_str(), self.subject.as_ref().or(within).and_then(subject))
        })
    }
}

fn subject(json: &Json) -> Option<EventSubject> {
    let members = json.members()?;
    let text = |name: &str| {
        let text = members.get(name).and_then(Json::text);
        text.filter(|text| (1..=255).contains(&text.len())).map(str::to_owned)
    };
    match text("format").or_else(|| text("subject_type"))?.as_str() {
        "email" => text("email").map(EventSubject::Email),
        "iss_sub" => Some(EventSubject::IssuerAndSubject(text("iss")?, text("sub")?)),
        "opaque" => text("id").map(EventSubject::Opaque),
        // A user, perhaps with a session or a device that says nothing here; one level, for `user` is no complex one.
        "complex" => members.get("user").filter(|user| !is_complex(user)).and_then(subject),
        _ => None,
    }
}

fn is_complex(json: &Json) -> bool {
    let format = json.members().and_then(|members| members.get("format")).and_then(Json::text);
    format.is_none_or(|format| format == "complex")
}

const EVENTS_MOST: usize = 16;
