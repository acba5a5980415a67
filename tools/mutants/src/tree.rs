//! The package's files: read, and copied with the mutants written into them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    find::find,
    site::{Site, render},
};

/// Modules that are mutated.
pub const FOLDERS: [&str; 4] = ["model", "ledger", "policy", "mint"];

/// What is mutated.
#[derive(Debug, Default)]
pub struct Tree {
    /// Files with sites and without, by their path from the package's root.
    pub files: BTreeMap<String, String>,
    /// All sites, in the order of their ids.
    pub sites: Vec<Site>,
}

/// Where the sites of a file stand once written: index among all sites, and bytes.
pub type Places = BTreeMap<String, Vec<(usize, Range<usize>)>>;

impl Tree {
    /// Reads the modules of [`FOLDERS`] and what they declare, tests left out.
    pub fn read(root: &Path) -> Result<Self, String> {
        let mut tree = Self::default();
        let mut next = 1;
        let mut open: VecDeque<String> = FOLDERS.iter().map(|folder| format!("src/{folder}/mod.rs")).collect();
        while let Some(path) = open.pop_front() {
            let text = fs::read_to_string(root.join(&path)).map_err(|e| format!("{path}: {e}"))?;
            let found = find(&path, &text, &mut next).map_err(|e| format!("{path}: {e}"))?;
            tree.sites.extend(found.sites);
            let below = path.strip_suffix("/mod.rs").or(path.strip_suffix(".rs")).unwrap_or(&path);
            for module in found.modules {
                let names = [format!("{below}/{module}.rs"), format!("{below}/{module}/mod.rs")];
                let file = names.into_iter().find(|name| root.join(name).is_file());
                open.push_back(file.ok_or_else(|| format!("{path}: no file of its module `{module}`"))?);
            }
            tree.files.insert(path, text);
        }
        Ok(tree)
    }

    /// Writes the mutated files into a copy of the package; sites in `dropped` are left out.
    ///
    /// Returns whether anything is new.
    pub fn write(&self, copy: &Path, dropped: &BTreeSet<usize>) -> io::Result<(Places, bool)> {
        let (mut places, mut is_new) = (Places::new(), false);
        for (path, text) in &self.files {
            let kept: Vec<(usize, &Site)> = self
                .sites
                .iter()
                .enumerate()
                .filter(|(at, site)| site.path == *path && !dropped.contains(at))
                .collect();
            let sites: Vec<&Site> = kept.iter().map(|(_, site)| *site).collect();
            let rendered = render(text, &sites);
            is_new |= write_if_new(&copy.join(path), rendered.text.as_bytes())?;
            places.insert(path.clone(), kept.iter().map(|(at, _)| *at).zip(rendered.ranges).collect());
        }
        Ok((places, is_new))
    }
}

/// Copies what git knows of the package, or would take, but for this tool, and gives the copy the runtime of the mutants.
///
/// Returns whether anything is new.
pub fn copy(root: &Path, copy: &Path, mutated: &Tree) -> Result<bool, String> {
    let mut is_new = false;
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .map_err(|e| format!("git: {e}"))?;
    let listed = String::from_utf8(listed.stdout).map_err(|e| format!("git: {e}"))?;
    let own = |path: &str| path.starts_with("tools/mutants/");
    let files: BTreeSet<&str> = listed.split('\0').filter(|path| !own(path) && root.join(path).is_file()).collect();
    let list = copy.join("../files");
    let before = fs::read_to_string(&list).unwrap_or_default();
    for gone in before.lines().filter(|path| !files.contains(path)) {
        let _ = fs::remove_file(copy.join(gone));
    }
    for path in files.iter().filter(|path| !mutated.files.contains_key(**path)) {
        let mut bytes = fs::read(root.join(path)).map_err(|e| format!("{path}: {e}"))?;
        if *path == "src/lib.rs" {
            bytes.extend_from_slice(b"\n/// Which change is active.\npub mod mutants;\n");
        }
        is_new |= write_if_new(&copy.join(path), &bytes).map_err(|e| format!("{path}: {e}"))?;
    }
    let runtime = include_bytes!("runtime.rs");
    is_new |= write_if_new(&copy.join("src/mutants.rs"), runtime).map_err(|e| format!("src/mutants.rs: {e}"))?;
    fs::write(&list, files.into_iter().collect::<Vec<_>>().join("\n"))
        .map_err(|e| format!("{}: {e}", list.display()))?;
    Ok(is_new)
}

/// An unchanged file keeps its time, for cargo's sake.
///
/// Returns whether it was written.
fn write_if_new(path: &PathBuf, bytes: &[u8]) -> io::Result<bool> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(false);
    }
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    fs::write(path, bytes)?;
    Ok(true)
}
