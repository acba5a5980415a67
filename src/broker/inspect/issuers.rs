//! Issuers of identity tokens and their keys, and why a token would be taken or not. Nothing is spent and nothing written.

use crate::{
    broker::{Broker, Refusal, event, view, who::Operator},
    identity::{Caller, FederatedProof, oidc::UnverifiedToken},
    issuers::IssuerState,
    model::{Scope, TenantName},
    pb,
    policy::{Examined, Role},
};

impl Broker {
    /// The declared issuers, in name order.
    ///
    /// # Errors
    /// When the caller is no operator.
    pub async fn list_issuers(
        &self,
        caller: &Caller,
        _request: pb::ListIssuersRequest,
    ) -> Result<pb::ListIssuersResponse, Refusal> {
        self.operator(caller)?.require(Role::Auditor)?;
        let states = self.issuers.states(self.now());
        Ok(pb::ListIssuersResponse { issuers: states.iter().map(|state| self.issuer_view(state)).collect() })
    }

    /// Why an identity token would be taken or not, and which bindings it fits in the tenants of the operator's reach.
    ///
    /// The key that would come along, source networks, and whether the token was used are not looked at.
    ///
    /// # Errors
    /// When the caller is no operator, or the tenant is none that it may know of.
    pub async fn test_identity_token(
        &self,
        caller: &Caller,
        request: pb::TestIdentityTokenRequest,
    ) -> Result<pb::TestIdentityTokenResponse, Refusal> {
        let operator = self.operator(caller)?;
        operator.require(Role::Auditor)?;
        let only: Option<TenantName> = view::optional_id("tenant", &request.tenant)?;
        let mut answer = pb::TestIdentityTokenResponse::default();
        let token = match UnverifiedToken::parse(request.token.trim()) {
            Ok(token) => token,
            Err(fault) => {
                answer.fault = fault.to_string();
                return Ok(answer);
            }
        };
        answer.token_sha256 = token.id().0.to_vec();
        let claims = token.unverified_claims().map(|claims| {
            claims.iter().map(|(name, value)| pb::TokenClaim { name: shown(name), value: value.to_string() }).collect()
        });
        answer.claims = claims.unwrap_or_default();
        match self.issuers.prove(token, None, || self.now()).await {
            Err(fault) => answer.fault = fault.to_string(),
            Ok(proof) => {
                answer.accepted = true;
                answer.issuer = proof.issuer.name.to_string();
                answer.subject.clone_from(&proof.subject);
                answer.expires = Some(event::stamp(proof.expires));
                answer.bindings = self.bindings(&operator, only.as_ref(), &proof).await?;
            }
        }
        Ok(answer)
    }

    async fn bindings(
        &self,
        operator: &Operator,
        only: Option<&TenantName>,
        proof: &FederatedProof,
    ) -> Result<Vec<pb::TokenBinding>, Refusal> {
        let names = match only {
            Some(name) if operator.tenants.includes(name) => vec![name.clone()],
            Some(_) => return Err(Refusal::Unknown("tenant")),
            None => self.registry.names("", None, TENANTS_MOST).into_iter().map(|(name, _)| name).collect(),
        };
        let mut bindings = Vec::new();
        for name in names.iter().filter(|name| operator.tenants.includes(name)) {
            if let Some(tenant) = self.listed(name)?.filter(|tenant| operator.knows(tenant)) {
                bindings.extend(tenant.trust.examine(proof).iter().map(|examined| binding(name, examined)));
            }
            tokio::task::yield_now().await;
        }
        // What fits comes first.
        bindings.sort_by_key(|binding| !binding.fits);
        bindings.truncate(BINDINGS_MOST);
        Ok(bindings)
    }

    fn issuer_view(&self, state: &IssuerState) -> pb::Issuer {
        let rules = &state.rules;
        let scope = self.ledger.scope(Scope::Issuer(rules.name.clone()).id());
        pb::Issuer {
            name: rules.name.to_string(),
            url: rules.url.clone(),
            kind: rules.kind.word().to_owned(),
            audience: rules.audience.clone(),
            reuse: rules.reuse.word().to_owned(),
            pinned: state.pinned,
            fetched: state.fetched.map(event::stamp),
            key_ids: state.key_ids.iter().map(|id| shown(id)).collect(),
            skipped_keys: u32::try_from(state.skipped).unwrap_or(u32::MAX),
            stale: state.stale,
            usable: state.usable,
            tried: state.tried.map(event::stamp),
            error: state.error.clone().unwrap_or_default(),
            barred: scope.bar > 0,
        }
    }
}

fn binding(tenant: &TenantName, examined: &Examined) -> pb::TokenBinding {
    let mut reasons: Vec<String> = examined.obstacle.map(str::to_owned).into_iter().collect();
    reasons.extend(examined.claims.iter().map(|claim| {
        let (name, asked) = (&claim.name, &claim.asked);
        match (&claim.found, claim.fits) {
            (Some(found), true) => format!("ok: {name} is {found}"),
            (Some(found), false) => format!("no: {name} is {found}, asked for is {asked}"),
            (None, _) => format!("no: {name} is not in the token, asked for is {asked}"),
        }
    }));
    pb::TokenBinding {
        tenant: tenant.to_string(),
        workload: examined.workload.to_string(),
        fits: examined.fits(),
        reasons,
    }
}

fn shown(text: &str) -> String {
    text.chars().take(256).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// Tenants looked at when none is named.
const TENANTS_MOST: usize = 1_000;
/// Bindings in one answer.
const BINDINGS_MOST: usize = 200;
