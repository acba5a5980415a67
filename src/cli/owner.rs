//! `mayfly owner`: grants change hands.

use clap::{Args, Subcommand};

use crate::pb;

use super::{
    cell::{Fields, Record},
    failure::Outcome,
    output::{Format, table},
    scope::grant_path,
    session::Session,
};

/// What owners do.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = HELP)]
pub enum OwnerCommand {
    /// Gives a grant to a new owner; it is suspended until the new owner attests it.
    Transfer(TransferArgs),
    /// An owner leaves: its grants are suspended until each was transferred and attested.
    Leave(LeaveArgs),
    /// An owner who left is back: it may own again, and its grants wait for its attestation.
    Return(ReturnArgs),
}

/// Arguments of `owner transfer`.
#[derive(Args, Clone, Debug)]
pub struct TransferArgs {
    /// The grant, as TENANT/GRANT.
    #[arg(value_name = "TENANT/GRANT")]
    grant: String,
    /// Who answers for it from now on.
    #[arg(long, value_name = "OWNER")]
    to: String,
    /// Say what would be suspended, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Why, for the audit.
    #[arg(long, required_unless_present = "dry_run")]
    reason: Option<String>,
}

/// Arguments of `owner leave`.
#[derive(Args, Clone, Debug)]
pub struct LeaveArgs {
    /// As grants name it.
    #[arg(value_name = "OWNER")]
    owner: String,
    /// Say what would be suspended, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Why, for the audit.
    #[arg(long, required_unless_present = "dry_run")]
    reason: Option<String>,
}

/// Arguments of `owner return`.
#[derive(Args, Clone, Debug)]
pub struct ReturnArgs {
    /// As grants name it.
    #[arg(value_name = "OWNER")]
    owner: String,
    /// Say what would be changed, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Why, for the audit.
    #[arg(long, required_unless_present = "dry_run")]
    reason: Option<String>,
}

impl OwnerCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::Transfer(args) => args.run(session).await,
            Self::Leave(args) => args.run(session).await,
            Self::Return(args) => args.run(session).await,
        }
    }
}

impl TransferArgs {
    async fn run(self, session: &Session) -> Outcome {
        let (tenant, grant) = grant_path(&self.grant)?;
        let request = pb::TransferGrantRequest {
            tenant,
            grant,
            owner: self.to.clone(),
            dry_run: self.dry_run,
            reason: self.reason.unwrap_or_default(),
        };
        let reply = session.admin().await?.transfer_grant(request).await?.into_inner();
        session.output.one(
            &Fields::new()
                .text("grant", &self.grant)
                .text("from", &reply.owner_before)
                .text("to", &self.to)
                .flag("dry_run", self.dry_run)
                .flag("changed", reply.changed)
                .number("leases", reply.leases)
                .revision("revision", reply.revision.as_ref()),
        )
    }
}

impl LeaveArgs {
    async fn run(self, session: &Session) -> Outcome {
        let reason = self.reason.unwrap_or_default();
        let request = pb::LeaveOwnerRequest { owner: self.owner, dry_run: self.dry_run, reason };
        let reply = session.admin().await?.leave_owner(request).await?.into_inner();
        if session.output.format() == Format::Json {
            return session.output.one(&reply.fields());
        }
        let what = format!("{} grants with {} live leases", reply.grant_count, reply.leases);
        session.output.line(&match (self.dry_run, reply.suspended) {
            (true, _) => format!("dry run: would suspend {what}"),
            (false, suspended) => format!("suspended {suspended} of {what}; transfer them, and have them attested"),
        })?;
        if reply.noted {
            session.output.line("it is remembered: no grant is given to it until `mayfly owner return`")?;
        }
        if reply.grants.is_empty() { Ok(()) } else { session.output.line(&format!("\n{}", table(&reply.grants))) }
    }
}

impl ReturnArgs {
    async fn run(self, session: &Session) -> Outcome {
        let reason = self.reason.unwrap_or_default();
        let request = pb::ReturnOwnerRequest { owner: self.owner, dry_run: self.dry_run, reason };
        let reply = session.admin().await?.return_owner(request).await?.into_inner();
        if session.output.format() == Format::Json {
            return session.output.one(&reply.fields());
        }
        let known = if reply.changed { "it may own again" } else { "nobody said within your scope that it left" };
        let would = if self.dry_run { "dry run: " } else { "" };
        session.output.line(&format!("{would}{known}; {} grants wait for its attestation", reply.grant_count))?;
        if reply.still_noted {
            session.output.line("somebody with a wider scope said that it left, too: that stands")?;
        }
        if reply.grants.is_empty() { Ok(()) } else { session.output.line(&format!("\n{}", table(&reply.grants))) }
    }
}

const HELP: &str = "\
Examples:
  mayfly owner transfer acme/ci-deploy --to platform-team@acme.example --reason 'team was split'
  mayfly owner leave ann@acme.example --dry-run
  mayfly owner leave ann@acme.example --reason 'left the company'
  mayfly owner return ann@acme.example --reason 'is back from leave'";
