//! Files from which a CI system takes variables for the steps that follow, and the lines that have it mask secrets.

use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
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
    /// Stands in no value, so that what we wrote can be told from all else.
    marker: String,
}

impl EnvFile {
    /// A file that is to be written. The format is GitHub's for the file that its runner named, the shell's for any other.
    #[must_use]
    pub fn new(path: &Path, format: Option<EnvFormat>) -> Self {
        let runners = std::env::var_os("GITHUB_ENV").is_some_and(|named| named == path.as_os_str());
        let format = format.unwrap_or(if runners { EnvFormat::Github } else { EnvFormat::Sh });
        let marker = format!("mayfly-{:016x}{:016x}", random(), random());
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        Self { is_new: !path.exists(), path, format, marker }
    }

    /// Appends variables.
    ///
    /// # Errors
    /// When a name is one that the platform keeps for itself, or the file cannot be written.
    pub fn write(&self, variables: &Variables) -> Outcome {
        let text = self.render(variables)?;
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| Failure::file("write", &self.path, error))
    }

    /// Takes away what was written: the file when it is ours, else our part of it. What a runner took in stays with it.
    pub fn wipe(&self) {
        // What cannot be removed is of no use any more: its task is over.
        if self.is_new {
            let _ = std::fs::remove_file(&self.path);
        } else if let Ok(text) = std::fs::read_to_string(&self.path).map(Zeroizing::new)
            && let Some(rest) = self.without(&text)
        {
            let _ = place::write(&self.path, rest.as_bytes());
        }
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
