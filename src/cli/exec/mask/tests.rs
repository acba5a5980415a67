use proptest::prelude::*;

use super::*;

const JWT: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJzcGlmZmU6Ly9hIn0.c2lnbmF0dXJlLW9mLXRoaXMtdG9rZW4";
const OPAQUE: &str = "mfy_7Gk2qPz0aVtWcLr4XyB1nEoHdSfUmJi9";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg/+ab\nY2RlZmdoaWprbG1ub3Bx\n-----END PRIVATE KEY-----\n";

fn patterns() -> Patterns {
    let mut patterns = Patterns::new();
    [JWT, OPAQUE, KEY].into_iter().for_each(|secret| patterns.add(secret));
    patterns
}

/// What is shown of pieces that come one by one.
fn shown<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, idles: bool) -> String {
    let (patterns, mut masker, mut out) = (patterns(), Masker::default(), Vec::new());
    for piece in pieces {
        out.extend(masker.push(&patterns, piece));
        if idles {
            out.extend(masker.idle());
        }
    }
    out.extend(masker.finish(&patterns));
    String::from_utf8(out).expect("text")
}

fn masked(text: &str) -> String {
    shown([text.as_bytes()], false)
}

#[test]
fn a_secret_is_masked_in_every_form_that_programs_print_it_in() {
    let signature = JWT.rsplit('.').next().expect("a part");
    for secret in [JWT, OPAQUE, signature] {
        assert_eq!(masked(&format!("token={secret}; next\n")), "token=***; next\n");
    }
    let line = KEY.lines().nth(1).expect("a line");
    assert_eq!(masked(&format!("> {line}\n")), "> ***\n");
    assert!(!masked(&KEY.replace('\n', "\\n")).contains(line.get(..30).expect("long enough")));
    for secret in [JWT, OPAQUE, KEY] {
        for before in ["", "x", "us:", "user:"] {
            for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
                let once = engine.encode(format!("{before}{secret}"));
                let twice = engine.encode(&once);
                for text in [once, twice] {
                    let rest = masked(&format!("[{text}]"));
                    assert!(rest.len() < 40 && rest.contains("***"), "{rest} of {text}");
                }
            }
        }
    }
}

#[test]
fn the_newest_secrets_are_looked_for_and_the_list_does_not_grow() {
    let secret = |at: usize| format!("mfy_secret-number-{at:08}");
    let mut patterns = Patterns::new();
    (0..MOST * 3).for_each(|at| patterns.add(&secret(at)));
    // A key that was renewed is not counted twice.
    (0..MOST * 3).for_each(|_| patterns.add(&secret(MOST * 3 - 1)));
    assert_eq!(patterns.secrets.len(), MOST);
    let shown = |at| Masker::default().push(&patterns, format!("{} ", secret(at)).as_bytes());
    assert_eq!(shown(MOST * 2), b"*** ");
    assert_eq!(shown(MOST * 3 - 1), b"*** ");
}

#[test]
fn percent_encoding_hides_nothing() {
    let encoded = String::from_utf8(percent(KEY.trim_end(), true).to_vec()).expect("ASCII");
    assert_eq!(masked(&format!("key={encoded}&x=1")), "key=***&x=1");
    assert_eq!(masked(&encoded.replace("%2F", "%2f").replace("%2B", "%2b").replace("%0A", "%0a")), "***");
}

#[test]
fn base64_that_a_program_wrapped_is_found() {
    let text = STANDARD_NO_PAD.encode(format!("{JWT}\n"));
    let wrapped: Vec<&str> = text.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    let rest = masked(&format!("{}\n", wrapped.join("\n")));
    assert!(rest.starts_with("***") && rest.len() < 10, "{rest}");
    assert!(masked(&wrapped.join("\r\n")).len() < 10);
}

#[test]
fn what_only_begins_like_a_secret_is_shown() {
    for text in ["eyJhbGciOiJFUzI1NiJ9.eyJzdWIi then another thing", "mfy_", "e", "", "nothing to see\n"] {
        assert_eq!(masked(text), text);
    }
}

#[test]
fn a_prompt_that_ends_like_a_secret_begins_appears_when_nothing_follows() {
    let (patterns, mut masker) = (patterns(), Masker::default());
    assert_eq!(masker.push(&patterns, b"name"), b"nam");
    assert!(masker.holds());
    assert_eq!(masker.idle(), b"e");
    assert!(!masker.holds() && masker.idle().is_empty());
    // And it still counts.
    assert_eq!(masker.push(&patterns, &JWT.as_bytes()[1..]), b"***");
}

proptest! {
    #[test]
    fn a_secret_is_masked_wherever_the_stream_is_cut(
        cuts in proptest::collection::vec(0_usize..200, 0..12),
        idles: bool,
        front in "[a-z ]{0,20}",
    ) {
        let text = format!("{front}{JWT} and {OPAQUE}\n");
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (text.len() + 1)).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]).collect();
        let rest = shown(pieces, idles);
        // At most a few characters of each may have been let through as a prompt.
        prop_assert!(rest.contains("*** and ") && rest.ends_with("***\n"), "{}", rest);
        prop_assert!(rest.len() <= front.len() + "*** and ***\n".len() + 2 * SHORT, "{}", rest);
    }

    #[test]
    fn what_holds_no_secret_is_passed_on_unchanged(text: Vec<u8>, cut: proptest::sample::Index) {
        let (patterns, mut masker) = (patterns(), Masker::default());
        let (front, back) = text.split_at(if text.is_empty() { 0 } else { cut.index(text.len()) });
        let mut out = masker.push(&patterns, front);
        out.extend(masker.push(&patterns, back));
        out.extend(masker.finish(&patterns));
        prop_assert_eq!(out, text);
    }
}
