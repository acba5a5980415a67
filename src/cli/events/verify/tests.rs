use super::*;
use crate::{
    audit::{chain, checkpoint::Statement},
    cli::output::captured::Written,
    mint::audit_key::AuditKey,
    pb::{Event, Revision, StreamHead},
};

const STREAM: &str = "acme/globex";

/// Three chained events and the checkpoint that vouches for them, as `events export` writes them.
fn exported(key: &AuditKey) -> Vec<String> {
    let mut head = chain::GENESIS;
    let mut lines = Vec::new();
    for sequence in 1..=3 {
        let mut event = Event { stream: STREAM.into(), sequence, reason: "as it was".into(), ..Event::default() };
        head = chain::seal_event(&mut event, head);
        lines.push(export::event_line(&event).expect("a line"));
    }
    let statement = Statement {
        number: 1,
        at: prost_types::Timestamp { seconds: 1, nanos: 0 },
        revision: Revision { incarnation: 1, number: 1 },
        heads: vec![StreamHead { stream: STREAM.into(), sequence: 3, hash: head.0.to_vec(), first_sequence: 1 }],
        previous: chain::GENESIS,
    };
    let checkpoint = statement.sign(&key.key_id(), key.public_key(), |message| key.sign(message));
    lines.push(export::checkpoint_line(&checkpoint).expect("a line"));
    lines
}

/// Exit code and output.
fn check(lines: &[String], trusted: &[[u8; 32]]) -> (u8, String) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), lines.join("\n") + "\n").expect("written");
    let written = Written::default();
    let output = Output::captured(Format::Table, false, written.clone());
    let streams = StreamArgs { tenant: None, partner: None };
    let args = VerifyArgs { file: None, streams, trusted: trusted.to_vec(), from_first: true };
    let code = args.offline(file.path(), &output).map_or_else(|failure| failure.exit().number(), |()| 0);
    (code, written.text())
}

fn key() -> AuditKey {
    AuditKey::generate().expect("entropy").0
}

#[test]
fn a_file_as_it_was_exported_passes_with_its_key_and_without_any() {
    let key = key();
    for trusted in [vec![*key.public_key()], Vec::new()] {
        let (code, said) = check(&exported(&key), &trusted);
        assert_eq!((code, said.trim_end()), (0, "checked 1 streams, 3 events, 1 checkpoints"));
    }
}

#[test]
fn a_file_signed_with_another_key_fails() {
    let (code, said) = check(&exported(&key()), &[*key().public_key()]);
    assert_eq!(code, 4);
    assert!(said.contains("not trusted"), "{said}");
}

#[test]
fn a_changed_line_and_a_missing_one_are_listed() {
    let key = key();
    let mut changed = exported(&key);
    changed[1] = changed[1].replace("as it was", "as it is");
    let (code, said) = check(&changed, &[*key.public_key()]);
    assert!(code == 4 && said.contains("changed") && said.contains(STREAM), "{said}");
    let mut missing = exported(&key);
    missing.remove(2);
    let (code, said) = check(&missing, &[*key.public_key()]);
    assert!(code == 4 && said.contains("truncated"), "{said}");
}

#[test]
fn a_file_without_a_checkpoint_fails() {
    let key = key();
    let mut lines = exported(&key);
    lines.pop();
    assert_eq!(check(&lines, &[*key.public_key()]).0, 4);
    assert_eq!(check(&[], &[]).0, 4);
}
