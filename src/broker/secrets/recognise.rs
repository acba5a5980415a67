//! A value in hand: whether it is, or was, one of ours.
//!
//! Only who may put and rotate a secret is told, and what was found is in the audit: to everybody else its value is as any
//! text, so that nobody finds a short one out by asking.

use crate::{
    broker::{Broker, Refusal, event, who::Operator},
    identity::Caller,
    mint::SecretBytes,
    model::{
        Digest, PartnerName, Scope, SecretName, SecretVersion, TenantName, TenantNumber, Timestamp, secret::MacKey,
    },
    pb,
    policy::Role,
    records,
};

use super::{in_force, list::info};

impl Broker {
    /// What is kept of a value with its version: 128 bits under a key that only the seal key gives, other ones in each tenant.
    /// Whoever has the store alone finds nothing out by trying.
    pub(super) fn value_mark(&self, tenant: TenantNumber, value: &[u8]) -> Vec<u8> {
        self.rings.seal().value_key().tag(&[&tenant.to_bytes(), value]).to_vec()
    }

    /// The secret within an admin's scope that a text is the value of, now or before, and its version; `None` also for who
    /// may not ask.
    ///
    /// # Errors
    /// When the store failed: what is not in the audit is not told.
    pub(in crate::broker) async fn recognise(
        &self,
        caller: &Caller,
        operator: &Operator,
        text: &str,
        now: Timestamp,
    ) -> Result<Option<(pb::SecretInfo, u32)>, Refusal> {
        // A short one could be found out by trying.
        if operator.require(Role::Admin).is_err() || text.trim().len() < RECOGNISED_LEAST {
            return Ok(None);
        }
        let key = self.rings.seal().value_key();
        for prefix in self.tenant_prefixes(operator, None) {
            let (mut after, mut hand) = (Vec::new(), None::<Hand<'_>>);
            loop {
                let (rows, next) = self.ledger.secrets(&prefix, &after, ROWS_AT_ONCE)?;
                for (number, name, record) in rows {
                    let Some((tenant, record)) = self.registry.name(number).zip(record) else { continue };
                    let partner: Option<PartnerName> = record.partner.parse().ok();
                    if !operator.reaches(Some(&tenant), partner.as_ref()) {
                        continue;
                    }
                    let hand = match hand.take_if(|hand| hand.tenant == number) {
                        Some(known) => hand.insert(known),
                        None => hand.insert(Hand::of(text, number, &key)),
                    };
                    if let Some(version) = self.version_in(hand, &name, &record) {
                        self.tell_recognised(caller, operator, (&tenant, &name, &record), version, now).await?;
                        return Ok(Some((info(&tenant, &name, Some(&record)), version)));
                    }
                }
                let Some(next) = next else { break };
                after = next;
                tokio::task::yield_now().await;
            }
        }
        Ok(None)
    }

    /// The newest version of a secret whose value is in hand.
    fn version_in(&self, hand: &Hand<'_>, name: &SecretName, record: &records::SecretRecord) -> Option<u32> {
        let is_it = |version: &&records::SecretVersionRecord| {
            if !version.mark.is_empty() {
                // Nothing follows from how long this takes: what is compared is not known outside.
                return hand.marks.iter().any(|mark| version.mark == *mark);
            }
            // Of before marks were kept: its value says, where that is kept.
            in_force(record) == Some(version.number)
                && self.value_of_version(hand.tenant, name, version.number).is_some_and(|value| hand.holds(&value))
        };
        record.versions.iter().rev().find(is_it).map(|version| version.number)
    }

    fn value_of_version(&self, tenant: TenantNumber, name: &SecretName, number: u32) -> Option<SecretBytes> {
        let ring = self.rings.ring(&self.ledger, tenant).ok()?;
        self.open_secret(tenant, &SecretVersion { name: name.clone(), number }, &ring).ok()
    }

    async fn tell_recognised(
        &self,
        caller: &Caller,
        operator: &Operator,
        (tenant, name, record): (&TenantName, &SecretName, &records::SecretRecord),
        version: u32,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let mut event = event::by(caller, operator.actor(), "secret.recognised", now);
        (event.tenant, event.partner) = (tenant.to_string(), record.partner.clone());
        event.details.extend([
            format!("scope={}", Scope::Secret(tenant.clone(), name.clone())),
            format!("secret={name}"),
            format!("secret_version={version}"),
            format!("owner={}", record.owner),
            format!("in_force={}", in_force(record) == Some(version)),
        ]);
        self.ledger.note_act(vec![event], now).await?;
        Ok(())
    }
}

/// What was found, as it may have been put: to the byte, and without the white space that pasting adds.
struct Hand<'t> {
    tenant: TenantNumber,
    spellings: [&'t [u8]; 2],
    marks: [[u8; MacKey::TAG_BYTES]; 2],
}

impl<'t> Hand<'t> {
    fn of(text: &'t str, tenant: TenantNumber, key: &MacKey) -> Self {
        let spellings = [text.as_bytes(), text.trim().as_bytes()];
        Self { tenant, spellings, marks: spellings.map(|spelling| key.tag(&[&tenant.to_bytes(), spelling])) }
    }

    fn holds(&self, value: &SecretBytes) -> bool {
        let value = Digest::of(value.expose());
        self.spellings.iter().any(|spelling| Digest::of(spelling).matches(&value))
    }
}

const ROWS_AT_ONCE: usize = 256;
/// Bytes. What partners give out is longer.
const RECOGNISED_LEAST: usize = 16;
