//! Reading the configuration.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| {
    let _ = mayfly::config::Config::parse(data, std::path::Path::new("mayfly.toml"));
});
