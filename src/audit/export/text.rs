//! Values as text and back, each in one form only.

use prost_types::Timestamp;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{CredentialKind, ExportError, Revision};
use crate::model::id::{hex, unhex};

/// RFC 3339 in UTC, with as many digits of a second as needed.
pub(super) fn time(at: Timestamp) -> Result<String, ExportError> {
    let nanos = i128::from(at.seconds) * NANOS + i128::from(at.nanos);
    let text = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok().and_then(|at| at.format(&Rfc3339).ok());
    // A field such as 1.5 s written as 0 s and 1,500,000,000 ns would come back as another message.
    text.filter(|_| (0..NANOS).contains(&i128::from(at.nanos))).ok_or(ExportError::Time)
}

pub(super) fn parse_time(text: &str) -> Result<Timestamp, ExportError> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339).or(Err(ExportError::Form))?;
    let nanos = i32::try_from(parsed.nanosecond()).or(Err(ExportError::Form))?;
    let at = Timestamp { seconds: parsed.unix_timestamp(), nanos };
    once(at, text, &time(at)?)
}

/// `<16 hex digits of incarnation>.<number>`.
pub(super) fn revision(revision: Revision) -> String {
    format!("{:016x}.{}", revision.incarnation, revision.number)
}

pub(super) fn parse_revision(text: &str) -> Result<Revision, ExportError> {
    let (incarnation, number) = text.split_once('.').ok_or(ExportError::Form)?;
    let incarnation = u64::from_str_radix(incarnation, 16).or(Err(ExportError::Form))?;
    let parsed = Revision { incarnation, number: number.parse().or(Err(ExportError::Form))? };
    once(parsed, text, &revision(parsed))
}

/// The word for a credential kind; an unknown kind is its number.
pub(super) fn kind(kind: i32) -> String {
    match CredentialKind::try_from(kind) {
        Ok(CredentialKind::Unspecified) => String::new(),
        Ok(CredentialKind::Jwt) => "jwt".to_owned(),
        Ok(CredentialKind::Opaque) => "opaque".to_owned(),
        Ok(CredentialKind::X509) => "x509".to_owned(),
        Ok(CredentialKind::Secret) => "secret".to_owned(),
        Err(_) => kind.to_string(),
    }
}

pub(super) fn parse_kind(text: &str) -> Result<i32, ExportError> {
    let parsed = match text {
        "" => CredentialKind::Unspecified.into(),
        "jwt" => CredentialKind::Jwt.into(),
        "opaque" => CredentialKind::Opaque.into(),
        "x509" => CredentialKind::X509.into(),
        "secret" => CredentialKind::Secret.into(),
        number => number.parse().or(Err(ExportError::Form))?,
    };
    once(parsed, text, &kind(parsed))
}

pub(super) fn bytes(bytes: &[u8]) -> String {
    hex(bytes)
}

pub(super) fn parse_bytes(text: &str) -> Result<Vec<u8>, ExportError> {
    let parsed = unhex(text).or(Err(ExportError::Form))?;
    let written = bytes(&parsed);
    once(parsed, text, &written)
}

/// The value, when `text` is what it would be written as.
fn once<T>(value: T, text: &str, written: &str) -> Result<T, ExportError> {
    if text == written { Ok(value) } else { Err(ExportError::Form) }
}

const NANOS: i128 = 1_000_000_000;
