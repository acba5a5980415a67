//! Credentials that come in: from stdin or a file, never from the arguments.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use zeroize::Zeroizing;

use super::failure::{Failure, Outcome};

/// Reads what somebody has in hand: `-` from stdin, else from a file. Wiped on drop.
///
/// # Errors
/// When it cannot be read, is empty, larger than 16 KiB or not UTF-8; and when `source` looks like a credential itself.
pub fn read(source: &str) -> Outcome<Zeroizing<String>> {
    if source == "-" {
        return limited(io::stdin().lock(), "stdin");
    }
    if looks_secret(source) {
        // Not echoed: the terminal, the shell's history and the process list have seen enough of it.
        return Err(Failure::Usage("credentials come on stdin (`-`) or in a file, never as an argument".into()));
    }
    let path = Path::new(source);
    limited(File::open(path).map_err(|error| Failure::file("read", path, error))?, source)
}

/// A JWT begins with the Base64url of `{"`, a reference token and a handle with their prefixes.
fn looks_secret(source: &str) -> bool {
    source.starts_with("mfy_") || source.starts_with("mfp_") || source.starts_with("eyJ")
}

fn limited(from: impl Read, name: &str) -> Outcome<Zeroizing<String>> {
    // Room for all that is allowed, so that growing leaves no copy behind.
    let mut text = Zeroizing::new(String::with_capacity(2 * MAX_BYTES));
    let most = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
    from.take(most + 1).read_to_string(&mut text).map_err(|error| Failure::io(format!("read {name}"), error))?;
    if text.len() > MAX_BYTES {
        return Err(Failure::Usage(format!("{name} holds more than {MAX_BYTES} bytes")));
    }
    let trimmed = Zeroizing::new(text.trim().to_owned());
    if trimmed.is_empty() { Err(Failure::Usage(format!("{name} is empty"))) } else { Ok(trimmed) }
}

const MAX_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_as_an_argument_is_refused_without_repeating_it() {
        for argument in ["mfy_secret", "mfp_secret", "eyJhbGciOi.secret"] {
            let failure = read(argument).expect_err("refused");
            assert_eq!(failure.exit().number(), 2);
            assert!(!failure.report().contains("secret"));
        }
    }

    #[test]
    fn what_is_read_is_trimmed_limited_and_not_empty() {
        assert_eq!(limited(&b" mfy_x\n"[..], "x").expect("reads").as_str(), "mfy_x");
        assert!(limited(&b" \n"[..], "x").is_err());
        assert!(limited(&vec![b'x'; MAX_BYTES][..], "x").is_ok());
        assert!(limited(&vec![b'x'; MAX_BYTES + 1][..], "x").is_err());
    }
}
