//! Static secrets: put, rotated, edited and retired by operators. Values come in here and go out to tasks alone.

mod hand_out;
mod holders;
mod list;
mod recognise;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::{
    Broker, event,
    refusal::Refusal,
    registry::Tenant,
    revoke::{check_reason, covers_until},
    task::revision,
    view,
    who::Operator,
};
use crate::{
    identity::Caller,
    ledger::{CutDraft, Receipt, SecretCommit, ValueChange, keys},
    mint::SecretBytes,
    model::{
        Digest, EndReason, PartnerName, Scope, SecretName, SecretVersion, TenantName, Timestamp,
        static_secret::{TENANT_MOST, VALUE_MAX_BYTES, VERSIONS_LISTED},
    },
    pb,
    policy::Role,
    records,
};
use hand_out::{in_force, location};
use list::info;

/// A secret that is about to be changed.
struct Known {
    operator: Operator,
    tenant: Arc<Tenant>,
    name: SecretName,
    record: records::SecretRecord,
}

impl Known {
    fn scope(&self) -> Scope {
        Scope::Secret(self.tenant.trust.name().clone(), self.name.clone())
    }

    /// Ends the version in force, if one is.
    fn end_version(&mut self, revoked: bool, now: Timestamp) {
        for version in self.record.versions.iter_mut().filter(|version| version.ended == 0) {
            (version.ended, version.revoked) = (now.millis(), revoked);
        }
    }

    /// Puts another version in force and returns its number, which was never used before.
    fn begin_version(&mut self, above: u32, mark: Vec<u8>, now: Timestamp) -> u32 {
        let last = self.record.versions.last().map_or(0, |version| version.number);
        let number = last.max(above).saturating_add(1);
        let (made, operator) = (now.millis(), self.operator.name.to_string());
        let begun = records::SecretVersionRecord { number, made, operator, ended: 0, revoked: false, mark };
        self.record.versions.push(begun);
        let extra = self.record.versions.len().saturating_sub(VERSIONS_LISTED);
        self.record.versions.drain(..extra);
        number
    }
}

impl Broker {
    /// Puts a new static secret.
    ///
    /// # Errors
    /// When the caller is no admin of its tenant and partner, a field is wrong, or there is one of this name.
    pub async fn put_secret(
        &self,
        caller: &Caller,
        request: pb::PutSecretRequest,
    ) -> Result<pb::PutSecretResponse, Refusal> {
        let operator = self.operator(caller)?;
        operator.require(Role::Admin)?;
        check_reason(&request.reason)?;
        let value = value_of(request.value)?;
        let name: SecretName = view::id("name", &request.name)?;
        let partner: PartnerName = view::id("partner", &request.partner)?;
        let (owner, purpose) = (prose("owner", &request.owner)?, prose("purpose", &request.purpose)?);
        let tenant = self.tenant_of_operator(&operator, &request.tenant, &partner)?;
        if !self.registry.global().partners.contains_key(&partner) {
            return Err(Refusal::invalid("partner", "is not in the trust map; apply it first"));
        }
        let now = self.now();
        let known = self.ledger.secret(tenant.number, &name)?;
        self.check_free(&operator, &tenant, &name, known.as_ref())?;
        let record = known.flatten().unwrap_or_default();
        let before = (record.changes > 0).then_some(record.changes);
        let record = records::SecretRecord {
            tenant: tenant.trust.name().to_string(),
            name: name.to_string(),
            partner: partner.to_string(),
            owner,
            purpose,
            retired: 0,
            ..record
        };
        let mut secret = Known { operator, tenant, name, record };
        // Also of what cannot be read any more: a number that was handed out once names one value for good.
        let held = self.ledger.last_held_version(secret.tenant.number, &secret.name)?;
        let number = secret.begin_version(held, self.value_mark(secret.tenant.number, value.expose()), now);
        let value = self.sealed(&secret.tenant, &secret.name, number, &value)?;
        let event = told(caller, &secret, "secret.put", &request.reason, now);
        let receipt = self.change(&secret, before, value, None, event, now).await?;
        Ok(pb::PutSecretResponse { secret: Some(info_of(&secret)), revision: Some(revision(&receipt)) })
    }

    /// Puts a new value in the place of the one in force, which is destroyed; on request with the leases of it.
    ///
    /// # Errors
    /// As [`Self::put_secret`]; when there is none, or the value is the one in force.
    pub async fn rotate_secret(
        &self,
        caller: &Caller,
        request: pb::RotateSecretRequest,
    ) -> Result<pb::RotateSecretResponse, Refusal> {
        check_reason(&request.reason)?;
        let value = value_of(request.value)?;
        let mut secret = self.known_secret(caller, &request.tenant, &request.name)?;
        if secret.record.retired > 0 {
            return Err(Refusal::invalid("name", "is retired; put it anew"));
        }
        let now = self.now();
        if self.is_in_force(&secret, &value)? {
            return Err(Refusal::invalid("value", "is the one in force; get another from its vendor"));
        }
        let live_holders =
            self.live_holders(&secret.tenant, (&secret.name, in_force(&secret.record).unwrap_or_default()), now)?;
        let before = Some(secret.record.changes);
        secret.end_version(request.revoke_old, now);
        let number = secret.begin_version(0, self.value_mark(secret.tenant.number, value.expose()), now);
        let value = self.sealed(&secret.tenant, &secret.name, number, &value)?;
        let mut event = told(caller, &secret, "secret.rotated", &request.reason, now);
        event.details.push(format!("live_holders={live_holders}"));
        event.details.push(format!("revoke_old={}", request.revoke_old));
        let cut = request.revoke_old.then(|| cut(&secret, &request.reason, now));
        let receipt = self.change(&secret, before, value, cut, event, now).await?;
        let (info, revision) = (info_of(&secret), revision(&receipt));
        Ok(pb::RotateSecretResponse { secret: Some(info), revision: Some(revision), live_holders })
    }

    /// Gives a static secret another owner or purpose.
    ///
    /// # Errors
    /// As [`Self::put_secret`]; when there is none.
    pub async fn edit_secret(
        &self,
        caller: &Caller,
        request: pb::EditSecretRequest,
    ) -> Result<pb::EditSecretResponse, Refusal> {
        check_reason(&request.reason)?;
        let mut secret = self.known_secret(caller, &request.tenant, &request.name)?;
        let before = Some(secret.record.changes);
        if request.owner.is_empty() && request.purpose.is_empty() {
            return Err(Refusal::invalid("owner", "and purpose are both empty; say what shall change"));
        }
        if !request.owner.is_empty() {
            secret.record.owner = prose("owner", &request.owner)?;
        }
        if !request.purpose.is_empty() {
            secret.record.purpose = prose("purpose", &request.purpose)?;
        }
        let now = self.now();
        let event = told(caller, &secret, "secret.edited", &request.reason, now);
        let receipt = self.change(&secret, before, ValueChange::Kept, None, event, now).await?;
        Ok(pb::EditSecretResponse { secret: Some(info_of(&secret)), revision: Some(revision(&receipt)) })
    }

    /// Destroys the value of a static secret and ends the leases of it.
    ///
    /// # Errors
    /// As [`Self::put_secret`]; when there is none.
    pub async fn retire_secret(
        &self,
        caller: &Caller,
        request: pb::RetireSecretRequest,
    ) -> Result<pb::RetireSecretResponse, Refusal> {
        check_reason(&request.reason)?;
        let mut secret = self.known_secret(caller, &request.tenant, &request.name)?;
        if secret.record.retired > 0 {
            return Err(Refusal::invalid("name", "is retired already"));
        }
        let now = self.now();
        let live_holders =
            self.live_holders(&secret.tenant, (&secret.name, in_force(&secret.record).unwrap_or_default()), now)?;
        let before = Some(secret.record.changes);
        secret.end_version(true, now);
        secret.record.retired = now.millis();
        let mut event = told(caller, &secret, "secret.retired", &request.reason, now);
        event.details.push(format!("live_holders={live_holders}"));
        let cut = Some(cut(&secret, &request.reason, now));
        let receipt = self.change(&secret, before, ValueChange::Destroyed, cut, event, now).await?;
        Ok(pb::RetireSecretResponse { revision: Some(revision(&receipt)), live_holders })
    }

    /// Whose a secret is; `None` when there is none, or it cannot be read.
    pub(super) fn partner_of_secret(
        &self,
        tenant: &TenantName,
        name: &SecretName,
    ) -> Result<Option<PartnerName>, Refusal> {
        let Some(number) = self.registry.number(tenant) else { return Ok(None) };
        let record = self.ledger.secret(number, name)?.flatten();
        Ok(record.and_then(|record| record.partner.parse().ok()))
    }

    /// Whether there is, or was, one of this name.
    pub(super) fn has_secret(&self, tenant: &TenantName, name: &SecretName) -> Result<bool, Refusal> {
        let Some(number) = self.registry.number(tenant) else { return Ok(false) };
        Ok(self.ledger.secret(number, name)?.is_some())
    }

    /// A tenant that an operator may put something of a partner into. Foreign and unknown ones look the same.
    fn tenant_of_operator(
        &self,
        operator: &Operator,
        tenant: &str,
        partner: &PartnerName,
    ) -> Result<Arc<Tenant>, Refusal> {
        let name: TenantName = view::id("tenant", tenant)?;
        if !operator.reaches(Some(&name), Some(partner)) {
            return Err(Refusal::Unknown("tenant"));
        }
        self.registry.tenant(&self.ledger, &name)?.ok_or(Refusal::Unknown("tenant"))
    }

    /// A secret that an admin may change.
    fn known_secret(&self, caller: &Caller, tenant: &str, name: &str) -> Result<Known, Refusal> {
        let operator = self.operator(caller)?;
        operator.require(Role::Admin)?;
        let (tenant, name) = (view::id::<TenantName>("tenant", tenant)?, view::id::<SecretName>("name", name)?);
        let partner = self.partner_of_secret(&tenant, &name)?;
        if !operator.reaches(Some(&tenant), partner.as_ref()) {
            return Err(Refusal::Unknown("secret"));
        }
        let tenant = self.registry.tenant(&self.ledger, &tenant)?.ok_or(Refusal::Unknown("secret"))?;
        match self.ledger.secret(tenant.number, &name)? {
            Some(Some(record)) => Ok(Known { operator, tenant, name, record }),
            Some(None) => Err(Refusal::invalid("name", "is of a secret that cannot be read; put it anew")),
            None => Err(Refusal::Unknown("secret")),
        }
    }

    /// Refuses a name that is in use, or one too many.
    fn check_free(
        &self,
        operator: &Operator,
        tenant: &Tenant,
        name: &SecretName,
        known: Option<&Option<records::SecretRecord>>,
    ) -> Result<(), Refusal> {
        match known {
            None => {
                let (all, _) = self.ledger.secrets(&keys::tenant(tenant.number), &[], TENANT_MOST)?;
                if all.len() >= TENANT_MOST { Err(Refusal::Quota("tenant's static secrets")) } else { Ok(()) }
            }
            // Nobody can say whose it was.
            Some(None) if !operator.reaches(Some(tenant.trust.name()), None) => {
                Err(Refusal::invalid("name", "is taken; choose another"))
            }
            Some(None) => Ok(()),
            Some(Some(record)) => {
                let of: Option<PartnerName> = record.partner.parse().ok();
                if !operator.reaches(Some(tenant.trust.name()), of.as_ref()) {
                    return Err(Refusal::invalid("name", "is taken; choose another"));
                }
                if record.retired == 0 {
                    return Err(Refusal::invalid(
                        "name",
                        format!("is taken; `mayfly secret rotate {name}` replaces it"),
                    ));
                }
                Ok(())
            }
        }
    }

    fn is_in_force(&self, secret: &Known, value: &SecretBytes) -> Result<bool, Refusal> {
        let Some(number) = in_force(&secret.record) else { return Ok(false) };
        let ring = self.rings.ring(&self.ledger, secret.tenant.number)?;
        let version = SecretVersion { name: secret.name.clone(), number };
        // One that does not open any more is not kept from being replaced.
        let known = self.open_secret(secret.tenant.number, &version, &ring).ok();
        Ok(known.is_some_and(|known| Digest::of(known.expose()).matches(&Digest::of(value.expose()))))
    }

    fn sealed(
        &self,
        tenant: &Tenant,
        name: &SecretName,
        version: u32,
        value: &SecretBytes,
    ) -> Result<ValueChange, Refusal> {
        let ring = self.rings.ring(&self.ledger, tenant.number)?;
        let sealed = ring.wrapping()?.seal(&location(tenant.number, name, version), value.expose());
        Ok(ValueChange::Put(records::SecretValueRecord { version, sealed: sealed.map_err(Refusal::fault)? }))
    }

    async fn change(
        &self,
        secret: &Known,
        before: Option<u64>,
        value: ValueChange,
        cut: Option<CutDraft>,
        event: pb::Event,
        now: Timestamp,
    ) -> Result<Receipt, Refusal> {
        let changes = before.unwrap_or(0).saturating_add(1);
        let commit = SecretCommit {
            tenant: secret.tenant.number,
            name: secret.name.clone(),
            scope: secret.scope().id(),
            before,
            record: records::SecretRecord { changes, ..secret.record.clone() },
            value,
            cut,
            event,
            now,
        };
        Ok(self.ledger.change_secret(commit).await?)
    }
}

fn value_of(value: Vec<u8>) -> Result<SecretBytes, Refusal> {
    let value = SecretBytes::new(value);
    match value.expose().len() {
        1..=VALUE_MAX_BYTES => Ok(value),
        bytes => Err(Refusal::invalid("value", format!("has {bytes} bytes, where 1 to {VALUE_MAX_BYTES} are allowed"))),
    }
}

/// A text for people. What was given is not repeated: it may be the secret.
fn prose(field: &'static str, text: &str) -> Result<String, Refusal> {
    let fits = (1..=TEXT_MOST).contains(&text.chars().count()) && !text.trim().is_empty();
    if !fits || text.chars().any(char::is_control) {
        return Err(Refusal::invalid(field, format!("is not of 1 to {TEXT_MOST} characters on one line")));
    }
    if crate::model::shape::looks_like_a_secret(text) {
        return Err(Refusal::invalid(field, "looks like a secret itself; that belongs into the value alone"));
    }
    Ok(text.to_owned())
}

fn cut(secret: &Known, reason: &str, now: Timestamp) -> CutDraft {
    CutDraft {
        scope: secret.scope(),
        why: EndReason::Revoked,
        bar: false,
        operator: secret.operator.name.to_string(),
        reason: reason.to_owned(),
        covers_until: covers_until(now),
        // That of the change says it.
        event: pb::Event::default(),
        now,
        resets_time: false,
    }
}

fn told(caller: &Caller, secret: &Known, kind: &str, reason: &str, now: Timestamp) -> pb::Event {
    let mut event = event::by(caller, secret.operator.actor(), kind, now);
    let record = &secret.record;
    (event.tenant, event.partner) = (record.tenant.clone(), record.partner.clone());
    event.reason = reason.to_owned();
    event.details.extend([
        format!("scope={}", secret.scope()),
        format!("secret={}", secret.name),
        format!("secret_version={}", record.versions.last().map_or(0, |version| version.number)),
        format!("owner={}", record.owner),
        format!("purpose={}", record.purpose),
    ]);
    event
}

fn info_of(secret: &Known) -> pb::SecretInfo {
    info(secret.tenant.trust.name(), &secret.name, Some(&secret.record))
}

/// Characters of an owner and a purpose.
const TEXT_MOST: usize = 128;
