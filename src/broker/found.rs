//! What a broker needs before it serves anyone: its own keys and a first operator.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{
    Broker,
    decided::decided,
    event,
    keys::{ca_key_id, not_issued},
    refusal::Refusal,
    rings::{KeyRow, KeyUse, new_row},
    time::end_by_either,
};
use crate::{
    identity::Caller,
    ledger::{KeyCommit, TrustCommit},
    mint::{
        SecretBytes,
        audit_key::AuditKey,
        ca::{self, CaName, NewCa, Validity},
        keyring::KeyState,
        x509::{CaKey, LeafKey, MintedLeaf, parse_csr},
    },
    model::{Digest, OperatorName, TenantNumber, Timestamp, id::hex, time::SKEW},
    pb,
    policy::{GlobalTrust, Operator, Reach, Role, Sorted},
    records,
};

/// How a new store is founded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Founding {
    /// Whether the root is kept elsewhere: then the issuing CA waits for [`Broker::adopt_issuing`].
    pub external_root: bool,
}

/// What founding found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Founded {
    /// Whether the store was new.
    pub is_new: bool,
    /// Whether an issuing CA is there; false while a root elsewhere has not signed it.
    pub has_issuing: bool,
}

/// Founds a new store, and checks that the broker's own keys open in one that is not.
///
/// A crash in the middle is mended by the next call.
///
/// # Errors
/// When the store failed, or the keys of an existing store are lost.
pub async fn ensure(broker: &Broker, founding: &Founding) -> Result<Founded, Refusal> {
    let ring = broker.rings.ring(&broker.ledger, TenantNumber::BROKER)?;
    if !ring.rows.is_empty() || !broker.ledger.tenant_names()?.is_empty() {
        let waits = ring.of(KeyUse::Issuing).any(|row| row.facts().state == KeyState::Prepared);
        if ring.of(KeyUse::Audit).next().is_none() || (ring.ca.is_none() && !waits) {
            return Err(Refusal::Unavailable("the broker's own keys do not open; restore the store"));
        }
        return Ok(Founded { is_new: false, has_issuing: ring.ca.is_some() });
    }
    let now = broker.now();
    // The operator first: keys are what says that a store is founded.
    if broker.registry.global().operators.is_empty() {
        let name: OperatorName = FIRST_OPERATOR.parse().map_err(Refusal::fault)?;
        broker.put_admin(&name, "operator.founded", now).await?;
    }
    let mut puts = vec![broker.new_audit_key(now)?];
    if !founding.external_root {
        let (root, issuing) = broker.new_cas(now)?;
        puts.push(broker.ca_row(KeyUse::Root, &root, now)?);
        puts.push(broker.ca_row(KeyUse::Issuing, &issuing, now)?);
    }
    let mut founded = event::own("broker.founded", now);
    founded.details = vec![format!("external_root={}", founding.external_root)];
    if founding.external_root {
        let (row, _) = broker.new_issuing_request(now)?;
        puts.push(row);
    }
    broker.commit_own_keys(puts, founded, now).await?;
    Ok(Founded { is_new: true, has_issuing: !founding.external_root })
}

impl Broker {
    /// The roots that lead to what this broker signs, in DER.
    ///
    /// # Errors
    /// When the store failed.
    pub fn roots(&self) -> Result<Vec<Vec<u8>>, Refusal> {
        let ring = self.rings.ring(&self.ledger, TenantNumber::BROKER)?;
        Ok(ring.of(KeyUse::Root).filter_map(|row| row.record.chain_der.first().cloned()).collect())
    }

    /// A request for an issuing CA, to be signed by a root elsewhere; its key waits for [`Self::adopt_issuing`].
    ///
    /// Requests that were made before stay good.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn external_root_request(&self) -> Result<Vec<u8>, Refusal> {
        let now = self.now();
        let (row, request) = self.new_issuing_request(now)?;
        let mut prepared = event::own("key.prepared", now);
        prepared.details = vec!["use=issuing".into(), format!("key_id={}", row.1.key_id)];
        self.commit_own_keys(vec![row], prepared, now).await?;
        Ok(request)
    }

    /// Takes over the certificate of a root elsewhere for a waiting issuing key: its own first, the root last. The
    /// issuing CA before it retires.
    ///
    /// # Errors
    /// When no waiting key fits, or the chain is no good.
    pub async fn adopt_issuing(&self, chain_der: &[Vec<u8>]) -> Result<(), Refusal> {
        let _one_at_a_time = self.ring_steps.lock().await;
        let now = self.now();
        let root = chain_der.last().ok_or_else(|| Refusal::invalid("chain", "is empty; give every certificate"))?;
        let ring = self.rings.ring(&self.ledger, TenantNumber::BROKER)?;
        let (adopted, row) = self.waiting_key(ring.of(KeyUse::Issuing), chain_der, now)?;
        let record = records::KeyRecord {
            state: KeyState::Active.code().into(),
            state_since: now.millis(),
            chain_der: adopted.chain_der().to_vec(),
            ..row.record.clone()
        };
        let mut puts = vec![(row.row_key.clone(), record)];
        for old in ring.of(KeyUse::Issuing).filter(|row| row.facts().state == KeyState::Active) {
            puts.push((old.row_key.clone(), in_state(&old.record, KeyState::Retired, now)));
        }
        // The root's row has no private half: that is elsewhere.
        let root = records::KeyRecord {
            key_id: ca_key_id(root),
            chain_der: vec![root.clone()],
            ..blank(KeyState::Active, now)
        };
        puts.push(new_row(|_| Ok(Vec::new()), TenantNumber::BROKER, KeyUse::Root, root)?);
        let mut activated = event::own("key.activated", now);
        activated.details = vec!["use=issuing".into(), format!("key_id={}", row.record.key_id)];
        self.commit_own_keys(puts, activated, now).await
    }

    /// Certifies an operator's key.
    ///
    /// # Errors
    /// When the caller is no admin of everything, the trust map does not name the operator, or the request is no good.
    pub async fn issue_operator_certificate(
        &self,
        caller: &Caller,
        request: pb::IssueOperatorCertificateRequest,
    ) -> Result<pb::IssueOperatorCertificateResponse, Refusal> {
        let now = self.now();
        let actor = self.operator(caller)?;
        actor.require(Role::Admin)?;
        actor.require_everywhere()?;
        // INVARIANT: a sign-in ends with the person. What it made would not.
        if actor.person.is_some() {
            return Err(Refusal::NotAllowed("a sign-in makes no lasting certificates; come with a lasting one"));
        }
        let name: OperatorName = request
            .operator
            .parse()
            .map_err(|error| Refusal::invalid("operator", format!("is no operator's name: {error}")))?;
        if !self.registry.global().operators.contains_key(&name) {
            return Err(Refusal::Unknown("operator"));
        }
        let life = match request.ttl_seconds {
            0 => OPERATOR_LIFE,
            seconds => Duration::from_secs(seconds.into()),
        };
        if life > OPERATOR_LIFE_MOST {
            return Err(Refusal::invalid("ttl_seconds", "is more than 90 days; ask for 7776000 or less"));
        }
        let csr = parse_csr(&request.csr_der).map_err(|error| Refusal::invalid("csr_der", error.to_string()))?;
        let (minted, expires) = self.mint_operator(LeafKey::Request(&csr), &name, now, now.after(life))?;
        let mut certified = event::by(caller, actor.actor(), "operator.certified", now);
        describe(&mut certified, &name, &minted, expires);
        self.ledger.note_act(vec![certified], now).await?;
        Ok(pb::IssueOperatorCertificateResponse { chain_der: minted.chain_der, expires: Some(event::stamp(expires)) })
    }

    /// A certificate and key for an operator, made on the host. An operator that the trust map has lost is an admin of
    /// everything again.
    ///
    /// # Errors
    /// When the store failed or there is no issuing CA.
    pub async fn recover_operator(&self, name: &OperatorName) -> Result<MintedLeaf, Refusal> {
        let now = self.now();
        let until = end_by_either(now, self.time.wall(), OPERATOR_LIFE);
        let (minted, expires) = self.mint_operator(LeafKey::Generate, name, now, until)?;
        if !self.registry.global().operators.contains_key(name) {
            self.put_admin(name, "operator.restored", now).await?;
        }
        let mut recovered = event::own("operator.recovered", now);
        describe(&mut recovered, name, &minted, expires);
        self.ledger.note_act(vec![recovered], now).await?;
        tracing::warn!(operator = %name, "an operator's certificate was recovered on the host");
        Ok(minted)
    }

    /// The broker's own TLS certificate with a new key: good for 7 days, or as long as the issuing CA.
    ///
    /// # Errors
    /// When there is no issuing CA, or no name.
    pub fn server_certificate(&self, dns_names: &[String], addresses: &[IpAddr]) -> Result<MintedLeaf, Refusal> {
        let (now, issuing) = (self.now(), self.issuing()?);
        let not_after = now.after(SERVER_LIFE).min(issuing.not_after());
        let validity = Validity { not_before: now.before(SKEW), not_after };
        ca::mint_server(&issuing, dns_names, addresses, validity).map_err(not_issued)
    }

    /// The issuing CA.
    ///
    /// # Errors
    /// When a root elsewhere has not signed it yet.
    pub fn issuing(&self) -> Result<Arc<CaKey>, Refusal> {
        let ring = self.rings.ring(&self.ledger, TenantNumber::BROKER)?;
        ring.ca.clone().ok_or(Refusal::Unavailable("the issuing CA waits for its certificate (`mayfly adopt-root`)"))
    }

    fn mint_operator(
        &self,
        key: LeafKey<'_>,
        name: &OperatorName,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<(MintedLeaf, Timestamp), Refusal> {
        let issuing = self.issuing()?;
        let not_after = until.floor_second();
        let validity = Validity { not_before: now.before(SKEW), not_after };
        let minted = ca::mint_operator(&issuing, key, self.settings.trust_domain.as_str(), name, validity);
        Ok((minted.map_err(not_issued)?, not_after))
    }

    async fn put_admin(&self, name: &OperatorName, kind: &str, now: Timestamp) -> Result<(), Refusal> {
        let mut added = event::own(kind, now);
        added.details = vec![format!("operator={name}"), "role=admin".into()];
        // An apply that came between changed what is written here: it is read again.
        decided(|| async {
            let basis = self.ledger.basis().1;
            let mut global = GlobalTrust::clone(&self.registry.global());
            let (tenants, partners) = (Reach::All, Reach::All);
            let admin = Operator { role: Role::Admin, tenants, partners, speaks_for: Sorted::default() };
            global.operators.insert(name.clone(), admin);
            let commit = TrustCommit {
                global: Some(global.to_bytes()),
                events: vec![added.clone()],
                ..TrustCommit::new(basis, now)
            };
            let (registry, ledger) = (Arc::clone(&self.registry), Arc::clone(&self.ledger));
            self.ledger.apply(commit, move || registry.reload_global(&ledger)).await?;
            Ok(())
        })
        .await
    }

    fn new_cas(&self, now: Timestamp) -> Result<(NewCa, NewCa), Refusal> {
        let not_before = now.before(SKEW);
        let name = |name| CaName { organization: self.settings.trust_domain.as_str(), name, trust_domain: None };
        let root_until = Validity { not_before, not_after: now.after(ROOT_LIFE) };
        let root = ca::create_root(&name("root"), root_until).map_err(not_issued)?;
        let until = Validity { not_before, not_after: now.after(ISSUING_LIFE) };
        let issuing = ca::create_issuing(&root.key, &self.issuing_name(), until).map_err(not_issued)?;
        Ok((root, issuing))
    }

    fn issuing_name(&self) -> CaName<'_> {
        let domain = self.settings.trust_domain.as_str();
        CaName { organization: domain, name: "issuing", trust_domain: Some(domain) }
    }

    fn new_audit_key(&self, now: Timestamp) -> Result<KeyPut, Refusal> {
        let (key, pkcs8) = AuditKey::generate().map_err(Refusal::fault)?;
        let record = records::KeyRecord {
            key_id: key.key_id(),
            public_key: key.public_key().to_vec(),
            ..blank(KeyState::Active, now)
        };
        self.sealed_row(KeyUse::Audit, record, &SecretBytes::new(pkcs8.to_vec()))
    }

    fn new_issuing_request(&self, now: Timestamp) -> Result<(KeyPut, Vec<u8>), Refusal> {
        let (pkcs8, request) = ca::issuing_request(&self.issuing_name()).map_err(not_issued)?;
        let record = records::KeyRecord { key_id: ca_key_id(&request), ..blank(KeyState::Prepared, now) };
        Ok((self.sealed_row(KeyUse::Issuing, record, &pkcs8)?, request))
    }

    fn ca_row(&self, key_use: KeyUse, ca: &NewCa, now: Timestamp) -> Result<KeyPut, Refusal> {
        let chain_der = ca.key.chain_der().to_vec();
        let key_id = chain_der.first().map(|own| ca_key_id(own)).unwrap_or_default();
        let record = records::KeyRecord { key_id, chain_der, ..blank(KeyState::Active, now) };
        self.sealed_row(key_use, record, &ca.pkcs8)
    }

    fn sealed_row(
        &self,
        key_use: KeyUse,
        record: records::KeyRecord,
        private: &SecretBytes,
    ) -> Result<KeyPut, Refusal> {
        let seal = |location: &[u8]| self.rings.seal().seal(location, private.expose()).map_err(Refusal::fault);
        new_row(seal, TenantNumber::BROKER, key_use, record)
    }

    fn waiting_key<'a>(
        &self,
        rows: impl Iterator<Item = &'a KeyRow>,
        chain_der: &[Vec<u8>],
        now: Timestamp,
    ) -> Result<(CaKey, &'a KeyRow), Refusal> {
        let mut refusal = Refusal::Unknown("request that waits for a certificate");
        for row in rows.filter(|row| row.facts().state == KeyState::Prepared) {
            match ca::adopt_issuing(&self.rings.private(row, None)?, chain_der, now) {
                Ok(adopted) => return Ok((adopted, row)),
                Err(error) => refusal = Refusal::invalid("chain", error.to_string()),
            }
        }
        Err(refusal)
    }

    async fn commit_own_keys(&self, puts: Vec<KeyPut>, event: pb::Event, now: Timestamp) -> Result<(), Refusal> {
        let rings = Arc::clone(&self.rings);
        let commit = KeyCommit { puts, deletes: Vec::new(), changed: Vec::new(), events: vec![event], now };
        self.ledger.step_keys(commit, move || rings.changed(TenantNumber::BROKER)).await?;
        Ok(())
    }
}

/// A row to write.
pub(super) type KeyPut = (Vec<u8>, records::KeyRecord);

/// A record of a key that was just made.
pub(super) fn blank(state: KeyState, now: Timestamp) -> records::KeyRecord {
    records::KeyRecord {
        state: state.code().into(),
        created: now.millis(),
        state_since: now.millis(),
        ..Default::default()
    }
}

/// A record in another state from now on.
pub(super) fn in_state(record: &records::KeyRecord, state: KeyState, now: Timestamp) -> records::KeyRecord {
    records::KeyRecord { state: state.code().into(), state_since: now.millis(), ..record.clone() }
}

fn describe(event: &mut pb::Event, name: &OperatorName, minted: &MintedLeaf, expires: Timestamp) {
    let Digest(sha256) = minted.sha256;
    event.details = vec![format!("operator={name}")];
    event.credential_sha256 = hex(&sha256);
    event.expires = Some(event::stamp(expires));
}

const FIRST_OPERATOR: &str = "admin";
const DAY: Duration = Duration::from_secs(86_400);
const OPERATOR_LIFE: Duration = Duration::from_secs(30 * 86_400);
const OPERATOR_LIFE_MOST: Duration = Duration::from_secs(90 * 86_400);
const SERVER_LIFE: Duration = Duration::from_secs(7 * 86_400);
const ROOT_LIFE: Duration = DAY.saturating_mul(20 * 365);
const ISSUING_LIFE: Duration = DAY.saturating_mul(10 * 365);

#[cfg(test)]
mod tests;
