//! The runbooks' commands are commands of ours, and each alert has its runbook.

use std::{collections::BTreeSet, path::PathBuf};

use clap::{Parser as _, error::ErrorKind};

use super::Cli;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/operations")
}

fn runbooks() -> Vec<(String, String)> {
    let entries = std::fs::read_dir(folder().join("runbooks")).expect("runbooks");
    let read = |path: PathBuf| (path.display().to_string(), std::fs::read_to_string(&path).expect("text"));
    let mut pages: Vec<_> = entries.map(|entry| read(entry.expect("entry").path())).collect();
    pages.push(read(folder().join("README.md")));
    pages
}

/// Splits as a shell would what holds nothing but words and single quotes.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in command.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty())),
            _ => word.push(c),
        }
    }
    assert!(!quoted, "an open quote: {command}");
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

#[test]
fn each_command_of_a_runbook_is_whole() {
    let mut count = 0;
    for (page, text) in runbooks() {
        for command in text.lines().filter_map(|line| line.strip_prefix("$ ")) {
            let parsed = Cli::try_parse_from(words(command));
            assert!(parsed.is_ok(), "{page}: {command}\n{}", parsed.err().map(|e| e.to_string()).unwrap_or_default());
            count += 1;
        }
    }
    assert!(count > 20, "only {count} commands were found");
}

#[test]
fn each_command_that_a_runbook_mentions_exists() {
    for (page, text) in runbooks() {
        let quoted = text.split('`').skip(1).step_by(2);
        for command in quoted.filter(|quoted| quoted.starts_with("mayfly ") && !quoted.contains('\n')) {
            let known = match Cli::try_parse_from(words(command)) {
                Ok(_) => true,
                Err(error) => matches!(
                    error.kind(),
                    ErrorKind::DisplayHelp
                        | ErrorKind::MissingRequiredArgument
                        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                ),
            };
            assert!(known, "{page}: {command}");
        }
    }
}

#[test]
fn each_alert_has_its_runbook_and_each_runbook_is_in_the_index() {
    let alerts = std::fs::read_to_string(folder().join("alerts.yaml")).expect("alerts");
    let index = std::fs::read_to_string(folder().join("README.md")).expect("index");
    let after = |key: &'static str| alerts.lines().filter_map(move |line| line.trim().strip_prefix(key));
    let names: BTreeSet<&str> = after("- alert: ").collect();
    let books: Vec<&str> = after("runbook: ").collect();
    assert!(names.len() > 15 && names.len() == books.len(), "{names:?} {books:?}");
    for book in &books {
        assert!(folder().join(book).is_file(), "{book} is missing");
    }
    for name in names {
        assert!(index.contains(&format!("`{name}`")), "{name} is not in the index");
    }
    for (page, _) in runbooks() {
        let file = page.rsplit('/').next().unwrap_or_default();
        assert!(file == "README.md" || index.contains(&format!("(runbooks/{file})")), "{file} is not in the index");
    }
}

#[test]
fn each_link_of_a_runbook_leads_somewhere() {
    let elsewhere: [&str; 0] = [];
    for (page, text) in runbooks() {
        let base = PathBuf::from(&page).parent().expect("a folder").to_path_buf();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            assert!(elsewhere.contains(&link) || base.join(link).exists(), "{page}: {link}");
        }
    }
}
