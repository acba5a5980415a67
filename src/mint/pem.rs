//! PEM (RFC 7468), in and out.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use zeroize::Zeroizing;

use super::SecretBytes;
use crate::model::secret::SecretText;

/// The text is no PEM of the kind that was asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a PEM file with {want}; it begins with `-----BEGIN {label}-----`")]
pub struct NotPem {
    /// What was asked for, for people.
    pub want: &'static str,
    /// Its label.
    pub label: &'static str,
}

/// Writes certificates one after the other.
#[must_use]
pub fn certificates(chain_der: &[Vec<u8>]) -> String {
    let mut text = String::new();
    chain_der.iter().for_each(|der| push(&mut text, CERTIFICATE, der));
    text
}

/// Writes one certificate request.
#[must_use]
pub fn request(der: &[u8]) -> String {
    let mut text = String::new();
    push(&mut text, REQUEST, der);
    text
}

/// Writes a private key.
#[must_use]
pub fn private_key(pkcs8: &SecretBytes) -> SecretText {
    // Room for all from the start, so that the text grows without leaving copies behind.
    let mut text = String::with_capacity(pkcs8.expose().len() * 2 + 128);
    push(&mut text, PRIVATE_KEY, pkcs8.expose());
    let wiped = Zeroizing::new(text);
    SecretText::new(wiped.as_str().to_owned())
}

/// Reads one certificate or more.
///
/// # Errors
/// When there is none, or one is damaged.
pub fn parse_certificates(text: &[u8]) -> Result<Vec<Vec<u8>>, NotPem> {
    let not_pem = NotPem { want: "certificates", label: CERTIFICATE };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(text).map(|one| one.map(|der| der.as_ref().to_vec())).collect();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or(not_pem)
}

fn push(text: &mut String, label: &str, der: &[u8]) {
    text.extend(["-----BEGIN ", label, "-----\n"]);
    for line in der.chunks(LINE_BYTES) {
        STANDARD.encode_string(line, text);
        text.push('\n');
    }
    text.extend(["-----END ", label, "-----\n"]);
}

const CERTIFICATE: &str = "CERTIFICATE";
const REQUEST: &str = "CERTIFICATE REQUEST";
const PRIVATE_KEY: &str = "PRIVATE KEY";
/// Makes lines of 64 characters.
const LINE_BYTES: usize = 48;

#[cfg(test)]
mod tests {
    use rustls::pki_types::PrivatePkcs8KeyDer;

    use super::*;

    #[test]
    fn certificates_read_back_in_order() {
        let chain = vec![vec![1; 47], vec![2; 48], vec![3; 49]];
        let text = certificates(&chain);
        assert!(text.lines().all(|line| line.len() <= 64));
        assert_eq!(parse_certificates(text.as_bytes()), Ok(chain));
    }

    #[test]
    fn a_private_key_is_whole_and_not_shown() {
        let text = private_key(&SecretBytes::new(vec![7; 138]));
        let read = PrivatePkcs8KeyDer::from_pem_slice(text.expose().as_bytes()).expect("PEM");
        assert_eq!(read.secret_pkcs8_der(), [7; 138]);
        assert_eq!(format!("{text:?}"), "SecretText(..)");
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let request = request(&[1, 2, 3]);
        assert_eq!(request, "-----BEGIN CERTIFICATE REQUEST-----\nAQID\n-----END CERTIFICATE REQUEST-----\n");
        assert!(parse_certificates(request.as_bytes()).is_err());
        assert!(parse_certificates(b"").expect_err("empty").to_string().contains("BEGIN CERTIFICATE"));
    }
}
