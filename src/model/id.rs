//! Names and ids: one door each, with stated limits.

use std::{fmt, str::FromStr, sync::Arc};

use super::secret::{self, EntropyUnavailable};

/// Why a text is no name or id.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidId {
    /// Too short or too long.
    #[error("has {got} bytes, where {want} are allowed")]
    Length {
        /// Bytes given.
        got: usize,
        /// What is allowed, for people.
        want: &'static str,
    },
    /// A byte that is not allowed, by position.
    #[error("has a character at byte {at} that is not one of {want}")]
    Byte {
        /// Where, from 0.
        at: usize,
        /// What is allowed, for people.
        want: &'static str,
    },
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        ///
        /// Invariant: 1 to 63 bytes of `[a-z0-9-]`, not starting or ending with `-`: safe in logs, paths, DNS labels
        /// and SPIFFE path segments.
        #[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                check_name(text)?;
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name! {
    /// Names one tenant: a customer environment, the isolation boundary.
    TenantName
}
name! {
    /// Names one partner: an outside party or integration that acts for tenants.
    PartnerName
}
name! {
    /// Names one grant within its tenant.
    GrantName
}
name! {
    /// Names one workload within its tenant.
    WorkloadName
}
name! {
    /// Why work is done, as grants list it.
    Purpose
}
name! {
    /// Names one operator.
    OperatorName
}
name! {
    /// Names one issuer of identity tokens, as the config declares it.
    IssuerName
}
name! {
    /// Names one static secret within its tenant.
    SecretName
}

fn check_name(text: &str) -> Result<(), InvalidId> {
    if text.is_empty() || text.len() > NAME_MAX_BYTES {
        return Err(InvalidId::Length { got: text.len(), want: "1 to 63" });
    }
    let edge = |at: usize| at == 0 || at + 1 == text.len();
    match text.bytes().enumerate().find(|&(at, b)| match b {
        b'a'..=b'z' | b'0'..=b'9' => false,
        b'-' => edge(at),
        _ => true,
    }) {
        None => Ok(()),
        Some((at, _)) => Err(InvalidId::Byte { at, want: "a-z, 0-9 and inner `-`" }),
    }
}

/// The short number of a tenant in keys and ids; given once, never reused.
///
/// Invariant: 1 to 2^30 - 1. Number 0 is the broker's own.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TenantNumber(u32);

impl TenantNumber {
    /// The broker itself, for rows and streams of no tenant.
    pub const BROKER: Self = Self(0);
    /// The greatest number.
    pub const MAX: u32 = (1 << 30) - 1;

    /// `None` beyond [`Self::MAX`].
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        (number <= Self::MAX).then_some(Self(number))
    }

    /// The plain number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// As it leads keys and ids. The top bits are 01, so that an id is a positive X.509 serial of fixed length.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 4] {
        (self.0 | ID_MARK).to_be_bytes()
    }

    /// The inverse of [`Self::to_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: [u8; 4]) -> Option<Self> {
        let raw = u32::from_be_bytes(bytes);
        (raw >> 30 == 1).then_some(Self(raw & Self::MAX))
    }
}

/// Names one task: its tenant's number and 8 random bytes.
///
/// Not a secret. 24 hex digits as text.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TaskId([u8; Self::BYTES]);

impl TaskId {
    /// Length in keys.
    pub const BYTES: usize = 12;

    /// A new random id.
    ///
    /// # Errors
    /// When the system has no entropy.
    pub fn fresh(tenant: TenantNumber) -> Result<Self, EntropyUnavailable> {
        let mut id = [0; Self::BYTES];
        let (head, tail) = id.split_at_mut(4);
        head.copy_from_slice(&tenant.to_bytes());
        secret::fill(tail)?;
        Ok(Self(id))
    }

    /// As in keys.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// From a key or record; `None` unless well formed.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let id: [u8; Self::BYTES] = bytes.try_into().ok()?;
        tenant_of(&id).map(|_| Self(id))
    }

    /// The tenant it belongs to.
    #[must_use]
    pub fn tenant(&self) -> TenantNumber {
        tenant_of(&self.0).unwrap_or(TenantNumber::BROKER)
    }
}

/// Names one lease: its task's id and 8 random bytes.
///
/// Not a secret: a token's `jti`, a certificate's serial number. Leases of one task, and of one tenant, are neighbours
/// in the ledger. 40 hex digits as text.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LeaseId([u8; Self::BYTES]);

impl LeaseId {
    /// Length in keys; the longest that RFC 5280 section 4.1.2.2 allows for a serial number.
    pub const BYTES: usize = 20;

    /// A new random id under `task`.
    ///
    /// # Errors
    /// When the system has no entropy.
    pub fn fresh(task: TaskId) -> Result<Self, EntropyUnavailable> {
        let mut id = [0; Self::BYTES];
        let (head, tail) = id.split_at_mut(TaskId::BYTES);
        head.copy_from_slice(task.as_bytes());
        secret::fill(tail)?;
        Ok(Self(id))
    }

    /// As in keys.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// From a key, record or serial number; `None` unless well formed.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let id: [u8; Self::BYTES] = bytes.try_into().ok()?;
        tenant_of(&id).map(|_| Self(id))
    }

    /// The task it belongs to.
    #[must_use]
    pub fn task(&self) -> TaskId {
        let mut id = [0; TaskId::BYTES];
        id.copy_from_slice(self.0.split_at(TaskId::BYTES).0);
        TaskId(id)
    }

    /// The tenant it belongs to.
    #[must_use]
    pub fn tenant(&self) -> TenantNumber {
        self.task().tenant()
    }
}

/// Names one approval: its tenant's number and 8 random bytes.
///
/// Not a secret: only the workload that it is for can use it. 24 hex digits as text.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ApprovalId([u8; Self::BYTES]);

impl ApprovalId {
    /// Length in keys.
    pub const BYTES: usize = 12;

    /// A new random id.
    ///
    /// # Errors
    /// When the system has no entropy.
    pub fn fresh(tenant: TenantNumber) -> Result<Self, EntropyUnavailable> {
        TaskId::fresh(tenant).map(|id| Self(id.0))
    }

    /// As in keys.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// From a key or record; `None` unless well formed.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        TaskId::from_bytes(bytes).map(|id| Self(id.0))
    }

    /// The tenant it belongs to.
    #[must_use]
    pub fn tenant(&self) -> TenantNumber {
        tenant_of(&self.0).unwrap_or(TenantNumber::BROKER)
    }
}

fn tenant_of(id: &[u8]) -> Option<TenantNumber> {
    TenantNumber::from_bytes(id.first_chunk::<4>().copied()?)
}

macro_rules! hex_text {
    ($type:ident, $want:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl FromStr for $type {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                if text.len() != Self::BYTES * 2 {
                    return Err(InvalidId::Length { got: text.len(), want: $want });
                }
                let bytes = unhex(text)?;
                Self::from_bytes(&bytes).ok_or(InvalidId::Byte { at: 0, want: "`4` to `7`" })
            }
        }
    };
}

hex_text!(TaskId, "24 hex digits");
hex_text!(ApprovalId, "24 hex digits");
hex_text!(LeaseId, "40 hex digits");

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let digit = |n: u8| char::from(if n < 10 { b'0' + n } else { b'a' + n - 10 });
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
}

/// The inverse of [`hex`]; upper case is taken too.
///
/// # Errors
/// On an odd length or a character that is no hex digit.
pub fn unhex(text: &str) -> Result<Vec<u8>, InvalidId> {
    if !text.len().is_multiple_of(2) {
        return Err(InvalidId::Length { got: text.len(), want: "an even number of hex digits" });
    }
    let digit = |at: usize, b: u8| {
        char::from(b).to_digit(16).map(|d| d.to_le_bytes()[0]).ok_or(InvalidId::Byte { at, want: "0-9 and a-f" })
    };
    let mut digits = text.bytes().enumerate();
    let mut bytes = Vec::with_capacity(text.len() / 2);
    while let (Some((i, high)), Some((j, low))) = (digits.next(), digits.next()) {
        bytes.push(digit(i, high)? << 4 | digit(j, low)?);
    }
    Ok(bytes)
}

const NAME_MAX_BYTES: usize = 63;
const ID_MARK: u32 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenants_number_holds_at_its_limit_and_comes_back() {
        let last = TenantNumber::new(TenantNumber::MAX).expect("the last one");
        assert_eq!((TenantNumber::from_bytes(last.to_bytes()), last.get()), (Some(last), TenantNumber::MAX));
        assert_eq!(TenantNumber::new(TenantNumber::MAX + 1), None);
        assert_eq!(TenantNumber::from_bytes([0; 4]), None, "without the mark");
    }

    #[test]
    fn names_hold_at_their_limits_and_not_one_past() {
        for good in ["a", "0", "a-b", &"x".repeat(63)] {
            assert!(good.parse::<TenantName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a/b", "a\n", &"x".repeat(64)] {
            assert!(bad.parse::<TenantName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn half_a_byte_is_no_hex() {
        assert_eq!((unhex(""), unhex("00fF")), (Ok(vec![]), Ok(vec![0, 255])));
        assert_eq!(unhex("00f"), Err(InvalidId::Length { got: 3, want: "an even number of hex digits" }));
        assert!(unhex("0g").is_err());
    }

    #[test]
    fn a_lease_id_says_its_task_and_tenant_and_is_a_positive_serial() {
        let tenant = TenantNumber::new(77).expect("in range");
        let task = TaskId::fresh(tenant).expect("entropy");
        let lease = LeaseId::fresh(task).expect("entropy");
        assert_eq!((lease.task(), lease.tenant()), (task, tenant));
        assert!((0x40..0x80).contains(&lease.as_bytes()[0]));
        assert_eq!(lease.to_string().parse::<LeaseId>(), Ok(lease));
        assert!("00".repeat(20).parse::<LeaseId>().is_err());
    }
}
