//! Reading a trust document.
#![no_main]

#[path = "../readers/mod.rs"]
mod readers;

libfuzzer_sys::fuzz_target!(|data: &str| {
    readers::trust(data);
});
