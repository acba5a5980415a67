//! Files from which a CI system takes variables for the steps that follow, and the lines that have it mask secrets.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use rustix::{fs::OFlags, io::Errno};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    cli::{
        exec::{hand::Variables, place},
        failure::{Failure, Outcome},
    },
    client::random,
};

/// How variables are written.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
pub enum EnvFormat {
    /// As GitHub's runner reads `GITHUB_ENV`: a name, a delimiter, the value, the delimiter.
    Github,
    /// Lines for a shell to read: `export NAME='VALUE'`.
    Sh,
}

/// One such file.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct EnvFile {
    path: PathBuf,
    format: EnvFormat,
    /// Whether it is ours alone: it was not there before.
    is_new: bool,
    /// Whether the runner named it: then it may be another user's, as for a job in a container.
    #[serde(default)]
    is_runners: bool,
    /// Stands in no value, so that what we wrote can be told from all else.
    marker: String,
}

impl EnvFile {
    /// A file that is to be written. The format is GitHub's for the file that its runner named, the shell's for any other.
    #[must_use]
    pub fn new(path: &Path, format: Option<EnvFormat>) -> Self {
        let is_runners = std::env::var_os("GITHUB_ENV").is_some_and(|named| named == path.as_os_str());
        let format = format.unwrap_or(if is_runners { EnvFormat::Github } else { EnvFormat::Sh });
        let marker = format!("mayfly-{:016x}{:016x}", random(), random());
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        Self { is_new: path.symlink_metadata().is_err(), is_runners, path, format, marker }
    }

    /// Appends variables.
    ///
    /// # Errors
    /// When a name is one that the platform keeps for itself, when others may have made the file or may change it, or
    /// when it cannot be written.
    pub fn write(&self, variables: &Variables) -> Outcome {
        let text = self.render(variables)?;
        let (mut file, about) = self.open("write", OpenOptions::new().append(true).create(true).mode(0o600))?;
        if !self.is_runners && about.mode() & 0o022 != 0 {
            return Err(self.unfit("others can write to it; run chmod go-w on it"));
        }
        file.write_all(text.as_bytes()).map_err(|error| Failure::file("write", &self.path, error))
    }

    /// Takes away what was written: the file when it is ours, else our part of it. What a runner took in stays with it.
    pub fn wipe(&self) {
        // What cannot be removed is of no use any more: its task is over.
        if self.is_new {
            // No link is ours: nothing was written through one.
            if self.path.symlink_metadata().is_ok_and(|about| self.is_fit(&about)) {
                let _ = std::fs::remove_file(&self.path);
            }
        } else if let Ok((mut file, _)) = self.open("read", OpenOptions::new().read(true)) {
            let mut text = Zeroizing::new(String::new());
            if file.read_to_string(&mut text).is_ok()
                && let Some(rest) = self.without(&text)
            {
                let _ = place::write(&self.path, rest.as_bytes());
            }
        }
    }

    /// Opens it as what it has to be, never through a link, and without waiting for who reads a pipe.
    fn open(&self, verb: &str, options: &mut OpenOptions) -> Outcome<(File, Metadata)> {
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
        let file = match options.custom_flags(flags).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
                return Err(self.unfit("it is a link; name the file itself"));
            }
            Err(error) => return Err(Failure::file(verb, &self.path, error)),
        };
        let about = file.metadata().map_err(|error| Failure::file(verb, &self.path, error))?;
        if self.is_fit(&about) {
            Ok((file, about))
        } else {
            Err(self.unfit("it is no regular file of this user; name another one, or remove it"))
        }
    }

    /// Whether it is a file, and this user's own unless it is the runner's.
    fn is_fit(&self, about: &Metadata) -> bool {
        about.is_file() && (self.is_runners || about.uid() == rustix::process::geteuid().as_raw())
    }

    fn unfit(&self, why: &str) -> Failure {
        Failure::Usage(format!("--env-file {} takes no secrets: {why}", self.path.display()))
    }

    fn render(&self, variables: &Variables) -> Outcome<Zeroizing<String>> {
        let marker = &self.marker;
        let mut text = Zeroizing::new(String::new());
        for (name, value) in variables {
            if value.contains(marker.as_str()) {
                return Err(Failure::Internal(format!("the value of {name} holds the file's marker; try again")));
            }
            if self.format == EnvFormat::Github && is_kept(name) {
                return Err(Failure::Usage(format!("GitHub keeps the variable {name} for itself; choose another env")));
            }
            match self.format {
                EnvFormat::Github => *text += &format!("{name}<<{marker}\n{}\n{marker}\n", value.as_str()),
                EnvFormat::Sh => *text += &format!("export {name}='{}'\n", value.replace('\'', r"'\''")),
            }
        }
        if self.format == EnvFormat::Sh {
            *text = format!("# {marker} begin\n{}# {marker} end\n", text.as_str());
        }
        Ok(text)
    }

    /// A file without our part, which is in one piece; `None` when that is not in it.
    fn without(&self, text: &str) -> Option<Zeroizing<String>> {
        let marker = &self.marker;
        let (first, last) = match self.format {
            EnvFormat::Github => (format!("<<{marker}\n"), format!("\n{marker}\n")),
            EnvFormat::Sh => (format!("# {marker} begin\n"), format!("# {marker} end\n")),
        };
        // Of GitHub's form the name stands before the first delimiter, on its line.
        let (front, back) = (text.split_once(&first)?.0, text.rsplit_once(&last)?.1);
        let begin = front.rfind('\n').map_or(0, |end| end + 1);
        Some(Zeroizing::new(format!("{}{back}", front.get(..begin)?)))
    }
}

/// The lines that make GitHub's runner mask a secret. It compares line by line, and makes base64 and the like of it
/// itself.
#[must_use]
pub fn masks(secret: &str) -> Vec<Zeroizing<String>> {
    let lines = secret.lines().filter(|line| !line.starts_with("-----"));
    let signature = secret.rsplit_once('.').filter(|(front, _)| front.contains('.')).map(|(_, signature)| signature);
    let all = lines.chain(signature).filter(|text| text.trim().len() >= LEAST);
    all.map(|text| Zeroizing::new(format!("::add-mask::{}", escaped(text)))).collect()
}

/// As the data of a workflow command has to be.
fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// What the runner refuses, ignores, or reads itself.
fn is_kept(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let kept = ["GITHUB_", "RUNNER_", "ACTIONS_"].iter().any(|prefix| name.starts_with(prefix));
    kept || matches!(name.as_str(), "NODE_OPTIONS" | "CI")
}

/// Anything shorter would mask ordinary words.
const LEAST: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &Path, format: EnvFormat) -> EnvFile {
        EnvFile::new(path, Some(format))
    }

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), Zeroizing::new((*value).to_owned()))).collect()
    }

    #[test]
    fn no_value_of_a_github_file_begins_another_variable() {
        let folder = tempfile::tempdir().expect("folder");
        let file = file(&folder.path().join("env"), EnvFormat::Github);
        let hostile = "a\nPATH<<x\n/evil\nx\nEOF\nNODE_OPTIONS=--require=/evil";
        file.write(&variables(&[("KEY", hostile), ("T", "t")])).expect("written");
        let text = std::fs::read_to_string(folder.path().join("env")).expect("reads");
        // As the runner does: up to a line that is the delimiter.
        let (mut lines, mut found) = (text.lines(), Vec::new());
        while let Some(head) = lines.next() {
            let (name, delimiter) = head.split_once("<<").expect("the delimiter form");
            let value: Vec<&str> = lines.by_ref().take_while(|line| *line != delimiter).collect();
            found.push((name.to_owned(), value.join("\n")));
        }
        assert_eq!(found, [("KEY".to_owned(), hostile.to_owned()), ("T".to_owned(), "t".to_owned())]);
        assert!(file.write(&variables(&[("T", &format!("x\n{}\n", file.marker))])).is_err());
        for kept in ["GITHUB_TOKEN", "RUNNER_TEMP", "NODE_OPTIONS", "actions_x"] {
            assert!(file.write(&variables(&[(kept, "x")])).is_err(), "{kept}");
        }
    }

    #[test]
    fn a_shell_reads_what_was_written_and_nothing_of_it_stays() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("bash_env");
        std::fs::write(&path, "export OTHER=1\n").expect("written");
        let file = file(&path, EnvFormat::Sh);
        let hostile = "it's $(touch evil) `touch evil` \\ \"\nsecond line";
        file.write(&variables(&[("T", hostile)])).expect("written");
        let script = format!(". '{}'; printf %s \"$OTHER:$T\"", path.display());
        let done = std::process::Command::new("sh").args(["-c", &script]).current_dir(folder.path()).output();
        let done = done.expect("a shell");
        assert_eq!(String::from_utf8_lossy(&done.stdout), format!("1:{hostile}"));
        assert!(!folder.path().join("evil").exists());
        file.wipe();
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), "export OTHER=1\n");
    }

    #[test]
    fn what_a_runner_has_not_read_yet_is_taken_out_of_its_file() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("env");
        std::fs::write(&path, "A<<x\n1\nx\n").expect("written");
        let file = file(&path, EnvFormat::Github);
        file.write(&variables(&[("T", "t\n"), ("U", "u")])).expect("written");
        std::fs::write(&path, std::fs::read_to_string(&path).expect("reads") + "B=2\n").expect("written");
        file.wipe();
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), "A<<x\n1\nx\nB=2\n");
        file.wipe();
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), "A<<x\n1\nx\nB=2\n");
    }

    #[test]
    fn nothing_is_written_through_a_link_nor_where_others_write() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().expect("folder");
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        symlink(&target, &link).expect("linked");
        let through = file(&link, EnvFormat::Sh);
        assert!(!through.is_new, "a link that leads nowhere is there all the same");
        assert!(matches!(through.write(&variables(&[("T", "t")])), Err(Failure::Usage(_))));
        assert!(!target.exists());
        through.wipe();
        assert!(link.symlink_metadata().is_ok(), "what is not ours stays");
        // Linked after it was looked at.
        let late = file(&folder.path().join("late"), EnvFormat::Sh);
        std::fs::write(&target, "A=1\n").expect("written");
        symlink(&target, folder.path().join("late")).expect("linked");
        assert!(matches!(late.write(&variables(&[("T", "t")])), Err(Failure::Usage(_))));
        late.wipe();
        assert_eq!(std::fs::read_to_string(&target).expect("reads"), "A=1\n");
        // Others could change what the next steps read.
        let open = file(&target, EnvFormat::Sh);
        for (mode, is_taken) in [(0o666, false), (0o620, false), (0o644, true)] {
            std::fs::set_permissions(&target, std::fs::Permissions::from_mode(mode)).expect("changed");
            assert_eq!(open.write(&variables(&[("T", "t")])).is_ok(), is_taken, "{mode:o}");
        }
        // A folder is no file.
        assert!(file(folder.path(), EnvFormat::Sh).write(&variables(&[("T", "t")])).is_err());
    }

    #[test]
    fn a_file_of_ours_goes_whole() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("env");
        let file = file(&path, EnvFormat::Sh);
        file.write(&variables(&[("T", "t")])).expect("written");
        assert_eq!(path.metadata().expect("there").permissions().mode() & 0o777, 0o600);
        file.wipe();
        assert!(!path.exists());
    }

    #[test]
    fn each_line_of_a_secret_is_masked_and_no_command_is_in_it() {
        let key = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqG\nc2hv\n-----END PRIVATE KEY-----\n";
        let shown = |secret: &str| masks(secret).iter().map(|line| line.to_string()).collect::<Vec<_>>();
        assert_eq!(shown(key), ["::add-mask::MIGHAgEAMBMGByqG"]);
        assert_eq!(
            shown("aaaaaaaa.bbbbbbbb.cccccccc"),
            ["::add-mask::aaaaaaaa.bbbbbbbb.cccccccc", "::add-mask::cccccccc"]
        );
        assert_eq!(shown("100%\rsecret"), ["::add-mask::100%25%0Dsecret"]);
    }
}
