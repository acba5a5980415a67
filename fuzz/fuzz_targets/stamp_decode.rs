//! Reading a certificate's stamp.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = mayfly::model::Stamp::from_extension(data);
});
