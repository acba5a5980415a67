//! Tenants' keys in memory: opened when first asked for, forgotten when they change.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use super::refusal::Refusal;
use crate::{
    ledger::{Ledger, keys},
    mint::{
        SecretBytes,
        keyring::{self, KeyFacts, KeyState},
        seal::{Seal, Wrapping},
        signing::{Algorithm, PublicJwk, SigningKey},
        x509::CaKey,
    },
    model::{Scope, TenantNumber, Timestamp},
    records,
};

/// What a key row is for.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum KeyUse {
    /// Signs tokens.
    Token,
    /// The tenant's intermediate CA.
    Ca,
    /// The issuing CA, the broker's own.
    Issuing,
    /// The root CA, the broker's own, unless it is kept elsewhere.
    Root,
    /// Signs audit checkpoints, the broker's own.
    Audit,
    /// Wraps the tenant's other keys.
    Wrapping,
}

impl KeyUse {
    /// The byte in keys and records.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Token => 1,
            Self::Ca => 2,
            Self::Issuing => 3,
            Self::Root => 4,
            Self::Audit => 5,
            Self::Wrapping => 6,
        }
    }

    /// The inverse of [`Self::code`].
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        [Self::Token, Self::Ca, Self::Issuing, Self::Root, Self::Audit, Self::Wrapping]
            .into_iter()
            .find(|use_| u32::from(use_.code()) == code)
    }

    /// The word on the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Ca => "ca",
            Self::Issuing => "issuing",
            Self::Root => "root",
            Self::Audit => "audit",
            Self::Wrapping => "wrapping",
        }
    }
}

/// One key as its row says, without its private half.
#[derive(Clone, Debug)]
pub struct KeyRow {
    /// Where it lies.
    pub row_key: Vec<u8>,
    /// What it is for.
    pub key_use: KeyUse,
    /// The row.
    pub record: records::KeyRecord,
}

impl KeyRow {
    /// Its part in the ring's life.
    #[must_use]
    pub fn facts(&self) -> KeyFacts {
        KeyFacts {
            key_id: self.record.key_id.clone(),
            state: KeyState::from_code(self.record.state),
            since: Timestamp::from_millis(self.record.state_since),
        }
    }
}

/// A tenant's keys, opened.
#[derive(Debug)]
pub struct Ring {
    /// Signs tokens now.
    pub token: Option<Arc<SigningKey>>,
    /// Signs certificates now.
    pub ca: Option<Arc<CaKey>>,
    /// The CA key's id.
    pub ca_key_id: String,
    /// Every row, private halves left sealed.
    pub rows: Vec<KeyRow>,
    wrapping: Option<Wrapping>,
}

impl Ring {
    /// Rows of one use.
    pub fn of(&self, key_use: KeyUse) -> impl Iterator<Item = &KeyRow> {
        self.rows.iter().filter(move |row| row.key_use == key_use)
    }

    /// Public keys that tokens may be checked with: published, and not cut.
    #[must_use]
    pub fn published_tokens(&self, ledger: &Ledger) -> Vec<PublicJwk> {
        self.of(KeyUse::Token)
            .filter(|row| KeyState::from_code(row.record.state).is_published())
            .filter(|row| ledger.scope(Scope::SigningKey(row.record.key_id.clone()).id()).cut == 0)
            .filter_map(|row| PublicJwk::new(Algorithm::from_code(row.record.algorithm)?, &row.record.public_key))
            .collect()
    }

    /// The tenant's wrapping key.
    ///
    /// # Errors
    /// When it was destroyed or is damaged.
    pub fn wrapping(&self) -> Result<&Wrapping, Refusal> {
        self.wrapping.as_ref().ok_or(Refusal::Unavailable("the tenant's keys are not readable"))
    }
}

/// Tenants' keys in memory.
#[derive(Debug)]
pub struct Rings {
    seal: Seal,
    rings: RwLock<HashMap<TenantNumber, Slot>>,
}

/// An epoch that every change raises, and the ring when it was opened since.
type Slot = (u64, Option<Arc<Ring>>);

impl Rings {
    /// None yet.
    #[must_use]
    pub fn new(seal: Seal) -> Self {
        Self { seal, rings: RwLock::default() }
    }

    /// What seals the broker's own keys.
    #[must_use]
    pub fn seal(&self) -> &Seal {
        &self.seal
    }

    /// A tenant's keys, or the broker's own under number 0.
    ///
    /// # Errors
    /// When the store failed. A key that cannot be opened is missing from the ring.
    pub fn ring(&self, ledger: &Ledger, number: TenantNumber) -> Result<Arc<Ring>, Refusal> {
        let epoch = {
            let rings = self.rings.read().unwrap_or_else(PoisonError::into_inner);
            match rings.get(&number) {
                Some((_, Some(ring))) => return Ok(Arc::clone(ring)),
                Some((epoch, None)) => *epoch,
                None => 0,
            }
        };
        let ring = Arc::new(self.open(ledger, number)?);
        let mut rings = self.rings.write().unwrap_or_else(PoisonError::into_inner);
        let slot = rings.entry(number).or_default();
        if slot.0 == epoch {
            slot.1 = Some(Arc::clone(&ring));
        }
        Ok(ring)
    }

    /// Forgets a tenant's keys: their rows have changed.
    pub fn changed(&self, number: TenantNumber) {
        let mut rings = self.rings.write().unwrap_or_else(PoisonError::into_inner);
        let slot = rings.entry(number).or_default();
        slot.0 += 1;
        slot.1 = None;
    }

    /// Opens the private half of a row.
    ///
    /// # Errors
    /// When it does not open under its seal.
    pub fn private(&self, row: &KeyRow, wrapping: Option<&Wrapping>) -> Result<SecretBytes, Refusal> {
        let sealed = &row.record.sealed_pkcs8;
        match wrapping {
            Some(wrapping) => wrapping.open(&row.row_key, sealed).map_err(Refusal::fault),
            None => self.seal.open(&row.row_key, sealed).map_err(Refusal::fault),
        }
    }

    fn open(&self, ledger: &Ledger, number: TenantNumber) -> Result<Ring, Refusal> {
        let rows = ledger.tenant_keys(number)?.into_iter();
        let rows: Vec<KeyRow> = rows
            .filter_map(|(row_key, record)| {
                Some(KeyRow { row_key, key_use: KeyUse::from_code(record.key_use)?, record })
            })
            .collect();
        let wrapping = rows.iter().find(|row| row.key_use == KeyUse::Wrapping).and_then(|row| {
            let opened = self.seal.open_wrapping(&row.row_key, &row.record.sealed_pkcs8);
            opened
                .inspect_err(|error| tracing::error!(%error, tenant = number.get(), "a wrapping key does not open"))
                .ok()
        });
        let mut ring = Ring { token: None, ca: None, ca_key_id: String::new(), rows, wrapping };
        let by = ring.wrapping.as_ref().filter(|_| number != TenantNumber::BROKER);
        let token = active(&ring, KeyUse::Token).and_then(|row| {
            let algorithm = Algorithm::from_code(row.record.algorithm)?;
            let key = self.private(row, by).ok()?;
            SigningKey::from_pkcs8(algorithm, &key).ok().map(Arc::new)
        });
        let ca_use = if number == TenantNumber::BROKER { KeyUse::Issuing } else { KeyUse::Ca };
        let ca = active(&ring, ca_use).and_then(|row| {
            let key = self.private(row, by).ok()?;
            let ca = CaKey::from_parts(&key, row.record.chain_der.clone()).ok()?;
            Some((Arc::new(ca), row.record.key_id.clone()))
        });
        ring.token = token;
        if let Some((ca, key_id)) = ca {
            (ring.ca, ring.ca_key_id) = (Some(ca), key_id);
        }
        Ok(ring)
    }
}

/// A row for a new key of a tenant, sealed by the tenant's wrapping key, or by the seal for the broker's own.
///
/// # Errors
/// When sealing fails.
pub fn new_row(
    seal: impl FnOnce(&[u8]) -> Result<Vec<u8>, Refusal>,
    number: TenantNumber,
    key_use: KeyUse,
    record: records::KeyRecord,
) -> Result<(Vec<u8>, records::KeyRecord), Refusal> {
    let row_key = keys::key(number, key_use.code(), &record.key_id);
    let sealed_pkcs8 = seal(&row_key)?;
    Ok((row_key, records::KeyRecord { key_use: key_use.code().into(), sealed_pkcs8, ..record }))
}

fn active(ring: &Ring, key_use: KeyUse) -> Option<&KeyRow> {
    let facts: Vec<KeyFacts> = ring.of(key_use).map(KeyRow::facts).collect();
    let key_id = keyring::active(&facts)?.key_id.clone();
    ring.of(key_use).find(|row| row.record.key_id == key_id)
}
