//! Reading policies.
#![no_main]

#[path = "../readers.rs"]
mod readers;

libfuzzer_sys::fuzz_target!(|data: &str| {
    readers::policies(data);
});
