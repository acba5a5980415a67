//! `mayfly tenant`, `partner`, `grant` and `workload`: reading the trust map.

use clap::{Args, Subcommand};
use prost_types::Timestamp;

use crate::{
    model::{PartnerName, TenantName},
    pb,
};

use super::{
    arg::{self, LimitArgs},
    cell::Fields,
    failure::Outcome,
    issue::text,
    page,
    scope::grant_path,
    session::Session,
};

/// Tenants.
#[derive(Clone, Debug, Subcommand)]
pub enum TenantCommand {
    /// Lists tenants, in name order.
    #[command(after_help = "Example:\n  mayfly tenant list --prefix acme-")]
    List {
        /// Only names that start so.
        #[arg(long, default_value = "", hide_default_value = true)]
        prefix: String,
        #[command(flatten)]
        limit: LimitArgs,
    },
}

impl TenantCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        let Self::List { prefix, limit } = self;
        let client = session.admin().await?;
        let tenants = page::collect(session, limit.limit, |page| {
            let mut client = client.clone();
            let request = pb::ListTenantsRequest { page: Some(page), name_prefix: prefix.clone() };
            async move {
                let reply = client.list_tenants(request).await?.into_inner();
                Ok((reply.tenants, reply.next_page_token))
            }
        });
        session.output.list(&tenants.await?)
    }
}

/// Partners.
#[derive(Clone, Debug, Subcommand)]
pub enum PartnerCommand {
    /// Lists partners, in name order.
    #[command(after_help = "Example:\n  mayfly partner list --tenant acme")]
    List {
        /// Only partners with a grant in this tenant.
        #[arg(long)]
        tenant: Option<TenantName>,
        #[command(flatten)]
        limit: LimitArgs,
    },
}

impl PartnerCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        let Self::List { tenant, limit } = self;
        let (client, tenant) = (session.admin().await?, text(tenant.as_ref()));
        let partners = page::collect(session, limit.limit, |page| {
            let mut client = client.clone();
            let request = pb::ListPartnersRequest { page: Some(page), tenant: tenant.clone() };
            async move {
                let reply = client.list_partners(request).await?.into_inner();
                Ok((reply.partners, reply.next_page_token))
            }
        });
        session.output.list(&partners.await?)
    }
}

/// Workloads.
#[derive(Clone, Debug, Subcommand)]
pub enum WorkloadCommand {
    /// Lists workload bindings, in tenant and name order.
    #[command(after_help = "Example:\n  mayfly workload list --tenant acme")]
    List {
        /// Only this tenant's.
        #[arg(long)]
        tenant: Option<TenantName>,
        #[command(flatten)]
        limit: LimitArgs,
    },
}

impl WorkloadCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        let Self::List { tenant, limit } = self;
        let (client, tenant) = (session.admin().await?, text(tenant.as_ref()));
        let workloads = page::collect(session, limit.limit, |page| {
            let mut client = client.clone();
            let request = pb::ListWorkloadsRequest { page: Some(page), tenant: tenant.clone() };
            async move {
                let reply = client.list_workloads(request).await?.into_inner();
                Ok((reply.workloads, reply.next_page_token))
            }
        });
        session.output.list(&workloads.await?)
    }
}

/// Grants.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = GRANT_HELP)]
pub enum GrantCommand {
    /// Lists grants, in tenant and name order.
    List(GrantListArgs),
    /// Records that a grant's owner still needs it, until a new date.
    Attest(AttestArgs),
}

impl GrantCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::List(args) => args.run(session).await,
            Self::Attest(args) => args.run(session).await,
        }
    }
}

/// Arguments of `grant list`.
#[derive(Args, Clone, Debug)]
pub struct GrantListArgs {
    /// Only this tenant's.
    #[arg(long)]
    tenant: Option<TenantName>,
    /// Only this partner's.
    #[arg(long)]
    partner: Option<PartnerName>,
    /// Only those with this owner.
    #[arg(long, default_value = "", hide_default_value = true)]
    owner: String,
    #[command(flatten)]
    limit: LimitArgs,
}

impl GrantListArgs {
    async fn run(self, session: &Session) -> Outcome {
        let client = session.admin().await?;
        let request = pb::ListGrantsRequest {
            page: None,
            tenant: text(self.tenant.as_ref()),
            partner: text(self.partner.as_ref()),
            owner: self.owner,
        };
        let grants = page::collect(session, self.limit.limit, |page| {
            let (mut client, request) = (client.clone(), pb::ListGrantsRequest { page: Some(page), ..request.clone() });
            async move {
                let reply = client.list_grants(request).await?.into_inner();
                Ok((reply.grants, reply.next_page_token))
            }
        });
        session.output.list(&grants.await?)
    }
}

/// Arguments of `grant attest`.
#[derive(Args, Clone, Debug)]
pub struct AttestArgs {
    /// The grant, as TENANT/GRANT.
    #[arg(value_name = "TENANT/GRANT")]
    grant: String,
    /// The next date to attest by; at most 400 days away, and not past the grant's expiry.
    #[arg(long, value_parser = arg::time, value_name = "DATE")]
    by: Timestamp,
    /// For the audit.
    #[arg(long)]
    reason: String,
}

impl AttestArgs {
    async fn run(self, session: &Session) -> Outcome {
        let (tenant, grant) = grant_path(&self.grant)?;
        let request = pb::AttestRequest { tenant, grant, attest_by: Some(self.by), reason: self.reason };
        let reply = session.admin().await?.attest(request).await?.into_inner();
        session.output.one(
            &Fields::new()
                .text("grant", &self.grant)
                .time("attest_by", Some(&self.by))
                .revision("revision", reply.revision.as_ref()),
        )
    }
}

const GRANT_HELP: &str = "\
Examples:
  mayfly grant list --partner globex
  mayfly grant attest acme/ci-deploy --by 2027-01-31 --reason 'still deploys nightly, asked the owner'";
