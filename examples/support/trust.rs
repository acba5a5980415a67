//! A trust map as TOML text, and its way to the daemon.

use std::fmt::Write;
use std::time::Duration;

use mayfly::pb::admin_client::AdminClient;
use mayfly::pb::{ApplyOptions, ApplyRequest, ApplyResponse, TrustDocument};
use time::OffsetDateTime;
use tonic::transport::Channel;

use super::Fallible;

/// One grant, with everything that is the same in all examples left out.
pub struct Grant<'a> {
    pub tenant: &'a str,
    pub name: &'a str,
    pub partner: &'a str,
    pub workloads: &'a [&'a str],
    pub audience: &'a str,
}

/// A trust document under construction.
#[derive(Default)]
pub struct Trust(String);

// === impl Trust ===

impl Trust {
    /// A document of the whole map. It names the first operator, whom the grants' revokers refer to.
    pub fn whole() -> Self {
        let operator = "[[operator]]\nname = \"admin\"\nrole = \"admin\"\ntenants = \"all\"\npartners = \"all\"\n";
        Self(operator.to_owned())
    }

    /// Adds a partner.
    pub fn partner(&mut self, name: &str) -> &mut Self {
        self.add(&format!(
            "[[partner]]\nname = {name:?}\ndisplay_name = {name:?}\ncontact = \"{name}@example.com\"\n\
             max_live_leases = {QUOTA}\n"
        ))
    }

    /// Adds a tenant.
    pub fn tenant(&mut self, name: &str) -> &mut Self {
        self.add(&format!("[[tenant]]\nname = {name:?}\nmax_live_leases = {QUOTA}\n"))
    }

    /// Lets the tenant that was added last have the policies of a file.
    pub fn policy(&mut self, file: &str) -> &mut Self {
        self.add(&format!("policy = {{ enforce = {file:?} }}\n"))
    }

    /// Adds a file of guardrails.
    pub fn guardrails(&mut self, file: &str) -> &mut Self {
        self.add(&format!("[guardrails]\nenforce = [{file:?}]\n"))
    }

    /// Adds a workload of a tenant, known by a SPIFFE ID that `authority` certifies.
    pub fn workload(&mut self, tenant: &str, name: &str, spiffe_id: &str, authority: &str) -> &mut Self {
        self.add(&format!(
            "[[workload]]\ntenant = {tenant:?}\nname = {name:?}\nenvironment = \"prod\"\n\
             selectors = [{{ spiffe_id = {spiffe_id:?}, authority = {authority:?} }}]\n"
        ))
    }

    /// Adds a resource server that may ask about `audience` in `tenants`.
    pub fn verifier(
        &mut self,
        name: &str,
        spiffe_id: &str,
        authority: &str,
        audience: &str,
        tenants: &[&str],
    ) -> &mut Self {
        self.add(&format!(
            "[[verifier]]\nname = {name:?}\nselectors = [{{ spiffe_id = {spiffe_id:?}, authority = {authority:?} }}]\n\
             audiences = [{audience:?}]\ntenants = {tenants:?}\n"
        ))
    }

    /// Adds a grant with a default life of five minutes.
    pub fn grant(&mut self, grant: &Grant<'_>) -> &mut Self {
        self.grant_with(grant, 300)
    }

    /// Adds a grant with a default life of `ttl_default` seconds, at most an hour, for the purpose `report`.
    pub fn grant_with(&mut self, grant: &Grant<'_>, ttl_default: u32) -> &mut Self {
        let Grant { tenant, name, partner, workloads, audience } = grant;
        let date = |days| (OffsetDateTime::now_utc() + time::Duration::days(days)).date();
        let (expires, attest_by) = (date(180), date(90));
        self.add(&format!(
            "[[grant]]\ntenant = {tenant:?}\nname = {name:?}\npartner = {partner:?}\nworkloads = {workloads:?}\n\
             purposes = [\"report\"]\naudiences = [{audience:?}]\nactions = [\"read\"]\n\
             kinds = [\"jwt\", \"opaque\", \"x509\"]\nttl_default = {ttl_default}\nttl_max = 3600\ntask_max = 7200\n\
             owner = \"owner@example.com\"\nexpires = {expires}\nrevokers = [\"admin\"]\nattest_by = {attest_by}\n\
             environment = \"prod\"\nmax_live_leases = {QUOTA}\n"
        ))
    }

    /// The document's text.
    pub fn text(&self) -> &str {
        &self.0
    }

    fn add(&mut self, text: &str) -> &mut Self {
        // Writing to a `String` cannot fail.
        let _ = writeln!(self.0, "{text}");
        self
    }
}

/// Sends documents to the daemon, which takes all or none of them.
pub async fn apply(
    mut admin: AdminClient<Channel>,
    options: ApplyOptions,
    documents: Vec<(String, String)>,
) -> Fallible<ApplyResponse> {
    let first = ApplyRequest { options: Some(options), document: None };
    let rest = documents
        .into_iter()
        .map(|(path, text)| ApplyRequest { options: None, document: Some(TrustDocument { path, text }) });
    let call = admin.apply(tokio_stream::iter(std::iter::once(first).chain(rest)));
    let reply = tokio::time::timeout(APPLY_LIMIT, call).await.map_err(|_| "apply took longer than five minutes")?;
    Ok(reply.map_err(|status| format!("apply: {:?}: {}", status.code(), status.message()))?.into_inner())
}

/// Live leases that a load test may hold in one place.
const QUOTA: u32 = 20_000_000;
const APPLY_LIMIT: Duration = Duration::from_secs(300);
