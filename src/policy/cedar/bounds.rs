//! What Cedar is not asked to read. Its parser and checker recurse, so the depth of a policy must not be its writer's
//! choice: what overflows a stack takes the whole process with it.

use std::thread;

/// Brackets within brackets.
const NESTED_MOST: usize = 32;
/// `if` in one policy.
const IFS_MOST: usize = 32;
/// Bytes of one policy without comments: bounds the chains of operators and attributes that it can have.
const POLICY_BYTES_MOST: usize = 8 << 10;
/// Room for whatever stays within these, also without optimisation.
const STACK_BYTES: usize = 16 << 20;

/// Why a text is not read, and at which byte.
pub(super) fn beyond(text: &str) -> Option<(usize, String)> {
    let (mut depth, mut ifs, mut bytes) = (0_usize, 0_usize, 0_usize);
    let mut rest = text.bytes().enumerate().peekable();
    let mut before = b' ';
    while let Some((at, byte)) = rest.next() {
        let next = rest.peek().map_or(b' ', |(_, next)| *next);
        match byte {
            b'/' if next == b'/' => {
                while rest.next_if(|(_, byte)| *byte != b'\n').is_some() {}
                continue;
            }
            b'"' => {
                bytes += 1;
                while let Some((_, byte)) = rest.next_if(|(_, byte)| *byte != b'"') {
                    let escaped = usize::from(byte == b'\\' && rest.next().is_some());
                    bytes += 1 + escaped;
                }
                rest.next();
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b';' if depth == 0 => (ifs, bytes) = (0, 0),
            b'i' if next == b'f' && !is_word(before) => {
                let after = text.as_bytes().get(at + 2).copied().unwrap_or(b' ');
                ifs += usize::from(!is_word(after));
            }
            _ => {}
        }
        (bytes, before) = (bytes + 1, byte);
        if depth > NESTED_MOST {
            return Some((at, format!("brackets are more than {NESTED_MOST} deep")));
        }
        if ifs > IFS_MOST {
            return Some((at, format!("a policy has more than {IFS_MOST} times `if`")));
        }
        if bytes > POLICY_BYTES_MOST {
            return Some((at, format!("a policy has more than {POLICY_BYTES_MOST} bytes")));
        }
    }
    None
}

/// Runs on a stack that is deep enough for what is within these bounds; `None` when there is no thread to be had.
pub(super) fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("policies".into()).stack_size(STACK_BYTES);
        thread.spawn_scoped(scope, work).ok()?.join().ok()
    })
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::cedar::{
        compile::{Side, compile},
        text::PolicyFile,
    };

    fn when(condition: &str) -> String {
        format!("@id(\"a\") forbid (principal, action, resource) when {{ {condition} }};")
    }

    #[test]
    fn depth_is_bounded_and_what_is_within_is_read() {
        let nested =
            |open: &str, close: &str, times: usize| when(&format!("{}true{}", open.repeat(times), close.repeat(times)));
        for (open, close, each) in [("(", ")", 1), ("!(", ")", 1), ("[", "]", 1)] {
            // The condition itself is within one.
            let most = (NESTED_MOST - 1) / each;
            assert_eq!(beyond(&nested(open, close, most)), None, "{open}");
            let (_, why) = beyond(&nested(open, close, most + 1)).expect("too deep");
            assert!(why.contains("deep"), "{why}");
        }
        let ifs = |times: usize| when(&format!("{}true{}", "if true then true else ".repeat(times), ""));
        assert_eq!(beyond(&ifs(IFS_MOST)), None);
        assert!(beyond(&ifs(IFS_MOST + 1)).is_some());
        assert_eq!(beyond(&ifs(IFS_MOST).repeat(2)), None, "each policy by itself");
        // Words that only look like it, texts and comments.
        let harmless = format!("context.iffy || \"{}\\\"(\" like \"(\" // {}\n", "if ((".repeat(30), "(".repeat(99));
        assert_eq!(beyond(&when(&harmless)), None);
        assert!(beyond(&when(&"x".repeat(POLICY_BYTES_MOST))).is_some());
        assert_eq!(beyond(&format!("//{}\n", "x".repeat(POLICY_BYTES_MOST))), None);
    }

    #[test]
    fn every_byte_of_a_policy_counts_also_in_texts_and_behind_escapes() {
        for unit in ["x", "\"a\" ", "\"\\\"\" ", "\"\\\\\" ", "\"//\" ", "\";\" ", "1 / 2 ", "{;} "] {
            let sized = |bytes: usize| {
                let room = bytes - (when("").len() - 1);
                when(&(unit.repeat(room / unit.len()) + &"x".repeat(room % unit.len())))
            };
            assert_eq!(sized(POLICY_BYTES_MOST).len(), POLICY_BYTES_MOST + 1, "with the `;` that ends it");
            assert_eq!(beyond(&sized(POLICY_BYTES_MOST)), None, "{unit}");
            assert!(beyond(&sized(POLICY_BYTES_MOST + 1)).is_some(), "{unit}");
        }
    }

    #[test]
    fn nothing_that_is_no_comment_hides_what_is_behind_it_and_no_semicolon_within_ends_a_policy() {
        let deep = "(".repeat(NESTED_MOST + 1);
        for before in ["1 / ", "/", "/ /", "\"//\" ", "\"\\\"//\" ", "//\n"] {
            assert!(beyond(&when(&format!("{before}{deep}"))).is_some(), "{before}");
        }
        assert_eq!(beyond(&format!("//{deep}\n")), None);
        let ifs = "if true then true else ".repeat(IFS_MOST / 2 + 1);
        assert!(beyond(&when(&format!("{ifs}; {ifs}"))).is_some());
        // Words that begin or end like it are none, however many there are.
        for word in ["iffy ", "a.iffy ", "elif ", "_if ", "if_ ", "if2 "] {
            assert_eq!(beyond(&when(&word.repeat(4 * IFS_MOST))), None, "{word}");
            assert_eq!(beyond(&format!("{}{}", " ".repeat(4_000), when(&word.repeat(4 * IFS_MOST)))), None, "{word}");
        }
        for word in ["if ", "if(", "if\n", "(if "] {
            let many = format!("{}{}", word.repeat(IFS_MOST + 1), ")".repeat(IFS_MOST + 1));
            assert!(beyond(&many).is_some(), "{word}");
        }
    }

    #[test]
    fn the_deepest_that_is_read_overflows_nothing_wherever_it_is_read() {
        let chain =
            |link: &str, rest: &str| when(&format!("{}{rest}", link.repeat((POLICY_BYTES_MOST - 200) / link.len())));
        let brackets =
            |open: &str| when(&format!("{}true{}", open.repeat(NESTED_MOST - 1), ")".repeat(NESTED_MOST - 1)));
        let texts = [
            chain("1+", "1 == 1"),
            chain("true&&", "true"),
            when(&format!("context{}", ".a".repeat((POLICY_BYTES_MOST - 200) / 2))),
            brackets("("),
            brackets("!("),
            when(&format!("{}true", "if true then true else ".repeat(IFS_MOST))),
        ];
        let small = thread::Builder::new().stack_size(1 << 20);
        let read = small.spawn(move || {
            for text in texts {
                assert_eq!(beyond(&text), None, "{text}");
                let file = PolicyFile { path: "a.cedar".into(), text };
                let _ = compile(&[file], Side::Guardrails);
            }
        });
        read.expect("a thread").join().expect("no overflow");
    }
}
