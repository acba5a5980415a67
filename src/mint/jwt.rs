//! Signed tokens: JWT access tokens as RFC 9068 has them. Normative: docs/token-format.md.

use std::{borrow::Cow, fmt::Write as _};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{Minted, TOKEN_MAX_BYTES, signing::SigningKey};
use crate::model::{
    Digest, GrantName, LeaseId, PartnerName, Purpose, Stamp, TenantName, Timestamp, WorkloadName,
    secret::EntropyUnavailable,
};

/// What a token says.
#[derive(Clone, Copy, Debug)]
pub struct TokenClaims<'a> {
    /// `iss`: the tenant's issuer, a URL.
    pub issuer: &'a str,
    /// `sub`: the SPIFFE ID of the workload, or of the one that it acts for.
    pub subject: &'a str,
    /// `act` (RFC 8693 section 4.1): who acts for the subject, the newest first; empty where it acts itself.
    pub actors: &'a [String],
    /// `mf_resellers`: through whom the integration was resold; empty where it was not.
    pub resellers: &'a [String],
    /// `aud`: who it is for; at least one.
    pub audiences: &'a [String],
    /// `tenant`.
    pub tenant: &'a TenantName,
    /// `partner`.
    pub partner: &'a PartnerName,
    /// `grant`.
    pub grant: &'a GrantName,
    /// `client_id`: who asked.
    pub workload: &'a WorkloadName,
    /// `purpose`.
    pub purpose: &'a Purpose,
    /// `scope`: what it allows; each one an RFC 6749 scope token.
    pub actions: &'a [String],
    /// `jti`, and `task` by its first 12 bytes.
    pub lease: LeaseId,
    /// `iat`, to the second.
    pub issued: Timestamp,
    /// `exp`, to the second.
    pub expires: Timestamp,
    /// `mf_basis` and `mf_scopes`.
    pub stamp: &'a Stamp,
    /// `cnf.x5t#S256` (RFC 8705 section 3.1): the certificate it is bound to.
    pub bound: Option<Digest>,
}

/// Why no token was made.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotMinted {
    /// An action would read as another scope.
    #[error("action `{action}` is not of visible ASCII without `\"` and `\\`; rename it in the grant")]
    Action {
        /// The action.
        action: String,
    },
    /// It would be good for everyone.
    #[error("the token has no audience; name at least one")]
    NoAudience,
    /// It would not fit into a request header.
    #[error("the token would have {bytes} bytes of at most {TOKEN_MAX_BYTES}; ask for fewer audiences or actions")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The system has no entropy.
    #[error(transparent)]
    EntropyUnavailable(#[from] EntropyUnavailable),
}

/// What a token is taken for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// An access token (RFC 9068): `typ` is `at+jwt`.
    AccessToken,
    /// A JWT-SVID: `typ` is `JWT`, and the header has nothing else but `alg` and `kid` (JWT-SVID.md section 2).
    Svid,
}

/// Signs an access token.
///
/// # Errors
/// When the claims make no sound token, or the system has no entropy.
pub fn mint(key: &SigningKey, claims: &TokenClaims<'_>) -> Result<Minted, NotMinted> {
    mint_as(Form::AccessToken, key, claims)
}

/// Signs a token of either form.
///
/// # Errors
/// As [`mint`].
pub fn mint_as(form: Form, key: &SigningKey, claims: &TokenClaims<'_>) -> Result<Minted, NotMinted> {
    claims.check()?;
    let body = claims.to_json();
    let header = key.token_header(form);
    let bytes = header.len() + encoded_len(body.len()) + 1 + encoded_len(SigningKey::SIGNATURE_BYTES);
    if bytes > TOKEN_MAX_BYTES {
        return Err(NotMinted::TooLong { bytes });
    }
    // The capacity is exact, so that no shorter copy of the token stays behind unwiped.
    let mut text = String::with_capacity(bytes);
    text.push_str(header);
    URL_SAFE_NO_PAD.encode_string(&body, &mut text);
    let signature = key.sign(text.as_bytes())?;
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut text);
    Ok(Minted::new(text))
}

/// Reads the lease (`jti`) that a compact JWS claims to be of **without verifying it**; `None` when it cannot be one of
/// ours. Only good for looking up the lease, whose stored hash decides.
///
/// Looks at no more than [`TOKEN_MAX_BYTES`], and not at the header: the hash covers it.
#[must_use]
pub fn peek(text: &str) -> Option<LeaseId> {
    if text.len() > TOKEN_MAX_BYTES {
        return None;
    }
    let (_, rest) = text.split_once('.')?;
    let (body, signature) = rest.split_once('.')?;
    if signature.len() != encoded_len(SigningKey::SIGNATURE_BYTES) || signature.contains('.') {
        return None;
    }
    let body = URL_SAFE_NO_PAD.decode(body).ok()?;
    let body: UnverifiedBody<'_> = serde_json::from_slice(&body).ok()?;
    body.jti.parse().ok()
}

#[derive(serde::Deserialize)]
struct UnverifiedBody<'a> {
    #[serde(borrow)]
    jti: Cow<'a, str>,
}

impl TokenClaims<'_> {
    fn check(&self) -> Result<(), NotMinted> {
        if self.audiences.is_empty() {
            return Err(NotMinted::NoAudience);
        }
        match self.actions.iter().find(|action| !is_scope_token(action)) {
            Some(action) => Err(NotMinted::Action { action: action.clone() }),
            None => Ok(()),
        }
    }

    fn to_json(self) -> String {
        let mut json = String::with_capacity(self.json_len_hint());
        push_member(&mut json, "{\"iss\":", self.issuer);
        push_member(&mut json, ",\"sub\":", self.subject);
        match self.audiences {
            [one] => push_member(&mut json, ",\"aud\":", one),
            several => {
                for (i, audience) in several.iter().enumerate() {
                    push_member(&mut json, if i == 0 { ",\"aud\":[" } else { "," }, audience);
                }
                json.push(']');
            }
        }
        push_member(&mut json, ",\"client_id\":", self.workload.as_str());
        // Writing to a String cannot fail.
        let _ = write!(json, ",\"iat\":{},\"exp\":{}", self.issued.seconds(), self.expires.seconds());
        let _ = write!(json, ",\"jti\":\"{}\"", self.lease);
        if !self.actions.is_empty() {
            for (i, action) in self.actions.iter().enumerate() {
                json.push_str(if i == 0 { ",\"scope\":\"" } else { " " });
                json.push_str(action);
            }
            json.push('"');
        }
        push_member(&mut json, ",\"tenant\":", self.tenant.as_str());
        push_member(&mut json, ",\"partner\":", self.partner.as_str());
        push_member(&mut json, ",\"grant\":", self.grant.as_str());
        let _ = write!(json, ",\"task\":\"{}\"", self.lease.task());
        push_member(&mut json, ",\"purpose\":", self.purpose.as_str());
        if let Some(Digest(certificate)) = &self.bound {
            json.push_str(",\"cnf\":{\"x5t#S256\":\"");
            URL_SAFE_NO_PAD.encode_string(certificate, &mut json);
            json.push_str("\"}");
        }
        for actor in self.actors {
            push_member(&mut json, ",\"act\":{\"sub\":", actor);
        }
        json.extend(self.actors.iter().map(|_| '}'));
        for (i, reseller) in self.resellers.iter().enumerate() {
            push_member(&mut json, if i == 0 { ",\"mf_resellers\":[" } else { "," }, reseller);
        }
        if !self.resellers.is_empty() {
            json.push(']');
        }
        let _ = write!(json, ",\"mf_basis\":\"{}\"", self.stamp.basis_claim());
        let _ = write!(json, ",\"mf_scopes\":\"{}\"}}", self.stamp.scopes_claim());
        json
    }

    /// Enough for nearly every token, so that the text grows without moving.
    fn json_len_hint(&self) -> usize {
        let lists = self.audiences.iter().chain(self.actions).chain(self.actors).chain(self.resellers);
        let lists = lists.map(|text| text.len() + 16).sum::<usize>();
        let names = self.issuer.len() + self.subject.len() + 5 * 63;
        448 + names + lists + self.stamp.scopes().len() * 16
    }
}

/// RFC 6749 section 3.3: `scope-token = 1*( %x21 / %x23-5B / %x5D-7E )`. These need no escape in JSON either.
fn is_scope_token(action: &str) -> bool {
    !action.is_empty() && action.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}

/// Writes `prefix` and then `text` as a JSON string (RFC 8259 section 7).
fn push_member(json: &mut String, prefix: &str, text: &str) {
    json.push_str(prefix);
    json.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            '\0'..='\x1f' => {
                let _ = write!(json, "\\u{:04x}", u32::from(c));
            }
            _ => json.push(c),
        }
    }
    json.push('"');
}

/// Length in base64url without padding.
fn encoded_len(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}

#[cfg(test)]
mod tests;
