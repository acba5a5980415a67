//! A development daemon as a child process, ended on every way out.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

use super::{Authority, Fallible, Identity, certificates};

/// How to start a daemon.
#[derive(Clone, Default)]
pub struct Launch {
    /// The store engine; the daemon's default without one.
    pub engine: Option<String>,
    /// Lift rate limits and quotas.
    pub unlimited: bool,
}

/// A running daemon with a temporary data folder. Dropping it kills the process and removes the folder.
pub struct Daemon {
    pub address: SocketAddr,
    child: Child,
    launch: Launch,
    authority: String,
    folder: TempDir,
}

// === impl Daemon ===

impl Daemon {
    /// Starts a daemon that believes `authority`, and waits until it serves.
    pub fn start(launch: Launch, authority: &Authority) -> Fallible<Self> {
        let folder = tempfile::Builder::new().prefix("mayfly-example-").tempdir()?;
        let file = folder.path().join("authority.pem");
        std::fs::write(&file, &authority.pem)?;
        let authority = format!("{}={}", authority.name, file.display());
        let (child, address) = spawn(folder.path(), &launch, &authority)?;
        Ok(Self { address, child, launch, authority, folder })
    }

    /// Kills the process as a crash would (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) -> Fallible<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts a new process on the same data folder, after [`Daemon::kill`]. The port is a new one.
    pub fn start_again(&mut self) -> Fallible<()> {
        (self.child, self.address) = spawn(self.folder.path(), &self.launch, &self.authority)?;
        Ok(())
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The roots that its server certificate stands on.
    pub fn roots(&self) -> Fallible<Vec<CertificateDer<'static>>> {
        certificates(&self.data().join("ca.pem"))
    }

    /// The first operator, `admin`.
    pub fn operator(&self) -> Fallible<Identity> {
        Identity::read(&self.data().join("operator"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only when the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A child that is killed unless the start succeeds.
struct Starting(Option<Child>);

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn spawn(folder: &Path, launch: &Launch, authority: &str) -> Fallible<(Child, SocketAddr)> {
    let log = folder.join("daemon.log");
    let mut command = Command::new(binary()?);
    command.args(["serve", "--dev", "--port", "0", "--data"]).arg(folder.join("data")).args(["--client-ca", authority]);
    if let Some(engine) = &launch.engine {
        command.args(["--engine", engine]);
    }
    if launch.unlimited {
        command.arg("--unlimited");
    }
    let errors = File::options().create(true).append(true).open(&log)?;
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).spawn()?;
    let mut starting = Starting(Some(child));
    let output = starting.0.as_mut().and_then(|child| child.stdout.take()).ok_or("the daemon has no output")?;
    let (sender, lines) = mpsc::channel();
    // Reads to the end, so that the daemon never meets a full or broken pipe.
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    while let Ok(line) = lines.recv_timeout(START_LIMIT) {
        if let Some(address) = line.strip_prefix("ready https://") {
            let address = address.trim_end_matches('/').parse()?;
            return starting.0.take().map(|child| (child, address)).ok_or_else(|| "the daemon is gone".into());
        }
    }
    let log = std::fs::read_to_string(&log).unwrap_or_default();
    let tail = log.lines().rev().take(20).collect::<Vec<_>>();
    let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
    Err(format!("the daemon did not get ready; the end of its log:\n{tail}").into())
}

/// Finds the daemon's binary in the folder above the example's own.
pub fn binary() -> Fallible<PathBuf> {
    let example = std::env::current_exe()?;
    let folder = example.parent().and_then(Path::parent).ok_or("the example has no folder")?;
    let binary = folder.join("mayfly");
    if binary.is_file() {
        return Ok(binary);
    }
    let release = if folder.ends_with("release") { " --release" } else { "" };
    Err(format!("there is no daemon at {}: run `cargo build{release} --bin mayfly` first", binary.display()).into())
}

const START_LIMIT: Duration = Duration::from_secs(60);
