//! One build with every mutant in it; those that the compiler turns down are taken out until it builds.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::tree::{Places, Tree};

/// Builds that are tried. Each has fewer mutants than the one before.
const ROUNDS: usize = 20;

/// Where things are.
#[derive(Debug)]
pub struct Workshop {
    /// The program that builds.
    pub cargo: String,
    /// Results and the copy.
    pub scratch: PathBuf,
    /// The copy of the package.
    pub copy: PathBuf,
    /// Where the copy is built.
    pub target: PathBuf,
    /// How far the compiler optimises.
    pub opt_level: u8,
}

/// What was built.
#[derive(Debug)]
pub struct Built {
    /// The tests of the library.
    pub program: PathBuf,
    /// Sites, by index, that do not compile.
    pub dropped: BTreeSet<usize>,
}

/// Names of places that were given up.
const DROPPED: &str = "dropped";

/// Places, by index, that an earlier build gave up.
pub fn dropped(tree: &Tree, scratch: &Path) -> BTreeSet<usize> {
    let known = fs::read_to_string(scratch.join(DROPPED)).unwrap_or_default();
    let known: BTreeSet<&str> = known.lines().collect();
    (0..tree.sites.len()).filter(|at| known.contains(name(tree, *at).as_str())).collect()
}

/// Names the program that was built last.
const PROGRAM: &str = "program";

/// Builds the tests of the library, unless nothing `is_new` since the last time.
pub fn build(tree: &Tree, workshop: &Workshop, is_new: bool) -> Result<Built, String> {
    let last = workshop.scratch.join(PROGRAM);
    let list = workshop.scratch.join(DROPPED);
    let mut dropped = dropped(tree, &workshop.scratch);
    for round in 1..=ROUNDS {
        let (places, written) =
            tree.write(&workshop.copy, &dropped).map_err(|e| format!("{}: {e}", workshop.copy.display()))?;
        if let (false, false, Ok(program)) = (is_new, written, fs::read_to_string(&last))
            && Path::new(&program).is_file()
        {
            return Ok(Built { program: PathBuf::from(program), dropped });
        }
        eprintln!("build {round}: {} of {} places", tree.sites.len() - dropped.len(), tree.sites.len());
        let _ = fs::remove_file(&last);
        let messages = cargo(workshop)?;
        if let Some(program) = messages.iter().find_map(program) {
            let _ = fs::write(&last, program.display().to_string());
            return Ok(Built { program, dropped });
        }
        let errors: Vec<&Value> = messages.iter().filter_map(error).collect();
        let said: Vec<&str> = errors.iter().filter_map(|error| error["rendered"].as_str()).collect();
        let _ = fs::write(workshop.scratch.join(format!("errors-{round}")), said.join("\n"));
        let before = dropped.len();
        for guess in [around, nearby] {
            dropped.extend(
                errors
                    .iter()
                    .flat_map(|error| guess(&spans(error, &places), tree, &places, &dropped))
                    .collect::<Vec<_>>(),
            );
            // What one error is about often mends others.
            if dropped.len() > before {
                break;
            }
        }
        eprintln!("  {} errors, {} places given up", errors.len(), dropped.len() - before);
        if dropped.len() == before {
            return Err(format!("the copy does not build:\n{}", said.join("\n")));
        }
        let names: Vec<String> = dropped.iter().map(|at| name(tree, *at)).collect();
        fs::write(&list, names.join("\n")).map_err(|e| format!("{}: {e}", list.display()))?;
    }
    Err(format!("the copy does not build after {ROUNDS} tries"))
}

fn name(tree: &Tree, at: usize) -> String {
    let site = &tree.sites[at];
    site.mutants.first().map(|first| site.key(first)).unwrap_or_default()
}

/// What the compiler and cargo say, one message a line.
fn cargo(workshop: &Workshop) -> Result<Vec<Value>, String> {
    let said = Command::new(&workshop.cargo)
        .args(["test", "--lib", "--no-run", "--message-format=json", "--manifest-path"])
        .arg(workshop.copy.join("Cargo.toml"))
        .env("CARGO_TARGET_DIR", &workshop.target)
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", workshop.opt_level.to_string())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("{}: {e}", workshop.cargo))?;
    Ok(String::from_utf8_lossy(&said.stdout).lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn program(message: &Value) -> Option<PathBuf> {
    let is_test = message["reason"] == "compiler-artifact" && message["profile"]["test"] == true;
    message["executable"].as_str().filter(|_| is_test).map(PathBuf::from)
}

fn error(message: &Value) -> Option<&Value> {
    let inner = &message["message"];
    let placed = inner["spans"].as_array().is_some_and(|spans| !spans.is_empty());
    (message["reason"] == "compiler-message" && inner["level"] == "error" && placed).then_some(inner)
}

/// The innermost site around what an error points at; else around what it mentions.
fn around(spans: &[Pointed<'_>], _: &Tree, places: &Places, dropped: &BTreeSet<usize>) -> Vec<usize> {
    for primary in [true, false] {
        let around = spans.iter().filter(|span| span.primary == primary).filter_map(|span| {
            let sites = places.get(span.path)?.iter();
            let around = sites.filter(|(_, range)| range.start <= span.start && span.end <= range.end);
            around.min_by_key(|(_, range)| range.len()).map(|(at, _)| *at)
        });
        let around: Vec<usize> = around.filter(|at| !dropped.contains(at)).collect();
        if !around.is_empty() {
            return around;
        }
    }
    Vec::new()
}

/// All sites of the function that is nearest to what an error points at.
fn nearby(spans: &[Pointed<'_>], tree: &Tree, places: &Places, dropped: &BTreeSet<usize>) -> Vec<usize> {
    let nearest = spans.iter().filter_map(|span| {
        let sites = places.get(span.path)?.iter().filter(|(at, _)| !dropped.contains(at));
        let nearest = sites.min_by_key(|(_, range)| range.start.abs_diff(span.start))?.0;
        Some((span.path, tree.sites[nearest].function.as_str()))
    });
    let nearest: Vec<(&str, &str)> = nearest.collect();
    let sites =
        tree.sites.iter().enumerate().filter(|(at, site)| {
            !dropped.contains(at) && nearest.contains(&(site.path.as_str(), site.function.as_str()))
        });
    sites.map(|(at, _)| at).collect()
}

fn spans<'a>(error: &'a Value, places: &Places) -> Vec<Pointed<'a>> {
    error["spans"].as_array().into_iter().flatten().filter_map(|span| pointed(span, places)).collect()
}

struct Pointed<'a> {
    path: &'a str,
    start: usize,
    end: usize,
    primary: bool,
}

/// Where a span points in a mutated file, through the macros that it comes from.
fn pointed<'a>(span: &'a Value, places: &Places) -> Option<Pointed<'a>> {
    let path = span["file_name"].as_str()?;
    if !places.contains_key(path) {
        let outer = &span["expansion"]["span"];
        return if outer.is_null() { None } else { pointed(outer, places) };
    }
    let byte = |name: &str| span[name].as_u64().and_then(|at| usize::try_from(at).ok());
    let primary = span["is_primary"] == true;
    Some(Pointed { path, start: byte("byte_start")?, end: byte("byte_end")?, primary })
}

/// A fingerprint of a program: when it was last written, and its length.
pub fn stamp(program: &Path) -> String {
    let Ok(about) = fs::metadata(program) else { return String::new() };
    let since = about.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    format!("{} {} {}", program.display(), about.len(), since.unwrap_or_default().as_nanos())
}
