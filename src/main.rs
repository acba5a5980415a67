//! The `mayfly` program: see [`mayfly::cli`].

use std::process::ExitCode;

/// Issuing makes and drops some hundred small values per lease on several threads at once; see Cargo.toml.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mayfly::cli::run(std::env::args_os())
}
