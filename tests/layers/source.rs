//! Rust source as a list of words, without comments, texts and test code.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// One file below `src/`.
pub struct Source {
    /// Its path below `src/`, with `/` between the parts.
    pub path: String,
    /// Its whole text.
    pub text: String,
    /// Its words outside of tests.
    pub words: Vec<Word>,
}

/// An identifier, `::`, or one other character.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    pub text: String,
    pub line: usize,
}

impl Source {
    /// The module below the crate's root that it belongs to.
    pub fn top(&self) -> &str {
        self.path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    /// First parts of paths: `tonic` in `tonic::Status` and in `use tonic;`, but not `ring` in `crypto::ring::x`.
    pub fn roots(&self) -> impl Iterator<Item = &Word> {
        self.words.iter().enumerate().filter_map(|(at, word)| {
            let before = at.checked_sub(1).and_then(|at| self.words.get(at)).map_or("", |word| &word.text);
            let after = self.words.get(at + 1).map_or("", |word| &word.text);
            let path = after == "::" && before != "::";
            (word.is_name() && (path || (before == "use" && after == ";"))).then_some(word)
        })
    }

    /// Modules below the crate's root that it names.
    pub fn arrows(&self) -> Vec<Word> {
        let is_top = matches!(self.path.split('/').collect::<Vec<_>>().as_slice(), [_] | [_, "mod.rs"]);
        let mut found = Vec::new();
        for (at, pair) in self.words.windows(2).enumerate() {
            let root = pair[0].text == "crate" || (is_top && pair[0].text == "super");
            if root && pair[1].text == "::" {
                found.extend(heads(&self.words[at + 2..]));
            }
        }
        found
    }
}

impl Word {
    fn is_name(&self) -> bool {
        self.text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
    }
}

/// Reads every source below `folder`, without those that are test code only.
pub fn sources(folder: &Path) -> Vec<Source> {
    let mut files = Vec::new();
    collect(folder, &mut files);
    files.sort();
    let mut tests = BTreeSet::new();
    let mut found = Vec::new();
    for file in files {
        let path = file.strip_prefix(folder).expect("below").to_string_lossy().replace('\\', "/");
        let text = fs::read_to_string(&file).expect("a source");
        let (words, test_modules) = without_tests(words(&text));
        let parent = module_folder(&path);
        tests.extend(test_modules.into_iter().map(|name| format!("{parent}{name}")));
        found.push(Source { path, text, words });
    }
    found.retain(|source| {
        let module = source.path.trim_end_matches(".rs").trim_end_matches("/mod");
        !tests.iter().any(|test| module == test || module.starts_with(&format!("{test}/")))
    });
    found
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Where the children of a module lie: `a/` for `a.rs` and `a/mod.rs`.
fn module_folder(path: &str) -> String {
    let module = path.trim_end_matches(".rs");
    match module.strip_suffix("mod") {
        Some(folder) if folder.ends_with('/') => folder.to_owned(),
        Some(_) | None if matches!(module, "lib" | "main") => String::new(),
        Some(_) | None => format!("{module}/"),
    }
}

/// The first names behind `crate::`: one, or one for each entry of a group.
fn heads(words: &[Word]) -> Vec<Word> {
    let Some(first) = words.first() else { return Vec::new() };
    if first.text != "{" {
        return vec![first.clone()];
    }
    let (mut found, mut depth) = (Vec::new(), 0_usize);
    for pair in words.windows(2) {
        match pair[0].text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && matches!(pair[0].text.as_str(), "{" | ",") && pair[1].is_name() {
            found.push(pair[1].clone());
        }
    }
    found
}

/// Takes out items under `#[cfg(test)]`, and names the modules among them that have files of their own.
fn without_tests(words: Vec<Word>) -> (Vec<Word>, Vec<String>) {
    let (mut kept, mut modules) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < words.len() {
        if !matches_at(&words, at, &["#", "[", "cfg", "(", "test", ")", "]"]) {
            kept.push(words[at].clone());
            at += 1;
            continue;
        }
        at += 7;
        let (mut depth, start) = (0_usize, at);
        while at < words.len() {
            match words[at].text.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            let ends = depth == 0 && matches!(words[at].text.as_str(), "}" | ";");
            at += 1;
            if ends {
                break;
            }
        }
        let item = &words[start..at];
        if let Some(module) = item.iter().position(|word| word.text == "mod")
            && item.get(module + 2).is_some_and(|word| word.text == ";")
        {
            modules.push(item[module + 1].text.clone());
        }
    }
    (kept, modules)
}

fn matches_at(words: &[Word], at: usize, texts: &[&str]) -> bool {
    texts.iter().enumerate().all(|(i, text)| words.get(at + i).is_some_and(|word| word.text == *text))
}

/// Splits source into words. Comments vanish; a text or character literal becomes `"`.
pub fn words(text: &str) -> Vec<Word> {
    let bytes: Vec<char> = text.chars().collect();
    let (mut found, mut at, mut line) = (Vec::new(), 0, 1);
    let at_is = |at: usize, c: char| bytes.get(at) == Some(&c);
    while at < bytes.len() {
        let c = bytes[at];
        let start = at;
        let mut push = |text: String| found.push(Word { text, line });
        if c == '/' && at_is(at + 1, '/') {
            at = end_of(&bytes, at, |at| bytes[at] == '\n');
        } else if c == '/' && at_is(at + 1, '*') {
            at = end_of(&bytes, at + 2, |at| bytes[at] == '*' && at_is(at + 1, '/')) + 2;
        } else if let Some(end) = raw_text(&bytes, at).or_else(|| plain_text(&bytes, at)) {
            push("\"".into());
            at = end;
        } else if c == '\'' && (at_is(at + 1, '\\') || at_is(at + 2, '\'')) {
            push("\"".into());
            let from = if at_is(at + 1, '\\') { at + 3 } else { at + 2 };
            at = end_of(&bytes, from, |at| bytes[at] == '\'') + 1;
        } else if c.is_ascii_alphanumeric() || c == '_' {
            at = end_of(&bytes, at, |at| !(bytes[at].is_ascii_alphanumeric() || bytes[at] == '_'));
            push(bytes[start..at].iter().collect());
        } else if c == ':' && at_is(at + 1, ':') {
            push("::".into());
            at += 2;
        } else {
            if !c.is_whitespace() {
                push(c.into());
            }
            at += 1;
        }
        line += bytes[start..at.min(bytes.len())].iter().filter(|&&c| c == '\n').count();
    }
    found
}

fn end_of(bytes: &[char], from: usize, ends: impl Fn(usize) -> bool) -> usize {
    (from..bytes.len()).find(|&at| ends(at)).unwrap_or(bytes.len())
}

fn plain_text(bytes: &[char], at: usize) -> Option<usize> {
    let from = if bytes[at] == 'b' && bytes.get(at + 1) == Some(&'"') { at + 1 } else { at };
    if bytes[from] != '"' {
        return None;
    }
    let mut at = from + 1;
    while at < bytes.len() && bytes[at] != '"' {
        at += if bytes[at] == '\\' { 2 } else { 1 };
    }
    Some((at + 1).min(bytes.len()))
}

fn raw_text(bytes: &[char], at: usize) -> Option<usize> {
    let from = if bytes[at] == 'b' { at + 1 } else { at };
    let inside_name = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == '_');
    if inside_name || bytes.get(from) != Some(&'r') {
        return None;
    }
    let hashes = bytes[from + 1..].iter().take_while(|&&c| c == '#').count();
    if bytes.get(from + 1 + hashes) != Some(&'"') {
        return None;
    }
    let close = |at: usize| bytes[at] == '"' && (1..=hashes).all(|i| bytes.get(at + i) == Some(&'#'));
    Some((end_of(bytes, from + 2 + hashes, close) + 1 + hashes).min(bytes.len()))
}

#[test]
fn words_of_comments_texts_and_tests_do_not_count() {
    let text = "// tonic::a\nuse crate::{model::{A, B}, pb}; /* axum::b */ fn f() { x(\"ring::c\", 'a', r#\"sled::d\"#); }\n\
                #[cfg(test)]\nmod tests { use fjall::e; }\n#[cfg(test)]\nmod more;\nfn g<'a>() -> hyper::F {}";
    let (words, modules) = without_tests(words(text));
    let source = Source { path: "broker/x.rs".into(), text: text.into(), words };
    let texts = |words: Vec<Word>| words.into_iter().map(|word| (word.text, word.line)).collect::<Vec<_>>();
    assert_eq!(texts(source.arrows()), [("model".to_owned(), 2), ("pb".to_owned(), 2)]);
    let roots = source.roots().cloned().collect();
    let expected = [("crate", 2), ("model", 2), ("hyper", 7)].map(|(text, line)| (text.to_owned(), line));
    assert_eq!(texts(roots), expected);
    assert_eq!(modules, ["more"]);
}
