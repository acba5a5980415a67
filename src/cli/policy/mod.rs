//! `mayfly policy`: what policies say, on this machine and in a broker.

mod run;
mod table;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::{
    config::Config,
    model::{IssuerRules, TenantName},
    pb,
    policy::{self, Document, Extent, POLICY_SCHEMA, TrustMap},
};

use super::{
    apply,
    cell::{Fields, Record},
    failure::{Failure, Outcome},
    issue::text,
    session::Session,
};
use std::sync::Arc;

/// Checks and tests policies on this machine, and shows what runs in shadow.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = HELP)]
pub enum PolicyCommand {
    /// Checks the trust files and policies of folders as `apply` would. No broker is asked. Exit code 1 when something is
    /// wrong.
    Check(FoldersArgs),
    /// Checks folders and runs their tables of cases, files that end in `.test.toml`. No broker is asked. Exit code 1 when
    /// a case turns out otherwise than it says.
    Test(FoldersArgs),
    /// Prints the schema that policies are checked against.
    Schema,
    /// Lists where policies in shadow would have decided otherwise, since the daemon started.
    Shadow {
        /// Only this tenant.
        #[arg(long)]
        tenant: Option<TenantName>,
    },
}

/// Folders of trust files.
#[derive(Args, Clone, Debug)]
pub struct FoldersArgs {
    /// Folders as `apply -f` takes them, each a trust map of its own.
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
    /// The server's configuration, or a file of its `[[issuer]]` sections, when workloads prove themselves with identity
    /// tokens.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl PolicyCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When a folder cannot be read or has problems, a case fails, or the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::Check(args) => args.check(session),
            Self::Test(args) => args.test(session),
            Self::Schema => POLICY_SCHEMA.lines().try_for_each(|line| session.output.line(line)),
            Self::Shadow { tenant } => shadow(session, tenant.as_ref()).await,
        }
    }
}

impl FoldersArgs {
    fn check(&self, session: &Session) -> Outcome {
        let issuers = self.issuers()?;
        for folder in &self.folders {
            let map = load(folder, &issuers)?;
            let with = map.tenants.values().filter(|tenant| tenant.policy().is_some()).count();
            session.output.remark(&format!(
                "{}: {} tenants, {with} of them with policies: nothing is wrong",
                folder.display(),
                map.tenants.len()
            ));
        }
        Ok(())
    }

    fn test(&self, session: &Session) -> Outcome {
        let issuers = self.issuers()?;
        let mut results = Vec::new();
        for folder in &self.folders {
            let map = load(folder, &issuers)?;
            for (path, text) in apply::tables(folder)? {
                let cases = table::parse(&text).map_err(|why| Failure::Usage(format!("{path}: {why}")))?;
                results.extend(cases.iter().map(|case| run::run(&map, &path, case)));
            }
        }
        if results.is_empty() {
            return Err(Failure::Usage("there is no case: write some in a file that ends in .test.toml".into()));
        }
        session.output.list(&results)?;
        let failed = results.iter().filter(|result| !result.passed).count();
        if failed > 0 {
            return Err(Failure::Negative(format!("{failed} of {} cases turn out otherwise", results.len())));
        }
        session.output.remark(&format!("{} cases turn out as they say", results.len()));
        Ok(())
    }

    fn issuers(&self) -> Outcome<Vec<Arc<IssuerRules>>> {
        let Some(file) = &self.config else { return Ok(Vec::new()) };
        let issuers = Config::load(file).map(|config| config.issuers).or_else(|_| Config::load_issuers(file));
        let issuers = issuers.map_err(|problems| Failure::Usage(problems.to_string()))?;
        Ok(issuers.into_iter().map(|issuer| issuer.rules).collect())
    }
}

/// The trust map of a folder.
fn load(folder: &Path, issuers: &[Arc<IssuerRules>]) -> Outcome<TrustMap> {
    let files = apply::read(folder)?;
    let documents: Vec<Document<'_>> =
        files.iter().map(|file| Document { path: &file.path, text: &file.text }).collect();
    policy::parse_with(&documents, Extent::Whole, issuers, run::now()).map_err(|problems| {
        let lines: Vec<String> =
            problems.list().iter().map(|problem| super::cell::printable(&problem.to_string())).collect();
        let more = if problems.more() > 0 { format!("\nand {} more", problems.more()) } else { String::new() };
        Failure::Negative(format!("{}:\n{}{more}", folder.display(), lines.join("\n")))
    })
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
