//! Files that the command line is given: jobs, lists of credentials, tables of cases.
#![no_main]

#[path = "../readers/mod.rs"]
mod readers;

libfuzzer_sys::fuzz_target!(|data: &str| {
    readers::files(data);
});
