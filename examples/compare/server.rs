//! An OpenBao as a child process, ended on every way out.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;

use crate::Options;
use crate::connection::{Call, Connection, Target};
use crate::support::{Fallible, certificates};
use crate::usage::{Usage, disk_bytes};

/// A running single node. Dropping it kills the process and removes the folder.
pub struct Server {
    pub target: Target,
    /// The first token, which may do everything.
    pub root: String,
    child: Child,
    binary: PathBuf,
    folder: TempDir,
}

#[derive(Deserialize)]
struct Initialized {
    root_token: String,
}

// === impl Server ===

impl Server {
    /// Starts a server on a fresh folder, initializes it and waits until it leads and is unsealed.
    pub async fn start(options: &Options) -> Fallible<Self> {
        let folder = tempfile::Builder::new().prefix("mayfly-compare-").tempdir()?;
        let (address, cluster) = (free_address()?, free_address()?);
        configure(folder.path(), address, cluster)?;
        let roots = certificates(&folder.path().join("cert.pem"))?;
        let child = spawn(&options.bao, folder.path())?;
        let target = Target { address, roots, http2: options.http2 };
        let mut server = Self { target, root: String::new(), child, binary: options.bao.clone(), folder };
        let connection = server.connected().await?;
        let keys = json!({ "recovery_shares": 1, "recovery_threshold": 1 });
        server.root = connection.must::<Initialized>(&Call::post("sys/init", "", &keys)).await?.root_token;
        server.ready().await?;
        Ok(server)
    }

    /// Kills the process as a crash would (SIGKILL), and starts a new one on the same data folder.
    pub fn crash(&mut self) -> Fallible<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.child = spawn(&self.binary, self.folder.path())?;
        Ok(())
    }

    /// Resident memory of the process, and disk blocks of its store and its audit log together.
    pub fn usage(&self) -> Fallible<Usage> {
        Usage::of(self.child.id(), &self.folder.path().join("data"))
    }

    /// Disk blocks of the audit log alone, in bytes.
    pub fn audit_bytes(&self) -> Fallible<u64> {
        disk_bytes(&self.folder.path().join("data/audit"))
    }

    /// Waits until the server takes connections.
    async fn connected(&mut self) -> Fallible<Connection> {
        let started = Instant::now();
        loop {
            match self.target.dial().await {
                Ok(connection) => return Ok(connection),
                Err(error) => self.patience(started, &error.to_string()).await?,
            }
        }
    }

    /// Waits until the server is initialized, unsealed and active.
    async fn ready(&mut self) -> Fallible<()> {
        let (started, connection) = (Instant::now(), self.connected().await?);
        loop {
            let status = connection.call(&Call::get("sys/health", "")).await?.status;
            if status.is_success() {
                return Ok(());
            }
            self.patience(started, &format!("health is {status}")).await?;
        }
    }

    /// Pauses, unless the server is gone or took too long.
    async fn patience(&mut self, started: Instant, why: &str) -> Fallible<()> {
        if started.elapsed() > START_LIMIT || self.child.try_wait()?.is_some() {
            let log = std::fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default();
            let tail = log.lines().rev().take(20).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n");
            return Err(format!("OpenBao did not get ready: {why}; the end of its log:\n{tail}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(binary: &Path, folder: &Path) -> Fallible<Child> {
    let errors = File::options().create(true).append(true).open(folder.join("server.log"))?;
    let mut command = Command::new(binary);
    command.arg("server").arg("-config").arg(folder.join("config.hcl"));
    // Nothing of the caller's environment may point the server elsewhere.
    command.env_clear().env("HOME", folder).stdin(Stdio::null()).stdout(errors.try_clone()?).stderr(errors);
    command.spawn().map_err(|error| format!("{}: {error}", binary.display()).into())
}

/// Writes a configuration, a server certificate and a seal key. What is not set is the server's default.
fn configure(folder: &Path, address: SocketAddr, cluster: SocketAddr) -> Fallible<()> {
    let certified = rcgen::generate_simple_self_signed(vec![address.ip().to_string()])?;
    std::fs::write(folder.join("cert.pem"), certified.cert.pem())?;
    std::fs::write(folder.join("key.pem"), certified.signing_key.serialize_pem())?;
    let mut seal = [0_u8; 32];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut seal).map_err(|_| "no entropy")?;
    std::fs::write(folder.join("seal.key"), seal)?;
    std::fs::create_dir_all(folder.join("data/raft"))?;
    std::fs::create_dir_all(folder.join("data/audit"))?;
    let at = folder.to_str().ok_or("the temporary folder's name is not UTF-8")?;
    let text = format!(
        r#"
api_addr = "https://{address}"
cluster_addr = "https://{cluster}"
# The default of 90 s would break off the revocation of many leases.
default_max_request_duration = "3600s"
storage "raft" {{
  path = "{at}/data/raft"
  node_id = "one"
  # As advised for production; the default of 5 only waits longer for other nodes at a start.
  performance_multiplier = 1
}}
listener "tcp" {{
  address = "{address}"
  cluster_address = "{cluster}"
  tls_cert_file = "{at}/cert.pem"
  tls_key_file = "{at}/key.pem"
  tls_min_version = "tls13"
}}
# Unseals itself from a key file, as Mayfly does.
seal "static" {{
  current_key_id = "one"
  current_key = "file://{at}/seal.key"
}}
audit "file" "file" {{
  options {{
    file_path = "{at}/data/audit/audit.log"
  }}
}}
"#
    );
    std::fs::write(folder.join("config.hcl"), text)?;
    Ok(())
}

fn free_address() -> Fallible<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

const START_LIMIT: Duration = Duration::from_secs(60);
