//! Many worlds, the ones that once went wrong, and the bugs that must not go unnoticed.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    acts::{live, prepare, told},
    world::Sabotage,
};

/// Worlds that once showed a bug, by what it was.
const REGRESSIONS: &[(u64, &str)] = &[(3812, "a change of trust was made and answered as refused")];

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

fn fails(seed: u64, sabotage: Option<Sabotage>) {
    let (outcome, trace) = told(seed, sabotage);
    panic!(
        "seed {seed} fails\n{trace}\n{}\nReplay: MAYFLY_SEED={seed} cargo test --lib simulation::seeds::one -- --nocapture",
        outcome.err().unwrap_or_else(|| "and does not when it is told: a world is not exact".to_owned())
    );
}

/// `MAYFLY_SEEDS` worlds from `MAYFLY_FIRST_SEED` on, on all cores.
#[test]
fn every_world_keeps_the_laws() {
    let (count, first) = (number("MAYFLY_SEEDS").unwrap_or(300), number("MAYFLY_FIRST_SEED").unwrap_or(1));
    prepare();
    let (next, leases, ends, restarts) =
        (AtomicU64::new(first), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return;
            }
            let ended = live(seed, None, false);
            if ended.outcome.is_err() {
                fails(seed, None);
            }
            leases.fetch_add(ended.marks.leases, Ordering::Relaxed);
            ends.fetch_add(ended.marks.ends, Ordering::Relaxed);
            restarts.fetch_add(ended.marks.restarts, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..std::thread::available_parallelism().map_or(1, usize::from)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
    let [leases, ends, restarts] = [leases, ends, restarts].map(AtomicU64::into_inner);
    println!("{count} worlds from {first}: {leases} leases, {ends} ends, {restarts} starts");
    // Worlds in which nothing happens prove nothing.
    assert!(leases > 5 * count && ends > 2 * count && restarts > 2 * count, "{leases} {ends} {restarts}");
}

/// Tells the world of `MAYFLY_SEED` step by step.
#[test]
fn one() {
    let Some(seed) = number("MAYFLY_SEED") else { return };
    let (outcome, trace) = told(seed, None);
    println!("{trace}");
    if let Err(wrong) = outcome {
        panic!("seed {seed}: {wrong}");
    }
}

#[test]
fn what_went_wrong_once_does_not_again() {
    for (seed, what) in REGRESSIONS {
        if let Err(wrong) = live(*seed, None, false).outcome {
            panic!("seed {seed} ({what}): {wrong}");
        }
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 1..20 {
        let (first, second) = (live(seed, None, true), live(seed, None, true));
        assert_eq!(first.lines, second.lines, "seed {seed}");
        assert_eq!(first.hash, second.hash);
    }
}

/// The seeds within which each bug must show.
const CAUGHT_WITHIN: u64 = 200;

#[test]
fn every_bug_put_in_on_purpose_is_caught() {
    for sabotage in Sabotage::ALL {
        let caught =
            (1..=CAUGHT_WITHIN).find_map(|seed| Some((seed, live(seed, Some(sabotage), false).outcome.err()?)));
        let Some((seed, wrong)) = caught else { panic!("{sabotage:?} goes unnoticed in {CAUGHT_WITHIN} worlds") };
        println!("{sabotage:?}: seed {seed} {wrong}");
    }
}
