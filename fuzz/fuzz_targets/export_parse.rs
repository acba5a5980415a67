//! Reading a line of an audit export.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = mayfly::audit::export::parse(data);
});
