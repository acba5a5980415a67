//! Mutation testing with one build: every mutant is compiled in behind a switch, and each is tried by the library's
//! tests that meet it.
//!
//! The package is copied; `find` writes down what can be changed in the copy; `build` builds it, without what does not
//! compile; `suite` notes which tests meet which mutant; `trial` runs those against it; `report` says what came out.

mod bodies;
mod build;
mod find;
mod report;
mod site;
mod suite;
#[cfg(test)]
mod tests;
mod tree;
mod trial;
mod work;

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;

use crate::{
    build::{Workshop, build},
    site::{Mutant, Site},
    suite::record,
    tree::Tree,
    trial::{Candidate, Outcome, Trials},
};

/// Changes the core (src/model, src/ledger, src/policy, src/mint) in one place at a time and looks whether a test of
/// the library notices.
///
/// What was tried is kept in the scratch folder and not tried again while its line stays as it is.
#[derive(Debug, Parser)]
struct Options {
    /// Root of the package
    #[arg(long, default_value = ".")]
    root: PathBuf,
    /// Folder for the copy, its build and the results
    #[arg(long, default_value = "target/mutants")]
    scratch: PathBuf,
    /// Where to build, when not below the scratch folder
    #[arg(long)]
    target: Option<PathBuf>,
    /// The program that builds
    #[arg(long, default_value = "cargo")]
    cargo: String,
    /// How far the compiler optimises: built once and run thousands of times; 0 builds four times as fast
    #[arg(long, default_value_t = 1)]
    opt_level: u8,
    /// Try so many, drawn evenly from all
    #[arg(long)]
    sample: Option<usize>,
    /// Decides the order, and what is drawn
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only mutants whose file begins so, such as src/mint or src/ledger/codec.rs
    #[arg(long)]
    only: Vec<String>,
    /// Try again what was not caught, after tests were added
    #[arg(long)]
    survivors: bool,
    /// With `--survivors`: only tests whose name contains one of these, such as those that were added
    #[arg(long, requires = "survivors")]
    tests: Vec<String>,
    /// Begin no trial after so many minutes
    #[arg(long)]
    minutes: Option<u64>,
    /// Leave out tests that usually take more seconds than this
    #[arg(long, default_value_t = 20)]
    slowest: u64,
    /// Tests at a time, at most 2
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    jobs: u8,
    /// Only build
    #[arg(long)]
    build: bool,
    /// Only list the mutants
    #[arg(long)]
    list: bool,
    /// Only print what is known
    #[arg(long)]
    report: bool,
}

/// Survivors and why they may live.
const EXPLAINED: &str = "tools/mutants/explained.md";

fn main() -> ExitCode {
    match go(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn go(options: &Options) -> Result<(), String> {
    let started = Instant::now();
    let tree = Tree::read(&options.root)?;
    if options.list {
        for (site, mutant) in wanted(&tree, &BTreeSet::new(), options) {
            println!("{} in {}: {}", site.key(mutant), site.function, site.source);
        }
        return Ok(());
    }
    fs::create_dir_all(&options.scratch).map_err(|e| format!("{}: {e}", options.scratch.display()))?;
    let scratch = options.scratch.canonicalize().map_err(|e| format!("{}: {e}", options.scratch.display()))?;
    if !options.report {
        let workshop = Workshop {
            cargo: options.cargo.clone(),
            copy: scratch.join("tree"),
            target: options.target.clone().unwrap_or_else(|| scratch.join("target")),
            scratch: scratch.clone(),
            opt_level: options.opt_level,
        };
        run(&tree, &workshop, options, started)?;
    }
    let dropped = build::dropped(&tree, &scratch);
    let outcomes = trial::read(&scratch);
    let mutants = wanted(&tree, &dropped, options);
    let given_up: usize = dropped.iter().map(|at| tree.sites[*at].mutants.len()).sum();
    let explained = fs::read_to_string(options.root.join(EXPLAINED)).unwrap_or_default();
    println!("{}", report::report(&tree, &mutants, &outcomes, &explained));
    println!("{} mutants could be tried; {given_up} more do not compile.", mutants.len());
    Ok(())
}

fn run(tree: &Tree, workshop: &Workshop, options: &Options, started: Instant) -> Result<(), String> {
    let jobs = usize::from(options.jobs);
    let is_new = tree::copy(&options.root, &workshop.copy, tree)?;
    let built = build(tree, workshop, is_new)?;
    if options.build {
        return Ok(());
    }
    let (mut tests, failing) = record(&built.program, workshop, jobs)?;
    for name in failing {
        eprintln!("left out, since it fails unchanged: {name}");
    }
    tests.retain(|test| options.tests.is_empty() || options.tests.iter().any(|part| test.name.contains(part)));
    let slowest = Duration::from_secs(options.slowest);
    for test in tests.iter().filter(|test| test.took > slowest) {
        eprintln!("left out, since it takes {} s: {}", test.took.as_secs(), test.name);
    }
    let before = trial::read(&workshop.scratch);
    let mut drawn = wanted(tree, &built.dropped, options);
    work::shuffle(&mut drawn, options.seed);
    drawn.truncate(options.sample.unwrap_or(usize::MAX));
    let candidates: Vec<Candidate> = drawn
        .iter()
        .map(|(site, mutant)| Candidate { key: site.key(mutant), id: mutant.id, module: site.module() })
        .filter(|candidate| match before.get(&candidate.key) {
            None => !options.survivors,
            Some(Outcome::Survived | Outcome::Unmet) => options.survivors,
            Some(Outcome::Caught(_) | Outcome::TimedOut(_)) => false,
        })
        .collect();
    eprintln!("{} drawn, {} to be tried", drawn.len(), candidates.len());
    let until = options.minutes.map(|minutes| started + Duration::from_secs(60 * minutes));
    Trials {
        program: &built.program,
        workshop,
        tests: &tests,
        jobs,
        until,
        slowest,
        only_caught: !options.tests.is_empty(),
    }
    .hold(&candidates);
    Ok(())
}

/// The mutants that compile and are asked for.
fn wanted<'a>(tree: &'a Tree, dropped: &BTreeSet<usize>, options: &Options) -> Vec<(&'a Site, &'a Mutant)> {
    let only = |site: &Site| options.only.is_empty() || options.only.iter().any(|start| site.path.starts_with(start));
    let kept = tree.sites.iter().enumerate().filter(|(at, site)| !dropped.contains(at) && only(site));
    kept.flat_map(|(_, site)| site.mutants.iter().map(move |mutant| (site, mutant))).collect()
}
