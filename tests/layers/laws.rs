use std::path::Path;

use super::source::{Source, Word, sources, words};

/// Which modules each module may name, beside itself. What is not listed may name nothing.
const ARROWS: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("lib", EVERYTHING),
    ("cli", EVERYTHING),
    (
        "server",
        &[
            "api",
            "audit",
            "broker",
            "config",
            "identity",
            "issuers",
            "ledger",
            "mint",
            "model",
            "notify",
            "policy",
            "sink",
            "telemetry",
        ],
    ),
    ("api", &["audit", "broker", "config", "identity", "ledger", "mint", "model", "policy", "sink", "telemetry"]),
    ("broker", &["audit", "config", "identity", "issuers", "ledger", "mint", "model", "notify", "policy", "sink"]),
    // Key sets of issuers: fetched, kept, checked by identity.
    ("issuers", &["config", "identity", "model"]),
    // Owners are told by webhook and mail; addresses are looked up as for issuers.
    ("notify", &["config", "issuers", "mint", "model"]),
    // Events go out as the audit spells them.
    ("sink", &["audit", "model"]),
    ("identity", &["model"]),
    // Selectors are matched against the `Caller` value.
    ("policy", &["identity", "model"]),
    // Only a `Decision` can be minted.
    ("mint", &["model", "policy"]),
    // Events are chained in the commit that writes them.
    ("ledger", &["audit", "model"]),
    ("audit", &["model"]),
    ("verifier", &["model"]),
    ("client", &["model"]),
    ("telemetry", &["config", "model"]),
    ("config", &["model", "settings"]),
    ("settings", &[]),
    ("generated", &[]),
    ("wire", &[]),
    ("model", &[]),
];

const EVERYTHING: &[&str] = &[
    "api",
    "audit",
    "broker",
    "client",
    "config",
    "identity",
    "issuers",
    "ledger",
    "mint",
    "model",
    "notify",
    "policy",
    "server",
    "settings",
    "sink",
    "telemetry",
    "verifier",
    "wire",
];

/// Generated words of the contract and of the rows; whoever may name a row is said by what it does with it.
const FREE: &[&str] = &["pb", "records", "foreign"];

/// Where each foreign library may be named: paths below `src/` that start so.
const PLACES: &[(&[&str], &[&str])] = &[
    // The contract's surface, and the clients of it.
    (
        &["tonic", "tonic_types", "tonic_health", "tonic_reflection"],
        &["api/", "client/", "verifier/", "cli/", "generated.rs", "wire.rs"],
    ),
    (&["axum"], &["api/"]),
    // The config checks mail addresses.
    (&["lettre"], &["notify/mail.rs", "config/notify.rs"]),
    // The tour runs a small resource server of its own.
    (&["hyper", "hyper_util"], &["api/", "client/", "cli/demo"]),
    (&["fjall"], &["ledger/engine/fjall"]),
    (&["sled"], &["ledger/engine/sled"]),
    (&["cedar_policy", "miette"], &["policy/cedar/"]),
    (&["ring"], &["mint/", "model/secret.rs", "verifier/crypto.rs", "identity/oidc/signature.rs"]),
    // Keys of callers are made on the caller's host: for certificate requests, and for one run of a federated one.
    (&["rcgen"], &["mint/", "client/", "cli/demo"]),
    (&["opentelemetry", "opentelemetry_sdk", "opentelemetry_otlp", "tracing_opentelemetry"], &["telemetry/otlp.rs"]),
    // The config checks that its log filter is one.
    (
        &["metrics_exporter_prometheus", "tracing_subscriber"],
        &["telemetry.rs", "telemetry/", "api/http/metrics_port.rs", "config/parse.rs"],
    ),
];

/// Files longer than [`LINES_AT_MOST`], with the length that they may not exceed any more. To be split.
const OVERLONG: &[(&str, usize)] = &[];

const LINES_AT_MOST: usize = 600;

fn all() -> Vec<Source> {
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

fn report(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn place(source: &Source, word: &Word) -> String {
    format!("src/{}:{}", source.path, word.line)
}

#[test]
fn arrows_point_down_only() {
    let known: Vec<&str> = ARROWS.iter().map(|(top, _)| *top).chain(FREE.iter().copied()).collect();
    let mut wrong = Vec::new();
    let sources = all();
    assert!(sources.len() > 100, "only {} sources were found", sources.len());
    for source in &sources {
        let top = source.top();
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == top) else {
            wrong.push(format!("src/{}: module `{top}` has no place among the layers", source.path));
            continue;
        };
        for word in source.arrows() {
            let to = word.text.as_str();
            if known.contains(&to) && to != top && !FREE.contains(&to) && !allowed.contains(&to) {
                wrong.push(format!("{}: {top} -> {to}", place(source, &word)));
            }
        }
        // The program is a crate of its own and names the library.
        if top == "main" {
            let names = source.words.windows(3).filter(|w| w[0].text == "mayfly" && w[1].text == "::");
            wrong.extend(names.filter(|w| w[2].text != "cli").map(|w| format!("main -> {}", w[2].text)));
        }
    }
    report(&wrong);
}

#[test]
fn the_layers_have_no_circle() {
    let mut done: Vec<&str> = Vec::new();
    let mut rest: Vec<_> = ARROWS.iter().filter(|(top, _)| !matches!(*top, "lib" | "main")).collect();
    while !rest.is_empty() {
        let before = rest.len();
        rest.retain(|(top, below)| {
            let free = below.iter().all(|name| done.contains(name));
            if free {
                done.push(top);
            }
            !free
        });
        assert!(rest.len() < before, "these know each other: {rest:?}");
    }
}

#[test]
fn each_foreign_library_is_named_in_its_place_only() {
    let mut wrong = Vec::new();
    for source in all() {
        for word in source.roots() {
            let Some((_, places)) = PLACES.iter().find(|(libraries, _)| libraries.contains(&word.text.as_str())) else {
                continue;
            };
            // A module of ours may bear an engine's name.
            let own = source.path.starts_with("ledger/engine/mod.rs") && matches!(word.text.as_str(), "fjall" | "sled");
            if !own && !places.iter().any(|place| source.path.starts_with(place)) {
                wrong.push(format!("{}: names `{}`", place(&source, word), word.text));
            }
        }
    }
    report(&wrong);
}

#[test]
fn nothing_is_unsafe() {
    let mut wrong = Vec::new();
    for source in all() {
        // The whole text, tests included.
        for word in words(&source.text).iter().filter(|word| word.text == "unsafe") {
            wrong.push(place(&source, word));
        }
    }
    report(&wrong);
}

#[test]
fn files_are_short() {
    let mut wrong = Vec::new();
    for source in all() {
        let lines = source.text.lines().count();
        let most = OVERLONG.iter().find(|(path, _)| *path == source.path).map_or(LINES_AT_MOST, |(_, most)| *most);
        if lines > most {
            wrong.push(format!("src/{}: {lines} lines, at most {most}", source.path));
        } else if lines <= LINES_AT_MOST && most > LINES_AT_MOST {
            wrong.push(format!("src/{}: is short by now; take it off the list", source.path));
        }
    }
    report(&wrong);
}

#[test]
fn what_is_left_to_do_names_its_issue() {
    let mut wrong = Vec::new();
    for source in all() {
        for (at, line) in source.text.lines().enumerate() {
            for mark in ["TODO", "FIXME", "XXX"] {
                let Some((_, rest)) = line.split_once(mark) else { continue };
                let named = rest.strip_prefix("(#").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
                if !named {
                    wrong.push(format!("src/{}:{}: {}", source.path, at + 1, line.trim()));
                }
            }
        }
    }
    report(&wrong);
}
