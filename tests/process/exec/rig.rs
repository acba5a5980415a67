//! Execs under test: a door to the broker that can be shut, an identity in files, a run whose output can be waited for.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use mayfly::{client::pem, pb};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use crate::process::{
    rig::{Said, until},
    world::{World, audience},
};

/// A port that stays the same while the broker behind it comes and goes.
pub struct Door {
    pub address: SocketAddr,
    to: Arc<Mutex<Option<SocketAddr>>>,
}

impl Door {
    pub async fn to(world: &World) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let to = Arc::new(Mutex::new(Some(world.process.address)));
        let target = Arc::clone(&to);
        tokio::spawn(async move {
            while let Ok((mut inside, _)) = listener.accept().await {
                let to = *target.lock().expect("unpoisoned");
                tokio::spawn(async move {
                    let Some(to) = to else { return };
                    let Ok(mut outside) = TcpStream::connect(to).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
                });
            }
        });
        Self { address, to }
    }

    pub fn shut(&self) {
        *self.to.lock().expect("unpoisoned") = None;
    }

    pub fn open(&self, world: &World) {
        *self.to.lock().expect("unpoisoned") = Some(world.process.address);
    }
}

/// Where alpha's worker runs.
pub struct Bench {
    pub folder: TempDir,
    pub door: Door,
}

/// One exec under way, in a process group of its own that goes with it: no command outlives a test that failed.
pub struct Run {
    child: Child,
    lines: mpsc::Receiver<String>,
    errors: Option<std::thread::JoinHandle<String>>,
}

impl Bench {
    pub async fn new(world: &World) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let identity = world.identity("alpha/worker");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        };
        write("cert.pem", &pem::encode_chain(&identity.chain));
        write("key.pem", &pem::encode(pem::PRIVATE_KEY, identity.key.secret_der()));
        write("ca.pem", &pem::encode_chain(&world.roots()));
        Self { folder, door: Door::to(world).await }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An exec as alpha's worker, without purpose, credentials and command.
    pub fn bare(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mayfly"));
        command.current_dir(self.folder.path()).args(["exec", "--identity"]).arg(self.folder.path());
        command.arg("--server").arg(format!("https://{}", self.door.address));
        command.env_remove("XDG_RUNTIME_DIR");
        command
    }

    /// An exec that the grant covers, with these credentials.
    pub fn exec(&self, credentials: &[&str], more: &[&str], script: &str) -> Command {
        let mut command = self.bare();
        command.args(["--tenant", "alpha", "--partner", "courier", "--purpose", "report"]);
        for credential in credentials {
            let audience = audience("alpha");
            command.arg("--credential").arg(format!("audience={audience},action=read,{credential}"));
        }
        command.args(more).args(["--", "sh", "-c", script]);
        command
    }
}

impl Run {
    pub fn start(mut command: Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::of(command.process_group(0).spawn().expect("the program starts"))
    }

    /// One whose keys are ours to press.
    pub fn with_keys(mut command: Command) -> (Self, ChildStdin) {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.process_group(0).spawn().expect("the program starts");
        let keys = child.stdin.take().expect("stdin");
        (Self::of(child), keys)
    }

    fn of(mut child: Child) -> Self {
        let (sender, lines) = mpsc::channel();
        let output = child.stdout.take().expect("stdout");
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut errors = child.stderr.take().expect("stderr");
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = errors.read_to_string(&mut text);
            text
        });
        Self { child, lines, errors: Some(errors) }
    }

    /// The next line of its output.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line of output")
    }

    /// The same; `None` at its end.
    pub fn next(&self) -> Option<String> {
        self.lines.recv_timeout(PATIENCE).ok()
    }

    /// What it said on its errors, when it is ended with all that it started.
    pub fn kill_and_errors(mut self) -> String {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        let _ = kill_process_group(group, Signal::KILL);
        self.errors.take().expect("asked once").join().expect("read")
    }

    /// The output up to a line.
    pub fn until(&self, wanted: &str) {
        while self.line() != wanted {}
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        signal_to(self.pid(), signal);
    }

    /// Its end, and what it said since the last line that was read.
    pub fn end(mut self) -> Said {
        let code = self.child.wait().expect("ends").code().unwrap_or(-1);
        let errors = self.errors.take().expect("asked once").join().expect("read");
        let out: Vec<String> = self.lines.iter().collect();
        Said { code, out: out.join("\n"), errors }
    }

    /// As a crash would; what it started goes on as long as this is there.
    pub fn kill(&mut self) {
        self.child.kill().expect("a process of ours");
        self.child.wait().expect("gone");
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        // A terminal's session is another group; it is hung up when its master goes.
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

pub fn signal_to(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process id")).expect("not zero");
    kill_process(pid, signal).expect("a process of ours");
}

/// Runs one to its end.
pub fn run(command: Command) -> Said {
    Run::start(command).end()
}

/// All tasks of alpha.
pub async fn tasks(world: &World) -> Vec<pb::Task> {
    let page = Some(pb::Page { size: 1000, ..Default::default() });
    let request = pb::ListTasksRequest { tenant: "alpha".into(), page, ..Default::default() };
    world.admin().await.list_tasks(request).await.expect("listed").into_inner().tasks
}

/// Waits until the broker knows of so many holds that stand.
pub async fn holds(world: &World, count: usize) {
    let line = format!("mayfly_holds {count}");
    let stand = async || {
        let metrics = crate::process::rig::get_plain(world.process.metrics, "/metrics").await.1;
        metrics.lines().any(|found| found == line).then_some(())
    };
    until(&line, stand).await;
}

/// Waits until none of alpha's tasks lives, and says how they ended.
pub async fn all_over(world: &World) -> Vec<pb::EndReason> {
    let over = async || {
        let tasks = tasks(world).await;
        let is_over = tasks.iter().all(|task| task.standing() == pb::Standing::Ended);
        is_over.then(|| tasks.iter().map(pb::Task::end_reason).collect())
    };
    until("the end of all tasks", over).await
}

/// Waits until a file is there with something in it.
pub async fn content(path: &Path) -> String {
    until("a file", async || std::fs::read_to_string(path).ok().filter(|text| !text.is_empty())).await
}

const PATIENCE: Duration = Duration::from_secs(40);
