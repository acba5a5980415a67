//! Answering a gRPC message, through all layers of a real server.
#![no_main]

#[path = "../readers/mod.rs"]
mod readers;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    readers::message(data);
});
