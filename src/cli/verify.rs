//! The resource server's side: `mayfly introspect`, `watch` and `bundle`; and `mayfly whois` for who finds a credential.

use std::path::PathBuf;

use clap::Args;

use crate::{
    client::pem,
    model::TenantName,
    pb::{self, introspect_request::Credential},
};

use super::{
    arg,
    cell::{Fields, Record},
    failure::{Failure, Outcome},
    found, private_file,
    session::{CA_FILE, Session},
};

/// Asks whether a credential is good now. Exit code 4 when it is not.
#[derive(Args, Clone, Debug)]
#[command(after_help = INTROSPECT_HELP)]
pub struct IntrospectArgs {
    /// The credential: `-` for stdin, or a file. A JWT, a reference token, or a PEM certificate.
    #[arg(value_name = "-|FILE")]
    credential: String,
    /// The audience that you answer to.
    #[arg(long, default_value = "", hide_default_value = true)]
    audience: String,
    /// SHA-256 of the client certificate that the credential came with, 64 hex digits.
    #[arg(long, value_parser = parse_sha256, value_name = "HEX")]
    presented: Option<Sha256Arg>,
}

/// 32 bytes; a type of its own, because clap reads a plain vector as repeated values.
#[derive(Clone, Debug)]
pub struct Sha256Arg(Vec<u8>);

fn parse_sha256(text: &str) -> Result<Sha256Arg, String> {
    arg::sha256(text).map(Sha256Arg)
}

impl IntrospectArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses to answer, and when the credential is not active.
    pub async fn run(self, session: &Session) -> Outcome {
        let text = found::read(&self.credential)?;
        let credential = if text.contains("-----BEGIN") {
            let leaf = pem::certificates(text.as_bytes()).and_then(|chain| chain.into_iter().next());
            let leaf = leaf.ok_or_else(|| Failure::Usage("the PEM text holds no certificate".into()))?;
            Credential::CertificateDer(leaf.to_vec())
        } else {
            Credential::Token(text.to_string())
        };
        let request = pb::IntrospectRequest {
            credential: Some(credential),
            audience: self.audience,
            presented_certificate_sha256: self.presented.map(|digest| digest.0).unwrap_or_default(),
        };
        let reply = session.verifier().await?.introspect(request).await?.into_inner();
        session.output.one(&reply.fields())?;
        if reply.active { Ok(()) } else { Err(Failure::CheckFailed("the credential is not active".into())) }
    }
}

/// Says what a credential in hand is, whatever its form, and whose.
#[derive(Args, Clone, Debug)]
#[command(after_help = WHOIS_HELP)]
pub struct WhoisArgs {
    /// What was found: `-` for stdin, or a file. A JWT, a reference token, a PEM certificate, a serial, a jti or a
    /// SHA-256; for admins also the value of a static secret.
    #[arg(value_name = "-|FILE")]
    found: String,
}

impl WhoisArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses, and when nothing visible has this name.
    pub async fn run(self, session: &Session) -> Outcome {
        let found = found::read(&self.found)?;
        let request = pb::IdentifyRequest { found: found.to_string() };
        let reply = session.admin().await?.identify(request).await?.into_inner();
        session.output.one(&reply.fields())?;
        if reply.lease.is_some() || reply.issued.is_some() || reply.secret.is_some() {
            Ok(())
        } else {
            Err(Failure::Negative("no credential that you may see".into()))
        }
    }
}

/// Prints revocations as they happen, as JSON lines, until interrupted.
#[derive(Args, Clone, Debug)]
#[command(after_help = WATCH_HELP)]
pub struct WatchArgs {
    /// The tenant that you are a resource server of; leave out when registered for several.
    #[arg(long, value_name = "NAME")]
    tenant: Option<TenantName>,
    /// Start after this revision, as `seen` says; with everything that still matters when left out.
    #[arg(long, value_parser = arg::revision, value_name = "REVISION")]
    after: Option<pb::Revision>,
    /// Also print the lines without events, which say how far everything is known.
    #[arg(long)]
    heartbeats: bool,
}

impl WatchArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses, and when the stream ends.
    pub async fn run(self, session: &Session) -> Outcome {
        let request = pb::WatchRevocationsRequest {
            after: self.after,
            tenant: self.tenant.map(|tenant| tenant.to_string()).unwrap_or_default(),
        };
        let mut stream = session.verifier().await?.watch_revocations(request).await?.into_inner();
        while let Some(message) = stream.message().await? {
            if self.heartbeats || !message.events.is_empty() {
                session.output.line(&watch_line(&message).json())?;
            }
        }
        Err(tonic::Status::unavailable("the broker closed the stream").into())
    }
}

/// One message is one line, because only the whole of it moves a watcher on to `seen`.
fn watch_line(message: &pb::WatchRevocationsResponse) -> Fields {
    Fields::new()
        .revision("seen", message.revision.as_ref())
        .records("events", message.events.iter().map(Record::fields).collect())
}

/// Fetches the public keys and roots of a tenant.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  mayfly bundle --tenant acme --out ./trust")]
pub struct BundleArgs {
    /// The tenant.
    #[arg(long)]
    tenant: TenantName,
    /// Write `jwks.json` and `ca.pem` into this folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl BundleArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses, or a file cannot be written.
    pub async fn run(self, session: &Session) -> Outcome {
        let request = pb::GetTrustBundleRequest { tenant: self.tenant.to_string() };
        let reply = session.verifier().await?.get_trust_bundle(request).await?.into_inner();
        let roots = pem::encode_chain(&reply.root_der);
        let about = Fields::new()
            .text("issuer", &reply.issuer)
            .text("trust_domain", &reply.trust_domain)
            .number("max_age_seconds", reply.max_age_seconds);
        let Some(folder) = self.out else {
            return session.output.one(&about.text("jwks", &reply.jwks_json).text("ca_pem", &roots));
        };
        private_file::folder(&folder)?;
        private_file::write(&folder, "jwks.json", reply.jwks_json.as_bytes())?;
        private_file::write(&folder, CA_FILE, roots.as_bytes())?;
        session.output.one(&about)
    }
}

const INTROSPECT_HELP: &str = "\
Examples:
  printf %s \"$TOKEN\" | mayfly introspect - --audience https://api.acme.example
  mayfly introspect ./tls/cert.pem";

const WHOIS_HELP: &str = "\
Examples:
  pbpaste | mayfly whois -
  echo 4000000100c0ffee00c0ffee0000000000000001 | mayfly whois -";

const WATCH_HELP: &str = "\
Each line has `seen`, the revision up to which everything is known once its events are applied. Start again with
--after and the last `seen`; when that is refused with REVISION_GONE, drop all state and start anew.

Example:
  mayfly watch | jq -c '.events[]'";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_line_says_how_far_everything_is_known() {
        let message = pb::WatchRevocationsResponse {
            revision: Some(pb::Revision { incarnation: 1, number: 9 }),
            events: vec![pb::RevocationEvent {
                kind: pb::RevocationKind::Cut.into(),
                scope_id: vec![7; 2],
                revision: Some(pb::Revision { incarnation: 1, number: 8 }),
                covers_until: None,
            }],
            complete: true,
        };
        let want = r#"{"seen":"0000000000000001:9","events":[{"kind":"cut","scope_id":"0707","revision":"0000000000000001:8","covers_until":null}]}"#;
        assert_eq!(watch_line(&message).json(), want);
    }
}
