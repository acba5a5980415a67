//! One daemon process, and what it says.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tonic::Status;
use tonic_types::StatusExt;

/// A daemon that serves.
pub struct Process {
    pub address: SocketAddr,
    pub metrics: SocketAddr,
    child: Child,
    log: PathBuf,
}

/// How to start one.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Holds `data` and the log.
    pub folder: PathBuf,
    /// More arguments of `serve`.
    pub arguments: Vec<String>,
    /// A configuration to use instead of the development one.
    pub config: Option<PathBuf>,
    /// Another copy of the program than the one under test.
    pub program: Option<PathBuf>,
}

/// A daemon that did not start.
#[derive(Debug)]
pub struct NotStarted {
    pub status: ExitStatus,
    pub stderr: String,
}

impl Launch {
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Starts it and ends it as a crash would, `after` so much time, ready or not.
    pub fn start_and_kill(&self, after: Duration) {
        let (mut child, _) = self.spawn();
        std::thread::sleep(after);
        child.kill().expect("a process of ours");
        child.wait().expect("gone");
    }

    fn spawn(&self) -> (Child, PathBuf) {
        let log = self.folder.join(format!("daemon-{}.log", unique()));
        // Another build can be looked at with the same tests.
        let usual =
            || std::env::var_os("MAYFLY_PROGRAM").map_or_else(|| env!("CARGO_BIN_EXE_mayfly").into(), PathBuf::from);
        let mut command = Command::new(self.program.clone().unwrap_or_else(usual));
        match &self.config {
            Some(file) => command.args(["serve", "--config"]).arg(file),
            None => command.args(["serve", "--dev", "--port", "0", "--data"]).arg(self.data()).args(&self.arguments),
        };
        let errors = File::create(&log).expect("log");
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        (command.spawn().expect("the program starts"), log)
    }

    /// Starts it and waits until it is ready or gone.
    pub fn start(&self) -> Result<Process, NotStarted> {
        let (mut child, log) = self.spawn();
        let output = child.stdout.take().expect("stdout");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let (mut address, mut metrics) = (None, None);
        let deadline = Instant::now() + START_LIMIT;
        while address.is_none() || metrics.is_none() {
            let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) else {
                let _ = child.kill();
                let status = child.wait().expect("gone");
                return Err(NotStarted { status, stderr: read(&log) });
            };
            let place = |prefix: &str| line.strip_prefix(prefix).map(|rest| rest.trim_end_matches('/').to_owned());
            if let Some(found) = place("ready https://") {
                address = Some(found.parse().expect("an address"));
            }
            if let Some(found) = place("metrics http://") {
                metrics = Some(found.parse().expect("an address"));
            }
        }
        let (address, metrics) = (address.expect("said"), metrics.expect("said"));
        Ok(Process { address, metrics, child, log })
    }
}

impl Process {
    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.child.kill().expect("a process of ours");
        self.child.wait().expect("gone");
    }

    /// Asks it to stop, and waits for it.
    pub fn stop(&mut self) -> ExitStatus {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id")).expect("not zero");
        kill_process(pid, Signal::TERM).expect("a process of ours");
        self.child.wait().expect("gone")
    }

    /// Runs a command of the CLI against it, as the holder of an identity folder.
    pub fn ask(&self, identity: &Path, arguments: &[&str]) -> Said {
        let server = format!("https://{}", self.address);
        mayfly(&[&["--server", &server, "--identity", arg(identity)], arguments].concat())
    }

    /// The file that it runs from.
    pub fn program(&self) -> PathBuf {
        std::fs::read_link(format!("/proc/{}/exe", self.child.id())).expect("a running process")
    }

    /// Its resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = read(Path::new(&format!("/proc/{}/status", self.child.id())));
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a running process");
        line.split_whitespace().next().and_then(|text| text.parse().ok()).expect("a number")
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        read(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("the end of the daemon's log:\n{}", lines[lines.len().saturating_sub(15)..].join("\n"));
        }
    }
}

/// What a command of the CLI came to.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub errors: String,
}

/// Runs one command of the CLI to its end.
pub fn mayfly(arguments: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mayfly"));
    let done = command.args(arguments).stdin(Stdio::null()).output().expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: done.status.code().unwrap_or(-1), out: text(&done.stdout), errors: text(&done.stderr) }
}

/// A path as an argument.
pub fn arg(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// What a refusal says: its code, its words and its stable reason.
pub fn told(status: &Status) -> (tonic::Code, String, String) {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
    (status.code(), status.message().to_owned(), reason)
}

/// The refusal in an answer that may hold a credential, which has no `Debug`.
pub fn refused<T>(answer: Result<T, Status>, what: &str) -> Status {
    match answer {
        Ok(_) => panic!("not refused: {what}"),
        Err(status) => status,
    }
}

/// The stable reason of a refusal; empty when it was none.
pub fn reason<T>(result: &Result<T, Status>) -> String {
    result.as_ref().err().map(|status| told(status).2).unwrap_or_default()
}

/// Asks again until the answer is there; panics with `what` when it never comes.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + WAIT_LIMIT;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One GET over an open stream: the status line with the headers, and the body.
pub async fn get(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut reply = Vec::new();
    // A peer that closes without saying so in TLS ends the reply all the same.
    let _ = stream.read_to_end(&mut reply).await;
    let reply = String::from_utf8_lossy(&reply).into_owned();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap_or((&reply, ""));
    (head.to_ascii_lowercase(), body.to_owned())
}

/// One GET of the metrics port.
pub async fn get_plain(address: SocketAddr, path: &str) -> (String, String) {
    get(tokio::net::TcpStream::connect(address).await.expect("connects"), path).await
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

const START_LIMIT: Duration = Duration::from_secs(60);
const WAIT_LIMIT: Duration = Duration::from_secs(45);
