//! What a credential in hand is, whatever its form.

use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::{
    Broker,
    refusal::Refusal,
    trail::{self, Stream},
    view,
    who::Operator,
};
use crate::{
    identity::Caller,
    ledger::stream_id,
    mint::{jwt, opaque, pem},
    model::{
        Digest, Lease, LeaseId, Timestamp,
        id::{hex, unhex},
    },
    pb,
    pb::identify_response::Form,
    policy::Role,
};

/// What a text looks like: the lease that it names, and the hash of the credential that it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Found {
    /// Its form.
    pub form: Form,
    /// The lease that it claims to be, unverified.
    pub lease: Option<LeaseId>,
    /// The hash of the credential, when the text is one or is its hash.
    pub sha256: Option<Digest>,
}

/// Says what a text looks like. Nothing of it is trusted: the stored hash decides.
///
/// # Errors
/// [`Refusal::Invalid`] when it is nothing that the broker gives out. The text is not repeated.
pub fn classify(text: &str) -> Result<Found, Refusal> {
    if text.len() > FOUND_MAX_BYTES {
        return Err(Refusal::invalid("found", format!("is longer than {FOUND_MAX_BYTES} bytes")));
    }
    let text = text.trim();
    let whole = |form, lease| Found { form, lease, sha256: Some(Digest::of(text.as_bytes())) };
    if text.contains("-----BEGIN ") {
        return certificate(text);
    }
    if text.starts_with(opaque::PREFIX) {
        let lease = opaque::parse(text).map_err(|why| Refusal::invalid("found", why.to_string()))?;
        return Ok(whole(Form::Opaque, Some(lease)));
    }
    if text.bytes().filter(|b| *b == b'.').count() == 2 {
        return Ok(whole(Form::Jwt, jwt::peek(text)));
    }
    digits(text)
}

/// A serial number or fingerprint, as tools print them: `serial=40AB..`, `40:ab:..`.
fn digits(text: &str) -> Result<Found, Refusal> {
    let text = text.rsplit_once('=').map_or(text, |(_, digits)| digits);
    let bare: String = text.chars().filter(|c| *c != ':' && !c.is_whitespace()).collect();
    let bytes = unhex(&bare).unwrap_or_default();
    match (bytes.len(), Digest::from_slice(&bytes)) {
        (LeaseId::BYTES, _) => Ok(Found { form: Form::Id, lease: LeaseId::from_bytes(&bytes), sha256: None }),
        (_, Some(sha256)) => Ok(Found { form: Form::Sha256, lease: None, sha256: Some(sha256) }),
        (_, None) => Err(Refusal::invalid(
            "found",
            "is no token, PEM certificate, id of 40 hex digits or SHA-256 of 64 hex digits",
        )),
    }
}

fn certificate(text: &str) -> Result<Found, Refusal> {
    let bad = || Refusal::invalid("found", "is no PEM certificate; it begins with `-----BEGIN CERTIFICATE-----`");
    let chain = pem::parse_certificates(text.as_bytes()).map_err(|_| bad())?;
    let leaf = chain.first().ok_or_else(bad)?;
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| bad())?;
    let lease = LeaseId::from_bytes(parsed.raw_serial());
    Ok(Found { form: Form::Certificate, lease, sha256: Some(Digest::of(leaf)) })
}

impl Broker {
    /// What a credential in hand is. To admins also a static secret is one; to others its value is as any text.
    ///
    /// # Errors
    /// When the caller is no operator, the text is nothing the broker gives out, or the store failed.
    pub async fn identify(
        &self,
        caller: &Caller,
        request: pb::IdentifyRequest,
    ) -> Result<pb::IdentifyResponse, Refusal> {
        let now = self.now();
        let operator = self.operator(caller)?;
        operator.require(Role::Auditor)?;
        let text = Zeroizing::new(request.found);
        let found = classify(&text);
        if let Ok(found) = &found
            && let Some(answer) = self.identify_issued(&operator, found, now).await?
        {
            return Ok(answer);
        }
        let has_length = text.len() <= FOUND_MAX_BYTES;
        let secret = if has_length { self.recognise(caller, &operator, &text, now).await? } else { None };
        if let Some((secret, secret_version)) = secret {
            let form = Form::Secret.into();
            let (secret, possession) = (Some(secret), true);
            return Ok(pb::IdentifyResponse { form, possession, secret, secret_version, ..Default::default() });
        }
        Ok(pb::IdentifyResponse { form: found?.form.into(), ..Default::default() })
    }

    /// A credential that was issued, when there is one that the operator may see.
    async fn identify_issued(
        &self,
        operator: &Operator,
        found: &Found,
        now: Timestamp,
    ) -> Result<Option<pb::IdentifyResponse>, Refusal> {
        let mut answer = pb::IdentifyResponse { form: found.form.into(), ..Default::default() };
        if let Some(lease) = self.find_lease(operator, found).await? {
            answer.possession = found.sha256.is_some_and(|sha256| sha256.matches(&lease.credential));
            answer.issued = self.issue_event(&lease).await?;
            answer.lease = Some(view::lease_in_full(&lease, self.ledger.lease_standing(&lease, now)?));
            return Ok(Some(answer));
        }
        if let Some(event) = self.find_issue(operator, found).await? {
            let hash = unhex(&event.credential_sha256).ok().and_then(|bytes| Digest::from_slice(&bytes));
            answer.possession = matches!((found.sha256, hash), (Some(a), Some(b)) if a.matches(&b));
            answer.lease = Some(swept(&event));
            answer.issued = Some(event);
            return Ok(Some(answer));
        }
        Ok(None)
    }

    /// The lease of a credential in hand, when its row is still there and the operator may see it.
    ///
    /// A token or certificate counts only when it is the very credential: a forged one that merely names a lease must
    /// not end that lease. An id counts as it is.
    ///
    /// # Errors
    /// As [`Self::identify`].
    pub async fn find_credential(&self, operator: &Operator, text: &str) -> Result<Option<Lease>, Refusal> {
        let found = classify(text)?;
        let lease = self.find_lease(operator, &found).await?;
        Ok(lease.filter(|lease| found.sha256.is_none_or(|sha256| sha256.matches(&lease.credential))))
    }

    async fn find_lease(&self, operator: &Operator, found: &Found) -> Result<Option<Lease>, Refusal> {
        let seen = |lease: &Lease| operator.reaches(Some(&lease.tenant), Some(&lease.partner));
        match (found.lease, found.sha256) {
            (Some(id), _) => Ok(self.ledger.lease(id)?.filter(seen)),
            (None, Some(sha256)) => {
                let matching = |lease: &Lease| lease.credential.matches(&sha256) && seen(lease);
                self.scan_leases(operator, matching).await
            }
            (None, None) => Ok(None),
        }
    }

    async fn scan_leases(
        &self,
        operator: &Operator,
        matching: impl Fn(&Lease) -> bool,
    ) -> Result<Option<Lease>, Refusal> {
        for prefix in self.tenant_prefixes(operator, None) {
            let mut after = Vec::new();
            loop {
                let (rows, next) = self.ledger.leases(&prefix, &after, LEASE_ROWS)?;
                if let Some(lease) = rows.into_iter().find(&matching) {
                    return Ok(Some(lease));
                }
                let Some(next) = next else { break };
                after = next;
                tokio::task::yield_now().await;
            }
        }
        Ok(None)
    }

    /// The event of a lease's issue, looked up by its time.
    async fn issue_event(&self, lease: &Lease) -> Result<Option<pb::Event>, Refusal> {
        let stream = stream_id(lease.tenant.as_str(), lease.partner.as_str());
        let id = lease.id.to_string();
        let begin = lease.issued.before(AROUND);
        let mut next = Some(trail::sequence_at(&self.ledger, &stream, begin)?);
        while let Some(from) = next {
            let (events, more) = trail::events_from(&self.ledger, &stream, from, EVENT_PAGES)?;
            let past = events.last().is_some_and(|event| trail::time(event) > lease.issued.after(AROUND));
            if let Some(event) = events.into_iter().find(|event| event.lease_id == id && is_issue(event)) {
                return Ok(Some(event));
            }
            next = more.filter(|_| !past);
            tokio::task::yield_now().await;
        }
        Ok(None)
    }

    /// The event of the issue of a lease whose row is gone: newest first, in the streams that it can be in, through at
    /// most [`SEARCH_PAGES`] pages.
    async fn find_issue(&self, operator: &Operator, found: &Found) -> Result<Option<pb::Event>, Refusal> {
        let tenant = match found.lease {
            Some(id) => match self.registry.name(id.tenant()) {
                Some(name) => name.to_string(),
                None => return Ok(None),
            },
            None => String::new(),
        };
        let (id, sha256) = (found.lease.map(|id| id.to_string()), found.sha256.map(|sha256| hex(&sha256.0)));
        let matching = |event: &pb::Event| {
            is_issue(event)
                && match (&id, &sha256) {
                    (Some(id), _) => event.lease_id == *id,
                    (None, Some(sha256)) => event.credential_sha256 == *sha256,
                    (None, None) => false,
                }
        };
        let mut budget = SEARCH_PAGES;
        for stream in self.streams_of(operator, &tenant, "", &[]).await? {
            if let Some(event) = self.search_back(&stream, &matching, &mut budget).await? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    async fn search_back(
        &self,
        stream: &Stream,
        matching: &impl Fn(&pb::Event) -> bool,
        budget: &mut usize,
    ) -> Result<Option<pb::Event>, Refusal> {
        let mut at = u64::MAX;
        while *budget > 0 {
            *budget -= 1;
            let Some((first, record)) = self.ledger.audit_page_at(&stream.id, at)? else { break };
            let events = record.map(|record| trail::events(first, &record)).unwrap_or_default();
            if let Some(event) = events.into_iter().find(matching) {
                return Ok(Some(event));
            }
            if first == 0 {
                break;
            }
            at = first - 1;
            if budget.is_multiple_of(256) {
                tokio::task::yield_now().await;
            }
        }
        Ok(None)
    }
}

fn is_issue(event: &pb::Event) -> bool {
    matches!(event.kind.as_str(), "lease.issued" | "lease.renewed")
}

/// A lease as its event tells it. Its row is gone, so it has ended; why is in later events.
fn swept(event: &pb::Event) -> pb::Lease {
    pb::Lease {
        lease_id: event.lease_id.clone(),
        task_id: event.task_id.clone(),
        tenant: event.tenant.clone(),
        partner: event.partner.clone(),
        grant: event.grant.clone(),
        workload: event.workload.clone(),
        purpose: event.purpose.clone(),
        kind: event.credential_kind,
        audiences: event.audiences.clone(),
        issued: event.at,
        expires: event.expires,
        standing: pb::Standing::Ended.into(),
        credential_sha256: unhex(&event.credential_sha256).unwrap_or_default(),
        ..Default::default()
    }
}

const FOUND_MAX_BYTES: usize = 16 * 1024;
const LEASE_ROWS: usize = 4_096;
const EVENT_PAGES: usize = 256;
const SEARCH_PAGES: usize = 50_000;
const AROUND: std::time::Duration = std::time::Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{TaskId, TenantNumber};

    fn lease() -> LeaseId {
        LeaseId::fresh(TaskId::fresh(TenantNumber::new(3).unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn an_id_is_recognised_as_openssl_prints_serials() {
        let id = lease();
        let upper = id.to_string().to_uppercase();
        let pairs: Vec<String> = id.as_bytes().iter().map(|b| format!("{b:02X}")).collect();
        for text in [id.to_string(), upper.clone(), format!("serial={upper}\n"), pairs.join(":")] {
            assert_eq!(classify(&text).unwrap(), Found { form: Form::Id, lease: Some(id), sha256: None }, "{text}");
        }
    }

    #[test]
    fn a_reference_token_is_recognised_whole_and_refused_mistyped() {
        let id = lease();
        let token = opaque::mint(id).unwrap();
        let text = token.text.expose();
        let found = classify(text).unwrap();
        assert_eq!((found.form, found.lease, found.sha256), (Form::Opaque, Some(id), Some(token.sha256)));
        assert!(matches!(classify(text.get(..40).unwrap()), Err(Refusal::Invalid { field: "found", .. })));
    }

    #[test]
    fn hashes_foreign_tokens_and_nonsense_are_told_apart() {
        let hash = Digest::of(b"x");
        assert_eq!(classify(&hash.to_string()).unwrap().sha256, Some(hash));
        let foreign = classify("aa.bb.cc").unwrap();
        assert_eq!((foreign.form, foreign.lease), (Form::Jwt, None));
        for bad in ["", "hello", "-----BEGIN CERTIFICATE-----", &"a".repeat(20_000)] {
            assert!(matches!(classify(bad), Err(Refusal::Invalid { field: "found", .. })));
        }
    }
}
