//! Small pieces of the run: workers, files that grow by lines, chance.

use std::{
    fs::File,
    io::Write,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

/// Does `job(worker, index)` for each index on so many threads, and begins none after `until`.
pub fn share(count: usize, jobs: usize, until: Option<Instant>, job: impl Fn(usize, usize) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for worker in 0..jobs {
            let (next, job) = (&next, &job);
            scope.spawn(move || {
                while until.is_none_or(|until| Instant::now() < until) {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count {
                        return;
                    }
                    job(worker, at);
                }
            });
        }
    });
}

/// Appends one line at once, so that what was done is not lost.
pub fn append(path: &Path, line: &str) {
    let written = File::options()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    if let Err(e) = written {
        eprintln!("{}: {e}", path.display());
    }
}

/// Puts things into an order that depends on the seed only (Fisher and Yates; SplitMix64).
pub fn shuffle<T>(things: &mut [T], seed: u64) {
    let mut state = seed;
    for last in (1..things.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut drawn = state;
        drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        drawn ^= drawn >> 31;
        let other = usize::try_from(drawn % (last as u64 + 1)).unwrap_or(last);
        things.swap(last, other);
    }
}
