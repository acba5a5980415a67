//! A token, from text to proof. The order of checks is the security argument.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    claims::{ClaimValue, Claims, shown},
    fault::TokenFault,
    json::Json,
    keys::{KEY_ID_MAX_BYTES, KeySet},
    proof::{FederatedProof, PeerKey},
};
use crate::{
    identity::spiffe,
    model::{Digest, IssuerKind, IssuerRules, SignatureAlgorithm, Timestamp, time::SKEW},
};

/// What a token is for, by the `typ` of its header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Typed {
    Identity,
    Event,
}

impl Typed {
    fn words(self) -> &'static [&'static str] {
        match self {
            Self::Identity => &["JWT", "JOSE"],
            Self::Event => &["secevent+jwt", "application/secevent+jwt"],
        }
    }
}

/// A token that was read and not believed.
pub struct UnverifiedToken {
    signed: String,
    signature: Vec<u8>,
    claimed_algorithm: String,
    claimed_key_id: String,
    claimed_issuer: String,
    claims: BTreeMap<String, Json>,
}

impl UnverifiedToken {
    /// Bytes of the longest token.
    pub const MAX_BYTES: usize = 16 << 10;

    /// Reads a token (RFC 7515 section 7.1).
    ///
    /// # Errors
    /// When it is none, or its header asks for what is not done here.
    pub fn parse(text: &str) -> Result<Self, TokenFault> {
        Self::parse_typed(text, Typed::Identity)
    }

    /// Reads a security event token (RFC 8417 section 2.3).
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_event(text: &str) -> Result<Self, TokenFault> {
        Self::parse_typed(text, Typed::Event)
    }

    fn parse_typed(text: &str, typed: Typed) -> Result<Self, TokenFault> {
        if text.len() > Self::MAX_BYTES {
            return Err(TokenFault::Malformed("it is longer than 16 KiB"));
        }
        let parts: Vec<&str> = text.splitn(4, '.').collect();
        let [header, body, signature] = parts.as_slice() else {
            return Err(TokenFault::Malformed("it has not three parts"));
        };
        let members = object("header", header)?;
        let (claimed_algorithm, claimed_key_id) = header_of(&members, typed)?;
        let claims = object("claims", body)?;
        let claimed_issuer = claims.get("iss").and_then(Json::text).ok_or(TokenFault::Claim("iss"))?.to_owned();
        Ok(Self {
            signed: format!("{header}.{body}"),
            signature: bytes(signature)?,
            claimed_algorithm,
            claimed_key_id,
            claimed_issuer,
            claims,
        })
    }

    /// Who it says has issued it. Only for finding the issuer among those that the config declares.
    #[must_use]
    pub fn claimed_issuer(&self) -> &str {
        &self.claimed_issuer
    }

    /// The key that it says it was signed with. Only a name to look up.
    #[must_use]
    pub fn claimed_key_id(&self) -> &str {
        &self.claimed_key_id
    }

    /// As a log may show who it claims to be from.
    #[must_use]
    pub fn shown_issuer(&self) -> String {
        shown(&self.claimed_issuer)
    }

    /// SHA-256 of what was signed.
    #[must_use]
    pub fn id(&self) -> Digest {
        Digest::of(self.signed.as_bytes())
    }

    /// All that it claims, for people to look at.
    ///
    /// # Errors
    /// When a limit is passed.
    pub fn unverified_claims(&self) -> Result<Claims, TokenFault> {
        Claims::of(&self.claims)
    }

    /// Checks it against the rules and keys of its issuer.
    ///
    /// Algorithm, key and signature come first: nothing that it claims decides anything before.
    ///
    /// # Errors
    /// When it is not to be believed, not for us, or not now.
    pub fn verify(
        self,
        rules: &Arc<IssuerRules>,
        keys: &KeySet,
        key: Option<PeerKey>,
        now: Timestamp,
    ) -> Result<FederatedProof, TokenFault> {
        self.check_signature(rules, keys)?;
        let claims = Claims::of(&self.claims)?;
        check_audience(&claims, rules)?;
        let (expires, forgotten) = self.end(rules, now)?;
        let issued = self.date("iat")?;
        check_kind(&claims, rules)?;
        if let Some(sign) = OF_PEOPLE.into_iter().find(|name| claims.value(name).is_some()) {
            return Err(TokenFault::Person(sign));
        }
        let subject = claims.one("sub").ok_or(TokenFault::Claim("sub"))?;
        Ok(FederatedProof {
            issuer: Arc::clone(rules),
            token: self.id(),
            subject: shown(subject),
            claims,
            issued,
            expires,
            forgotten,
            key,
        })
    }

    /// That its issuer has signed it, in a way that is declared.
    pub(super) fn check_signature(&self, rules: &IssuerRules, keys: &KeySet) -> Result<(), TokenFault> {
        let algorithm = SignatureAlgorithm::from_word(&self.claimed_algorithm);
        let algorithm = algorithm.filter(|algorithm| rules.algorithms.contains(algorithm));
        let algorithm = algorithm.ok_or_else(|| TokenFault::Algorithm(shown(&self.claimed_algorithm)))?;
        if !keys.has(&self.claimed_key_id) {
            return Err(TokenFault::UnknownKey(shown(&self.claimed_key_id)));
        }
        if !keys.verifies(&self.claimed_key_id, algorithm, self.signed.as_bytes(), &self.signature) {
            return Err(TokenFault::Signature);
        }
        if self.claimed_issuer != rules.url {
            return Err(TokenFault::UnknownIssuer(shown(&self.claimed_issuer)));
        }
        Ok(())
    }

    /// What it says, as it stands.
    pub(super) fn members(&self) -> &BTreeMap<String, Json> {
        &self.claims
    }

    /// Its claims, once it was found to be signed.
    pub(super) fn checked_claims(&self) -> Result<Claims, TokenFault> {
        Claims::of(&self.claims)
    }

    /// When it is over: by `exp` or by its age, whichever comes first; and when it is by any config's word. No skew is
    /// given at the end, for a lease could not use it.
    pub(super) fn end(&self, rules: &IssuerRules, now: Timestamp) -> Result<(Timestamp, Timestamp), TokenFault> {
        let expires = self.date("exp")?.ok_or(TokenFault::Claim("exp"))?;
        let issued = self.date("iat")?;
        if issued.is_none() && rules.kind != IssuerKind::Spiffe {
            return Err(TokenFault::Claim("iat"));
        }
        let begins = [issued, self.date("nbf")?].into_iter().flatten().max();
        if let Some(begins) = begins.filter(|begins| *begins > now.after(SKEW)) {
            return Err(TokenFault::Early(begins));
        }
        if expires <= now {
            return Err(TokenFault::Expired(expires));
        }
        let Some(issued) = issued else {
            // Its age is not known, so what it has left must not be longer than it may get.
            let bounded = expires <= now.after(rules.max_age);
            return bounded.then_some((expires, expires)).ok_or(TokenFault::Claim("iat"));
        };
        let aged = issued.after(rules.max_age);
        if aged <= now {
            return Err(TokenFault::TooOld(issued));
        }
        Ok((expires.min(aged), expires.min(issued.after(MAX_AGE_MOST))))
    }

    /// A NumericDate (RFC 7519 section 2), to the whole second before it.
    pub(super) fn date(&self, name: &'static str) -> Result<Option<Timestamp>, TokenFault> {
        let Some(value) = self.claims.get(name) else { return Ok(None) };
        let Json::Number(number) = value else { return Err(TokenFault::Claim(name)) };
        let seconds = match (number.as_u64(), number.as_f64()) {
            (Some(whole), _) => Some(whole),
            (None, Some(part)) if (0.0..DATE_MAX_FLOAT).contains(&part) => {
                Some(Duration::from_secs_f64(part).as_secs())
            }
            (None, _) => None,
        };
        let seconds = seconds.filter(|seconds| *seconds < DATE_MAX).ok_or(TokenFault::Claim(name))?;
        Ok(Some(Timestamp::from_seconds(seconds)))
    }
}

impl std::fmt::Debug for UnverifiedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnverifiedToken").field("issuer", &self.shown_issuer()).finish_non_exhaustive()
    }
}

/// Algorithm and key id. What a header could ask for beyond them is not done, and refused instead of overlooked.
fn header_of(members: &BTreeMap<String, Json>, typed: Typed) -> Result<(String, String), TokenFault> {
    let text = |name: &str| members.get(name).and_then(Json::text);
    if members.contains_key("crit") || members.contains_key("b64") {
        return Err(TokenFault::Header("names a critical extension, and none is known"));
    }
    if ["jku", "jwk", "x5u", "x5c"].iter().any(|name| members.contains_key(*name)) {
        return Err(TokenFault::Header("brings a key of its own"));
    }
    if members.contains_key("enc") || members.contains_key("zip") {
        return Err(TokenFault::Header("is of an encrypted or packed token"));
    }
    match members.get("typ") {
        None if typed == Typed::Identity => {}
        Some(Json::Text(typ)) if typed.words().iter().any(|good| typ.eq_ignore_ascii_case(good)) => {}
        _ if typed == Typed::Event => return Err(TokenFault::Header("has no `typ` of an event, `secevent+jwt`")),
        _ => return Err(TokenFault::Header("has a `typ` that identity tokens do not have")),
    }
    let algorithm = text("alg").ok_or(TokenFault::Header("names no `alg`"))?;
    let key_id = text("kid").ok_or(TokenFault::Header("names no `kid`"))?;
    if key_id.is_empty() || key_id.len() > KEY_ID_MAX_BYTES {
        return Err(TokenFault::Header("has a `kid` that is empty or longer than 256 bytes"));
    }
    Ok((algorithm.to_owned(), key_id.to_owned()))
}

/// For us, and for nobody who could pass it on to us.
fn check_audience(claims: &Claims, rules: &IssuerRules) -> Result<(), TokenFault> {
    let value = claims.value("aud").ok_or(TokenFault::Claim("aud"))?;
    if value.all() == [rules.audience.as_str()] {
        return Ok(());
    }
    Err(TokenFault::Audience { found: value.to_string(), want: rules.audience.clone() })
}

/// What each platform's tokens can say that no binding should have to think of.
fn check_kind(claims: &Claims, rules: &IssuerRules) -> Result<(), TokenFault> {
    match rules.kind {
        IssuerKind::Github => {
            let event = claims.one("event_name").ok_or(TokenFault::Claim("event_name"))?;
            if runs_strangers_code(event) && !rules.allow_events.iter().any(|allowed| allowed == event) {
                return Err(TokenFault::Event(shown(event)));
            }
        }
        IssuerKind::Circleci => {
            let rerun = claims.value(SSH_RERUN).is_some_and(|value| *value != ClaimValue::One("false".to_owned()));
            if rerun && !rules.allow_ssh_rerun {
                return Err(TokenFault::SshRerun);
            }
        }
        IssuerKind::Spiffe => {
            let subject = claims.one("sub").ok_or(TokenFault::Claim("sub"))?;
            let domain = spiffe::trust_domain(subject).ok();
            if domain.is_none() || domain != rules.trust_domain.as_deref() {
                return Err(TokenFault::Subject(shown(subject)));
            }
        }
        IssuerKind::Buildkite | IssuerKind::Generic | IssuerKind::Gitlab | IssuerKind::Kubernetes => {}
    }
    Ok(())
}

/// GitHub events that run with the base repository's identity what a fork has written.
#[must_use]
pub fn runs_strangers_code(event: &str) -> bool {
    matches!(event, "pull_request_target" | "workflow_run")
}

fn object(part: &'static str, text: &str) -> Result<BTreeMap<String, Json>, TokenFault> {
    let json = Json::parse(&bytes(text)?).map_err(|why| TokenFault::Json { part, why: shown(&why.to_string()) })?;
    match json {
        Json::Object(members) => Ok(members),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) | Json::List(_) => {
            Err(TokenFault::Json { part, why: "it is no object".to_owned() })
        }
    }
}

fn bytes(text: &str) -> Result<Vec<u8>, TokenFault> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenFault::Malformed("a part is not base64url"))
}

/// What only tokens of people who signed in have (OpenID Connect Core sections 2 and 3.1.3.6).
const OF_PEOPLE: [&str; 5] = ["auth_time", "amr", "nonce", "at_hash", "c_hash"];
const SSH_RERUN: &str = "oidc.circleci.com/ssh-rerun";
/// The greatest age that a config can allow.
const MAX_AGE_MOST: Duration = Duration::from_secs(86_400);
/// Seconds of the latest date: in the year 10889.
const DATE_MAX: u64 = 281_474_976_710;
const DATE_MAX_FLOAT: f64 = 281_474_976_710.0;
