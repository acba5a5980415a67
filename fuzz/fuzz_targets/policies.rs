//! Reading policies.
#![no_main]

#[path = "../readers/mod.rs"]
mod readers;

libfuzzer_sys::fuzz_target!(|data: &str| {
    readers::policies(data);
});
