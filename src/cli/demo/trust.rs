//! The trust map of the demo, as its user would keep it in files.

use std::{fmt::Write as _, time::Duration};

use crate::model::Timestamp;

use super::{
    authority::{Authority, spiffe_id},
    platform::Platform,
};

/// A tenant of the demo.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tenant {
    /// The first.
    Acme,
    /// The second.
    Globex,
}

/// A partner of the demo, who acts in both tenants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Partner {
    /// Will be revoked.
    Drift,
    /// Goes on.
    Klue,
}

impl Tenant {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Acme, Self::Globex];

    /// As the trust map names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Acme => "acme",
            Self::Globex => "globex",
        }
    }

    /// What its resource server answers to.
    #[must_use]
    pub fn audience(self) -> String {
        format!("https://api.{}.example", self.name())
    }

    /// Its workload, as the demo's authority names it.
    #[must_use]
    pub fn worker(self) -> String {
        format!("{}-worker", self.name())
    }

    /// Its resource server, as the trust map and the demo's authority name it.
    #[must_use]
    pub fn server(self) -> String {
        format!("{}-api", self.name())
    }
}

impl Partner {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Drift, Self::Klue];

    /// As the trust map names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Drift => "drift",
            Self::Klue => "klue",
        }
    }
}

/// The purpose of every grant.
pub const PURPOSE: &str = "sync";
/// The workload that is a CI job.
pub const JOB: &str = "job";
/// The action of every grant.
pub const ACTION: &str = "records:read";

/// The whole trust map. Sabotaged, globex's resource server is registered for acme too.
#[must_use]
pub fn text(now: Timestamp, sabotaged: bool) -> String {
    let mut text = OPERATOR.to_owned();
    for partner in Partner::ALL {
        add_partner(&mut text, partner);
    }
    for tenant in Tenant::ALL {
        add_tenant(&mut text, tenant);
        add_job(&mut text, tenant);
        let other_too = sabotaged && tenant == Tenant::Globex;
        add_verifier(&mut text, tenant, if other_too { &Tenant::ALL } else { std::slice::from_ref(&tenant) });
        for partner in Partner::ALL {
            add_grant(&mut text, tenant, partner, now);
        }
    }
    text
}

// Writing to a `String` cannot fail, so what `writeln!` returns is dropped below.

fn add_partner(text: &mut String, partner: Partner) {
    let name = partner.name();
    let _ = writeln!(text, "[[partner]]\nname = {name:?}\ndisplay_name = {name:?}\ncontact = \"soc@{name}.example\"\n");
}

fn add_tenant(text: &mut String, tenant: Tenant) {
    let (name, id, authority) = (tenant.name(), spiffe_id(&tenant.worker()), Authority::NAME);
    let _ = writeln!(
        text,
        "[[tenant]]\nname = {name:?}\n\n\
         [[workload]]\ntenant = {name:?}\nname = \"worker\"\nenvironment = \"demo\"\n\
         selectors = [{{ spiffe_id = {id:?}, authority = {authority:?} }}]\n"
    );
}

fn add_job(text: &mut String, tenant: Tenant) {
    let (tenant, issuer, repository) = (tenant.name(), Platform::NAME, Platform::REPOSITORY_ID);
    let _ = writeln!(
        text,
        "[[workload]]\ntenant = {tenant:?}\nname = {JOB:?}\nenvironment = \"demo\"\n\
         [[workload.selectors]]\nissuer = {issuer:?}\n\
         claims = {{ repository_id = {repository:?}, ref = \"refs/heads/main\" }}\n"
    );
}

fn add_verifier(text: &mut String, tenant: Tenant, of: &[Tenant]) {
    let (name, id, authority) = (tenant.server(), spiffe_id(&tenant.server()), Authority::NAME);
    let tenants: Vec<_> = of.iter().map(|tenant| tenant.name()).collect();
    let audiences: Vec<_> = of.iter().map(|tenant| tenant.audience()).collect();
    let _ = writeln!(
        text,
        "[[verifier]]\nname = {name:?}\ntenants = {tenants:?}\naudiences = {audiences:?}\n\
         selectors = [{{ spiffe_id = {id:?}, authority = {authority:?} }}]\n"
    );
}

fn add_grant(text: &mut String, tenant: Tenant, partner: Partner, now: Timestamp) {
    let (tenant, partner, audience) = (tenant.name(), partner.name(), tenant.audience());
    let (expires, attest_by) = (now.after(EXPIRES).rfc3339(), now.after(ATTEST_BY).rfc3339());
    let _ = writeln!(
        text,
        "[[grant]]\ntenant = {tenant:?}\nname = \"{partner}-{PURPOSE}\"\npartner = {partner:?}\n\
         workloads = [\"worker\", {JOB:?}]\npurposes = [{PURPOSE:?}]\naudiences = [{audience:?}]\nactions = [{ACTION:?}]\n\
         kinds = [\"jwt\", \"opaque\", \"x509\"]\nttl_default = 600\nttl_max = 900\ntask_max = 3600\n\
         owner = \"integrations@{tenant}.example\"\nexpires = {expires}\nrevokers = [\"admin\"]\n\
         attest_by = {attest_by}\nenvironment = \"demo\"\nrequire_binding = false\n"
    );
}

const OPERATOR: &str = "[[operator]]\nname = \"admin\"\nrole = \"admin\"\ntenants = \"all\"\npartners = \"all\"\n\n";
const EXPIRES: Duration = Duration::from_secs(180 * 86_400);
const ATTEST_BY: Duration = Duration::from_secs(90 * 86_400);
