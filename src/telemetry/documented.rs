//! The pages for operators name the metrics that are kept, and all of them.

use std::{collections::BTreeSet, path::Path};

use metrics::Unit;

use super::{Kind, METRICS, Metric};

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every name of a metric in a text, as the code has it: without what a histogram adds.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let words = words.filter(|word| word.strip_prefix("mayfly_").is_some_and(|rest| rest.contains('_') || known(word)));
    words.map(plain).collect()
}

fn known(word: &str) -> bool {
    METRICS.iter().any(|metric| metric.name == word)
}

fn plain(word: &str) -> String {
    let base = ["_bucket", "_sum", "_count"].into_iter().find_map(|end| word.strip_suffix(end));
    let histogram = |name: &&str| METRICS.iter().any(|metric| metric.name == *name && metric.kind == Kind::Histogram);
    base.filter(histogram).unwrap_or(word).to_owned()
}

fn kept() -> BTreeSet<String> {
    METRICS.iter().map(|metric| metric.name.to_owned()).collect()
}

#[test]
fn each_metric_has_its_row_and_each_row_its_metric() {
    let text = page("metrics.md");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `mayfly_")).collect();
    assert_eq!(rows.len(), METRICS.len());
    for (row, metric) in rows.iter().zip(METRICS) {
        let Metric { name, kind, unit, labels, help } = *metric;
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = if labels.is_empty() { "-".to_owned() } else { labels.join(", ") };
        let unit = if unit == Unit::Count { "1" } else { unit.as_str() };
        let kind = format!("{kind:?}").to_lowercase();
        let want = format!("| `{name}` | {kind} | {unit} | {labels} | {help} | ");
        assert!(row.starts_with(&want) && row.len() > want.len() + 3, "{row}\n{want}");
    }
}

#[test]
fn alerts_runbooks_and_the_dashboard_name_metrics_that_are_kept() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations/runbooks");
    let runbooks = std::fs::read_dir(folder).expect("runbooks").map(|entry| entry.expect("entry").file_name());
    let runbooks = runbooks.map(|name| format!("runbooks/{}", name.to_str().expect("UTF-8")));
    let pages = ["alerts.yaml", "dashboard.json", "traces.md", "README.md"].into_iter().map(str::to_owned);
    for name in pages.chain(runbooks) {
        let unknown: Vec<_> = named(&page(&name)).difference(&kept()).cloned().collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
    }
}

#[test]
fn the_dashboard_shows_every_metric() {
    let text = page("dashboard.json");
    let _json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let missing: Vec<_> = kept().difference(&named(&text)).cloned().collect();
    assert!(missing.is_empty(), "{missing:?}");
}
