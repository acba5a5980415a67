//! Is this credential good now? A look-up and a comparison of hashes: no public-key operation.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use super::{Broker, event, refusal::Refusal, view, who::Checker};
use crate::{
    identity::Caller,
    ledger::stream_id,
    mint::{TOKEN_MAX_BYTES, jwt, opaque, x509},
    model::{CredentialKind, Digest, Lease, LeaseId, Standing, Timestamp},
    pb,
};

/// Uses seen by introspection, counted by lease and verifier until they are written.
#[derive(Debug, Default)]
pub struct UseLog {
    uses: Mutex<HashMap<(LeaseId, u32), Use>>,
    /// Bound credentials that came without their certificate, and how often since that was last told.
    misheld: Mutex<HashMap<(LeaseId, u32), Use>>,
    names: Mutex<Vec<String>>,
}

#[derive(Debug)]
struct Use {
    count: u64,
    lease: Box<Lease>,
}

impl Broker {
    /// Answers for one credential. Unknown, foreign, expired, revoked and forged all answer the same.
    ///
    /// # Errors
    /// When the request is malformed or the store failed; never to tell about the credential.
    pub async fn introspect(
        &self,
        caller: &Caller,
        request: pb::IntrospectRequest,
    ) -> Result<pb::IntrospectResponse, Refusal> {
        let now = self.now();
        let (incarnation, number) = self.ledger.basis();
        let revision = Some(pb::Revision { incarnation, number });
        let inactive = || pb::IntrospectResponse { revision, ..Default::default() };
        let (claimed, hash) = match &request.credential {
            Some(pb::introspect_request::Credential::Token(text)) if text.len() <= TOKEN_MAX_BYTES => {
                (claimed_lease(text), Digest::of(text.as_bytes()))
            }
            Some(pb::introspect_request::Credential::CertificateDer(der)) if der.len() <= TOKEN_MAX_BYTES => {
                (x509::serial(der).and_then(|serial| LeaseId::from_bytes(&serial)), Digest::of(der))
            }
            Some(_) => return Err(Refusal::invalid("credential", format!("is longer than {TOKEN_MAX_BYTES} bytes"))),
            None => return Err(Refusal::invalid("credential", "is missing; give a token or a certificate")),
        };
        let Some(lease) = claimed.map(|id| self.ledger.lease(id)).transpose()?.flatten() else {
            return Ok(inactive());
        };
        // Nobody but its vendor can say anything of a static secret, and what waits is in nobody's hands.
        if lease.kind == CredentialKind::Secret || lease.pickup_until.is_some() {
            return Ok(inactive());
        }
        if !lease.credential.matches(&hash) || !self.ledger.lease_standing(&lease, now)?.is_live() {
            return Ok(inactive());
        }
        let checkers = self.checker(caller, Some(&lease.tenant))?;
        let Some(checker) = checkers.iter().find(|checker| checker.may_see(&lease)) else { return Ok(inactive()) };
        if !for_audience(&lease, &request.audience, checker) {
            return Ok(inactive());
        }
        if !is_held(&lease, &request.presented_certificate_sha256) {
            self.note_misheld(&lease, checker, &request.presented_certificate_sha256, now);
            return Ok(inactive());
        }
        self.uses.note(&lease, checker);
        let Some(tenant) = self.registry.tenant(&self.ledger, &lease.tenant)? else { return Ok(inactive()) };
        let (issuer, (subject, actors)) = (self.issuer(&tenant), self.principal(&lease));
        let resellers = tenant.trust.resellers(&lease.partner).to_vec();
        let lease = Some(view::lease(&lease, Standing::Live));
        Ok(pb::IntrospectResponse { active: true, lease, issuer, subject, revision, actors, resellers })
    }

    /// Tells that a credential is in other hands: the first time of a lease at a verifier at once, then as a count.
    fn note_misheld(&self, lease: &Lease, checker: &Checker, presented: &[u8], now: Timestamp) {
        metrics::counter!("mayfly_credentials_reused_total").increment(1);
        let is_first = self.uses.note_misheld(lease, checker);
        // A room of its own: whoever can be refused for other things must not keep this from being told.
        if !is_first || !self.refusals.tells(&format!("{} reused", lease.tenant), now) {
            return;
        }
        let mut event = reused(lease, checker.actor(), now);
        let presented = Digest::from_slice(presented).map_or("none".to_owned(), |sha256| sha256.to_string());
        event.details.extend([format!("presented={presented}"), "times=1".to_owned()]);
        self.note_later(vec![event], now);
    }

    /// Writes the uses counted so far, one event a lease and verifier.
    ///
    /// # Errors
    /// When the store failed; the uses are lost then, which only the audit of uses notices.
    pub async fn write_uses(&self) -> Result<usize, Refusal> {
        let now = self.now();
        let events = self.uses.drain(now);
        let written = events.len();
        for chunk in events.chunks(USES_A_COMMIT) {
            self.ledger.note(chunk.to_vec(), now).await?;
        }
        Ok(written)
    }
}

impl UseLog {
    fn note(&self, lease: &Lease, checker: &Checker) {
        let verifier = self.number(&checker.actor());
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = uses.get_mut(&(lease.id, verifier)) {
            known.count += 1;
        } else if uses.len() < USES_MOST {
            uses.insert((lease.id, verifier), Use { count: 1, lease: Box::new(lease.clone()) });
        }
    }

    /// Whether it is the first since the counts were written.
    fn note_misheld(&self, lease: &Lease, checker: &Checker) -> bool {
        let verifier = self.number(&checker.actor());
        let mut misheld = self.misheld.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = misheld.get_mut(&(lease.id, verifier)) {
            known.count += 1;
            return false;
        }
        if misheld.len() < MISHELD_MOST {
            misheld.insert((lease.id, verifier), Use { count: 0, lease: Box::new(lease.clone()) });
        }
        true
    }

    fn number(&self, name: &str) -> u32 {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let at = names.iter().position(|known| known == name).unwrap_or_else(|| {
            names.push(name.to_owned());
            names.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    fn drain(&self, now: Timestamp) -> Vec<pb::Event> {
        let uses = std::mem::take(&mut *self.uses.lock().unwrap_or_else(PoisonError::into_inner));
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let mut events: Vec<_> = uses
            .into_iter()
            .map(|((_, verifier), used)| {
                let mut event = event::own("lease.used", now);
                event::of_lease(&mut event, &used.lease);
                let verifier = usize::try_from(verifier).ok().and_then(|at| names.get(at));
                event.actor = verifier.cloned().unwrap_or_default();
                event.details.push(format!("uses={}", used.count));
                event
            })
            .collect();
        let misheld = std::mem::take(&mut *self.misheld.lock().unwrap_or_else(PoisonError::into_inner));
        for ((_, verifier), seen) in misheld.into_iter().filter(|(_, seen)| seen.count > 0) {
            let verifier = usize::try_from(verifier).ok().and_then(|at| names.get(at));
            let mut event = reused(&seen.lease, verifier.cloned().unwrap_or_default(), now);
            event.details.push(format!("times={}", seen.count));
            events.push(event);
        }
        // Neighbours in a stream share a page.
        events.sort_by_cached_key(|event| (stream_id(&event.tenant, &event.partner), event.lease_id.clone()));
        events
    }
}

/// The event of a credential in other hands.
fn reused(lease: &Lease, verifier: String, now: Timestamp) -> pb::Event {
    let mut event = event::own("credential.reused", now);
    event.decision = event::REFUSED.into();
    event::of_lease(&mut event, lease);
    event.actor = verifier;
    event
}

/// The lease that a token claims to be of.
pub(super) fn claimed_lease(text: &str) -> Option<LeaseId> {
    if text.starts_with(opaque::PREFIX) {
        return opaque::parse(text).ok();
    }
    jwt::peek(text)
}

fn for_audience(lease: &Lease, audience: &str, checker: &Checker) -> bool {
    let named = audience.is_empty() || lease.audiences.iter().any(|own| own == audience);
    named
        && match checker {
            Checker::Verifier { verifier, .. } if !audience.is_empty() => verifier.may_see(audience),
            Checker::Verifier { .. } | Checker::Operator(_) => true,
        }
}

/// A bound token counts only with the certificate that it is bound to; a certificate is its own proof.
fn is_held(lease: &Lease, presented: &[u8]) -> bool {
    match (lease.kind, lease.bound) {
        (CredentialKind::X509, _) | (_, None) => true,
        (CredentialKind::Jwt | CredentialKind::Opaque | CredentialKind::Secret, Some(bound)) => {
            Digest::from_slice(presented).is_some_and(|presented| presented.matches(&bound))
        }
    }
}

/// Leases and verifiers whose uses are counted between two writes; more go uncounted.
const USES_MOST: usize = 50_000;
/// Leases and verifiers of which is known that the first misuse was told.
const MISHELD_MOST: usize = 1_000;
/// Events of uses in one proposal.
const USES_A_COMMIT: usize = 256;

#[cfg(test)]
mod tests;
