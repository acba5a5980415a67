//! What a job asks of the socket that has its credentials.
#![no_main]

#[path = "../readers/mod.rs"]
mod readers;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    readers::endpoint(data);
});
