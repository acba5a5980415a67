//! JWT-SVIDs: one for each set of audiences and identity, kept until it is half over.

use std::sync::Arc;

use super::{
    super::{Broker, refusal::Refusal},
    Binding, Local, NOBODY,
};
use crate::{
    identity::spiffe,
    mint::signing::Algorithm,
    model::{LeaseId, Timestamp, secret::SecretText},
    pb,
};

/// A JWT-SVID.
#[derive(Debug)]
pub struct JwtSvid {
    /// Its name (`sub`).
    pub spiffe_id: String,
    /// The token.
    pub token: SecretText,
    /// Tells the caller's SVIDs apart.
    pub hint: String,
    /// Its lease.
    pub lease: LeaseId,
    /// When it is replaced.
    pub renew_at: Timestamp,
}

impl Broker {
    /// A process's tokens for some audiences: one for each of its identities whose grant allows all of them, or for
    /// `wanted` alone when it is not empty.
    ///
    /// # Errors
    /// When the audiences or `wanted` are none, or no identity fits.
    pub async fn jwt_svids(
        self: &Arc<Self>,
        local: &Local,
        mut audiences: Vec<String>,
        wanted: &str,
    ) -> Result<Vec<Arc<JwtSvid>>, Refusal> {
        if audiences.is_empty() {
            return Err(Refusal::invalid("audience", "is empty; say who the JWT-SVID is for"));
        }
        if !wanted.is_empty() {
            spiffe::trust_domain(wanted).map_err(|why| Refusal::invalid("spiffe_id", why.to_string()))?;
        }
        audiences.sort_unstable();
        audiences.dedup();
        let mut found: Vec<Arc<JwtSvid>> = Vec::new();
        let mut why = NOBODY;
        for binding in self.identities_of(local, self.now())?.iter().filter(|binding| binding.has_jwt) {
            let id = self.svid_id(binding.tenant.trust.name(), &binding.partner, &binding.workload);
            if !wanted.is_empty() && wanted != id || found.iter().any(|known| known.spiffe_id == id) {
                continue;
            }
            match self.jwt_svid(local, binding, id, &audiences).await {
                Ok(svid) => found.push(svid),
                // What was asked is wrong for every identity.
                Err(refusal @ Refusal::Invalid { .. }) => return Err(refusal),
                Err(refusal) => why = refusal,
            }
        }
        if found.is_empty() { Err(why) } else { Ok(found) }
    }

    async fn jwt_svid(
        self: &Arc<Self>,
        local: &Local,
        binding: &Binding,
        spiffe_id: String,
        audiences: &[String],
    ) -> Result<Arc<JwtSvid>, Refusal> {
        let ring = self.rings.ring(&self.ledger, binding.tenant.number)?;
        if ring.token.as_ref().is_none_or(|key| key.public().algorithm() != Algorithm::Es256) {
            return Err(Refusal::NotAllowed("SPIFFE knows no EdDSA; give the tenant token_algorithm = \"ES256\""));
        }
        let residence = self.residence(local, binding)?;
        let mut state = residence.state().await;
        let now = self.now();
        if let Some(known) = state.tokens.remove(audiences)
            && now < known.renew_at
            && self.is_live(known.lease, now)?
        {
            state.tokens.insert(audiences.to_vec(), Arc::clone(&known));
            return Ok(known);
        }
        let request = pb::IssueRequest {
            kind: pb::CredentialKind::Jwt.into(),
            audiences: audiences.to_vec(),
            binding: pb::Binding::None.into(),
            ..Default::default()
        };
        let (lease, renew_at, credential) = self.issue_under(local, binding, &mut state, request).await?;
        let Some(pb::issue_response::Credential::Token(token)) = credential else {
            return Err(Refusal::Unavailable("another kind of credential was made"));
        };
        let token = SecretText::new(token);
        let fresh = Arc::new(JwtSvid { spiffe_id, token, hint: binding.hint(), lease, renew_at });
        if state.tokens.len() >= KEPT {
            state.tokens.retain(|_, known| now < known.renew_at);
        }
        if state.tokens.len() < KEPT {
            state.tokens.insert(audiences.to_vec(), Arc::clone(&fresh));
        }
        Ok(fresh)
    }
}

/// Tokens kept for one process and binding; beyond them each is made anew.
const KEPT: usize = 32;
