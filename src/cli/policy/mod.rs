//! `mayfly policy`: what policies say, on this machine and in a broker.

#[cfg(feature = "server")]
mod offline;
#[cfg(feature = "server")]
mod run;
#[cfg(feature = "server")]
pub(super) mod table;

use clap::Subcommand;

use crate::{model::TenantName, pb};

use super::{
    cell::{Fields, Record},
    failure::Outcome,
    issue::text,
    session::Session,
};

#[cfg(feature = "server")]
use offline::FoldersArgs;

/// Checks and tests policies on this machine, and shows what runs in shadow.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = HELP)]
pub enum PolicyCommand {
    /// Checks the trust files and policies of folders as `apply` would. No broker is asked. Exit code 1 when something is
    /// wrong.
    #[cfg(feature = "server")]
    Check(FoldersArgs),
    /// Checks folders and runs their tables of cases, files that end in `.test.toml`. No broker is asked. Exit code 1 when
    /// a case turns out otherwise than it says.
    #[cfg(feature = "server")]
    Test(FoldersArgs),
    /// Prints the schema that policies are checked against.
    #[cfg(feature = "server")]
    Schema,
    /// Lists where policies in shadow would have decided otherwise, since the daemon started.
    Shadow {
        /// Only this tenant.
        #[arg(long)]
        tenant: Option<TenantName>,
    },
}

impl PolicyCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When a folder cannot be read or has problems, a case fails, or the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        match self {
            #[cfg(feature = "server")]
            Self::Check(args) => args.check(session),
            #[cfg(feature = "server")]
            Self::Test(args) => args.test(session),
            #[cfg(feature = "server")]
            Self::Schema => crate::policy::POLICY_SCHEMA.lines().try_for_each(|line| session.output.line(line)),
            Self::Shadow { tenant } => shadow(session, tenant.as_ref()).await,
        }
    }
}

async fn shadow(session: &Session, tenant: Option<&TenantName>) -> Outcome {
    let request = pb::ListPolicyDifferencesRequest { tenant: text(tenant) };
    let reply = session.admin().await?.list_policy_differences(request).await?.into_inner();
    if reply.untold > 0 {
        session.output.remark(&format!("{} more were counted and not kept apart", reply.untold));
    }
    session.output.list(&reply.differences)
}

impl Record for pb::PolicyDifference {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("TENANT", "tenant"),
        ("WORKLOAD", "workload"),
        ("GRANT", "grant"),
        ("ACTION", "action"),
        ("NOW", "enforced"),
        ("WOULD BE", "shadow"),
        ("BY", "shadow_policies"),
        ("COUNT", "count"),
        ("LAST", "last"),
    ];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("tenant", &self.tenant)
            .text("partner", &self.partner)
            .text("workload", &self.workload)
            .text("grant", &self.grant)
            .text("action", &self.action)
            .text("enforced", &self.enforced)
            .text("shadow", &self.shadow)
            .words("enforced_policies", &self.enforced_policies)
            .words("shadow_policies", &self.shadow_policies)
            .text("audience", &self.audience)
            .number("count", self.count)
            .time("first", self.first.as_ref())
            .time("last", self.last.as_ref())
            .words("errors", &self.errors)
    }
}

const HELP: &str = "\
A table of cases, such as trust/deploys.test.toml:

  [[case]]
  name = \"a deploy needs a ticket\"
  tenant = \"acme\"
  workload = \"ci-runner\"
  partner = \"globex\"
  purpose = \"deploy\"
  audience = \"https://api.acme.example\"
  task_type = \"deploy\"
  parameters = { ticket = \"INC-4711\" }
  expect = \"allowed\"
  policy = \"deploys-with-ticket\"

Examples:
  mayfly policy check trust
  mayfly policy test trust
  mayfly policy schema > schema.cedarschema
  mayfly policy shadow --tenant acme";
