//! What looks like a secret by its shape alone.

/// Whether a text that people wrote holds something that looks like a credential: a known prefix, a private key, a JWT, or a
/// long run of letters and digits as generators make them.
///
/// It errs on both sides: a short password passes, and a random name of 32 characters does not. Paths, UUIDs, ARNs and
/// addresses pass, since their separators make short runs.
#[must_use]
pub fn looks_like_a_secret(text: &str) -> bool {
    text.contains("PRIVATE KEY")
        || KNOWN.iter().any(|(prefix, least)| {
            text.match_indices(prefix).any(|(at, _)| {
                let rest = text.get(at + prefix.len()..).unwrap_or_default();
                let begins = text.get(..at).and_then(|before| before.bytes().last()).is_none_or(|b| !is_of_run(b));
                begins && rest.bytes().take_while(|b| is_of_run(*b) || matches!(b, b'-' | b'.')).count() >= *least
            })
        })
        || text.split(|c: char| !c.is_ascii() || !u8::try_from(c).is_ok_and(is_of_run)).any(is_random)
}

fn is_of_run(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'+' | b'=' | b'_')
}

fn is_random(run: &str) -> bool {
    let has = |of: fn(&u8) -> bool| run.bytes().any(|b| of(&b));
    let kinds = [has(u8::is_ascii_lowercase), has(u8::is_ascii_uppercase), has(u8::is_ascii_digit)];
    match run.len() {
        0..20 => false,
        // Words with a number are no surprise; all three kinds mixed are.
        20..32 => kinds == [true; 3],
        _ => kinds.iter().filter(|kind| **kind).count() >= 2,
    }
}

/// Prefixes that issuers put on their secrets, and how much follows at least.
const KNOWN: [(&str, usize); 26] = [
    ("AIza", 30),
    ("SG.", 20),
    ("ASIA", 16),
    ("eyJ", 20),
    ("dop_v1_", 20),
    ("gho_", 16),
    ("ghp_", 16),
    ("ghr_", 16),
    ("ghs_", 16),
    ("ghu_", 16),
    ("github_pat_", 16),
    ("glpat-", 16),
    ("gldt-", 16),
    ("glrt-", 16),
    ("hvs.", 16),
    ("npm_", 16),
    ("pypi-", 16),
    ("rk_live_", 12),
    ("sk-", 20),
    ("sk_live_", 12),
    ("sk_test_", 12),
    ("whsec_", 12),
    ("xoxa-", 10),
    ("xoxb-", 10),
    ("xoxp-", 10),
    ("ya29.", 16),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_told_by_their_shape() {
        for secret in [
            concat!("ghp", "_0123456789abcdefABCDEF0123456789abcd"),
            concat!("the key is sk", "_live_4eC39HqLyjWDarjtT1zdp7dc"),
            concat!("-----BEGIN EC PRIV", "ATE KEY-----"),
            "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl",
            "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY",
            "d41d8cd98f00b204e9800998ecf8427e",
            "Tr0ub4dorAndThree9XyZ",
            "put Tr0ub4dorAndThree9XyZ there until friday",
            // By its prefix alone, also behind another word.
            "hvs.aaaabbbbccccdddd",
            "the token is hvs.aaaabbbbccccdddd",
            "(xoxb-aaaabbbbcc)",
        ] {
            assert!(looks_like_a_secret(secret), "{secret}");
        }
    }

    #[test]
    fn names_and_places_are_not_secrets() {
        for plain in [
            "",
            "payments@acme.example",
            "GitHub Actions secret DEPLOY_KEY of acme/payments",
            "arn:aws:iam::123456789012:user/ci-deployer",
            "vault: secret/data/prod/globex/api-key",
            "AKIAIOSFODNN7EXAMPLE",
            "hvs.aaaabbbbccccddd",
            "archivhvs.aaaabbbbccccdddd",
            "https://console.example.com/projects/6f1c2f5e-5a0b-4b0e-9d6e-2f6f0c9f3b11/keys",
            "service-account deployer@acme-prod-1.iam.gserviceaccount.com",
            "Rechnungsabgleich mit dem Steuerberater (monatlich)",
        ] {
            assert!(!looks_like_a_secret(plain), "{plain}");
        }
    }
}
