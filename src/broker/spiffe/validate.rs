//! Checks a JWT-SVID for a process that would rather not do it itself.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{
    super::{Broker, refusal::Refusal, registry::Tenant},
    Local,
};
use crate::{
    identity::spiffe,
    mint::{
        jwt,
        signing::{Algorithm, PublicJwk},
    },
    model::{Digest, Timestamp},
};

/// A JWT-SVID that was found good.
#[derive(Clone, Debug, PartialEq)]
pub struct Validated {
    /// Whose it is.
    pub spiffe_id: String,
    /// All that it says.
    pub claims: Map<String, Value>,
}

/// The parts of a compact JWS, unverified.
struct Parts<'a> {
    header: Map<String, Value>,
    claims: Map<String, Value>,
    signed: &'a str,
    signature: Vec<u8>,
}

impl Broker {
    /// Checks a JWT-SVID of one of the process's trust domains, as JWT-SVID.md section 5 has it. Beyond that, its lease
    /// must live: one that was revoked is refused at once.
    ///
    /// # Errors
    /// When the process has no identity, or the SVID is not good for the audience.
    pub fn validate_jwt_svid(&self, local: &Local, audience: &str, svid: &str) -> Result<Validated, Refusal> {
        let now = self.now();
        let bindings = self.identities_of(local, now)?;
        if audience.is_empty() {
            return Err(Refusal::invalid("audience", "is empty; say who the JWT-SVID must be for"));
        }
        let parts = Parts::of(svid)?;
        let subject = parts.text("sub").unwrap_or_default().to_owned();
        let domain = spiffe::trust_domain(&subject).map_err(|_| bad("its sub is no SPIFFE ID"))?;
        let own = |tenant: &Tenant| self.settings.trust_domain.of_tenant(tenant.trust.name()) == domain;
        let binding = bindings.iter().find(|binding| own(&binding.tenant));
        let tenant = &binding.ok_or_else(|| bad("its trust domain is none that you know of"))?.tenant;
        let keys = self.rings.ring(&self.ledger, tenant.number)?.published_tokens(&self.ledger);
        parts.check(&keys, audience, now)?;
        let lease = jwt::peek(svid).map(|id| self.ledger.lease(id)).transpose()?.flatten();
        let lease = lease.filter(|lease| lease.svid && lease.credential.matches(&Digest::of(svid.as_bytes())));
        match lease {
            Some(lease) if self.ledger.lease_standing(&lease, now)?.is_live() => {
                Ok(Validated { spiffe_id: subject, claims: parts.claims })
            }
            Some(_) | None => Err(bad("it is no SVID that lives")),
        }
    }
}

impl<'a> Parts<'a> {
    fn of(svid: &'a str) -> Result<Self, Refusal> {
        let malformed = || bad("it is no JWT in compact form");
        let (signed, signature) = svid.rsplit_once('.').ok_or_else(malformed)?;
        let (header, claims) = signed.split_once('.').ok_or_else(malformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed());
        let object = |part: &str| serde_json::from_slice(&decode(part)?).map_err(|_| malformed());
        Ok(Self { header: object(header)?, claims: object(claims)?, signed, signature: decode(signature)? })
    }

    fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim).and_then(Value::as_str)
    }

    /// Header, signature, time and audience.
    fn check(&self, keys: &[PublicJwk], audience: &str, now: Timestamp) -> Result<(), Refusal> {
        let header = |name: &str| self.header.get(name).and_then(Value::as_str);
        if header("alg") != Some(Algorithm::Es256.name()) {
            return Err(bad("its alg is not ES256"));
        }
        if !matches!(self.header.get("typ").map(Value::as_str), None | Some(Some("JWT" | "JOSE"))) {
            return Err(bad("its typ is neither JWT nor JOSE"));
        }
        if self.header.keys().any(|name| !matches!(name.as_str(), "alg" | "kid" | "typ")) {
            return Err(bad("its header says more than alg, kid and typ"));
        }
        let key = keys.iter().find(|key| key.algorithm() == Algorithm::Es256 && header("kid") == Some(&key.key_id()));
        let key = key.ok_or_else(|| bad("its key is not known"))?;
        if !key.verify(self.signed.as_bytes(), &self.signature) {
            return Err(bad("its signature is wrong"));
        }
        let expires = self.claims.get("exp").and_then(Value::as_u64).unwrap_or_default();
        if expires <= now.seconds() {
            return Err(bad("it has expired"));
        }
        let is_for = match self.claims.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(several)) => several.iter().any(|one| one == audience),
            Some(_) | None => false,
        };
        if is_for { Ok(()) } else { Err(bad("it is for another audience")) }
    }
}

fn bad(why: &str) -> Refusal {
    Refusal::invalid("svid", format!("is refused: {why}"))
}
