//! Who comes with an identity token, or with the key of a task that one opened.

use std::net::SocketAddr;

use super::{Broker, event, refusal::Refusal, who::Workload};
use crate::{
    identity::{
        Caller, FederatedProof, KeyProof, PeerKey, Proof,
        oidc::{TokenCode, TokenFault, UnverifiedToken},
    },
    ledger::{BarDraft, Refused, Spend},
    model::{ClientKey, Digest, Lease, OnReuse, OpenedWith, Scope, Task, TaskId, Timestamp, WorkloadName, time::SKEW},
    policy::TenantTrust,
};

/// Why an identity token, or the key beside it, is not taken; all that the caller learns.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum IdentityRefusal {
    /// It is not believed, or not for this broker.
    #[error("the identity token is not taken; the broker's operator sees why in its events")]
    Refused,
    /// It is over.
    #[error("the identity token has expired; get a fresh one, or go on with the key of a held task")]
    Expired,
    /// The issuer's keys cannot be had.
    #[error("the identity token cannot be checked now; try again")]
    Unavailable,
    /// Its issuer's tokens count with a key only.
    #[error("come with a self-signed client certificate beside this identity token: its task is bound to that key")]
    KeyRequired,
    /// It was used with another key.
    #[error("the identity token was used with another key; get a fresh one")]
    Spent,
    /// Who signed in is known, and no rule makes an operator of it.
    #[error("you are known, but no sign-in rule makes you an operator; ask who runs this broker")]
    NotMapped,
    /// Who signed in is known, and the company's directory has no such person.
    #[error("the company's directory does not have you; ask who keeps it")]
    NotProvisioned,
    /// The person left, or its sign-ins were ended after the token was issued.
    #[error("sign-in is closed to you; if that is wrong, ask who runs this broker")]
    Closed,
    /// It has opened its one task.
    #[error("the identity token has opened a task with this key already; name that task, or get a fresh token")]
    Opened,
}

impl IdentityRefusal {
    /// The stable reason code.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Refused => "IDENTITY_TOKEN_REFUSED",
            Self::Expired => "IDENTITY_TOKEN_EXPIRED",
            Self::Unavailable => "IDENTITY_ISSUER_UNAVAILABLE",
            Self::KeyRequired => "CLIENT_KEY_REQUIRED",
            Self::Spent | Self::Opened => "IDENTITY_TOKEN_SPENT",
            Self::NotMapped => "SIGN_IN_NOT_MAPPED",
            Self::NotProvisioned => "SIGN_IN_NOT_PROVISIONED",
            Self::Closed => "SIGN_IN_CLOSED",
        }
    }
}

impl Broker {
    /// The caller behind an identity token.
    ///
    /// # Errors
    /// [`Refusal::Identity`]; what is wrong with the token stands in an event for operators.
    pub async fn prove_token(
        &self,
        text: &str,
        key: Option<PeerKey>,
        source: Option<SocketAddr>,
    ) -> Result<Caller, Refusal> {
        let proof = match UnverifiedToken::parse(text) {
            Ok(token) => self.issuers.prove(token, key, || self.now()).await,
            Err(fault) => Err(fault),
        };
        match proof {
            Ok(proof) if key.is_none() && proof.issuer.reuse.needs_key() => {
                self.token_refused(source, "it came without a key of the client's own");
                Err(Refusal::Identity(IdentityRefusal::KeyRequired))
            }
            Ok(proof) => Ok(proof.caller(source)),
            Err(fault) => {
                self.token_refused(source, &fault.to_string());
                Err(Refusal::Identity(told(&fault)))
            }
        }
    }

    /// The caller behind the key of a task that was opened with an identity token.
    ///
    /// A task that is not held proves nobody to begin anything: then the proof ends now.
    ///
    /// # Errors
    /// [`Refusal::Unproven`] when the key is not the task's, or its time is over.
    pub fn task_caller(&self, key: PeerKey, task: &str, source: Option<SocketAddr>) -> Result<Caller, Refusal> {
        const OTHER: Refusal = Refusal::Unproven("the key you came with is not that of such a task");
        let id: TaskId = task.parse().map_err(|_| OTHER)?;
        let task = self.ledger.task(id)?.ok_or(OTHER)?;
        let own = task.client_key.filter(|own| own.key.matches(&key.spki)).ok_or(OTHER)?;
        let now = self.now();
        if own.until <= now {
            return Err(Refusal::Unproven("the longest time of the job is over; open a new task with a fresh token"));
        }
        // An issuer that the config does not know any more has nobody go on.
        let is_issuer = |name: &crate::model::IssuerName| task.proofs.contains(&Scope::Issuer(name.clone()).id());
        if !self.issuers.rules().iter().any(|rules| is_issuer(&rules.name)) {
            return Err(Refusal::Unproven("the issuer of the token that opened the task is not declared any more"));
        }
        let proof = KeyProof {
            key,
            task: id,
            tenant: task.tenant.clone(),
            workload: task.workload.clone(),
            basis: task.basis.1,
            proofs: task.proofs.clone(),
            opened_with: task.opened_with.clone(),
            // INVARIANT: a task that says it is held and whose holder is gone ends after the grace time.
            expires: if task.held { own.until } else { now },
        };
        Ok(proof.caller(source))
    }

    /// Until when the caller is proven to act in a task.
    ///
    /// A token is good until it expires; the key that it came over, in the task that is bound to it, for the task's window
    /// while the task is held.
    pub(super) fn proof_end(caller: &Caller, task: Option<&Task>) -> Option<Timestamp> {
        let Proof::Federated(token) = caller.proof() else { return caller.expires() };
        let own = task.filter(|task| task.held).and_then(|task| task.client_key);
        let own = own.filter(|own| token.key.is_some_and(|key| key.spki.matches(&own.key)));
        Some(own.map_or(token.expires, |own| token.expires.max(own.until)))
    }

    /// Refuses a token in a task that belongs to the key of another one.
    pub(super) fn check_client_key(caller: &Caller, task: &Task, what: &'static str) -> Result<(), Refusal> {
        let Proof::Federated(token) = caller.proof() else { return Ok(()) };
        match task.client_key.filter(|own| own.exclusive) {
            Some(own) if !token.key.is_some_and(|key| key.spki.matches(&own.key)) => Err(Refusal::Unknown(what)),
            Some(_) | None => Ok(()),
        }
    }

    /// The same for a lease's task; costs others nothing.
    pub(super) fn check_key_of_lease(&self, caller: &Caller, lease: &Lease) -> Result<(), Refusal> {
        if !matches!(caller.proof(), Proof::Federated(_)) {
            return Ok(());
        }
        let task = self.ledger.task(lease.id.task())?.ok_or(Refusal::Unknown("lease"))?;
        Self::check_client_key(caller, &task, "lease")
    }

    /// What came of a token that the ledger found used up: told at once, and suspended where the issuer says so.
    pub(super) async fn ledger_refused(
        &self,
        caller: &Caller,
        workload: &Workload,
        refused: Refused,
        now: Timestamp,
    ) -> Refusal {
        if let (Refused::TokenSpent { first }, Proof::Federated(token)) = (&refused, caller.proof()) {
            self.token_reused(caller, token, workload, *first, now).await;
        }
        refused.into()
    }

    async fn token_reused(
        &self,
        caller: &Caller,
        token: &FederatedProof,
        workload: &Workload,
        first: Option<TaskId>,
        now: Timestamp,
    ) {
        metrics::counter!("mayfly_identity_tokens_reused_total").increment(1);
        let tenant = workload.tenant.trust.name();
        tracing::warn!(%tenant, workload = %workload.name, issuer = %token.issuer.name, token = %token.token,
            "an identity token came with a second key: somebody else has it");
        let mut event = event::by(caller, workload.actor(), "identity.token_reused", now);
        event.decision = event::REFUSED.into();
        event.reason = IdentityRefusal::Spent.reason().to_owned();
        (event.tenant, event.workload) = (tenant.to_string(), workload.name.to_string());
        if let Some(id) = first {
            event.details.push(format!("first_task={id}"));
        }
        let scope = Scope::Proof(token.token);
        let written = match token.issuer.on_reuse {
            // Once suspended it stays so, and needs no further commit a try.
            OnReuse::Suspend if self.ledger.scope(scope.id()).bar > 0 => return,
            OnReuse::Suspend => {
                event.details.extend([format!("scope={scope}"), "suspend=true".to_owned()]);
                let reason = "an identity token came with a second key".to_owned();
                let draft = BarDraft { scope, suspend: true, operator: "broker".into(), reason, event, now };
                self.ledger.bar(draft).await.map(drop)
            }
            OnReuse::Alarm if !self.refusals.tells(&format!("reuse {tenant}"), now) => return,
            OnReuse::Alarm => self.ledger.note_act(vec![event], now).await.map(drop),
        };
        if let Err(error) = written {
            tracing::error!(%error, "the reuse of an identity token could not be written down");
        }
    }

    /// Tells operators why a token was not taken: in the broker's own stream, the first of a minute.
    fn token_refused(&self, source: Option<SocketAddr>, why: &str) {
        let now = self.now();
        tracing::info!(source = ?source, why, "an identity token was refused");
        if !self.refusals.tells("", now) {
            return;
        }
        let mut event = event::own("identity.refused", now);
        event.decision = event::REFUSED.into();
        event.actor = "unknown".into();
        event.source = source.map_or_else(|| "unix".to_owned(), |source| source.to_string());
        event.reason = IdentityRefusal::Refused.reason().to_owned();
        event.details.push(format!("why={why}"));
        self.note_later(vec![event], now);
    }
}

/// The key that a task is bound to when this caller opens it.
pub(super) fn client_key(
    caller: &Caller,
    trust: &TenantTrust,
    name: &WorkloadName,
    now: Timestamp,
) -> Option<ClientKey> {
    let Proof::Federated(token) = caller.proof() else { return None };
    let key = token.key?;
    let until = now.after(trust.longest_job(token, name));
    Some(ClientKey { key: key.spki, until, exclusive: token.issuer.reuse.needs_key() })
}

/// How a task that this caller opens names the token behind it.
pub(super) fn opened_with(caller: &Caller) -> Option<Box<OpenedWith>> {
    let Proof::Federated(token) = caller.proof() else { return None };
    let (issuer, subject) = (token.issuer.name.clone(), token.subject.clone());
    Some(Box::new(OpenedWith { issuer, subject, token: token.token }))
}

/// Where the job is seen that the caller opens a task for: as its token says, or else by its own word.
///
/// # Errors
/// When that word is no plain URL: it is shown to people, as a link.
pub(super) fn job_url(caller: &Caller, claimed: &str) -> Result<Option<Box<str>>, Refusal> {
    let plain = |b: u8| b.is_ascii_graphic() && !b"\"'<>`\\^{|}".contains(&b);
    let good = claimed.is_empty()
        || (claimed.len() <= JOB_URL_BYTES
            && claimed.bytes().all(plain)
            && claimed.parse::<http::Uri>().is_ok_and(|url| {
                matches!(url.scheme_str(), Some("https" | "http"))
                    && url.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            }));
    if !good {
        let problem = "is no http or https URL of at most 512 visible ASCII characters without a user";
        return Err(Refusal::invalid("job_url", problem));
    }
    let Proof::Federated(token) = caller.proof() else {
        return Ok((!claimed.is_empty()).then(|| claimed.into()));
    };
    let signed = token.job_url().filter(|url| url.len() <= JOB_URL_BYTES);
    Ok(signed.or_else(|| (!claimed.is_empty()).then(|| claimed.to_owned())).map(String::into_boxed_str))
}

/// The use of the caller's token; `opens` is the hash of the request when it opens a task. Costs others nothing.
pub(super) fn spend(caller: &Caller, opens: impl FnOnce() -> Option<Digest>) -> Option<Spend> {
    let Proof::Federated(token) = caller.proof() else { return None };
    let key = token.key.filter(|_| token.issuer.reuse.needs_key())?;
    let (keys, until) = (token.issuer.reuse.keys(), token.forgotten.after(SKEW));
    Some(Spend { token: token.token, key: key.spki, keys, opens: opens(), until })
}

pub(super) fn told(fault: &TokenFault) -> IdentityRefusal {
    match fault.code() {
        TokenCode::Refused => IdentityRefusal::Refused,
        TokenCode::Expired => IdentityRefusal::Expired,
        TokenCode::Unavailable => IdentityRefusal::Unavailable,
    }
}

const JOB_URL_BYTES: usize = 512;

#[cfg(test)]
mod tests;
