//! A place where a job's steps run: folders of its own, and no holder that outlives it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::process::exec::rig::{Bench, tasks};
use crate::process::{rig::until, world::World};

/// The folders of one job.
pub struct Work {
    pub folder: tempfile::TempDir,
}

impl Work {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        for name in ["private", "temp", "work"] {
            std::fs::create_dir(folder.path().join(name)).expect("made");
        }
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Nothing but this in its environment, and the private folders below ours.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", path_with_mayfly()).env("XDG_RUNTIME_DIR", self.path("private"));
        command.current_dir(self.path("work"));
        command
    }

    /// `mayfly job start` or `finish` as alpha's worker.
    pub fn job(&self, bench: &Bench, verb: &str) -> Command {
        let mut command = self.command("mayfly");
        command.args(["job", verb, "--output", "json", "--identity"]).arg(bench.folder.path());
        command.arg("--server").arg(format!("https://{}", bench.door.address));
        command.arg("--state").arg(self.state());
        command
    }

    pub fn state(&self) -> PathBuf {
        self.path("temp/state.json")
    }

    /// The holder of the state, if one is written down.
    pub fn holder(&self) -> Option<u32> {
        self.holders().into_iter().next()
    }

    /// All that are written down, where they are told to be and where they are by themselves.
    fn holders(&self) -> Vec<u32> {
        let entries = ["temp", "private"].into_iter().filter_map(|name| std::fs::read_dir(self.path(name)).ok());
        let holders = entries.flatten().flatten().filter_map(|entry| {
            let state: Value = serde_json::from_str(&std::fs::read_to_string(entry.path()).ok()?).ok()?;
            u32::try_from(state["holder"]["id"].as_u64()?).ok()
        });
        holders.collect()
    }

    /// All files of the job but for what was there before it.
    pub fn left_behind(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for name in ["private", "temp"] {
            found.extend(std::fs::read_dir(self.path(name)).expect("listed").flatten().map(|entry| entry.path()));
        }
        found
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        for pid in self.holders() {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// The programs of this system, and ours before them.
pub fn path_with_mayfly() -> String {
    let own = Path::new(env!("CARGO_BIN_EXE_mayfly")).parent().expect("a folder").display().to_string();
    format!("{own}:{}", std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".into()))
}

pub fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

pub async fn gone(pid: u32) {
    until("the holder's end", async || (!lives(pid)).then_some(())).await;
}

/// As GitHub's runner reads `GITHUB_ENV` and its like.
pub fn runner_file(text: &str) -> BTreeMap<String, String> {
    let (mut lines, mut found) = (text.lines(), BTreeMap::new());
    while let Some(head) = lines.next() {
        let (name, delimiter) = head.split_once("<<").expect("the delimiter form");
        let value: Vec<&str> = lines.by_ref().take_while(|line| *line != delimiter).collect();
        found.insert(name.to_owned(), value.join("\n"));
    }
    found
}

/// How many of alpha's tasks there are.
pub async fn opened(world: &World) -> usize {
    tasks(world).await.len()
}
