//! Reading an untrusted JWT without its signature.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| {
    let _ = mayfly::mint::jwt::peek(data);
});
