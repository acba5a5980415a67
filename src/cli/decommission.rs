//! `mayfly offboard`, `closeout` and `retire`: integrations end.

use clap::{Args, Subcommand};

use crate::{
    model::{PartnerName, TenantName},
    pb,
};

use super::{
    cell::{Record, printable},
    failure::Outcome,
    output::{Format, table},
    scope::{ScopeArgs, ScopeWord},
    session::Session,
};

/// How an integration ends.
#[derive(Args, Clone, Debug)]
struct EndArgs {
    /// Say what would end, and end nothing.
    #[arg(long)]
    dry_run: bool,
    /// Why, for the audit.
    #[arg(long, required_unless_present = "dry_run")]
    reason: Option<String>,
}

/// Ends everything of a vendor in every tenant, and bars it for good.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  mayfly offboard partner globex --dry-run\n  \
                        mayfly offboard partner globex --reason 'contract ended'")]
pub struct OffboardArgs {
    #[command(subcommand)]
    what: Offboarded,
}

/// What is off-boarded.
#[derive(Clone, Debug, Subcommand)]
enum Offboarded {
    /// A partner, in every tenant.
    Partner {
        /// Its name.
        partner: PartnerName,
        #[command(flatten)]
        end: EndArgs,
    },
}

/// Ends everything of a tenant, or of one partner's project in a tenant, and bars it for good.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  mayfly closeout tenant acme --dry-run\n  \
                        mayfly closeout project acme/globex --reason 'migration is done'")]
pub struct CloseoutArgs {
    #[command(subcommand)]
    what: Closed,
}

/// What is closed out.
#[derive(Clone, Debug, Subcommand)]
enum Closed {
    /// A tenant, with everything in it.
    Tenant {
        /// Its name.
        tenant: TenantName,
        #[command(flatten)]
        end: EndArgs,
    },
    /// What one partner does in one tenant.
    Project {
        /// As TENANT/PARTNER.
        #[arg(value_name = "TENANT/PARTNER")]
        project: String,
        #[command(flatten)]
        end: EndArgs,
    },
}

/// Ends everything under a grant, and bars it for good.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  mayfly retire acme/ci-deploy --reason 'replaced by acme/cd'")]
pub struct RetireArgs {
    /// The grant, as TENANT/GRANT.
    #[arg(value_name = "TENANT/GRANT")]
    grant: String,
    #[command(flatten)]
    end: EndArgs,
}

impl OffboardArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        let Offboarded::Partner { partner, end } = self.what;
        end.run(session, ScopeWord::Partner, partner.to_string()).await
    }
}

impl CloseoutArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        match self.what {
            Closed::Tenant { tenant, end } => end.run(session, ScopeWord::Tenant, tenant.to_string()).await,
            Closed::Project { project, end } => {
                // A partner alone would be one in every tenant.
                super::scope::grant_path(&project)?;
                end.run(session, ScopeWord::Partner, project).await
            }
        }
    }
}

impl RetireArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        self.end.run(session, ScopeWord::Grant, self.grant).await
    }
}

impl EndArgs {
    async fn run(self, session: &Session, kind: ScopeWord, name: String) -> Outcome {
        let scope = ScopeArgs { kind: Some(kind), name: Some(name) }.required()?;
        let reason = self.reason.unwrap_or_default();
        let request = pb::DecommissionRequest { scope: Some(scope), dry_run: self.dry_run, reason };
        let reply = session.admin().await?.decommission(request).await?.into_inner();
        let output = &session.output;
        if output.format() == Format::Json {
            return output.one(&reply.fields());
        }
        let what = format!(
            "{} leases and {} tasks under {} grants of {} tenants",
            reply.leases, reply.tasks, reply.grant_count, reply.tenants
        );
        output.line(&match (self.dry_run, reply.changed) {
            (true, _) => format!("dry run: would end {what}, and bar them"),
            (false, false) => "everything had ended before; nothing was written".to_owned(),
            (false, true) => format!("ended {what}; they stay barred. Remove them from the trust map"),
        })?;
        for exposure in &reply.exposure {
            output.line(&format!("  {}", printable(&super::revoke::exposure_line(exposure))))?;
        }
        if reply.grants.is_empty() { Ok(()) } else { output.line(&format!("\n{}", table(&reply.grants))) }
    }
}
