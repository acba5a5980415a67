//! Reading an untrusted token.
#![no_main]

#[path = "../readers/mod.rs"]
mod readers;

libfuzzer_sys::fuzz_target!(|data: &str| {
    readers::token(data);
});
