//! `mayfly operator`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::{client::pem, model::OperatorName, pb};

use super::{
    arg::{self, LimitArgs},
    cell::Fields,
    failure::{Failure, Outcome},
    page, private_file,
    request::OwnRequest,
    session::{CA_FILE, CERTIFICATE_FILE, KEY_FILE, Session},
};

/// Operators.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = OPERATOR_HELP)]
pub enum OperatorCommand {
    /// Lists operators, in name order.
    List(LimitArgs),
    /// Makes a key here and has it certified for an operator that the trust map names.
    Add(AddArgs),
    #[allow(missing_docs, reason = "the doc of the arguments is the help text")]
    SignOut(SignOutArgs),
    #[cfg(feature = "server")]
    #[allow(missing_docs, reason = "the doc of the arguments is the help text")]
    Recover(super::local::RecoverArgs),
}

/// Arguments of `operator add`.
#[derive(Args, Clone, Debug)]
pub struct AddArgs {
    /// The operator, as the trust map names it.
    name: OperatorName,
    /// Folder for `key.pem`, `cert.pem` and `ca.pem`, to be named with --identity.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How long the certificate lives, at most 90d; 30d when left out.
    #[arg(long, value_parser = arg::seconds)]
    ttl: Option<u32>,
}

/// Ends the sign-ins of a person, or of all who are an operator by sign-in. Lasting certificates go on.
///
/// Who may sign in still can do so anew.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  mayfly operator sign-out --person ann@acme.example --reason 'laptop lost'\n  mayfly operator sign-out --operator oncall --reason 'rota changed'"
)]
pub struct SignOutArgs {
    /// A mail address, user name or subject, as the provider has it.
    #[arg(long, value_name = "PERSON", required_unless_present = "operator")]
    person: Option<String>,
    /// An operator, as the trust map names it.
    #[arg(long, conflicts_with = "person")]
    operator: Option<OperatorName>,
    /// Why, for the audit.
    #[arg(long)]
    reason: String,
}

impl OperatorCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses, or a file cannot be written.
    pub async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::Add(args) => args.run(session).await,
            #[cfg(feature = "server")]
            Self::Recover(args) => super::local::recover(&args).await,
            Self::SignOut(args) => args.run(session).await,
            Self::List(limit) => list(session, limit).await,
        }
    }
}

async fn list(session: &Session, limit: LimitArgs) -> Outcome {
    let client = session.admin().await?;
    let operators = page::collect(session, limit.limit, |page| {
        let mut client = client.clone();
        async move {
            let reply = client.list_operators(pb::ListOperatorsRequest { page: Some(page) }).await?.into_inner();
            Ok((reply.operators, reply.next_page_token))
        }
    });
    session.output.list(&operators.await?)
}

impl SignOutArgs {
    async fn run(self, session: &Session) -> Outcome {
        let request = pb::EndSignInsRequest {
            person: self.person.unwrap_or_default(),
            operator: self.operator.map(|name| name.to_string()).unwrap_or_default(),
            reason: self.reason,
        };
        let reply = session.admin().await?.end_sign_ins(request).await?.into_inner();
        session.output.one(&Fields::new().revision("revision", reply.revision.as_ref()))
    }
}

impl AddArgs {
    async fn run(self, session: &Session) -> Outcome {
        // Replacing a key that may be in use is never what `add` means.
        if self.out.join(KEY_FILE).exists() {
            return Err(Failure::Usage(format!("{} holds a {KEY_FILE} already", self.out.display())));
        }
        let ca_pem = session.ca_pem()?;
        let own = OwnRequest::fresh()?;
        let request = pb::IssueOperatorCertificateRequest {
            operator: self.name.to_string(),
            csr_der: own.csr_der.clone(),
            ttl_seconds: self.ttl.unwrap_or(0),
        };
        let reply = session.admin().await?.issue_operator_certificate(request).await?.into_inner();
        private_file::folder(&self.out)?;
        private_file::write(&self.out, KEY_FILE, own.key_pem.as_bytes())?;
        if !ca_pem.is_empty() {
            private_file::write(&self.out, CA_FILE, &ca_pem)?;
        }
        private_file::write(&self.out, CERTIFICATE_FILE, pem::encode_chain(&reply.chain_der).as_bytes())?;
        session.output.one(
            &Fields::new()
                .text("operator", self.name.as_str())
                .text("folder", &self.out.display().to_string())
                .time("expires", reply.expires.as_ref()),
        )
    }
}

const OPERATOR_HELP: &str = "\
Example:
  # name the operator in the trust map and apply it, then give her a certificate
  mayfly apply -f trust && mayfly operator add erin --out ./erin
  mayfly --identity ./erin status";
