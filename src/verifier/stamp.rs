//! What a credential carries so that cuts can be applied to it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::model::ScopeId;

/// The basis of a credential's decision and the scopes it depends on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Stamp {
    /// Incarnation and number of the revision.
    pub(super) basis: (u64, u64),
    pub(super) scopes: Vec<ScopeId>,
}

/// The certificate extension's object identifier.
pub(super) const OID: &str = "2.25.5575871294474878977";

impl Stamp {
    /// From the claims `mf_basis` (`<16 hex digits of incarnation>.<number>`) and `mf_scopes` (base64url).
    pub(super) fn from_claims(basis: &str, scopes: &str) -> Option<Self> {
        let (incarnation, number) = basis.split_once('.')?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
        if incarnation.len() != 16 || !digits(incarnation) || !number.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let basis = (u64::from_str_radix(incarnation, 16).ok()?, number.parse().ok()?);
        Some(Self { basis, scopes: ScopeId::split(&URL_SAFE_NO_PAD.decode(scopes).ok()?)? })
    }

    /// From the extension's value: a DER OCTET STRING of version 1, 8 bytes incarnation, 8 bytes number (big-endian)
    /// and 12 bytes a scope.
    pub(super) fn from_extension(der: &[u8]) -> Option<Self> {
        let (length, bytes) = match der {
            [0x04, 0x82, high, low, rest @ ..] if *high > 0 => (usize::from(*high) * 256 + usize::from(*low), rest),
            [0x04, 0x81, length, rest @ ..] if *length > 0x7f => (usize::from(*length), rest),
            [0x04, length, rest @ ..] if *length <= 0x7f => (usize::from(*length), rest),
            _ => return None,
        };
        if bytes.len() != length {
            return None;
        }
        let (1, rest) = bytes.split_first()? else {
            return None;
        };
        let (incarnation, rest) = rest.split_first_chunk::<8>()?;
        let (number, scopes) = rest.split_first_chunk::<8>()?;
        let basis = (u64::from_be_bytes(*incarnation), u64::from_be_bytes(*number));
        Some(Self { basis, scopes: ScopeId::split(scopes)? })
    }
}
