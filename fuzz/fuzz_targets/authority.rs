//! The authority that clients of a Unix socket send, within HTTP/2.
#![no_main]

#[path = "../readers/mod.rs"]
mod readers;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    readers::authority(data);
});
