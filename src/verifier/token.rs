//! Tokens (RFC 9068), checked against a bundle. Whether they were cut is [`super::Revocations`]'s to say.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

use super::{
    FeedStanding,
    bundle::TrustBundle,
    offline::{Question, Unusable},
};
use crate::model::{Digest, LeaseId, PartnerName, Scope, ScopeId, Stamp, TaskId, TenantName, Timestamp, time::SKEW};

/// Why a token is refused. Answer 401 for all of them; the reason is for logs.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TokenRefusal {
    /// Too long, or not three base64url parts with a readable header.
    #[error("the token is malformed")]
    Malformed,
    /// The header's `typ` is not `at+jwt` (RFC 9068 section 2.1).
    #[error("the token is not an access token")]
    Type,
    /// The header names critical extensions, and none is known (RFC 7515 section 4.1.11).
    #[error("the token needs an extension that is not known")]
    Critical,
    /// No key has the header's `kid`.
    #[error("the token's key is not known")]
    UnknownKey,
    /// The header's `alg` is not the key's.
    #[error("the token's algorithm is not its key's")]
    Algorithm,
    /// The signature does not hold.
    #[error("the token's signature does not hold")]
    Signature,
    /// A claim is missing or malformed.
    #[error("the token's claims are malformed")]
    Claims,
    /// Another issuer than the tenant's.
    #[error("the token is of another issuer")]
    Issuer,
    /// Another tenant.
    #[error("the token is of another tenant")]
    Tenant,
    /// Not for this audience.
    #[error("the token is for another audience")]
    Audience,
    /// Its time has run out.
    #[error("the token has expired")]
    Expired,
    /// Issued further in the future than clocks may differ.
    #[error("the token is not valid yet")]
    Early,
    /// Bound to a client certificate, and not this one (RFC 8705 section 3).
    #[error("the token is bound to another certificate")]
    Binding,
    /// Held by a bar.
    #[error("the token is suspended")]
    Suspended,
    /// Revoked.
    #[error("the token has ended")]
    Ended,
    /// Decided in another incarnation of the broker's store.
    #[error("the token is of another incarnation of the broker")]
    OtherIncarnation,
    /// Decided before the feed began here; `Introspect` can answer.
    #[error("the revocation feed does not reach back to the token")]
    NotCovered,
    /// Bundle or feed are missing or too old.
    #[error("nothing can be checked now")]
    Unusable(#[from] Unusable),
}

/// A token that holds: who may do what, for whom, until when.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct VerifiedToken {
    /// `sub`: the SPIFFE ID of the workload, or of the one that it acts for.
    pub subject: String,
    /// `act` (RFC 8693 section 4.1): who acts for the subject, the newest first; empty where it acts itself. Only the first may
    /// count in decisions, the others are for the record.
    pub actors: Vec<String>,
    /// `mf_resellers`: through whom the integration was resold, from the provider to the customer.
    pub resellers: Vec<String>,
    /// `client_id`.
    pub client_id: String,
    /// `aud`.
    pub audiences: Vec<String>,
    /// `scope`, split: the actions it allows.
    pub actions: Vec<String>,
    /// The tenant.
    pub tenant: String,
    /// The partner.
    pub partner: String,
    /// The grant it was issued under.
    pub grant: String,
    /// The task it was issued for.
    pub task: TaskId,
    /// Why the work is done.
    pub purpose: String,
    /// `jti`.
    pub lease: LeaseId,
    /// `iat`.
    pub issued: Timestamp,
    /// `exp`.
    pub expires: Timestamp,
    /// The client certificate it is bound to, and was presented with.
    pub bound: Option<Digest>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    client_id: String,
    iat: u64,
    exp: u64,
    jti: String,
    #[serde(default)]
    scope: String,
    tenant: String,
    partner: String,
    grant: String,
    task: String,
    purpose: String,
    cnf: Option<Confirmation>,
    act: Option<Actor>,
    #[serde(default)]
    mf_resellers: Vec<String>,
    mf_basis: String,
    mf_scopes: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct Actor {
    sub: String,
    act: Option<Box<Self>>,
}

impl Actor {
    /// The chain, the newest first; refused when it is longer than any that the broker makes.
    fn flat(self) -> Result<Vec<String>, TokenRefusal> {
        let (mut actors, mut next) = (Vec::new(), Some(Box::new(self)));
        while let Some(actor) = next {
            if actors.len() >= ACTORS_MOST {
                return Err(TokenRefusal::Claims);
            }
            actors.push(actor.sub);
            next = actor.act;
        }
        Ok(actors)
    }
}

#[derive(Deserialize)]
struct Confirmation {
    #[serde(rename = "x5t#S256")]
    x5t_s256: String,
}

/// Checks everything that needs no feed, and returns the token with the scopes and basis that the feed is asked for.
pub(super) fn check(
    text: &str,
    audience: &str,
    presented: Option<Digest>,
    bundle: &TrustBundle,
    now: Timestamp,
) -> Result<(VerifiedToken, Question), TokenRefusal> {
    let (claims, key_id) = signed_claims(text, bundle)?;
    if claims.iss != bundle.issuer {
        return Err(TokenRefusal::Issuer);
    }
    if claims.tenant != bundle.tenant.as_str() {
        return Err(TokenRefusal::Tenant);
    }
    let (issued, expires) = (Timestamp::from_seconds(claims.iat), Timestamp::from_seconds(claims.exp));
    if now >= expires.after(SKEW) {
        return Err(TokenRefusal::Expired);
    }
    if issued > now.after(SKEW) {
        return Err(TokenRefusal::Early);
    }
    let stamp = Stamp::from_claims(&claims.mf_basis, &claims.mf_scopes).ok_or(TokenRefusal::Claims)?;
    let bound = bound(claims.cnf.as_ref(), presented)?;
    let token = VerifiedToken {
        subject: claims.sub,
        actors: claims.act.map(Actor::flat).transpose()?.unwrap_or_default(),
        resellers: claims.mf_resellers,
        client_id: claims.client_id,
        audiences: match claims.aud {
            Audience::One(one) => vec![one],
            Audience::Many(many) => many,
        },
        actions: claims.scope.split_ascii_whitespace().map(str::to_owned).collect(),
        tenant: claims.tenant,
        partner: claims.partner,
        grant: claims.grant,
        task: claims.task.parse().or(Err(TokenRefusal::Claims))?,
        purpose: claims.purpose,
        lease: claims.jti.parse().or(Err(TokenRefusal::Claims))?,
        issued,
        expires,
        bound,
    };
    if audience.is_empty() || !token.audiences.iter().any(|one| one == audience) {
        return Err(TokenRefusal::Audience);
    }
    let scopes = [named_scopes(&token, key_id)?.as_slice(), stamp.scopes()].concat();
    Ok((token, (scopes, stamp.basis())))
}

/// What the feed said, as a verdict on the token.
pub(super) fn verdict(standing: FeedStanding) -> Result<(), TokenRefusal> {
    match standing {
        FeedStanding::Live => Ok(()),
        FeedStanding::Suspended => Err(TokenRefusal::Suspended),
        FeedStanding::Ended => Err(TokenRefusal::Ended),
        FeedStanding::OtherIncarnation => Err(TokenRefusal::OtherIncarnation),
        FeedStanding::NotCovered => Err(TokenRefusal::NotCovered),
    }
}

/// Header and signature; the claims are trusted only once this returns.
fn signed_claims(text: &str, bundle: &TrustBundle) -> Result<(Claims, String), TokenRefusal> {
    if text.len() > TOKEN_MAX_BYTES {
        return Err(TokenRefusal::Malformed);
    }
    let (message, signature) = text.rsplit_once('.').ok_or(TokenRefusal::Malformed)?;
    let (_, unverified_claims) = message.split_once('.').ok_or(TokenRefusal::Malformed)?;
    // Fails for `none` and for algorithms it does not know.
    let header = jsonwebtoken::decode_header(text).or(Err(TokenRefusal::Malformed))?;
    if header.crit.is_some() {
        return Err(TokenRefusal::Critical);
    }
    let typ = header.typ.as_deref().unwrap_or_default();
    if !["at+jwt", "application/at+jwt"].iter().any(|good| typ.eq_ignore_ascii_case(good)) {
        return Err(TokenRefusal::Type);
    }
    let key_id = header.kid.ok_or(TokenRefusal::UnknownKey)?;
    let key = bundle.keys.get(&key_id).ok_or(TokenRefusal::UnknownKey)?;
    if !key.is_for(header.alg) {
        return Err(TokenRefusal::Algorithm);
    }
    let signature = URL_SAFE_NO_PAD.decode(signature).or(Err(TokenRefusal::Malformed))?;
    if !key.verifies(message.as_bytes(), &signature) {
        return Err(TokenRefusal::Signature);
    }
    let json = URL_SAFE_NO_PAD.decode(unverified_claims).or(Err(TokenRefusal::Malformed))?;
    Ok((serde_json::from_slice(&json).or(Err(TokenRefusal::Claims))?, key_id))
}

fn bound(cnf: Option<&Confirmation>, presented: Option<Digest>) -> Result<Option<Digest>, TokenRefusal> {
    let Some(cnf) = cnf else {
        return Ok(None);
    };
    let bytes = URL_SAFE_NO_PAD.decode(&cnf.x5t_s256).or(Err(TokenRefusal::Claims))?;
    let bound = Digest::from_slice(&bytes).ok_or(TokenRefusal::Claims)?;
    match presented {
        Some(presented) if presented.matches(&bound) => Ok(Some(bound)),
        Some(_) | None => Err(TokenRefusal::Binding),
    }
}

/// The scopes that the claims name; the token carries them and more, but a cut counts even if one was left out.
fn named_scopes(token: &VerifiedToken, key_id: String) -> Result<Vec<ScopeId>, TokenRefusal> {
    let tenant: TenantName = token.tenant.parse().or(Err(TokenRefusal::Claims))?;
    let partner: PartnerName = token.partner.parse().or(Err(TokenRefusal::Claims))?;
    let grant = token.grant.parse().or(Err(TokenRefusal::Claims))?;
    let mut scopes = vec![
        Scope::Everything.id(),
        Scope::Partner(partner.clone()).id(),
        Scope::Tenant(tenant.clone()).id(),
        Scope::PartnerInTenant(tenant.clone(), partner).id(),
        Scope::Grant(tenant, grant).id(),
        Scope::Task(token.task).id(),
        Scope::Lease(token.lease).id(),
        Scope::SigningKey(key_id).id(),
    ];
    scopes.extend(token.bound.map(|bound| Scope::Proof(bound).id()));
    Ok(scopes)
}

/// Who acts in a task that was passed on as often as one can be.
const ACTORS_MOST: usize = 4;
/// As the broker's own limit.
const TOKEN_MAX_BYTES: usize = 8192;
