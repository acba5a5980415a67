//! The flags that every command takes, and the connection they lead to.

use std::path::{Path, PathBuf};

use clap::Args;
use tonic::transport::Channel;

use crate::{
    client::{Address, ClientConfig, Connection, Identity, read_ca},
    pb::{
        admin_client::AdminClient, broker_client::BrokerClient, sign_in_client::SignInClient,
        verifier_client::VerifierClient,
    },
};

use super::{
    failure::{Failure, Outcome},
    output::{Format, Output},
};

/// Flags of every command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Where the broker listens: `https://HOST:PORT`, or `unix:///PATH` on the same host.
    #[arg(long, global = true, value_name = "URL", env = "MAYFLY_SERVER", hide_env_values = true, default_value = DEFAULT_SERVER)]
    pub server: Address,
    /// Roots that the broker's certificate must come from, PEM. Default: `ca.pem` of the identity folder.
    #[arg(long, global = true, value_name = "FILE", env = "MAYFLY_CA", hide_env_values = true)]
    pub ca: Option<PathBuf>,
    /// Client certificate chain to show, leaf first, PEM. Needs --key.
    #[arg(long, global = true, value_name = "FILE", env = "MAYFLY_CERT", hide_env_values = true)]
    pub cert: Option<PathBuf>,
    /// Private key of the client certificate, PEM, mode 0600 or 0400. Needs --cert.
    #[arg(long, global = true, value_name = "FILE", env = "MAYFLY_KEY", hide_env_values = true)]
    pub key: Option<PathBuf>,
    /// Folder with `ca.pem`, `cert.pem` and `key.pem`. Default: `./mayfly-data/operator`, when it is there.
    #[arg(long, global = true, value_name = "DIR", env = "MAYFLY_IDENTITY", hide_env_values = true)]
    pub identity: Option<PathBuf>,
    /// Name that the broker's certificate must carry, when it is not the URL's host.
    #[arg(long, global = true, value_name = "NAME", env = "MAYFLY_SERVER_NAME", hide_env_values = true)]
    pub server_name: Option<String>,
    /// How results are written.
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
    /// Write results and errors only: no remarks, no progress.
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// One run of one command: its flags and where it writes.
#[derive(Debug)]
pub struct Session {
    global: GlobalArgs,
    /// Where results and remarks go.
    pub output: Output,
}

impl Session {
    /// Puts the flags of a run beside its output.
    #[must_use]
    pub fn new(global: GlobalArgs, output: Output) -> Self {
        Self { global, output }
    }

    /// The flags of the run.
    #[must_use]
    pub fn global(&self) -> &GlobalArgs {
        &self.global
    }

    /// Connects for operators' calls.
    ///
    /// # Errors
    /// When the identity cannot be used or the broker cannot be reached.
    pub async fn admin(&self) -> Outcome<AdminClient<Channel>> {
        Ok(AdminClient::new(self.channel().await?).max_decoding_message_size(MAX_REPLY_BYTES))
    }

    /// Connects for workloads' calls.
    ///
    /// # Errors
    /// When the identity cannot be used or the broker cannot be reached.
    pub async fn broker(&self) -> Outcome<BrokerClient<Channel>> {
        Ok(BrokerClient::new(self.channel().await?))
    }

    /// Connects for resource servers' calls.
    ///
    /// # Errors
    /// When the identity cannot be used or the broker cannot be reached.
    pub async fn verifier(&self) -> Outcome<VerifierClient<Channel>> {
        Ok(VerifierClient::new(self.channel().await?).max_decoding_message_size(MAX_REPLY_BYTES))
    }

    /// The roots in use; empty on a Unix socket without any.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn ca_pem(&self) -> Outcome<Vec<u8>> {
        self.global.ca_pem()
    }

    /// The identity folder in use, for a command that keeps more in it than its client certificate.
    #[must_use]
    pub fn identity_folder(&self) -> Option<&Path> {
        self.global.folder()
    }

    /// The folder that was named, there or not: a default one is not for what is written by itself.
    #[must_use]
    pub fn named_folder(&self) -> Option<&Path> {
        self.global.identity.as_deref()
    }

    /// Connects for people who sign in, with or without the identity in use.
    ///
    /// # Errors
    /// When the identity cannot be used or the broker cannot be reached.
    pub async fn sign_in(&self, proven: bool) -> Outcome<SignInClient<Channel>> {
        let identity = if proven { self.global.identity()? } else { None };
        let config = ClientConfig {
            address: self.global.server.clone(),
            ca_pem: self.global.ca_pem()?,
            identity,
            server_name: self.global.server_name.clone(),
        };
        Ok(SignInClient::new(Connection::open(&config).await?.channel()))
    }

    async fn channel(&self) -> Outcome<Channel> {
        Ok(Connection::open(&self.global.config()?).await?.channel())
    }
}

impl GlobalArgs {
    /// What to connect with.
    ///
    /// # Errors
    /// When a named file cannot be used, or there is no root to trust.
    pub fn config(&self) -> Outcome<ClientConfig> {
        Ok(ClientConfig {
            address: self.server.clone(),
            ca_pem: self.ca_pem()?,
            identity: self.identity()?,
            server_name: self.server_name.clone(),
        })
    }

    /// Whether flags or their variables name a client certificate.
    #[must_use]
    pub fn names_identity(&self) -> bool {
        self.identity.is_some() || self.cert.is_some() || self.key.is_some()
    }

    fn ca_pem(&self) -> Outcome<Vec<u8>> {
        if let Some(path) = &self.ca {
            return Ok(read_ca(path)?);
        }
        match (self.folder(), &self.server) {
            (Some(folder), Address::Https { .. }) => Ok(read_ca(&folder.join(CA_FILE))?),
            (Some(_) | None, Address::Unix(_)) => Ok(Vec::new()),
            (None, Address::Https { .. }) => {
                Err(Failure::Usage("no roots to trust: give --ca FILE or --identity DIR".into()))
            }
        }
    }

    fn identity(&self) -> Outcome<Option<Identity>> {
        match (&self.cert, &self.key, self.folder()) {
            (Some(cert), Some(key), _) => Ok(Some(Identity::from_files(cert, key)?)),
            (Some(_), None, _) | (None, Some(_), _) => Err(Failure::Usage("--cert and --key go together".into())),
            (None, None, Some(folder)) => {
                Ok(Some(Identity::from_files(&folder.join(CERTIFICATE_FILE), &folder.join(KEY_FILE))?))
            }
            (None, None, None) => Ok(None),
        }
    }

    fn folder(&self) -> Option<&Path> {
        let default = Path::new(DEFAULT_IDENTITY);
        // A default that is not there, or not ours to enter, is no identity; a folder that was named must be.
        self.identity.as_deref().or_else(|| default.is_dir().then_some(default))
    }
}

/// File of the roots in an identity folder.
pub const CA_FILE: &str = "ca.pem";
/// File of the certificate chain in an identity folder.
pub const CERTIFICATE_FILE: &str = "cert.pem";
/// File of the private key in an identity folder.
pub const KEY_FILE: &str = "key.pem";

const DEFAULT_SERVER: &str = "https://127.0.0.1:7443";
const DEFAULT_IDENTITY: &str = "./mayfly-data/operator";
/// A diff of 10,000 lines, or a page of 1,000 grants, exceeds tonic's 4 MiB.
const MAX_REPLY_BYTES: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn args(server: &str) -> GlobalArgs {
        GlobalArgs {
            server: server.parse().expect("address"),
            ca: None,
            cert: None,
            key: None,
            identity: None,
            server_name: None,
            output: Format::Table,
            quiet: true,
        }
    }

    fn folder(key_mode: u32) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        for name in [CA_FILE, CERTIFICATE_FILE, KEY_FILE] {
            std::fs::write(folder.path().join(name), name).expect("write");
        }
        let mode = std::fs::Permissions::from_mode(key_mode);
        std::fs::set_permissions(folder.path().join(KEY_FILE), mode).expect("chmod");
        folder
    }

    #[test]
    fn an_identity_folder_gives_roots_certificate_and_key() {
        let folder = folder(0o600);
        let config =
            GlobalArgs { identity: Some(folder.path().into()), ..args(DEFAULT_SERVER) }.config().expect("reads");
        assert_eq!(config.ca_pem, b"ca.pem");
        assert_eq!(config.identity.expect("identity").certificate_pem(), b"cert.pem");
    }

    #[test]
    fn a_readable_key_is_refused_as_usage() {
        let folder = folder(0o644);
        let refused = GlobalArgs { identity: Some(folder.path().into()), ..args(DEFAULT_SERVER) }.config();
        let failure = refused.expect_err("exposed");
        assert_eq!(failure.exit().number(), 2);
        assert!(failure.report().contains("0644"), "{}", failure.report());
    }

    #[test]
    fn tls_without_roots_and_half_an_identity_are_refused() {
        assert!(args(DEFAULT_SERVER).config().is_err());
        let half = GlobalArgs { cert: Some("c".into()), ..args("unix:///run/m.sock") };
        assert!(matches!(half.config(), Err(Failure::Usage(_))));
        assert!(args("unix:///run/m.sock").config().is_ok());
    }
}
