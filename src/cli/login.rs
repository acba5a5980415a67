//! `mayfly login` and `mayfly logout`: an operator for a few hours, by the company's identity provider.

mod device;
mod folder;

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use clap::Args;

use crate::{
    client::{self, pem},
    model::OperatorName,
    pb,
};

use self::{device::Provider, folder::SignedIn};
use super::{
    cell::{Fields, printable},
    failure::{Failure, Outcome},
    request::OwnRequest,
    session::Session,
};

/// Signs in at the company's identity provider, and gets an operator's certificate for a few hours.
///
/// Shows a code and a page to enter it at, on stderr, and waits. The key is made here and never leaves. Key, certificate
/// and roots are written to the folder of --identity, in place of an earlier sign-in.
#[derive(Args, Clone, Debug)]
#[command(after_help = LOGIN_HELP)]
pub struct LoginArgs {
    /// Be this operator, when several would do.
    #[arg(long = "as", value_name = "OPERATOR")]
    operator: Option<OperatorName>,
    /// Roots that the provider's certificate must come from, PEM. Default: the system's bundle.
    #[arg(long, value_name = "FILE")]
    provider_ca: Option<PathBuf>,
    /// Overwrite an identity that is not of a sign-in.
    #[arg(long)]
    replace: bool,
    /// Say who is signed in, and until when; change nothing.
    #[arg(long, conflicts_with_all = ["operator", "provider_ca", "replace"])]
    status: bool,
}

/// Ends the sign-in, and removes its key and certificate.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  mayfly --identity ./me logout")]
pub struct LogoutArgs {
    /// Only remove the files: the certificate stays good until it expires, for whoever has a copy.
    #[arg(long)]
    forget: bool,
}

impl LoginArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the provider or the broker refuses, the time for the code is over, or a file cannot be written.
    pub async fn run(self, session: &Session) -> Outcome {
        let place = place(session)?;
        if self.status {
            return status(session, place).await;
        }
        if !self.replace && folder::holds_another(place)? {
            let wrong = format!("{} holds an identity that is not of a sign-in", place.display());
            return Err(Failure::Usage(format!("{wrong}; name another folder, or give --replace")));
        }
        let ca_pem = session.ca_pem()?;
        let mut broker = session.sign_in(false).await?;
        let told = broker.get_sign_in(pb::GetSignInRequest {}).await?.into_inner();
        let provider = Provider::find(&told, self.provider_ca.as_deref()).await?;
        let own = OwnRequest::fresh()?;
        // Bound to the key: a token that somebody else gets hold of certifies no other.
        let code = provider.begin(&own.spki_sha256.to_string()).await?;
        show(&code)?;
        let id_token = provider.wait_for(&code).await?;
        let request = pb::SignInRequest {
            id_token: id_token.expose().to_owned(),
            csr_der: own.csr_der.clone(),
            operator: self.operator.map(|name| name.to_string()).unwrap_or_default(),
        };
        let reply = broker.sign_in(request).await?.into_inner();
        let chain = pem::encode_chain(&reply.chain_der);
        folder::write(place, own.key_pem.as_bytes(), chain.as_bytes(), &ca_pem)?;
        let signed_in = reply.session.unwrap_or_default();
        session.output.one(&fields(&signed_in).text("folder", &place.display().to_string()))
    }
}

impl LogoutArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the folder holds no sign-in, or the broker cannot be asked: then nothing is removed.
    pub async fn run(self, session: &Session) -> Outcome {
        let place = place(session)?;
        let Some(known) = folder::signed_in(place)? else { return Err(none(place)) };
        let mut ended = false;
        if !self.forget {
            match session.sign_in(true).await?.sign_out(pb::SignOutRequest {}).await {
                Ok(reply) => ended = reply.into_inner().changed,
                // It was over before.
                Err(status) if status.code() == tonic::Code::Unauthenticated => {}
                // With it its connections end, and this one may do so before the answer.
                Err(status) if client::unreachable(&status) && is_over(session).await? => ended = true,
                Err(status) => return Err(status.into()),
            }
        }
        folder::remove(place)?;
        session.output.one(&Fields::new().text("operator", &known.operator).flag("ended", ended))
    }
}

async fn is_over(session: &Session) -> Outcome<bool> {
    let asked = session.sign_in(true).await?.get_session(pb::GetSessionRequest {}).await;
    Ok(asked.is_err_and(|status| status.code() == tonic::Code::Unauthenticated))
}

async fn status(session: &Session, place: &Path) -> Outcome {
    let Some(SignedIn { operator, .. }) = folder::signed_in(place)? else { return Err(none(place)) };
    match session.sign_in(true).await?.get_session(pb::GetSessionRequest {}).await {
        Ok(reply) => session.output.one(&fields(&reply.into_inner().session.unwrap_or_default())),
        Err(status) if status.code() == tonic::Code::Unauthenticated => {
            Err(Failure::Negative(format!("the sign-in as {operator} is over; run `mayfly login`")))
        }
        Err(status) => Err(status.into()),
    }
}

fn fields(signed_in: &pb::Session) -> Fields {
    Fields::new()
        .text("operator", &signed_in.operator)
        .text("person", &signed_in.person)
        .text("role", &signed_in.role)
        .words("tenants", &signed_in.tenants)
        .words("partners", &signed_in.partners)
        .time("expires", signed_in.expires.as_ref())
}

fn place(session: &Session) -> Outcome<&Path> {
    session.named_folder().ok_or_else(|| {
        Failure::Usage("say where the sign-in is kept: --identity DIR, or the variable MAYFLY_IDENTITY".to_owned())
    })
}

fn none(place: &Path) -> Failure {
    Failure::Negative(format!("{} holds no sign-in", place.display()))
}

/// Tells the person what to do. Also where only results are asked for: without it nothing goes on.
fn show(code: &device::Code) -> Outcome {
    let mut lines = format!("Open   {}\nEnter  {}\n", printable(&code.page), printable(&code.user_code));
    if let Some(link) = &code.link {
        lines.push_str(&format!("Or     {}\n", printable(link)));
    }
    let written = std::io::stderr().write_all(lines.as_bytes());
    written.map_err(|error| Failure::io("show the code on stderr", error))
}

const LOGIN_HELP: &str = "\
Examples:
  # the first time, with the broker's roots
  mayfly --server https://mayfly.example.com:7443 --identity ./me --ca ca.pem login
  # later on, and to see who one is
  mayfly --identity ./me login --as oncall
  mayfly --identity ./me login --status";
