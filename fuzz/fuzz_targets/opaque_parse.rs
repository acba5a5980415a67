//! Reading a reference token.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| {
    let _ = mayfly::mint::opaque::parse(data);
});
