//! The `mayfly` program: see [`mayfly::cli`].

use std::process::ExitCode;

/// Of the daemon: issuing makes and drops some hundred small values per lease on several threads at once; see Cargo.toml.
#[cfg(feature = "server")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mayfly::cli::run(std::env::args_os())
}
