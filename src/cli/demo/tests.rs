//! What can be shown of the demo without a daemon.

use std::time::Duration;

use clap::Parser;

use crate::{
    audit::{chain, export},
    cli::{
        Cli,
        output::{Format, captured::Written},
    },
    client::Identity,
    config::Config,
    model::time::system_wall,
    pb::Event,
    policy::{Document, Extent, parse_with},
};

use super::{
    authority::{Authority, CLIENT_ROOTS_FILE, SERVER_CERTIFICATE_FILE, SERVER_KEY_FILE, spiffe_id},
    child::ready_line,
    keep::Commands,
    platform::Platform,
    report::Proof,
    trust::Tenant,
    visit::Visitor,
    *,
};

fn proof(broken: Option<&str>) -> Proof {
    Proof {
        step: "revoke",
        what: "klue's leases live".into(),
        took: Duration::from_millis(12),
        broken: broken.map(str::to_owned),
    }
}

#[test]
fn the_trust_map_has_no_problems_sabotaged_or_not() {
    for sabotaged in [false, true] {
        let now = system_wall();
        let text = trust::text(now, sabotaged);
        let folder = tempfile::tempdir().expect("folder");
        Platform::new().and_then(|platform| platform.declare(folder.path())).expect("declared");
        let issuers = Config::load_issuers(&folder.path().join(Platform::ISSUERS_FILE)).expect("sound");
        let issuers: Vec<_> = issuers.into_iter().map(|issuer| issuer.rules).collect();
        let documents = [Document { path: "demo.toml", text: &text }];
        let map = parse_with(&documents, Extent::Whole, &issuers, now).expect("parses");
        assert_eq!((map.tenants.len(), map.global.partners.len(), map.global.verifiers.len()), (2, 2, 2));
    }
}

#[test]
fn only_a_sabotaged_trust_map_lets_globex_ask_about_acme() {
    let names_both = |sabotaged| trust::text(system_wall(), sabotaged).contains(r#"tenants = ["acme", "globex"]"#);
    assert!(!names_both(false));
    assert!(names_both(true));
}

#[test]
fn a_proof_is_one_line_and_coloured_only_when_asked() {
    let plain = proof(None).line(false);
    assert!(plain.starts_with("revoke     klue's leases live ") && plain.ends_with(" 12 ms"), "{plain}");
    assert!(!plain.contains('\u{1b}'));
    assert!(proof(None).line(true).contains("\u{1b}[32m"));
    let broken = proof(Some("a JWT\nis taken")).line(false);
    assert!(broken.contains("NOT PROVEN") && broken.lines().count() == 1, "{broken}");
}

#[test]
fn the_verdict_is_good_only_when_every_proof_held() {
    let output = Output::captured(Format::Table, false, Written::default());
    let now = std::time::Instant::now;
    let mut report = Report::new(&output);
    assert_eq!(report.verdict().expect_err("nothing shown").exit().number(), 4);
    report.prove("issue", "a token", now(), None).expect("written");
    assert!(report.verdict().is_ok());
    report.prove("revoke", "refused", now(), Some("still taken".into())).expect("written");
    assert!(report.is_broken());
    assert_eq!(report.verdict().expect_err("one is broken").exit().number(), 4);
}

#[test]
fn an_act_that_cannot_go_on_is_a_broken_proof_but_a_closed_stdout_ends_it_all() {
    let output = Output::captured(Format::Json, false, Written::default());
    let mut report = Report::new(&output);
    report.settle("issue", Err(Failure::Internal("gone".into()))).expect("noted");
    assert!(report.is_broken());
    assert!(matches!(report.settle("issue", Err(Failure::StdoutClosed)), Err(Failure::StdoutClosed)));
}

#[test]
fn members_and_servers_of_the_authority_can_be_used_for_tls() {
    let folder = tempfile::tempdir().expect("folder");
    let authority = Authority::new().expect("entropy");
    let own = authority.pem();
    let member = authority.member(folder.path().join("w"), "acme-worker", own.as_bytes()).expect("made");
    authority.equip_server(&member.folder, own.as_bytes()).expect("made");
    let files = |cert: &str, key: &str| Identity::from_files(&member.folder.join(cert), &member.folder.join(key));
    for (cert, key) in [("cert.pem", "key.pem"), (SERVER_CERTIFICATE_FILE, SERVER_KEY_FILE)] {
        let identity = files(cert, key).expect("reads");
        assert!(Visitor::new(own.as_bytes(), Some(&identity)).is_ok(), "{cert}");
    }
    let roots = std::fs::read(member.folder.join(CLIENT_ROOTS_FILE)).expect("reads");
    assert_eq!(crate::client::pem::certificates(&roots).expect("PEM").len(), 2);
    assert!(resource_server::tls(&member.folder).is_ok());
}

#[test]
fn a_member_carries_its_spiffe_id_and_nothing_else() {
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
    let folder = tempfile::tempdir().expect("folder");
    let member = Authority::new().expect("entropy").member(folder.path().join("w"), "w", b"").expect("made");
    let pem = std::fs::read(member.folder.join("cert.pem")).expect("reads");
    let chain = crate::client::pem::certificates(&pem).expect("PEM");
    let (_, leaf) = X509Certificate::from_der(&chain[0]).expect("DER");
    let names = &leaf.subject_alternative_name().expect("reads").expect("has names").value.general_names;
    assert_eq!(names.as_slice(), [GeneralName::URI(&spiffe_id("w"))]);
    assert_eq!(crate::model::Digest::of(&chain[0]), member.sha256);
}

#[test]
fn only_a_ready_line_says_where_a_process_listens() {
    assert_eq!(ready_line("ready https://127.0.0.1:7443").expect("ready").to_string(), "https://127.0.0.1:7443");
    for other in ["metrics http://127.0.0.1:9", "ready http://127.0.0.1:9", "not ready https://127.0.0.1:9", ""] {
        assert_eq!(ready_line(other), None, "{other}");
    }
}

#[test]
fn every_command_to_try_parses() {
    let folder = || "/tmp/x".to_owned();
    let commands = Commands {
        program: "mayfly".into(),
        server: "https://127.0.0.1:7443".into(),
        operator: folder(),
        worker: folder(),
        verifier: folder(),
    };
    let text = commands.text().replace("\\\n", " ");
    let mut count = 0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((_, arguments)) = line.split_once("mayfly ") else { continue };
        let words = std::iter::once("mayfly").chain(arguments.trim_end_matches(')').split_whitespace());
        Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        count += 1;
    }
    assert_eq!(count, 7);
}

#[test]
fn the_resource_server_takes_what_the_demo_gives_it() {
    let line = "mayfly demo-resource-server --address 127.0.0.1:0 --identity d --server https://127.0.0.1:1 \
                --audience a --audience b --trust-forever";
    Cli::try_parse_from(line.split_whitespace()).expect("parses");
    assert!(Tenant::ALL.iter().all(|tenant| tenant.audience().starts_with("https://")));
}

#[test]
fn one_flipped_bit_in_an_exported_event_is_found() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("audit.jsonl");
    let mut event = Event { stream: "acme/drift".into(), sequence: 1, kind: "lease.issued".into(), ..Event::default() };
    chain::seal_event(&mut event, chain::GENESIS);
    std::fs::write(&path, format!("{}\n", export::event_line(&event).expect("in range"))).expect("written");
    let findings = || act::audit::verify(&path).expect("reads").findings;
    assert_eq!(findings(), []);
    act::audit::flip_one_bit(&path).expect("flipped");
    assert!(!findings().is_empty());
    assert!(act::audit::flip_one_bit(&path).is_err(), "there is no second one");
}
