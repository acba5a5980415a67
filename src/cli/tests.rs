//! Laws of the command line as a whole.

use clap::CommandFactory;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_arguments_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn the_help_is_as_it_was_reviewed() {
    let help = Cli::command().term_width(100).render_long_help().to_string();
    let help: String = help.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    let golden = include_str!("golden/help.txt");
    assert_eq!(help, golden, "review the change, then copy it into src/cli/golden/help.txt");
}

#[test]
fn every_command_says_what_it_does_and_every_argument_too() {
    fn visit(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        assert!(command.get_about().is_some(), "{path} says nothing");
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{path}: {} says nothing", argument.get_id());
        }
        command.get_subcommands().for_each(|command| visit(command, &path));
    }
    visit(&Cli::command(), "");
}

#[test]
fn every_example_in_the_help_parses() {
    let mut count = 0;
    let mut visit = |command: &clap::Command| {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default().replace("\\\n", " ");
        for line in help.lines().filter(|line| line.starts_with("  ") && !line.trim_start().starts_with('#')) {
            for part in line.split(['|', '>']).flat_map(|part| part.split("&&")).map(str::trim) {
                if part.starts_with("mayfly ") {
                    // Quoted words count as one.
                    let words: Vec<_> = part.split('\'').enumerate().flat_map(quoted).collect();
                    count += 1;
                    if let Err(error) = Cli::try_parse_from(&words) {
                        panic!("{part}: {error}");
                    }
                }
            }
        }
    };
    fn walk(command: &clap::Command, visit: &mut impl FnMut(&clap::Command)) {
        visit(command);
        command.get_subcommands().for_each(|command| walk(command, visit));
    }
    walk(&Cli::command(), &mut visit);
    assert!(count > 30, "found {count}");
}

/// Every second part of a text split at quotes lies within them.
pub(super) fn quoted((at, part): (usize, &str)) -> Vec<String> {
    if at % 2 == 1 { vec![part.to_owned()] } else { part.split_whitespace().map(|w| w.replace('"', "")).collect() }
}

#[test]
fn a_revocation_names_one_thing_and_why() {
    for good in [
        "mayfly revoke partner globex --reason x",
        "mayfly revoke partner globex --dry-run",
        "mayfly revoke --credential - --reason x",
        "mayfly bar list",
        "mayfly bar partner globex --suspend --reason x",
    ] {
        assert!(parse(good).is_ok(), "{good}");
    }
    for bad in [
        "mayfly revoke",
        "mayfly revoke partner",
        "mayfly revoke partner globex",
        "mayfly revoke partner globex --credential - --reason x",
        "mayfly revoke everything x --reason x",
        "mayfly revoke partner globex --dry-run --wait",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn an_issue_names_its_place_or_its_task() {
    let wanted = "--kind jwt --audience a";
    for good in ["--tenant t --partner p --purpose u", "--task 400000010000000000000001"] {
        assert!(parse(&format!("mayfly issue {wanted} {good}")).is_ok(), "{good}");
    }
    for bad in ["--tenant t", "--tenant T --partner p --purpose u", "--task 4000", "--task 00"] {
        assert!(parse(&format!("mayfly issue {wanted} {bad}")).is_err(), "{bad}");
    }
}

#[test]
fn completions_are_made_for_every_command() {
    let written = output::captured::Written::default();
    let output = Output::captured(Format::Table, false, written.clone());
    let Command::Completions(args) = parse("mayfly completions bash").expect("parses").command else {
        panic!("another command");
    };
    args.run(&output).expect("written");
    assert!(Cli::command().get_subcommands().all(|command| written.text().contains(command.get_name())));
}
