//! How an issued credential reaches its holder: files of mode 0600, or stdout on request.

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    client::pem,
    pb::{self, issue_response::Credential},
};

use super::{
    cell::{Fields, Record},
    failure::{Failure, Outcome},
    output::{Format, Output},
    private_file,
    render::word,
    session::{CA_FILE, CERTIFICATE_FILE, KEY_FILE},
};

/// Where an issued credential goes.
#[derive(Args, Clone, Debug, Default)]
pub struct DeliveryArgs {
    /// Write the credential into this folder, mode 0600: `token`, `secret`, `handle`, or `cert.pem`, `key.pem` and
    /// `ca.pem`; and `lease.json` beside it.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Write the credential to stdout even when that is a terminal.
    #[arg(long, conflicts_with = "out")]
    pub print: bool,
}

impl DeliveryArgs {
    /// Refuses, before anything is issued, what would leave a secret on a screen.
    ///
    /// # Errors
    /// When stdout is a terminal and neither a folder nor printing was asked for.
    pub fn check(&self, output: &Output) -> Outcome {
        if self.out.is_none() && !self.print && output.is_terminal() {
            return Err(Failure::Usage(
                "the credential would stay readable on this terminal: give --out DIR, pipe it on, or say --print"
                    .into(),
            ));
        }
        Ok(())
    }

    /// Hands the credential over. `own_key_pem` is the key that was made here for it.
    ///
    /// # Errors
    /// When it cannot be written, or the broker sent none.
    pub fn deliver(&self, output: &Output, reply: pb::IssueResponse, own_key_pem: Option<&str>) -> Outcome {
        let bound = word::bound(reply.bound);
        let lease = reply.lease.unwrap_or_default();
        let credential = reply.credential.ok_or_else(|| Failure::Internal("the broker sent no credential".into()))?;
        let about = Fields::new().record("lease", Some(lease.fields())).text("bound", &bound);
        match &self.out {
            Some(folder) => {
                write_files(folder, credential, own_key_pem)?;
                private_file::write(folder, LEASE_FILE, lease.fields().json().as_bytes())?;
                output.one(&about)
            }
            None => print(output, about, credential, own_key_pem),
        }
    }
}

/// The lease's id that an earlier delivery left in `folder`.
///
/// # Errors
/// When there is none.
pub fn lease_id(folder: &Path) -> Outcome<String> {
    let path = folder.join(LEASE_FILE);
    let text = std::fs::read_to_string(&path).map_err(|error| Failure::file("read", &path, error))?;
    let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let id = json.get("lease_id").and_then(serde_json::Value::as_str).map(str::to_owned);
    id.ok_or_else(|| Failure::Usage(format!("{} names no lease", path.display())))
}

fn write_files(folder: &Path, credential: Credential, own_key_pem: Option<&str>) -> Outcome {
    private_file::folder(folder)?;
    match credential {
        Credential::Token(token) => private_file::write(folder, TOKEN_FILE, Zeroizing::new(token).as_bytes()),
        Credential::Secret(secret) => private_file::write(folder, SECRET_FILE, &Zeroizing::new(secret.value)),
        Credential::Pickup(pickup) => {
            private_file::write(folder, HANDLE_FILE, Zeroizing::new(pickup.handle).as_bytes())
        }
        Credential::X509(mut x509) => {
            // The key first: a reader that sees the new certificate finds its key.
            if let Some(key) = key_pem(&mut x509, own_key_pem) {
                private_file::write(folder, KEY_FILE, key.as_bytes())?;
            }
            private_file::write(folder, CA_FILE, pem::encode_chain(&x509.bundle_der).as_bytes())?;
            private_file::write(folder, CERTIFICATE_FILE, pem::encode_chain(&x509.chain_der).as_bytes())
        }
    }
}

fn print(output: &Output, about: Fields, credential: Credential, own_key_pem: Option<&str>) -> Outcome {
    match (credential, output.format()) {
        (Credential::Token(token), Format::Table) => output.line(&Zeroizing::new(token)),
        (Credential::Token(token), Format::Json) => output.line(&Zeroizing::new(about.text("token", &token).json())),
        (Credential::Secret(secret), format) => print_secret(output, about, secret, format),
        (Credential::Pickup(pickup), Format::Table) => output.line(&Zeroizing::new(pickup.handle)),
        (Credential::Pickup(pickup), Format::Json) => {
            let about = about.time("until", pickup.until.as_ref());
            output.line(&Zeroizing::new(about.text("handle", &Zeroizing::new(pickup.handle)).json()))
        }
        (Credential::X509(mut x509), format) => {
            let key = key_pem(&mut x509, own_key_pem).unwrap_or_default();
            let chain = pem::encode_chain(&x509.chain_der);
            match format {
                Format::Table => output.line(Zeroizing::new(format!("{chain}{}", key.as_str())).trim_end()),
                Format::Json => {
                    let all = about
                        .text("spiffe_id", &x509.spiffe_id)
                        .text("certificate_pem", &chain)
                        .text("key_pem", &key)
                        .text("ca_pem", &pem::encode_chain(&x509.bundle_der));
                    output.line(&Zeroizing::new(all.json()))
                }
            }
        }
    }
}

/// A static secret as it is, byte by byte; JSON holds no bytes, so there what is no text is in base64.
fn print_secret(output: &Output, about: Fields, secret: pb::StaticSecret, format: Format) -> Outcome {
    let value = Zeroizing::new(secret.value);
    let about = about.text("secret", &secret.name).number("version", secret.version);
    match (format, str::from_utf8(&value)) {
        (Format::Table, _) => output.raw(&value),
        (Format::Json, Ok(text)) => output.line(&Zeroizing::new(about.text("value", text).json())),
        (Format::Json, Err(_)) => {
            let encoded = Zeroizing::new(STANDARD.encode(value.as_slice()));
            output.line(&Zeroizing::new(about.text("value_base64", &encoded).json()))
        }
    }
}

/// The key that goes with the certificate, wherever it was made.
fn key_pem(x509: &mut pb::X509Credential, own: Option<&str>) -> Option<Zeroizing<String>> {
    if x509.private_key_der.is_empty() {
        return own.map(|pem| Zeroizing::new(pem.to_owned()));
    }
    let key = pem::encode(pem::PRIVATE_KEY, &x509.private_key_der);
    x509.private_key_der.zeroize();
    Some(key)
}

const TOKEN_FILE: &str = "token";
const SECRET_FILE: &str = "secret";
const HANDLE_FILE: &str = "handle";
const LEASE_FILE: &str = "lease.json";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::cli::output::captured::Written;

    fn token() -> pb::IssueResponse {
        pb::IssueResponse {
            lease: Some(pb::Lease { lease_id: "ab".repeat(20), ..pb::Lease::default() }),
            credential: Some(Credential::Token("mfy_secret".into())),
            bound: pb::Bound::TaskDeadline.into(),
        }
    }

    #[test]
    fn a_terminal_is_no_place_for_a_secret_unless_asked() {
        let screen = Output::captured(Format::Table, true, Written::default());
        let pipe = Output::captured(Format::Table, false, Written::default());
        let quietly = DeliveryArgs::default();
        assert!(quietly.check(&screen).is_err());
        assert!(quietly.check(&pipe).is_ok());
        assert!(DeliveryArgs { print: true, ..DeliveryArgs::default() }.check(&screen).is_ok());
        assert!(DeliveryArgs { out: Some("x".into()), ..DeliveryArgs::default() }.check(&screen).is_ok());
    }

    #[test]
    fn a_token_in_a_folder_is_private_and_not_on_stdout() {
        let folder = tempfile::tempdir().expect("folder");
        let (written, out) = (Written::default(), folder.path().join("out"));
        let output = Output::captured(Format::Json, false, written.clone());
        let delivery = DeliveryArgs { out: Some(out.clone()), print: false };
        delivery.deliver(&output, token(), None).expect("delivered");
        let file = out.join(TOKEN_FILE);
        assert_eq!(std::fs::read_to_string(&file).expect("token"), "mfy_secret");
        assert_eq!(std::fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        assert!(!written.text().contains("mfy_") && written.text().contains("\"bound\":\"task_deadline\""));
        assert_eq!(lease_id(&out).expect("lease"), "ab".repeat(20));
        assert!(!std::fs::read_to_string(out.join(LEASE_FILE)).expect("lease").contains("mfy_"));
    }

    #[test]
    fn a_token_on_a_pipe_is_the_token_alone() {
        let written = Written::default();
        let output = Output::captured(Format::Table, false, written.clone());
        DeliveryArgs::default().deliver(&output, token(), None).expect("delivered");
        assert_eq!(written.text(), "mfy_secret\n");
    }

    #[test]
    fn a_certificate_goes_with_the_key_that_was_made_for_it() {
        let folder = tempfile::tempdir().expect("folder");
        let output = Output::captured(Format::Json, false, Written::default());
        let x509 = |private_key_der| pb::IssueResponse {
            credential: Some(Credential::X509(pb::X509Credential {
                chain_der: vec![vec![1], vec![2]],
                private_key_der,
                bundle_der: vec![vec![3]],
                spiffe_id: "spiffe://acme.example/w/x".into(),
            })),
            ..pb::IssueResponse::default()
        };
        let delivery = DeliveryArgs { out: Some(folder.path().into()), print: false };
        let read = |name| std::fs::read_to_string(folder.path().join(name)).expect(name);
        delivery.deliver(&output, x509(vec![]), Some("own key")).expect("delivered");
        assert_eq!(read(KEY_FILE), "own key");
        assert_eq!(read(CERTIFICATE_FILE).matches("BEGIN CERTIFICATE").count(), 2);
        delivery.deliver(&output, x509(vec![9]), None).expect("delivered");
        assert!(read(KEY_FILE).contains("BEGIN PRIVATE KEY"));
    }
}
