use crate::{
    find::find,
    report::report,
    site::{Site, render},
    tree::Tree,
    trial::{Outcome, Outcomes},
    work::shuffle,
};

fn sites(text: &str) -> Vec<Site> {
    find("src/model/a.rs", text, &mut 1).unwrap().sites
}

fn changes(text: &str) -> Vec<String> {
    sites(text).iter().flat_map(|site| site.mutants.iter().map(|mutant| mutant.change.clone())).collect()
}

fn rendered(text: &str) -> String {
    let sites = sites(text);
    let rendered = render(text, &sites.iter().collect::<Vec<_>>()).text;
    syn::parse_file(&rendered).unwrap_or_else(|e| panic!("{e}: {rendered}"));
    rendered
}

#[test]
fn every_kind_of_change_is_found() {
    let text =
        "fn f(a: u8, v: &mut Vec<u8>) -> bool { v.push(a + 1); if !v.is_empty() && a <= 2 { return true } a == 3 }";
    let expected = [
        "body becomes true",
        "body becomes false",
        "statement is left out",
        "`+` becomes `-`",
        "`+` becomes `*`",
        "condition becomes true",
        "condition becomes false",
        "`&&` becomes `||`",
        "`!` is left out",
        "`<=` becomes `<`",
        "`<=` becomes `>`",
        "`==` becomes `!=`",
    ];
    assert_eq!(changes(text), expected);
}

#[test]
fn what_no_test_of_the_program_can_tell_is_left_alone() {
    for text in [
        "#[cfg(test)] mod a { fn f() -> bool { 1 == 2 } }",
        "const A: bool = 1 == 2; static B: u8 = 1 + 2; const fn f() -> bool { 1 == 2 }",
        "impl fmt::Debug for A { fn fmt(&self) -> fmt::Result { if a == b { c() } Ok(()) } }",
        "fn f(a: [u8; 1 + 2]) -> &A { println!(\"{}\", 1 + 2); match a { 1 => b, _ => c } }",
        "fn f() -> A { Vec::with_capacity(1 + a.len()) }",
        "fn f() -> bool { true }",
    ] {
        let allowed: &[&str] = if text.contains("true") { &["body becomes false"] } else { &[] };
        assert_eq!(changes(text), allowed, "{text}");
    }
}

#[test]
fn changes_nest() {
    assert_eq!(
        rendered("fn f() -> A { a+b<c }"),
        "fn f() -> A { crate::mutants::order::<'<', _, _>(1, &(crate::mutants::arithmetic::<'+', _>(3, (a), (b))), &(c)) }"
    );
    assert_eq!(
        rendered("fn f() -> A { !a||b }"),
        "fn f() -> A { (if (crate::mutants::flip(2, !a)) != crate::mutants::is(1) { !crate::mutants::is(1) } else { b }) }"
    );
    // The changed call stands beside the call and holds nothing that is switched itself.
    assert_eq!(
        rendered("fn f() -> A { (a-b).min(c) }"),
        "fn f() -> A { (if crate::mutants::is(1) { (a-b).max(c) } else { (crate::mutants::arithmetic::<'-', _>(2, (a), (b))).min(c) }) }"
    );
}

#[test]
fn of_a_chain_that_binds_only_the_rest_is_a_condition() {
    let text = "fn f() -> A { if let Some(a) = b && c && d == e { g } else { h } }";
    let found = changes(text);
    assert_eq!(found.iter().filter(|change| change.starts_with("condition")).count(), 4, "{found:?}");
    assert!(!found.iter().any(|change| change.contains("&&")), "{found:?}");
    rendered(text);
}

#[test]
fn a_place_knows_where_it_stands_once_written() {
    let text = "fn é() -> A { a == b; c == d }";
    let sites = sites(text);
    let rendered = render(text, &sites.iter().collect::<Vec<_>>());
    let written: Vec<&str> = rendered.ranges.iter().map(|range| &rendered.text[range.clone()]).collect();
    assert_eq!(written, ["crate::mutants::flip(1, a == b)", "crate::mutants::flip(2, c == d)"]);
}

#[test]
fn the_same_seed_draws_the_same() {
    let order = |seed| {
        let mut things: Vec<usize> = (0..100).collect();
        shuffle(&mut things, seed);
        things
    };
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
    let mut sorted = order(3);
    sorted.sort_unstable();
    assert_eq!(sorted, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_reason_for_what_is_caught_or_gone_is_told() {
    let text = "fn f() -> A { a == b }\nfn g() -> A { a == b }\nfn h() -> A { a == b }\n";
    let tree = Tree { files: [("src/model/a.rs".to_owned(), text.to_owned())].into(), sites: sites(text) };
    let all: Vec<_> =
        tree.sites.iter().flat_map(|site| site.mutants.iter().map(move |mutant| (site, mutant))).collect();
    let ends = [Outcome::Survived, Outcome::Caught("a test".to_owned())];
    // The third was not tried.
    let outcomes: Outcomes = all.iter().zip(ends).map(|((site, mutant), end)| (site.key(mutant), end)).collect();
    let reason = |function: &str| {
        format!("* `src/model/a.rs` `{function}`: `==` becomes `!=` at 17: `fn {function}() -> A {{ a == b }}`\n")
    };
    let explained: String = ["f", "g", "h", "gone"].map(reason).concat();
    let told = report(&tree, &all, &outcomes, &explained);
    let idle = told.split_once("caught or gone:").expect("some are").1;
    assert_eq!(
        ["f", "g", "h", "gone"].map(|function| idle.contains(&reason(function))),
        [false, true, false, true],
        "{told}"
    );
    assert!(told.contains("| model | 2 | 1 | 0 | 1 | 0 | 50.0 % | 1 |"), "{told}");
}
