//! Reading an identity token, its issuer's key set and patterns for its claims.
#![no_main]

#[path = "../readers/mod.rs"]
mod readers;

libfuzzer_sys::fuzz_target!(|text: &str| {
    readers::identity_token(text);
});
