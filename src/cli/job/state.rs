//! What is written down of a job that is held: who holds it, and what has to be gone after it. No secret is in it.

use std::{
    fs::OpenOptions,
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::{control, env_file::EnvFile, runner::Process};
use crate::cli::{
    exec::{
        hand,
        need::{Job, Way},
        place,
    },
    failure::{Failure, Outcome},
    session::{CA_FILE, CERTIFICATE_FILE, KEY_FILE},
};
use crate::pb::CredentialKind;

/// What a job leaves behind when it is killed.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Left {
    /// Empty while it is not open yet.
    pub task_id: String,
    /// Who holds it.
    pub holder: Process,
    /// The private folder, where the holder is asked.
    pub folder: PathBuf,
    files: Vec<PathBuf>,
    env_files: Vec<EnvFile>,
    /// Why the task ended before the job did.
    pub over: Option<String>,
    /// Where this is written down for `finish`.
    #[serde(default)]
    state: PathBuf,
}

/// The holder's own.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    left: Left,
}

impl Left {
    /// For a job that is about to be held by this process.
    ///
    /// # Errors
    /// When the system does not show this process.
    pub fn of(job: &Job, folder: &Path, env_file: Option<EnvFile>) -> Outcome<Self> {
        let mut files = Vec::new();
        for need in &job.needs {
            for path in hand::files(need, None).into_iter().filter(|path| path.is_absolute()) {
                if need.wanted.kind == CredentialKind::X509 {
                    files.extend([CERTIFICATE_FILE, KEY_FILE, CA_FILE].map(|name| path.join(name)));
                }
                files.push(path);
            }
        }
        let env_files = env_file.into_iter().collect();
        let (task_id, holder, folder) = (String::new(), Process::own()?, folder.to_path_buf());
        Ok(Self { task_id, holder, folder, files, env_files, over: None, state: PathBuf::new() })
    }

    /// Takes away all that was written for the job; of what is there no more, nothing.
    pub fn wipe(&self) {
        self.env_files.iter().for_each(EnvFile::wipe);
        for path in &self.files {
            // Of no use any more, where it cannot be removed: the task is over.
            let _ = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir(path));
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl State {
    /// Writes down who holds; what a killed one left at the same path is taken away first.
    ///
    /// # Errors
    /// When a job is held under this path already, or it cannot be written.
    pub fn claim(path: &Path, left: Left) -> Outcome<Self> {
        if let Some(other) = read(path)? {
            if control::answers(&other.folder) {
                let task = other.task_id;
                return Err(Failure::Usage(format!(
                    "{} holds task {task} already: finish that first, or give another --state",
                    path.display()
                )));
            }
            other.wipe();
            remove(path)?;
        }
        let state = Self { path: path.to_path_buf(), left: Left { state: path.to_path_buf(), ..left } };
        let file = state.temporary()?;
        file.persist_noclobber(path).map_err(|error| Failure::file("write", path, error.error))?;
        state.note().inspect_err(|_| state.wipe())?;
        Ok(state)
    }

    /// The task is open.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn opened(&mut self, task_id: &str) -> Outcome {
        task_id.clone_into(&mut self.left.task_id);
        self.write()
    }

    /// One more file of variables is about to be written.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn adds(&mut self, env_file: &EnvFile) -> Outcome {
        self.left.env_files.push(env_file.clone());
        self.write()
    }

    /// The task ended before the job: says so to whoever finishes, when all else is gone.
    pub fn over(&mut self, why: &str) {
        self.left.wipe();
        self.left.over = Some(why.to_owned());
        // Without it there is nothing to finish, which is true as well.
        let _ = self.write();
    }

    /// Takes everything away, this file as well.
    pub fn wipe(&self) {
        self.left.wipe();
        let _ = remove(&self.path);
    }

    fn write(&self) -> Outcome {
        let failed = |error| Failure::file("write", &self.path, error);
        self.temporary()?.persist(&self.path).map_err(|error| failed(error.error))?;
        self.note()
    }

    /// The same beside the secrets, for whoever sweeps the private folder after a kill and does not know of this path.
    fn note(&self) -> Outcome {
        if self.left.over.is_some() {
            // All of it is gone.
            return Ok(());
        }
        let note = self.left.folder.join(NOTE);
        let text = serde_json::to_vec(&self.left).map_err(|error| Failure::Internal(error.to_string()))?;
        place::write(&note, &text).map_err(|error| Failure::file("write", &note, error))
    }

    /// In the same folder, mode 0600 from the beginning.
    fn temporary(&self) -> Outcome<tempfile::NamedTempFile> {
        let failed = |error| Failure::file("write", &self.path, error);
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let text = serde_json::to_vec(&self.left).map_err(|error| Failure::Internal(error.to_string()))?;
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        file.write_all(&text).map_err(failed)?;
        Ok(file)
    }
}

/// Takes away what a holder that was killed left elsewhere than in its private folder, which nobody has locked any more.
pub fn sweep(folder: &Path) {
    // What is not believed, or not there, is left alone: a folder of exec's has no note.
    let Ok(Some(left)) = read(&folder.join(NOTE)) else { return };
    if left.folder != folder || !left.holder.is_gone() {
        return;
    }
    left.wipe();
    // Another job may be held under the same path by now.
    if matches!(read(&left.state), Ok(Some(known)) if known.holder == left.holder) {
        let _ = remove(&left.state);
    }
}

/// What is written down at a path; `None` when nothing is.
///
/// # Errors
/// When it is not this user's own, or cannot be read: it names what is to be removed, so not everyone's word counts.
pub fn read(path: &Path) -> Outcome<Option<Left>> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::file("read", path, error)),
    };
    let about = file.metadata().map_err(|error| Failure::file("read", path, error))?;
    let own = rustix::process::geteuid().as_raw();
    if !about.is_file() || about.uid() != own || about.mode() & 0o077 != 0 {
        let path = path.display();
        return Err(Failure::Usage(format!("{path} is not a file of this user alone (mode 0600): it is not believed")));
    }
    let mut text = String::new();
    file.take(MOST).read_to_string(&mut text).map_err(|error| Failure::file("read", path, error))?;
    let left = serde_json::from_str(&text).map_err(|error| {
        Failure::Usage(format!("{} is no state of a job: {error}; remove it by hand", path.display()))
    })?;
    Ok(Some(left))
}

/// Removes it.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove(path: &Path) -> Outcome {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::file("remove", path, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Where it lies when nobody says so: in the place for private folders, named after the job of the CI system.
#[must_use]
pub fn usual() -> PathBuf {
    let own = rustix::process::geteuid().as_raw().to_string();
    let named = JOB_VARIABLES.iter().filter_map(|name| std::env::var(name).ok());
    let words: Vec<String> = std::iter::once(own).chain(named).map(|word| plain(&word)).collect();
    place::base().join(format!("mayfly-job-{}.json", words.join("-")))
}

fn plain(word: &str) -> String {
    word.chars().filter(char::is_ascii_alphanumeric).take(40).collect()
}

/// Whether a way of handing over outlives the process that is started.
#[must_use]
pub fn survives(way: &Way) -> bool {
    !matches!(way, Way::Fd(_))
}

/// What tells one job from another, where runners share a user.
const JOB_VARIABLES: [&str; 6] =
    ["CI_JOB_ID", "GITHUB_RUN_ID", "GITHUB_JOB", "RUNNER_NAME", "BUILDKITE_JOB_ID", "CIRCLE_WORKFLOW_JOB_ID"];
/// Its copy in the private folder. No file of a job is called so: theirs have no `.` in front.
const NOTE: &str = ".left";
const MOST: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::cli::exec::need::Need;

    fn left(folder: &Path) -> Left {
        let out = folder.join("out");
        let tls = folder.join("tls");
        let needs = [format!("file={}", out.display()), format!("name=tls,kind=x509,file={}", tls.display())];
        let needs = needs.map(|way| Need::parse(&format!("kind=jwt,audience=a,{way}")).expect("well said"));
        let private = folder.join("private");
        std::fs::create_dir_all(&private).expect("made");
        std::fs::create_dir_all(&tls).expect("made");
        for path in [&out, &private.join("token"), &tls.join(KEY_FILE), &tls.join(CA_FILE)] {
            std::fs::write(path, "secret").expect("written");
        }
        Left::of(&Job { needs: needs.into(), ..Job::default() }, &private, None).expect("shown")
    }

    #[test]
    fn what_a_killed_holder_left_is_taken_away_by_the_next_one() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("state");
        let state = State::claim(&path, left(folder.path())).expect("claimed");
        assert_eq!(path.metadata().expect("there").permissions().mode() & 0o777, 0o600);
        let next = Left { folder: folder.path().join("next"), files: Vec::new(), ..state.left };
        std::fs::create_dir(&next.folder).expect("made");
        State::claim(&path, next).expect("claimed").wipe();
        let rest: Vec<_> = std::fs::read_dir(folder.path()).expect("listed").flatten().map(|e| e.path()).collect();
        assert!(rest.is_empty(), "{rest:?}");
    }

    #[test]
    fn whoever_sweeps_the_private_folder_takes_away_all_that_a_dead_holder_wrote_and_nothing_of_a_living_one() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("state");
        let living = left(folder.path());
        let private = living.folder.clone();
        let state = State::claim(&path, living).expect("claimed");
        sweep(&private);
        assert!(path.exists() && private.exists() && folder.path().join("out").exists());
        // A process that has ended, in the holder's place.
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("starts");
        let holder = Process::of(i32::try_from(child.id()).expect("an id"));
        child.kill().and_then(|()| child.wait()).expect("gone");
        let holder = holder.expect("it lived");
        let dead = State { left: Left { holder, ..state.left }, ..state };
        dead.note().expect("written");
        sweep(&private);
        // The state is another's by now.
        assert!(path.exists() && !private.exists() && !folder.path().join("out").exists());
        std::fs::create_dir_all(&private).expect("made");
        dead.write().expect("written");
        sweep(&private);
        let rest: Vec<_> = std::fs::read_dir(folder.path()).expect("listed").flatten().map(|e| e.path()).collect();
        assert!(rest.is_empty(), "{rest:?}");
    }

    #[test]
    fn a_state_that_others_could_have_written_is_not_believed() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("state");
        let state = State::claim(&path, left(folder.path())).expect("claimed");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("changed");
        assert!(matches!(read(&path), Err(Failure::Usage(_))));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("changed");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("linked");
        assert!(read(&link).is_err() && read(&path).expect("reads").is_some());
        std::fs::write(&path, "{}").expect("written");
        assert!(matches!(read(&path), Err(Failure::Usage(_))));
        state.wipe();
        assert!(read(&path).expect("nothing").is_none());
    }
}
