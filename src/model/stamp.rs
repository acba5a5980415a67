//! What a credential carries so that cuts can be applied to it offline.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{id::hex, scope::ScopeId};

/// The basis of a credential's decision and the scopes it depends on: a cut of one of them above the basis ends it.
///
/// Invariant: at most [`Stamp::MAX_SCOPES`] scopes. The forms in tokens and certificates are in docs/token-format.md.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stamp {
    basis: (u64, u64),
    scopes: Vec<ScopeId>,
}

impl Stamp {
    /// The most scopes of one credential.
    pub const MAX_SCOPES: usize = 64;

    /// The certificate extension's object identifier, 2.25.5575871294474878977 (ITU-T X.667).
    pub const OID: [u64; 3] = [2, 25, 5_575_871_294_474_878_977];

    /// [`Self::OID`] as the content bytes of its DER.
    pub const OID_DER: [u8; 10] = [0x69, 0xcd, 0xb0, 0xde, 0xac, 0xe6, 0xe3, 0xe4, 0x80, 0x01];

    /// `basis` is incarnation and revision number; `None` when there are too many scopes.
    #[must_use]
    pub fn new(basis: (u64, u64), scopes: Vec<ScopeId>) -> Option<Self> {
        (scopes.len() <= Self::MAX_SCOPES).then_some(Self { basis, scopes })
    }

    /// Incarnation and revision number of the decision.
    #[must_use]
    pub fn basis(&self) -> (u64, u64) {
        self.basis
    }

    /// The scopes it depends on.
    #[must_use]
    pub fn scopes(&self) -> &[ScopeId] {
        &self.scopes
    }

    /// One version byte, 8 bytes incarnation, 8 bytes number, 12 bytes a scope; big-endian.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + 16 + self.scopes.len() * ScopeId::BYTES);
        bytes.push(VERSION);
        bytes.extend(self.basis.0.to_be_bytes());
        bytes.extend(self.basis.1.to_be_bytes());
        self.scopes.iter().for_each(|id| bytes.extend(id.as_bytes()));
        bytes
    }

    /// The inverse of [`Self::to_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (incarnation, rest) = rest.split_first_chunk::<8>()?;
        let (number, scopes) = rest.split_first_chunk::<8>()?;
        if *version != VERSION {
            return None;
        }
        Self::new((u64::from_be_bytes(*incarnation), u64::from_be_bytes(*number)), ScopeId::split(scopes)?)
    }

    /// The extension's value: [`Self::to_bytes`] as a DER OCTET STRING.
    #[must_use]
    pub fn to_extension(&self) -> Vec<u8> {
        let content = self.to_bytes();
        // INVARIANT: at most 17 + 64 * 12 = 785 bytes, so two length bytes are enough.
        let [high, low] = u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes();
        let mut der = Vec::with_capacity(4 + content.len());
        match (high, low) {
            (0, 0..=127) => der.extend([OCTET_STRING, low]),
            (0, 128..) => der.extend([OCTET_STRING, 0x81, low]),
            (1.., _) => der.extend([OCTET_STRING, 0x82, high, low]),
        }
        der.extend(content);
        der
    }

    /// The inverse of [`Self::to_extension`]; takes DER only.
    #[must_use]
    pub fn from_extension(der: &[u8]) -> Option<Self> {
        let header = match der.get(1)? {
            0..=127 => 2,
            0x81 => 3,
            _ => 4,
        };
        let stamp = Self::from_bytes(der.get(header..)?)?;
        (stamp.to_extension() == der).then_some(stamp)
    }

    /// The token claim `mf_basis`: 16 hex digits of the incarnation, a dot, the number.
    #[must_use]
    pub fn basis_claim(&self) -> String {
        format!("{}.{}", hex(&self.basis.0.to_be_bytes()), self.basis.1)
    }

    /// The token claim `mf_scopes`: base64url of the ids one after the other.
    #[must_use]
    pub fn scopes_claim(&self) -> String {
        URL_SAFE_NO_PAD.encode(ScopeId::join(&self.scopes))
    }

    /// From the two token claims, spelt exactly as they are written.
    #[must_use]
    pub fn from_claims(basis: &str, scopes: &str) -> Option<Self> {
        let (incarnation, number) = basis.split_once('.')?;
        let basis_parsed = (u64::from_str_radix(incarnation, 16).ok()?, number.parse().ok()?);
        let stamp = Self::new(basis_parsed, ScopeId::split(&URL_SAFE_NO_PAD.decode(scopes).ok()?)?)?;
        (stamp.basis_claim() == basis).then_some(stamp)
    }
}

const VERSION: u8 = 1;
const OCTET_STRING: u8 = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stamps() -> impl Strategy<Value = Stamp> {
        let ids = proptest::collection::vec(any::<[u8; 12]>(), 0..=Stamp::MAX_SCOPES);
        (any::<(u64, u64)>(), ids).prop_map(|(basis, ids)| {
            let scopes = ids.iter().filter_map(|id| ScopeId::from_slice(id)).collect();
            Stamp::new(basis, scopes).expect("within the limit")
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(stamp in stamps()) {
            prop_assert_eq!(Stamp::from_bytes(&stamp.to_bytes()), Some(stamp.clone()));
            prop_assert_eq!(Stamp::from_extension(&stamp.to_extension()), Some(stamp.clone()));
            let read = Stamp::from_claims(&stamp.basis_claim(), &stamp.scopes_claim());
            prop_assert_eq!(read, Some(stamp));
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..900)) {
            if let Some(stamp) = Stamp::from_extension(&bytes) {
                prop_assert_eq!(stamp.to_extension(), bytes);
            }
        }
    }

    #[test]
    fn other_spellings_and_versions_are_refused() {
        let stamp = Stamp::new((10, 7), vec![]).expect("no scopes");
        assert_eq!(stamp.basis_claim(), "000000000000000a.7");
        for bad in ["a.7", "000000000000000A.7", "000000000000000a.07", "000000000000000a.+7", "000000000000000a", ""] {
            assert_eq!(Stamp::from_claims(bad, ""), None, "{bad}");
        }
        let mut bytes = stamp.to_bytes();
        bytes[0] = 2;
        assert_eq!(Stamp::from_bytes(&bytes), None);
        assert_eq!(Stamp::from_bytes(&stamp.to_bytes()[..16]), None);
    }

    #[test]
    fn one_scope_past_the_limit_is_refused() {
        let id = ScopeId::from_slice(&[1; 12]).expect("12 bytes");
        assert!(Stamp::new((0, 0), vec![id; Stamp::MAX_SCOPES]).is_some());
        assert!(Stamp::new((0, 0), vec![id; Stamp::MAX_SCOPES + 1]).is_none());
    }
}
