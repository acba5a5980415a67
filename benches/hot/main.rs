//! What one request costs on the paths that every request takes, each step by itself.

#![allow(clippy::expect_used, reason = "a benchmark may stop")]

mod certificates;
mod commits;
mod decisions;
mod rows;
mod sample;
mod standings;
mod tokens;

use std::time::Duration;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    tokens::tokens(&mut criterion);
    certificates::certificates(&mut criterion);
    decisions::decisions(&mut criterion);
    decisions::policies(&mut criterion);
    standings::of_a_feed(&mut criterion);
    standings::of_a_ledger(&mut criterion);
    rows::rows(&mut criterion);
    rows::pages(&mut criterion);
    commits::commits(&mut criterion);
    criterion.final_summary();
}
