use std::fmt::Write;

use crate::policy::{GlobalTrust, TenantTrust};

use super::{BASE, grant, map, problems, read, tenant};

#[test]
fn canonical_json_is_one_spelling_and_comes_back() {
    let one = map(&format!("{BASE}{}", grant("g", "audiences = [\"b\", \"a\"]\npurposes = [\"x\", \"deploy\"]")));
    let two = map(&format!("{}{BASE}", grant("g", "audiences = [\"a\", \"b\"]\npurposes = [\"deploy\", \"x\"]")));
    let (one, global) = (tenant(&one, "acme"), one.global);
    let bytes = one.to_bytes();
    assert_eq!((&bytes, one.hash()), (&tenant(&two, "acme").to_bytes(), tenant(&two, "acme").hash()));
    let back = TenantTrust::from_bytes(&bytes).expect("reads");
    assert_eq!((&back, back.to_bytes(), back.hash()), (&one, bytes.clone(), one.hash()));
    assert_eq!(GlobalTrust::from_bytes(&global.to_bytes()).expect("reads"), global);
    let other = map(&format!("{BASE}{}", grant("g", "ttl_max = 601")));
    assert_ne!(tenant(&other, "acme").hash(), one.hash());
    assert!(TenantTrust::from_bytes(&bytes[1..]).is_err());
    let text = String::from_utf8(bytes).expect("UTF-8");
    assert!(TenantTrust::from_bytes(text.replacen("\"name\"", "\"nam\"", 1).as_bytes()).is_err());
    assert!(text.contains("\"expires\":\"2027-01-01T00:00:00Z\"") && text.contains("\"kinds\":[\"jwt\",\"x509\"]"));
}

#[test]
fn global_verifiers_come_back_from_canonical_json() {
    let more =
        "[[verifier]]\nname = \"v\"\ntenants = [\"acme\"]\naudiences = \"all\"\nselectors = [{ unix_uid = 3 }]\n";
    let global = map(&format!("{BASE}{more}")).global;
    assert_eq!(global.verifiers.len(), 1);
    assert_eq!(GlobalTrust::from_bytes(&global.to_bytes()).expect("reads"), global);
}

#[test]
fn a_list_holds_64_entries_and_not_one_more() {
    let entries = |count: usize| (0..count).map(|i| format!("a{i}")).collect::<Vec<_>>();
    let with = |count| format!("{BASE}{}", grant("g", &format!("actions = {:?}", entries(count))));
    assert!(read(&with(64)).is_ok());
    assert!(problems(&with(65))[0].contains("has 65 entries, where 64 are allowed"));
}

#[test]
fn a_tenant_holds_2000_grants_and_not_one_more() {
    let with = |count: usize| {
        (0..count).fold(BASE.to_owned(), |mut text, i| {
            write!(text, "{}", grant(&format!("g{i}"), "")).expect("text");
            text
        })
    };
    assert!(read(&with(2000)).is_ok());
    assert!(problems(&with(2001))[0].contains("tenant.grants: are 2001, where 2000 are allowed"));
}

#[test]
fn a_tenant_is_as_large_as_its_row_and_not_one_byte_larger() {
    let grants = |count: usize, length: usize| {
        let long: Vec<String> = (0..64).map(|i| format!("{i:0length$}")).collect();
        (0..count).map(|i| grant(&format!("g{i:02}"), &format!("audiences = {long:?}"))).collect::<String>()
    };
    let bytes = |text: &str| tenant(&map(text), "acme").to_bytes().len();
    // Each text of the last grant takes three bytes more than it has.
    let last = |size: usize| {
        let texts: Vec<String> =
            (0..size / 255).map(|i| format!("{i:0252}")).chain([format!("z{}", "z".repeat(size % 255))]).collect();
        grant("z", &format!("actions = [\"a\"]\naudiences = {texts:?}"))
    };
    let small = |count| bytes(&format!("{BASE}{}{}", grants(count, 240), last(0)));
    let fitting = (TenantTrust::MAX_BYTES - small(0)) / (small(2) - small(1));
    let with = |size| format!("{BASE}{}{}", grants(fitting, 240), last(size));
    let missing = TenantTrust::MAX_BYTES - bytes(&with(0));
    assert_eq!(bytes(&with(missing)), TenantTrust::MAX_BYTES);
    assert!(problems(&with(missing + 1))[0].contains("tenant: is larger than 1 MiB"));
}

#[test]
fn texts_hold_at_their_limits_and_not_one_past() {
    for (more, good) in [
        (format!("owner = \"{}\"", "x".repeat(128)), true),
        (format!("owner = \"{}\"", "x".repeat(129)), false),
        (format!("actions = [\"{}\"]", "x".repeat(128)), true),
        (format!("actions = [\"{}\"]", "x".repeat(129)), false),
        (format!("audiences = [\"{}\"]", "x".repeat(255)), true),
        (format!("audiences = [\"{}\"]", "x".repeat(256)), false),
        ("max_leases_per_task = 10_001".to_owned(), false),
        ("max_live_leases = 0".to_owned(), false),
    ] {
        assert_eq!(read(&format!("{BASE}{}", grant("g", &more))).is_ok(), good, "{more}");
    }
}

/// Run by hand in release: `cargo test --release --lib policy -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn a_hundred_thousand_grants_are_read_and_asked_quickly() {
    let mut text = BASE
        .replace("[[tenant]]\nname = \"acme\"\n", "")
        .replace("[[workload]]", "#")
        .split('#')
        .next()
        .expect("a head")
        .to_owned();
    for t in 0..4000 {
        write!(
            text,
            "[[tenant]]\nname = \"t{t}\"\n[[workload]]\ntenant = \"t{t}\"\nname = \"ci\"\nenvironment = \"prod\"\n\
             selectors = [{{ spiffe_id = \"spiffe://t{t}.test/ci\" }}]\n"
        )
        .expect("text");
        for g in 0..25 {
            text +=
                &grant(&format!("g{g}"), &format!("purposes = [\"p{g}\"]")).replace("\"acme\"", &format!("\"t{t}\""));
        }
    }
    let start = std::time::Instant::now();
    let map = map(&text);
    println!("{} MB read in {:?}", text.len() >> 20, start.elapsed());
    let start = std::time::Instant::now();
    assert!(crate::policy::diff(&map, &map).is_empty());
    println!("compared in {:?}", start.elapsed());
}
