//! Reading a trust document.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| {
    let document = mayfly::policy::Document { path: "trust.toml", text: data };
    let now = mayfly::model::Timestamp::from_seconds(1_800_000_000);
    let _ = mayfly::policy::parse(&[document], mayfly::policy::Extent::Whole, now);
});
