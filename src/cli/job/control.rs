//! How a holder is asked: one question and one answer in JSON over a socket in its private folder.

use std::{io, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    time::timeout,
};
use zeroize::Zeroizing;

use super::{env_file::EnvFile, runner::Process};

/// What is asked.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Ask {
    /// End the task and take everything away.
    Finish,
    /// The secrets that are renewed, as they are now: what files and the endpoint give as well.
    Secrets,
    /// The job ends and its task does not: hold it for the next one.
    HandOn {
        /// For so long, if nobody takes it over.
        seconds: u32,
    },
    /// A task that was handed on is this job's from now on.
    TakeOver {
        /// What it ends with.
        runner: Option<Process>,
        /// Where to say what it finds where.
        env_file: Option<EnvFile>,
    },
}

/// What is answered.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Answer {
    /// Why not.
    pub error: Option<String>,
    /// Whether the broker ended the task now; false when it had ended before.
    pub ended_now: bool,
    /// Of `Secrets` and `TakeOver`.
    pub secrets: Vec<Zeroizing<String>>,
    /// Of `TakeOver`.
    pub started: Option<Started>,
}

/// What is told about a job that is held. Nothing of it is secret.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Started {
    /// The task's id, 24 hex digits.
    pub task_id: String,
    /// The private folder.
    pub directory: String,
    /// The socket that always has a fresh credential; empty when none was asked for.
    pub endpoint: String,
    /// When the task ends by itself, RFC 3339.
    pub deadline: String,
}

/// The holder's side.
#[derive(Debug)]
pub struct Control(UnixListener);

impl Control {
    /// Listens in a private folder.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join(SOCKET);
        let listener = UnixListener::bind(&path)?;
        // The folder is closed to others as it is.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self(listener))
    }

    /// The next question of a process of this user, with the stream that waits for its answer.
    pub async fn asked(&self) -> (Ask, UnixStream) {
        loop {
            let Ok((mut stream, _)) = self.0.accept().await else {
                // Out of descriptors, most likely.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let own = rustix::process::geteuid().as_raw();
            if !stream.peer_cred().is_ok_and(|peer| peer.uid() == own) {
                continue;
            }
            // Whoever is slow is not waited for: others may want the end.
            let Ok(Ok(line)) = timeout(HURRY, line(&mut stream)).await else { continue };
            if let Ok(ask) = serde_json::from_slice(&line) {
                return (ask, stream);
            }
        }
    }
}

/// Answers, if anybody still listens.
pub async fn answer(mut stream: UnixStream, answer: &Answer) {
    let text = Zeroizing::new(serde_json::to_vec(answer).unwrap_or_default());
    let said = async {
        stream.write_all(&text).await?;
        stream.write_all(b"\n").await?;
        stream.shutdown().await
    };
    // Whoever asked may have gone; what was asked for is done.
    let _ = timeout(HURRY, said).await;
}

/// Asks the holder in a folder.
///
/// # Errors
/// When there is none, or it does not answer before `patience` ends.
pub async fn ask(folder: &Path, ask: &Ask, patience: Duration) -> io::Result<Answer> {
    let asked = async {
        let mut stream = UnixStream::connect(folder.join(SOCKET)).await?;
        let mut text = serde_json::to_vec(ask)?;
        text.push(b'\n');
        stream.write_all(&text).await?;
        let line = line(&mut stream).await?;
        Ok(serde_json::from_slice(&line)?)
    };
    timeout(patience, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Whether somebody listens there.
#[must_use]
pub fn answers(folder: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(folder.join(SOCKET)).is_ok()
}

/// One line, without its end.
///
/// # Errors
/// When the stream breaks or ends before, or the line is too long.
pub async fn line(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut text = Zeroizing::new(Vec::with_capacity(64 * 1024));
    loop {
        if let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            text.truncate(end);
            return Ok(text);
        }
        if text.len() >= MOST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if stream.read_buf(&mut *text).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Its name in the private folder. No file of a job is called so: theirs have no `.` in front.
const SOCKET: &str = ".control";
/// 64 credentials of 16 KiB.
const MOST: usize = 1024 * 1024;
const HURRY: Duration = Duration::from_secs(1);
