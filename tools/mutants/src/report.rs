//! What came out, in Markdown.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use crate::{
    site::{Mutant, Site},
    tree::{FOLDERS, Tree},
    trial::{Outcome, Outcomes},
};

/// Mutants by what became of them.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    tried: usize,
    failed: usize,
    timed_out: usize,
    survived: usize,
    unmet: usize,
    explained: usize,
}

/// A table by folder, the list of those that were neither caught nor explained, and that of reasons which explain nothing
/// any more: what they are given for is caught, or gone.
///
/// `explained` is the Markdown of those that are explained: a bullet each, spelt as here.
pub fn report(tree: &Tree, mutants: &[(&Site, &Mutant)], outcomes: &Outcomes, explained: &str) -> String {
    let explained: BTreeSet<&str> = explained.lines().filter_map(|line| line.strip_prefix("* ")).collect();
    let mut counts: BTreeMap<&str, Count> = BTreeMap::new();
    let mut open = String::new();
    for (site, mutant) in mutants {
        let Some(outcome) = outcomes.get(&site.key(mutant)) else { continue };
        let told = site.told(mutant, tree.files.get(&site.path).map_or("", String::as_str));
        let alive = matches!(outcome, Outcome::Survived | Outcome::Unmet);
        let known = alive && explained.contains(told.as_str());
        for folder in [site.folder(), "all"] {
            let count = counts.entry(folder).or_default();
            count.tried += 1;
            count.explained += usize::from(known);
            match outcome {
                Outcome::Caught(_) => count.failed += 1,
                Outcome::TimedOut(_) => count.timed_out += 1,
                Outcome::Survived => count.survived += 1,
                Outcome::Unmet => count.unmet += 1,
            }
        }
        if alive && !known {
            let unmet = if *outcome == Outcome::Unmet { "; met by no test" } else { "" };
            let _ = writeln!(open, "* {told} (line {}{unmet})", site.line);
        }
    }
    let mut text =
        "| module | tried | a test fails | a test hangs | survive | met by no test | score | explained |\n".to_owned();
    text.push_str("|---|---|---|---|---|---|---|---|\n");
    for folder in FOLDERS.iter().copied().chain(["all"]) {
        let Count { tried, failed, timed_out, survived, unmet, explained } =
            counts.get(folder).copied().unwrap_or_default();
        let score = 100.0 * (failed + timed_out) as f64 / tried.max(1) as f64;
        let numbers = format!("{tried} | {failed} | {timed_out} | {survived} | {unmet} | {score:.1} % | {explained}");
        let _ = writeln!(text, "| {folder} | {numbers} |");
    }
    text.push_str("\nNeither caught nor explained:\n\n");
    text.push_str(&open);
    let idle = idle(tree, outcomes, explained);
    if !idle.is_empty() {
        text.push_str("\nExplained, but caught or gone:\n\n");
        idle.iter().for_each(|told| text.push_str(&format!("* {told}\n")));
    }
    text
}

/// Of what is explained, what no mutant is any more that lives or was not tried.
fn idle<'e>(tree: &Tree, outcomes: &Outcomes, explained: BTreeSet<&'e str>) -> BTreeSet<&'e str> {
    let mut idle = explained;
    for site in &tree.sites {
        let file = tree.files.get(&site.path).map_or("", String::as_str);
        for mutant in &site.mutants {
            if !matches!(outcomes.get(&site.key(mutant)), Some(Outcome::Caught(_) | Outcome::TimedOut(_))) {
                idle.remove(site.told(mutant, file).as_str());
            }
        }
    }
    idle
}
