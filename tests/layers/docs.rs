//! Tables that say which test holds what: each test that they name is one.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::source::{sources, words};

/// Tables of documents whose last column names tests.
const TABLES: [&str; 3] = ["docs/controls.md", "docs/attacks.md", "ARCHITECTURE.md"];

/// Of controls: id, control, state, code, test or what is missing.
const CONTROLS: &str = "docs/controls.md";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(document: &str) -> String {
    fs::read_to_string(root().join(document)).unwrap_or_else(|error| panic!("{document}: {error}"))
}

/// Rows of tables, by line, without their headings' rules.
fn rows(text: &str) -> impl Iterator<Item = (usize, Vec<&str>)> {
    let lines = text.lines().enumerate().filter(|(_, line)| line.starts_with('|') && !line.starts_with("|--"));
    lines.map(|(at, line)| (at + 1, line.trim_matches('|').split(" | ").map(str::trim).collect()))
}

/// What stands between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// A test is called by a sentence; what is shorter is the name of something else.
fn is_sentence(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    name.bytes().all(plain) && name.split('_').count() >= 4
}

/// Every test: a function under an attribute that makes it one, or in a list of laws that run on each engine.
fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in ["src", "tests"].into_iter().flat_map(|folder| files(&root().join(folder))) {
        collect(&fs::read_to_string(&file).expect("a source"), &mut found);
    }
    found
}

/// All sources, test code included.
fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

fn collect(text: &str, found: &mut BTreeSet<String>) {
    let words = words(text);
    let (mut is_test, mut laws) = (false, false);
    for (at, word) in words.iter().enumerate() {
        let before = |n: usize| at.checked_sub(n).and_then(|at| words.get(at)).map_or("", |word| word.text.as_str());
        match word.text.as_str() {
            // `#[test]`, `#[tokio::test]`, `#[tokio::test(...)]`.
            "test" if before(1) == "[" || (before(1) == "::" && before(2) == "tokio") => is_test = true,
            "on_each_engine" => laws = true,
            "}" if laws => laws = false,
            name if laws && is_sentence(name) => {
                found.insert(name.to_owned());
            }
            name if is_test && before(1) == "fn" => {
                found.insert(name.to_owned());
                is_test = false;
            }
            _ => {}
        }
    }
}

#[test]
fn each_test_that_a_table_names_is_one() {
    let tests = tests();
    assert!(tests.len() > 500, "only {} tests were found", tests.len());
    let mut wrong = Vec::new();
    for document in TABLES {
        let text = read(document);
        let mut named = 0;
        for (line, cells) in rows(&text) {
            for name in cells.last().into_iter().flat_map(|cell| quoted(cell)).filter(|name| is_sentence(name)) {
                named += 1;
                if !tests.contains(name) {
                    wrong.push(format!("{document}:{line}: there is no test `{name}`"));
                }
            }
        }
        assert!(named > 20, "{document} names {named} tests");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_control_is_held_by_code_and_a_test_or_says_what_is_missing() {
    let src = root().join("src");
    let mut code: BTreeSet<String> =
        sources(&src).into_iter().flat_map(|source| source.words.into_iter().map(|word| word.text)).collect();
    for file in files(&src) {
        let below = file.strip_prefix(&src).expect("below").with_extension("");
        code.extend(below.iter().map(|part| part.to_string_lossy().into_owned()));
    }
    let (text, mut wrong, mut seen) = (read(CONTROLS), Vec::new(), BTreeSet::new());
    for (line, cells) in rows(&text) {
        let [id, _, state, by, test] = cells.as_slice() else {
            wrong.push(format!("{CONTROLS}:{line}: has {} cells", cells.len()));
            continue;
        };
        if *id == "id" {
            continue;
        }
        if !seen.insert(id.to_string()) {
            wrong.push(format!("{CONTROLS}:{line}: {id} is there twice"));
        }
        let names = quoted(test).any(is_sentence);
        let misses = test.to_lowercase().contains("missing:");
        match *state {
            "held" if !names && !test.contains("`tests/process`") => {
                wrong.push(format!("{CONTROLS}:{line}: {id} is held by no test"));
            }
            "held" if misses => wrong.push(format!("{CONTROLS}:{line}: {id} is held, and something is missing")),
            "held" => {}
            "part" | "open" if !misses => wrong.push(format!("{CONTROLS}:{line}: {id} does not say what is missing")),
            "part" | "open" => {}
            other => wrong.push(format!("{CONTROLS}:{line}: `{other}` is none of held, part, open")),
        }
        // Paths to code: the last part must be there.
        let paths = quoted(by).filter(|name| name.contains("::") && !name.contains(' '));
        for path in paths {
            let last = path.rsplit("::").next().unwrap_or_default();
            let last = last.trim_start_matches('{').split([',', '}', '(']).next().unwrap_or_default();
            if !code.contains(last) {
                wrong.push(format!("{CONTROLS}:{line}: {id} names `{path}`, which is not there"));
            }
        }
    }
    for group in ["A", "B", "C", "D", "E", "F"] {
        let most = (1..).take_while(|n| seen.contains(&format!("{group}{n}"))).count();
        let all = seen.iter().filter(|id| id.starts_with(group)).count();
        assert_eq!(most, all, "numbers of {group} have a gap: {seen:?}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_name_counts_as_a_test_only_under_its_attribute_or_as_a_law() {
    let text = "#[test]\nfn a_law_that_is_one() {}\nfn a_law_that_is_none() {}\n#[tokio::test]\nasync fn one_that_waits_a_little() {}\n\
                on_each_engine! {\n    a_law_on_each_engine,\n}\nfn a_law_on_no_engine_here() {}";
    let mut found = BTreeSet::new();
    collect(text, &mut found);
    let found: Vec<_> = found.iter().map(String::as_str).collect();
    assert_eq!(found, ["a_law_on_each_engine", "a_law_that_is_one", "one_that_waits_a_little"]);
}
