//! Signatures of webhooks, as the Standard Webhooks specification (1.0.0, "Verifying signatures") has them: HMAC-SHA256
//! over `id.timestamp.body`, in base64.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::hmac;
use zeroize::Zeroizing;

/// Secrets that a webhook's receiver shares: each message is signed with every one, so that they can be changed without
/// a gap. There is no way to the bytes.
pub struct WebhookSecrets(Vec<hmac::Key>);

/// Why a file holds no usable secrets. Never says what it holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoSecrets {
    /// None.
    #[error("it holds no secret; write a line `whsec_` and 24 to 64 random bytes in base64")]
    None,
    /// Too many.
    #[error("it holds more than {} secrets; remove those that the receiver has forgotten", WebhookSecrets::MAX)]
    TooMany,
    /// A line that is none.
    #[error("line {0} is not `whsec_` and 24 to 64 bytes in base64")]
    Line(usize),
}

impl WebhookSecrets {
    /// Secrets of one receiver.
    pub const MAX: usize = 4;

    /// Reads secrets, one a line, the newest first by custom; empty lines and those that begin with `#` are left out.
    ///
    /// # Errors
    /// [`NoSecrets`].
    pub fn parse(text: &str) -> Result<Self, NoSecrets> {
        let mut keys = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = || NoSecrets::Line(at + 1);
            let encoded = line.strip_prefix("whsec_").ok_or_else(bad)?;
            let bytes = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| bad())?);
            if !(24..=64).contains(&bytes.len()) {
                return Err(bad());
            }
            keys.push(hmac::Key::new(hmac::HMAC_SHA256, &bytes));
        }
        match keys.len() {
            0 => Err(NoSecrets::None),
            1..=Self::MAX => Ok(Self(keys)),
            _ => Err(NoSecrets::TooMany),
        }
    }

    /// The value of `webhook-signature`: one `v1,` and base64 for each secret, with a space between.
    #[must_use]
    pub fn sign(&self, id: &str, seconds: u64, body: &[u8]) -> String {
        let one = |key: &hmac::Key| {
            let mut context = hmac::Context::with_key(key);
            context.update(format!("{id}.{seconds}.").as_bytes());
            context.update(body);
            format!("v1,{}", STANDARD.encode(context.sign().as_ref()))
        };
        self.0.iter().map(one).collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Debug for WebhookSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookSecrets({}, ..)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn a_signature_is_that_of_the_published_example() {
        let secrets = WebhookSecrets::parse(SECRET).expect("a secret");
        let signed = secrets.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn every_secret_signs_and_none_is_shown() {
        let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let both = WebhookSecrets::parse(&format!("# new\n{SECRET}\n\n{other}\n")).expect("secrets");
        let [one, two] = [SECRET, other].map(|text| WebhookSecrets::parse(text).expect("one").sign("m", 7, b"{}"));
        assert_eq!(both.sign("m", 7, b"{}"), format!("{one} {two}"));
        assert_eq!(format!("{both:?}"), "WebhookSecrets(2, ..)");
    }

    #[test]
    fn what_is_signed_cannot_be_taken_for_another_message() {
        let secrets = WebhookSecrets::parse(SECRET).expect("a secret");
        let signed = secrets.sign("m", 7, b"{}");
        for (id, seconds, body) in [("n", 7, "{}"), ("m", 8, "{}"), ("m", 7, "{ }")] {
            assert_ne!(secrets.sign(id, seconds, body.as_bytes()), signed);
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_by_its_line() {
        let refused = |text: &str| WebhookSecrets::parse(text).expect_err(text);
        assert_eq!(refused(""), NoSecrets::None);
        assert_eq!(refused("# nothing\n"), NoSecrets::None);
        assert_eq!(refused(&format!("{SECRET}\nhunter2")), NoSecrets::Line(2));
        assert_eq!(refused("whsec_c2hvcnQ="), NoSecrets::Line(1), "a short one");
        assert_eq!(refused(&format!("{SECRET}\n").repeat(5)), NoSecrets::TooMany);
    }
}
