//! `mayfly key`: signing and CA keys of a tenant.

use clap::{Args, Subcommand, ValueEnum};

use crate::{
    model::TenantName,
    pb::{self, rotate_keys_request::Step},
};

use super::{failure::Outcome, session::Session};

/// Keys.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = KEY_HELP)]
pub enum KeyCommand {
    /// Lists a tenant's signing and CA keys.
    List {
        /// The tenant.
        #[arg(long)]
        tenant: TenantName,
    },
    /// Moves a tenant's key ring one step.
    Rotate(RotateArgs),
}

/// Arguments of `key rotate`.
#[derive(Args, Clone, Debug)]
pub struct RotateArgs {
    /// The tenant.
    #[arg(long)]
    tenant: TenantName,
    /// Which ring.
    #[arg(long = "use", value_enum, value_name = "USE")]
    ring: UseArg,
    /// Which step.
    #[arg(long, value_enum)]
    step: StepArg,
}

/// What a key is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum UseArg {
    /// Signs tokens.
    Token,
    /// Signs certificates.
    Ca,
}

/// One step of a key ring.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum StepArg {
    /// Publish a next key, without signing with it.
    Prepare,
    /// Sign with the prepared key; refused until copies of the key set must have it.
    Activate,
    /// Destroy retired keys that can have no live credential.
    Destroy,
    /// Prepare and activate at once: verifiers with a copy of the key set refuse new tokens until they fetch it.
    Now,
}

impl From<StepArg> for Step {
    fn from(step: StepArg) -> Self {
        match step {
            StepArg::Prepare => Self::Prepare,
            StepArg::Activate => Self::Activate,
            StepArg::Destroy => Self::Destroy,
            StepArg::Now => Self::Now,
        }
    }
}

impl KeyCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        let mut client = session.admin().await?;
        let keys = match self {
            Self::List { tenant } => {
                let request = pb::ListKeysRequest { tenant: tenant.to_string() };
                client.list_keys(request).await?.into_inner().keys
            }
            Self::Rotate(args) => {
                let ring = match args.ring {
                    UseArg::Token => "token",
                    UseArg::Ca => "ca",
                };
                let request = pb::RotateKeysRequest {
                    tenant: args.tenant.to_string(),
                    r#use: ring.to_owned(),
                    step: Step::from(args.step).into(),
                };
                client.rotate_keys(request).await?.into_inner().keys
            }
        };
        session.output.list(&keys)
    }
}

const KEY_HELP: &str = "\
Examples:
  mayfly key list --tenant acme
  mayfly key rotate --tenant acme --use token --step prepare
  # a key that leaked: cut it, then sign with a new one at once
  mayfly revoke key KEY-ID --reason 'leaked' && mayfly key rotate --tenant acme --use token --step now";
