//! Each mutant against the tests that meet it.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    build::Workshop,
    suite::{End, Test, run},
    work::{append, share},
};

/// What became of a mutant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// This test failed.
    Caught(String),
    /// This test did not come to an end.
    TimedOut(String),
    /// Every test that meets it passed.
    Survived,
    /// No test meets it where it makes a difference.
    Unmet,
}

/// Outcomes by the mutants' keys.
pub type Outcomes = BTreeMap<String, Outcome>;

/// One mutant to try.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its key.
    pub key: String,
    /// Its id in the program.
    pub id: u32,
    /// The module that it stands in, as the tests' names have it.
    pub module: String,
}

/// How the trials go.
#[derive(Debug)]
pub struct Trials<'a> {
    /// The program with the mutants.
    pub program: &'a Path,
    /// Where things are.
    pub workshop: &'a Workshop,
    /// The tests.
    pub tests: &'a [Test],
    /// Workers.
    pub jobs: usize,
    /// No trial is begun after this.
    pub until: Option<Instant>,
    /// Tests that usually take longer than this are left out.
    pub slowest: Duration,
    /// Of the others it stays known what was: some of the tests are left out.
    pub only_caught: bool,
}

/// What is written beside the results.
const FILE: &str = "results.tsv";

/// Results so far; of several for a mutant, the last holds.
pub fn read(scratch: &Path) -> Outcomes {
    fs::read_to_string(scratch.join(FILE)).unwrap_or_default().lines().filter_map(parse).collect()
}

fn parse(line: &str) -> Option<(String, Outcome)> {
    let mut parts = line.split('\t');
    let (key, outcome, test) = (parts.next()?, parts.next()?, parts.next()?.to_owned());
    let outcome = match outcome {
        "caught" => Outcome::Caught(test),
        "timeout" => Outcome::TimedOut(test),
        "survived" => Outcome::Survived,
        "unmet" => Outcome::Unmet,
        _ => return None,
    };
    Some((key.to_owned(), outcome))
}

fn line(key: &str, outcome: &Outcome) -> String {
    match outcome {
        Outcome::Caught(test) => format!("{key}\tcaught\t{test}"),
        Outcome::TimedOut(test) => format!("{key}\ttimeout\t{test}"),
        Outcome::Survived => format!("{key}\tsurvived\t"),
        Outcome::Unmet => format!("{key}\tunmet\t"),
    }
}

impl Trials<'_> {
    /// Tries the candidates in their order and writes down what became of each. The tests of its own module come first,
    /// and quick ones before slow ones.
    pub fn hold(&self, candidates: &[Candidate]) {
        let meeting = self.meeting();
        let (done, caught, started) = (AtomicUsize::new(0), AtomicUsize::new(0), Instant::now());
        let told = Mutex::new(Instant::now());
        share(candidates.len(), self.jobs, self.until, |worker, at| {
            let candidate = &candidates[at];
            let mut tests = meeting.get(&candidate.id).cloned().unwrap_or_default();
            tests.sort_by_key(|test| Reverse(nearness(&candidate.module, &test.name)));
            let outcome = self.outcome(worker, candidate.id, &tests);
            let alive = matches!(outcome, Outcome::Survived | Outcome::Unmet);
            if !alive || !self.only_caught {
                append(&self.workshop.scratch.join(FILE), &line(&candidate.key, &outcome));
            }
            let caught = caught.fetch_add(usize::from(!alive), Ordering::Relaxed) + usize::from(!alive);
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            let Ok(mut told) = told.lock() else { return };
            if told.elapsed() > Duration::from_secs(10) || done == candidates.len() {
                *told = Instant::now();
                let left = started.elapsed().as_secs_f64() / done as f64 * (candidates.len() - done) as f64;
                eprintln!("{done} of {}, {caught} caught, {} s to go", candidates.len(), left.round());
            }
        });
    }

    /// The tests that meet each mutant, quickest first.
    fn meeting(&self) -> BTreeMap<u32, Vec<&Test>> {
        let mut tests: Vec<&Test> = self.tests.iter().filter(|test| test.took <= self.slowest).collect();
        tests.sort_by_key(|test| test.took);
        let mut meeting: BTreeMap<u32, Vec<&Test>> = BTreeMap::new();
        for test in tests {
            for id in &test.meets {
                meeting.entry(*id).or_default().push(test);
            }
        }
        meeting
    }

    fn outcome(&self, worker: usize, id: u32, tests: &[&Test]) -> Outcome {
        let variables = [("MUTANT", id.to_string().into())];
        for batch in self.batches(tests) {
            let names: Vec<&str> = batch.iter().map(|test| test.name.as_str()).collect();
            let usual: Duration = batch.iter().map(|test| test.took).sum();
            let limit = Duration::from_secs(20) + usual * 5;
            let (end, failed) = run(self.program, self.workshop, worker, &names, limit, &variables);
            let name = failed.unwrap_or_else(|| format!("one of {}, from {}", names.len(), names[0]));
            match end {
                End::Passed => {}
                End::Failed => return Outcome::Caught(name),
                End::TimedOut => return Outcome::TimedOut(name),
            }
        }
        if tests.is_empty() { Outcome::Unmet } else { Outcome::Survived }
    }

    /// Tests that share a process: starting one takes longer than most tests do. Each batch may be larger than the one
    /// before, since most mutants are caught by the first.
    fn batches<'t>(&self, tests: &'t [&'t Test]) -> Vec<&'t [&'t Test]> {
        let start = self.tests.iter().map(|test| test.took).min().unwrap_or_default();
        let (mut batches, mut rest, mut most) = (Vec::new(), tests, Duration::from_millis(100));
        while !rest.is_empty() {
            let mut sum = Duration::ZERO;
            let fits = rest.iter().take_while(|test| {
                sum += test.took.saturating_sub(start) + Duration::from_millis(1);
                sum <= most
            });
            let (batch, others) = rest.split_at(fits.count().max(1));
            batches.push(batch);
            (rest, most) = (others, most * 4);
        }
        batches
    }
}

/// How many modules a mutant and a test share from the root on.
fn nearness(module: &str, test: &str) -> usize {
    module.split("::").zip(test.split("::")).take_while(|(a, b)| a == b).count()
}
