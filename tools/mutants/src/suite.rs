//! The tests: which there are, how long each takes, and which mutants it meets.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::{
    build::{Workshop, stamp},
    work::{append, share},
};

/// A test that passes on the program as it is.
#[derive(Clone, Debug)]
pub struct Test {
    /// Its path.
    pub name: String,
    /// How long it took, with its process.
    pub took: Duration,
    /// Ids of the mutants that it meets where they make a difference, ascending.
    pub meets: Vec<u32>,
}

/// How a test ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// It passed.
    Passed,
    /// It failed, or its process died.
    Failed,
    /// It took too long.
    TimedOut,
}

/// How long a test may take on the program as it is; one that takes longer is left out.
const BASELINE_AT_MOST: Duration = Duration::from_secs(300);

/// Runs every test by itself and notes what it meets. What an interrupted run of the same program noted is kept.
///
/// Returns the tests that pass, and the names of those that do not.
pub fn record(program: &Path, workshop: &Workshop, jobs: usize) -> Result<(Vec<Test>, Vec<String>), String> {
    let file = workshop.scratch.join("met.tsv");
    let stamp = stamp(program);
    let before = fs::read_to_string(&file).unwrap_or_default();
    let mut known: BTreeMap<String, Option<Test>> = match before.split_once('\n') {
        Some((first, rest)) if first == stamp => rest.lines().filter_map(parse).collect(),
        _ => {
            fs::write(&file, format!("{stamp}\n")).map_err(|e| format!("{}: {e}", file.display()))?;
            BTreeMap::new()
        }
    };
    let names = names(program, workshop)?;
    let missing: Vec<&String> = names.iter().filter(|name| !known.contains_key(*name)).collect();
    eprintln!("{} tests, {} of them to be looked at", names.len(), missing.len());
    let found = Mutex::new(Vec::new());
    share(missing.len(), jobs, None, |worker, at| {
        let name = missing[at];
        let test = met(program, workshop, worker, name);
        append(&file, &line(name, test.as_ref()));
        if let Ok(mut found) = found.lock() {
            found.push((name.clone(), test));
        }
    });
    known.extend(found.into_inner().map_err(|e| e.to_string())?);
    known.retain(|name, _| names.contains(name));
    let failing = known.iter().filter(|(_, test)| test.is_none()).map(|(name, _)| name.clone()).collect();
    Ok((known.into_values().flatten().collect(), failing))
}

fn met(program: &Path, workshop: &Workshop, worker: usize, name: &str) -> Option<Test> {
    let notes = workshop.scratch.join(format!("met-{worker}"));
    let _ = fs::remove_file(&notes);
    let started = Instant::now();
    let variables = [("MUTANTS_MET", notes.clone().into_os_string())];
    let (end, _) = run(program, workshop, worker, &[name], BASELINE_AT_MOST, &variables);
    let took = started.elapsed();
    let bytes = fs::read(&notes).unwrap_or_default();
    let _ = fs::remove_file(&notes);
    let mut meets: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
    meets.sort_unstable();
    meets.dedup();
    (end == End::Passed).then(|| Test { name: name.to_owned(), took, meets })
}

fn line(name: &str, test: Option<&Test>) -> String {
    let Some(test) = test else { return format!("{name}\tfails\t") };
    let meets: Vec<String> = test.meets.iter().map(u32::to_string).collect();
    format!("{name}\t{}\t{}", test.took.as_millis(), meets.join(","))
}

fn parse(line: &str) -> Option<(String, Option<Test>)> {
    let mut parts = line.split('\t');
    let (name, took, meets) = (parts.next()?.to_owned(), parts.next()?, parts.next()?);
    let test = took.parse().ok().map(|millis| Test {
        name: name.clone(),
        took: Duration::from_millis(millis),
        meets: meets.split(',').filter_map(|id| id.parse().ok()).collect(),
    });
    Some((name, test))
}

fn names(program: &Path, workshop: &Workshop) -> Result<Vec<String>, String> {
    let list = |more: &[&str]| -> Result<Vec<String>, String> {
        let said = Command::new(program)
            .args(["--list", "--format", "terse"])
            .args(more)
            .current_dir(&workshop.copy)
            .output()
            .map_err(|e| format!("{}: {e}", program.display()))?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
    };
    let ignored = list(&["--ignored"])?;
    Ok(list(&[])?.into_iter().filter(|name| !ignored.contains(name)).collect())
}

/// Runs tests one after the other in a process of their own, which may take 8 GiB of address space, write files of 1 GiB, and no longer
/// than `limit`; what it starts is ended with it.
///
/// Returns also which test failed first, when its process lived to say so.
pub fn run(
    program: &Path,
    workshop: &Workshop,
    worker: usize,
    names: &[&str],
    limit: Duration,
    variables: &[(&str, std::ffi::OsString)],
) -> (End, Option<String>) {
    let folder = folder(worker);
    let _ = fs::create_dir_all(&folder);
    let started = Instant::now();
    let said = Command::new("sh")
        .args(["-c", "ulimit -v 8388608; ulimit -f 2097152; ulimit -c 0; exec timeout --signal=KILL \"$@\"", "sh"])
        .arg(format!("{:.3}", limit.as_secs_f64()))
        .arg(program)
        .args(names)
        .args(["--exact", "--test-threads=1"])
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .env("TMPDIR", &folder)
        .env("MAYFLY_SEEDS", std::env::var("MAYFLY_SEEDS").unwrap_or_else(|_| "20".to_owned()))
        .current_dir(&workshop.copy)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let _ = fs::remove_dir_all(&folder);
    let Ok(said) = said else { return (End::Failed, None) };
    if said.status.success() {
        return (End::Passed, None);
    }
    let text = String::from_utf8_lossy(&said.stdout);
    let failed = text.lines().find_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
    let end = if started.elapsed() >= limit { End::TimedOut } else { End::Failed };
    (end, failed.map(str::to_owned))
}

/// Temporary files of one worker: short, since sockets may be put below it.
fn folder(worker: usize) -> PathBuf {
    std::env::temp_dir().join(format!("mutants-{}-{worker}", std::process::id()))
}
