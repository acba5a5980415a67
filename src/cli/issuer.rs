//! `mayfly issuer`: whose identity tokens count, and why one would or would not.

use clap::{Args, Subcommand};

use crate::{
    model::{IssuerName, TenantName},
    pb,
};

use super::{
    cell::{Record, printable},
    failure::{Failure, Outcome},
    found,
    output::Format,
    session::Session,
};

/// Issuers of identity tokens.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = ISSUER_HELP)]
pub enum IssuerCommand {
    /// Lists the issuers that the server's config declares, with the state of their keys.
    List,
    /// Shows one issuer.
    Show {
        /// Its name.
        name: IssuerName,
    },
    Test(TestArgs),
}

/// Says why an identity token would be taken or not, and which bindings it fits. Exit code 1 when it selects no workload.
///
/// The token is sent to the broker. It is not spent.
#[derive(Args, Clone, Debug)]
pub struct TestArgs {
    /// The file that holds the token; `-` for stdin.
    #[arg(long, value_name = "FILE")]
    token_file: String,
    /// Look at this tenant only.
    #[arg(long)]
    tenant: Option<TenantName>,
}

impl IssuerCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses, or there is no such issuer, or the token selects nobody.
    pub async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::List => session.output.list(&issuers(session).await?),
            Self::Show { name } => {
                let found = issuers(session).await?.into_iter().find(|issuer| issuer.name == name.as_str());
                let found = found.ok_or_else(|| Failure::Negative(format!("no issuer `{name}` is declared")))?;
                session.output.one(&found.fields())
            }
            Self::Test(args) => args.run(session).await,
        }
    }
}

impl TestArgs {
    async fn run(self, session: &Session) -> Outcome {
        let token = found::read(&self.token_file)?;
        let tenant = self.tenant.map(|tenant| tenant.to_string()).unwrap_or_default();
        let request = pb::TestIdentityTokenRequest { token: token.to_string(), tenant };
        let reply = session.admin().await?.test_identity_token(request).await?.into_inner();
        match session.output.format() {
            Format::Json => session.output.one(&reply.fields())?,
            Format::Table => show(&reply, session)?,
        }
        match (reply.accepted, reply.bindings.iter().filter(|binding| binding.fits).count()) {
            (false, _) => Err(Failure::Negative(format!("the token is not taken: {}", reply.fault))),
            (true, 0) => Err(Failure::Negative("the token is good and fits no binding".into())),
            (true, _) => Ok(()),
        }
    }
}

fn show(reply: &pb::TestIdentityTokenResponse, session: &Session) -> Outcome {
    for claim in &reply.claims {
        session.output.line(&format!("claim {} = {}", printable(&claim.name), printable(&claim.value)))?;
    }
    if reply.accepted {
        session.output.line(&format!("taken: of issuer {}, subject {}", reply.issuer, printable(&reply.subject)))?;
    }
    for binding in &reply.bindings {
        let verdict = if binding.fits { "fits" } else { "does not fit" };
        session.output.line(&format!("{verdict}: workload {}/{}", binding.tenant, binding.workload))?;
        binding.reasons.iter().try_for_each(|reason| session.output.line(&format!("  {}", printable(reason))))?;
    }
    Ok(())
}

async fn issuers(session: &Session) -> Outcome<Vec<pb::Issuer>> {
    Ok(session.admin().await?.list_issuers(pb::ListIssuersRequest {}).await?.into_inner().issuers)
}

const ISSUER_HELP: &str = "\
Examples:
  mayfly issuer list
  # in a job whose token does not select its workload: keep the token in a file, and as an operator
  mayfly issuer test --token-file token.jwt --tenant acme
  # an issuer that was compromised: end all that was obtained with its tokens, and bar it
  mayfly revoke issuer github --reason 'incident 4711'";
