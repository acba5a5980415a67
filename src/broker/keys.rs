//! Tenants' key rings: made, stepped by themselves and by hand.

mod maker;
mod turn;

use std::collections::BTreeSet;

use self::{maker::Maker, turn::Turn};
use super::{
    Broker, event,
    found::{KeyPut, blank},
    refusal::Refusal,
    rings::{KeyRow, KeyUse},
};
use crate::{
    identity::Caller,
    ledger::{Hold, keys},
    mint::{
        keyring::{self, KeyFacts, KeyState, RingPolicy, Step},
        signing::Algorithm,
        x509::{CaKey, NotIssued},
    },
    model::{Digest, Scope, TenantName, TenantNumber, Timestamp, id::hex},
    pb,
    policy::{Role, TokenAlgorithm},
    records,
};

/// Names a CA key: the first 16 hex digits of SHA-256 over its certificate or request.
pub(super) fn ca_key_id(der: &[u8]) -> String {
    hex(Digest::of(der).0.first_chunk::<8>().map_or(&[], |head| head.as_slice()))
}

/// Why a certificate was not made, by blame.
pub(super) fn not_issued(error: NotIssued) -> Refusal {
    match error {
        NotIssued::Csr(refusal) => Refusal::invalid("csr_der", refusal.to_string()),
        NotIssued::EntropyUnavailable(error) => error.into(),
        NotIssued::OutlivesIssuer { .. } => Refusal::invalid("ttl_seconds", error.to_string()),
        NotIssued::Empty { .. } | NotIssued::Encoding { .. } | NotIssued::Name { .. } | NotIssued::NoName => {
            Refusal::fault(error)
        }
    }
}

/// How tokens are signed, in the words of the mint.
#[must_use]
pub fn algorithm(word: TokenAlgorithm) -> Algorithm {
    match word {
        TokenAlgorithm::Es256 => Algorithm::Es256,
        TokenAlgorithm::EdDsa => Algorithm::EdDsa,
    }
}

impl Broker {
    /// Keys for a new tenant: a wrapping key, a token key and a CA, both active.
    ///
    /// # Errors
    /// When there is no entropy or no issuing CA.
    pub fn new_tenant_keys(
        &self,
        number: TenantNumber,
        name: &TenantName,
        algorithm: Algorithm,
        now: Timestamp,
    ) -> Result<Vec<KeyPut>, Refusal> {
        let row_key = keys::key(number, KeyUse::Wrapping.code(), WRAPPING_ID);
        let (wrapping, sealed_pkcs8) = self.rings.seal().new_wrapping(&row_key).map_err(Refusal::fault)?;
        let record = records::KeyRecord {
            key_id: WRAPPING_ID.to_owned(),
            key_use: KeyUse::Wrapping.code().into(),
            sealed_pkcs8,
            ..blank(KeyState::Active, now)
        };
        let maker = Maker { broker: self, number, tenant: name, algorithm, wrapping: &wrapping, now };
        let token = maker.make(KeyUse::Token, KeyState::Active)?;
        Ok(vec![(row_key, record), token, maker.make(KeyUse::Ca, KeyState::Active)?])
    }

    /// A tenant's keys, or the broker's own for an empty tenant.
    ///
    /// # Errors
    /// When the operator's scope does not reach the tenant, or the store failed.
    pub async fn list_keys(
        &self,
        caller: &Caller,
        request: pb::ListKeysRequest,
    ) -> Result<pb::ListKeysResponse, Refusal> {
        let operator = self.operator(caller)?;
        operator.require(Role::Auditor)?;
        if request.tenant.is_empty() {
            operator.require_everywhere()?;
            return Ok(pb::ListKeysResponse { keys: self.wire_keys(TenantNumber::BROKER, "")? });
        }
        let (name, number) = self.tenant_within(&operator, &request.tenant)?;
        Ok(pb::ListKeysResponse { keys: self.wire_keys(number, name.as_str())? })
    }

    /// Moves a tenant's ring one step by hand.
    ///
    /// # Errors
    /// When it is too early for the step, the caller is no admin there, or the time is in doubt.
    pub async fn rotate_keys(
        &self,
        caller: &Caller,
        request: pb::RotateKeysRequest,
    ) -> Result<pb::RotateKeysResponse, Refusal> {
        let now = self.now();
        let operator = self.operator(caller)?;
        operator.require(Role::Admin)?;
        let (name, number) = self.tenant_within(&operator, &request.tenant)?;
        let key_use = match request.r#use.as_str() {
            "token" => KeyUse::Token,
            "ca" => KeyUse::Ca,
            _ => return Err(Refusal::invalid("use", "must be `token` or `ca`")),
        };
        if self.ledger.holds().has(Hold::Clock) {
            return Err(Refusal::Held(Hold::Clock.explanation()));
        }
        let _one_at_a_time = self.ring_steps.lock().await;
        let rows = self.key_rows(number)?;
        let policy = self.policy_of(key_use);
        let facts = self.facts(&rows, key_use, now);
        let steps = asked_steps(request.step(), &facts, &policy, now)?;
        let mut turn = Turn::default();
        let by = |kind: &str| event::by(caller, operator.actor(), kind, now);
        match steps {
            Asked::Steps(steps) => self.take(&mut turn, &rows, (number, &name, key_use), &steps, now, &by)?,
            Asked::Now => self.replace_now(&mut turn, &rows, (number, &name, key_use), now, &by)?,
        }
        let receipt = self.commit_turn(number, turn, now).await?;
        let revision = pb::Revision { incarnation: receipt.incarnation(), number: receipt.number() };
        let keys = self.wire_keys(number, name.as_str())?;
        let keys = keys.into_iter().filter(|key| key.r#use == request.r#use).collect();
        Ok(pb::RotateKeysResponse { keys, revision: Some(revision) })
    }

    /// Takes every step that is due, in every tenant. Nothing is done while the time or the store is in doubt.
    pub async fn step_rings(&self, now: Timestamp) {
        let (mut first_end, mut stuck) = (None, 0_u32);
        for (name, number) in self.registry.names("", None, usize::MAX) {
            if self.ledger.holds().in_doubt() {
                return;
            }
            match self.step_tenant(&name, number, now).await {
                Ok(end) => first_end = [first_end, end].into_iter().flatten().min(),
                Err(error) => {
                    stuck = stuck.saturating_add(1);
                    tracing::error!(%error, tenant = %name, "a key ring could not be stepped");
                }
            }
            tokio::task::yield_now().await;
        }
        metrics::gauge!("mayfly_key_rings_stuck").set(f64::from(stuck));
        if let Some(end) = first_end {
            super::gauges::show_end("tenant", end);
        }
    }

    /// Takes the steps that are due in a tenant's rings; when its signing CA ended, as it was before.
    async fn step_tenant(
        &self,
        name: &TenantName,
        number: TenantNumber,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, Refusal> {
        let _one_at_a_time = self.ring_steps.lock().await;
        let rows = self.key_rows(number)?;
        // A removed tenant has no wrapping key any more.
        if !rows.iter().any(|row| row.key_use == KeyUse::Wrapping) {
            return Ok(None);
        }
        let mut turn = Turn::default();
        for key_use in [KeyUse::Token, KeyUse::Ca] {
            let facts = self.facts(&rows, key_use, now);
            self.mark_cut(&mut turn, &rows, &facts, (name, key_use), now);
            let steps = keyring::next_steps(&facts, &self.policy_of(key_use), now);
            let by = |kind: &str| event::own(kind, now);
            self.take(&mut turn, &rows, (number, name, key_use), &steps, now, &by)?;
        }
        if !turn.events.is_empty() {
            self.commit_turn(number, turn, now).await?;
        }
        let signs = rows.iter().filter(|row| row.facts().state == KeyState::Active);
        Ok(signs.filter_map(ca_end).min())
    }

    /// Facts of a ring. A key that was cut counts as such before its row says so. A CA that ends too soon counts as due:
    /// an active one to be replaced, a waiting one to be thrown away.
    fn facts(&self, rows: &[KeyRow], key_use: KeyUse, now: Timestamp) -> Vec<KeyFacts> {
        let policy = self.policy_of(key_use);
        let ring = rows.iter().filter(|row| row.key_use == key_use);
        ring.map(|row| {
            let facts = row.facts();
            if facts.state != KeyState::Cut && self.ledger.scope(Scope::SigningKey(facts.key_id.clone()).id()).cut > 0 {
                return KeyFacts { state: KeyState::Cut, since: now, ..facts };
            }
            match ca_end(row) {
                Some(end) => ending(facts, end, &policy, now),
                None => facts,
            }
        })
        .collect()
    }

    /// Rows as stored: the steps of tenants that nobody uses must not open their keys.
    fn key_rows(&self, number: TenantNumber) -> Result<Vec<KeyRow>, Refusal> {
        let rows = self.ledger.tenant_keys(number)?.into_iter();
        let known = rows.filter_map(|(row_key, record)| {
            Some(KeyRow { row_key, key_use: KeyUse::from_code(record.key_use)?, record })
        });
        Ok(known.collect())
    }

    fn policy_of(&self, key_use: KeyUse) -> RingPolicy {
        match key_use {
            KeyUse::Ca => self.settings.ca_ring,
            KeyUse::Token | KeyUse::Issuing | KeyUse::Root | KeyUse::Audit | KeyUse::Wrapping => {
                self.settings.token_ring
            }
        }
    }

    fn tenant_within(
        &self,
        operator: &super::who::Operator,
        tenant: &str,
    ) -> Result<(TenantName, TenantNumber), Refusal> {
        let unknown = || Refusal::Unknown("tenant");
        let name: TenantName =
            tenant.parse().map_err(|error| Refusal::invalid("tenant", format!("is no tenant's name: {error}")))?;
        if !operator.reaches(Some(&name), None) {
            return Err(unknown());
        }
        let number = self.registry.number(&name).ok_or_else(unknown)?;
        Ok((name, number))
    }

    fn wire_keys(&self, number: TenantNumber, tenant: &str) -> Result<Vec<pb::Key>, Refusal> {
        let (rows, now) = (self.key_rows(number)?, self.now());
        let mut keys = Vec::new();
        for key_use in rows.iter().map(|row| row.key_use).collect::<BTreeSet<_>>() {
            let facts = self.facts(&rows, key_use, now);
            let steps_itself = matches!(key_use, KeyUse::Token | KeyUse::Ca);
            for row in rows.iter().filter(|row| row.key_use == key_use && key_use != KeyUse::Wrapping) {
                let own = facts.iter().find(|facts| facts.key_id == row.record.key_id);
                let due = own.filter(|_| steps_itself).and_then(|own| due(own, &facts, &self.policy_of(key_use)));
                keys.push(pb::Key {
                    key_id: row.record.key_id.clone(),
                    tenant: tenant.to_owned(),
                    r#use: key_use.word().to_owned(),
                    algorithm: algorithm_word(row).to_owned(),
                    state: own.map_or_else(|| row.facts().state, |own| own.state).word().to_owned(),
                    created: Some(event::stamp(Timestamp::from_millis(row.record.created))),
                    state_since: Some(event::stamp(row.facts().since)),
                    next_step: due.map(event::stamp),
                });
            }
        }
        Ok(keys)
    }
}

enum Asked {
    Steps(Vec<Step>),
    Now,
}

/// The steps that an operator asks for, or why it is too early.
fn asked_steps(
    step: pb::rotate_keys_request::Step,
    facts: &[KeyFacts],
    policy: &RingPolicy,
    now: Timestamp,
) -> Result<Asked, Refusal> {
    let early = |problem: String| Err(Refusal::invalid("step", problem));
    let in_state = |state| facts.iter().filter(move |key: &&KeyFacts| key.state == state);
    let prepared = in_state(KeyState::Prepared).min_by_key(|key| (key.since, &key.key_id));
    match step {
        pb::rotate_keys_request::Step::Unspecified => early("must be set: prepare, activate, destroy or now".into()),
        pb::rotate_keys_request::Step::Prepare => match prepared {
            Some(key) => early(format!("is not needed: key {} stands by since {}", key.key_id, key.since)),
            None => Ok(Asked::Steps(vec![Step::Prepare])),
        },
        pb::rotate_keys_request::Step::Activate => {
            let Some(key) = prepared else { return early("comes too early: no key is prepared; prepare one".into()) };
            let ripe = key.since.after(policy.publish_before());
            if now < ripe {
                let id = &key.key_id;
                return early(format!(
                    "comes too early: verifiers may not know key {id} before {ripe}; wait, or use now"
                ));
            }
            let active = in_state(KeyState::Active).map(|key| Step::Retire(key.key_id.clone()));
            Ok(Asked::Steps([Step::Activate(key.key_id.clone())].into_iter().chain(active).collect()))
        }
        pb::rotate_keys_request::Step::Destroy => {
            let over: Vec<&KeyFacts> = in_state(KeyState::Retired).chain(in_state(KeyState::Cut)).collect();
            let ripe = |key: &&&KeyFacts| now >= key.since.after(policy.retire_keep());
            let steps: Vec<Step> = over.iter().filter(ripe).map(|key| Step::Destroy(key.key_id.clone())).collect();
            if !steps.is_empty() {
                return Ok(Asked::Steps(steps));
            }
            match over.iter().map(|key| key.since.after(policy.retire_keep())).min() {
                Some(first) => early(format!("comes too early: retired keys may have live credentials until {first}")),
                None => early("has nothing to do: no key is retired".into()),
            }
        }
        pb::rotate_keys_request::Step::Now => Ok(Asked::Now),
    }
}

/// When the next automatic step of a key is due; `None` when it waits for another key's.
fn due(key: &KeyFacts, ring: &[KeyFacts], policy: &RingPolicy) -> Option<Timestamp> {
    let in_state = |state| ring.iter().filter(move |key: &&KeyFacts| key.state == state);
    let active = keyring::active(ring);
    let standby = in_state(KeyState::Prepared).min_by_key(|key| (key.since, &key.key_id));
    let turn = standby.map(|standby| {
        let ripe = standby.since.after(policy.publish_before());
        active.map_or(standby.since, |active| ripe.max(active.since.after(policy.active_for())))
    });
    match key.state {
        KeyState::Prepared => turn.filter(|_| standby.is_some_and(|standby| standby.key_id == key.key_id)),
        KeyState::Active => turn,
        KeyState::Retired | KeyState::Cut => Some(key.since.after(policy.retire_keep())),
    }
}

/// When a CA's certificate ends; `None` for other keys. A CA that cannot be read has ended.
fn ca_end(row: &KeyRow) -> Option<Timestamp> {
    if row.key_use != KeyUse::Ca {
        return None;
    }
    let own = row.record.chain_der.first();
    Some(own.and_then(|der| CaKey::end_of(der)).unwrap_or_default())
}

/// A CA's facts in the light of its certificate's end.
fn ending(facts: KeyFacts, end: Timestamp, policy: &RingPolicy, now: Timestamp) -> KeyFacts {
    // What it signs lives for less than `retire_keep`.
    let last_use = end.before(policy.retire_keep());
    match facts.state {
        KeyState::Active if end <= now => KeyFacts { state: KeyState::Retired, ..facts },
        KeyState::Active if last_use <= now.after(policy.publish_before()) => {
            KeyFacts { since: Timestamp::default(), ..facts }
        }
        KeyState::Prepared if last_use <= now.after(policy.publish_before()) => {
            KeyFacts { state: KeyState::Cut, since: Timestamp::default(), ..facts }
        }
        KeyState::Prepared | KeyState::Active | KeyState::Retired | KeyState::Cut => facts,
    }
}

fn algorithm_word(row: &KeyRow) -> &'static str {
    match row.key_use {
        KeyUse::Token => Algorithm::from_code(row.record.algorithm).map_or("", Algorithm::name),
        KeyUse::Ca | KeyUse::Issuing | KeyUse::Root => Algorithm::Es256.name(),
        KeyUse::Audit => Algorithm::EdDsa.name(),
        KeyUse::Wrapping => "",
    }
}

/// A tenant has one wrapping key, so it needs no name of its own.
const WRAPPING_ID: &str = "1";

#[cfg(test)]
mod tests;
