//! Values on the command line: lengths of time, dates, revisions, digests and the words of the contract.

use clap::{Args, ValueEnum};
use prost_types::Timestamp;

use crate::{
    model::{PartnerName, TenantName, id::unhex},
    pb,
};

/// Limits of a list.
#[derive(Args, Clone, Copy, Debug)]
pub struct LimitArgs {
    /// Stop after this many records; 0 means no limit.
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub limit: u32,
}

/// What of a tenant, partner and owner is listed.
#[derive(Args, Clone, Debug)]
pub struct OwnedArgs {
    /// Only this tenant's.
    #[arg(long)]
    pub tenant: Option<TenantName>,
    /// Only this partner's.
    #[arg(long)]
    pub partner: Option<PartnerName>,
    /// Only what this owner answers for.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub owner: String,
    #[command(flatten)]
    pub limit: LimitArgs,
}

/// The form of a credential.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum KindArg {
    /// A signed token that can be checked offline.
    Jwt,
    /// A reference token that only introspection can check.
    Opaque,
    /// A certificate with one SPIFFE ID.
    X509,
    /// A static secret.
    Secret,
}

/// Whether something may be used now.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum StandingArg {
    /// May be used.
    Live,
    /// Held by a suspending bar.
    Suspended,
    /// Over for good.
    Ended,
}

/// Whether a token is tied to the caller's certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum BindingArg {
    /// Bound when the caller shows a certificate.
    Auto,
    /// Bound; refused without a certificate.
    Certificate,
    /// Not bound.
    None,
}

impl From<KindArg> for pb::CredentialKind {
    fn from(kind: KindArg) -> Self {
        match kind {
            KindArg::Jwt => Self::Jwt,
            KindArg::Opaque => Self::Opaque,
            KindArg::X509 => Self::X509,
            KindArg::Secret => Self::Secret,
        }
    }
}

impl From<StandingArg> for pb::Standing {
    fn from(standing: StandingArg) -> Self {
        match standing {
            StandingArg::Live => Self::Live,
            StandingArg::Suspended => Self::Suspended,
            StandingArg::Ended => Self::Ended,
        }
    }
}

impl From<BindingArg> for pb::Binding {
    fn from(binding: BindingArg) -> Self {
        match binding {
            BindingArg::Auto => Self::Unspecified,
            BindingArg::Certificate => Self::Certificate,
            BindingArg::None => Self::None,
        }
    }
}

/// The filter on a kind; unset means all.
#[must_use]
pub fn kind(kind: Option<KindArg>) -> i32 {
    kind.map_or(pb::CredentialKind::Unspecified, Into::into).into()
}

/// The filter on a standing; unset means all.
#[must_use]
pub fn standing(standing: Option<StandingArg>) -> i32 {
    standing.map_or(pb::Standing::Unspecified, Into::into).into()
}

/// Seconds from `300`, `90s`, `5m`, `1h` or `2d`.
///
/// # Errors
/// When it is none of these, zero, or beyond 32 bits.
pub fn seconds(text: &str) -> Result<u32, String> {
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, 's')) => (text.get(..at), 1),
        Some((at, 'm')) => (text.get(..at), 60),
        Some((at, 'h')) => (text.get(..at), 3600),
        Some((at, 'd')) => (text.get(..at), 86_400),
        Some(_) | None => (Some(text), 1),
    };
    let wrong = || "expected seconds, or a number with s, m, h or d, as in 5m".to_owned();
    let digits = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_digit())).ok_or_else(wrong)?;
    let number: u32 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).filter(|seconds| *seconds > 0).ok_or_else(|| "must be from 1s to 49710d".to_owned())
}

/// A time from RFC 3339 text, or a date, which means its first second in UTC.
///
/// # Errors
/// When it is neither.
pub fn time(text: &str) -> Result<Timestamp, String> {
    let full = if text.len() == "2026-01-31".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let parsed = time::OffsetDateTime::parse(&full, &time::format_description::well_known::Rfc3339)
        .map_err(|_| "expected a date or RFC 3339 time, as in 2026-01-31 or 2026-01-31T08:00:00Z".to_owned())?;
    Ok(Timestamp { seconds: parsed.unix_timestamp(), nanos: i32::try_from(parsed.nanosecond()).unwrap_or(0) })
}

/// A revision from `INCARNATION:NUMBER`, as this program writes it.
///
/// # Errors
/// When it is not that.
pub fn revision(text: &str) -> Result<pb::Revision, String> {
    let wrong = || "expected a revision as 16 hex digits, `:` and a number".to_owned();
    let (incarnation, number) = text.split_once(':').ok_or_else(wrong)?;
    if incarnation.len() != 16 || number.starts_with('+') {
        return Err(wrong());
    }
    let bytes = unhex(incarnation).ok().and_then(|bytes| <[u8; 8]>::try_from(bytes).ok()).ok_or_else(wrong)?;
    Ok(pb::Revision { incarnation: u64::from_be_bytes(bytes), number: number.parse().map_err(|_| wrong())? })
}

/// 32 bytes from 64 hex digits, in either case, with or without colons.
///
/// # Errors
/// When they are not that.
pub fn sha256(text: &str) -> Result<Vec<u8>, String> {
    let plain = text.replace(':', "").to_ascii_lowercase();
    let bytes = unhex(&plain).map_err(|_| "expected 64 hex digits".to_owned())?;
    if bytes.len() == 32 { Ok(bytes) } else { Err("expected 64 hex digits".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::cell::{revision_text, rfc3339};

    #[test]
    fn lengths_of_time_have_units() {
        for (text, want) in [("300", 300), ("90s", 90), ("5m", 300), ("1h", 3600), ("49710d", 4_294_944_000)] {
            assert_eq!(seconds(text), Ok(want), "{text}");
        }
        for wrong in ["", "0", "0m", "m", "-5", "+5", "5x", "1.5h", "5 m", "49711d", "4294967296", "5é"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_revision_reads_back_as_it_was_written() {
        let revision_in = pb::Revision { incarnation: u64::MAX - 1, number: 42 };
        assert_eq!(revision(&revision_text(&revision_in)), Ok(revision_in));
        for wrong in ["42", ":42", "ff:42", "000000000000000g:1", "0000000000000001:", "0000000000000001:+1"] {
            assert!(revision(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_date_is_its_first_second() {
        assert_eq!(time("2026-01-31").map(|t| rfc3339(&t)), Ok("2026-01-31T00:00:00Z".into()));
        assert_eq!(time("2026-01-31T08:00:00.5+01:00").map(|t| rfc3339(&t)), Ok("2026-01-31T07:00:00.5Z".into()));
        assert!(time("tomorrow").is_err());
    }

    #[test]
    fn a_digest_is_taken_as_openssl_prints_it() {
        let printed = ["AB"; 32].join(":");
        assert_eq!(sha256(&printed), Ok(vec![0xab; 32]));
        assert!(sha256(&"ab".repeat(31)).is_err());
    }
}
