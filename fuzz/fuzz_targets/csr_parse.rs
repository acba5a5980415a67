//! Reading a certificate request.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = mayfly::mint::x509::parse_csr(data);
});
