//! Minting: what a decision allows becomes a token, a certificate or a secret's value.

use std::sync::Arc;

use super::{Broker, fresh::Credential, refusal::Refusal, rings::Ring, who::Workload, wish::Wish};
use crate::{
    mint::{
        jwt, opaque,
        x509::{self, LeafKey, LeafSpec},
    },
    model::{CredentialKind, Digest, Lease, PartnerName, TenantName, WorkloadName, stamp::Stamp},
    policy::Decision,
};

impl Broker {
    /// Makes the credential, and notes in the lease by what it is known.
    pub(super) fn mint(
        &self,
        workload: &Workload,
        wish: &Wish,
        decision: &Decision,
        lease: &mut Lease,
        stamp: &Stamp,
        ring: &Ring,
    ) -> Result<Credential, Refusal> {
        match lease.kind {
            CredentialKind::Jwt => {
                let key = ring.token.as_ref().ok_or(NO_KEYS)?;
                let issuer = self.issuer(&workload.tenant);
                let (subject, actors) = self.principal(lease);
                let claims = jwt::TokenClaims {
                    issuer: &issuer,
                    subject: &subject,
                    actors: &actors,
                    resellers: workload.tenant.trust.resellers(&lease.partner),
                    audiences: &lease.audiences,
                    tenant: &lease.tenant,
                    partner: &lease.partner,
                    grant: &lease.grant,
                    workload: &lease.workload,
                    purpose: &lease.purpose,
                    actions: &lease.actions,
                    lease: lease.id,
                    issued: lease.issued,
                    expires: lease.expires,
                    stamp,
                    bound: lease.bound,
                };
                let form = if lease.svid { jwt::Form::Svid } else { jwt::Form::AccessToken };
                let minted = jwt::mint_as(form, key, &claims);
                let minted = minted.map_err(|e| Refusal::invalid("actions", e.to_string()))?;
                lease.credential = minted.sha256;
                Ok(Credential::Token(minted))
            }
            CredentialKind::Opaque => {
                let minted = opaque::mint(lease.id)?;
                lease.credential = minted.sha256;
                Ok(Credential::Token(minted))
            }
            CredentialKind::X509 => {
                let ca = ring.ca.as_ref().ok_or(NO_KEYS)?;
                let subject = self.subject(lease);
                let spec = LeafSpec {
                    spiffe_id: &subject,
                    dns_names: &lease.dns_names,
                    lease: lease.id,
                    issued: lease.issued,
                    // Validity includes its last second (RFC 5280 section 4.1.2.5), a lease does not.
                    not_after: decision.expires().before(std::time::Duration::from_secs(1)),
                    stamp,
                };
                let key = wish.csr.as_deref().map_or(LeafKey::Generate, LeafKey::Request);
                let leaf = x509::mint_leaf(ca, key, &spec).map_err(|e| Refusal::invalid("csr_der", e.to_string()))?;
                (lease.credential, lease.spki) = (leaf.sha256, Some(leaf.spki_sha256));
                Ok(Credential::Leaf { leaf, roots: self.known_roots()?, subject })
            }
            CredentialKind::Secret => {
                let secret = lease.secret.as_deref().ok_or(Refusal::Unavailable("the secret is not known"))?;
                let value = self.open_secret(workload.tenant.number, secret, ring)?;
                // A hash of the value would let whoever reads it try values out.
                let parts: [&[u8]; 3] = [b"static secret", lease.id.as_bytes(), &secret.number.to_be_bytes()];
                lease.credential = Digest::of_parts(&parts);
                Ok(Credential::Secret { secret: secret.clone(), value })
            }
        }
    }

    /// The roots; they never change within a run.
    fn known_roots(&self) -> Result<Arc<Vec<Vec<u8>>>, Refusal> {
        match self.roots.get() {
            Some(roots) => Ok(Arc::clone(roots)),
            None => {
                let read = Arc::new(self.roots()?);
                Ok(Arc::clone(self.roots.get_or_init(|| read)))
            }
        }
    }

    /// The workload's SPIFFE ID: a certificate's URI, and a token's `sub` where its task was not passed on. That of an SVID
    /// is the same for all its tasks, since its peers know it by that.
    #[must_use]
    pub fn subject(&self, lease: &Lease) -> String {
        if lease.svid {
            return self.svid_id(&lease.tenant, &lease.partner, &lease.workload);
        }
        self.spiffe_id(lease, &lease.workload, lease.id.task())
    }

    /// The SPIFFE ID of a workload as it acts for a partner.
    #[must_use]
    pub fn svid_id(&self, tenant: &TenantName, partner: &PartnerName, workload: &WorkloadName) -> String {
        let domain = self.settings.trust_domain.of_tenant(tenant);
        format!("spiffe://{domain}/partner/{partner}/workload/{workload}")
    }
}

const NO_KEYS: Refusal = Refusal::Unavailable("the tenant's keys are not readable");
