//! PEM text (RFC 7468) from DER and back.

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, pem::PemObject};
use zeroize::Zeroizing;

/// The label of a certificate.
pub const CERTIFICATE: &str = "CERTIFICATE";
/// The label of a PKCS #8 private key.
pub const PRIVATE_KEY: &str = "PRIVATE KEY";

/// Wraps DER into PEM with lines of 64 characters. Wiped on drop, for it may be a key.
#[must_use]
pub fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(der));
    // Room for all of it, so that growing leaves no copy of a key behind.
    let mut text = Zeroizing::new(String::with_capacity(body.len() + body.len() / 32 + 2 * label.len() + 64));
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    for (at, character) in body.chars().enumerate() {
        if at > 0 && at % LINE == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str(&format!("\n-----END {label}-----\n"));
    text
}

/// Wraps a certificate chain, in order.
#[must_use]
pub fn encode_chain<C: AsRef<[u8]>>(chain_der: &[C]) -> String {
    chain_der.iter().map(|der| encode(CERTIFICATE, der.as_ref()).to_string()).collect()
}

/// The certificates of a PEM text, in order; `None` when one is malformed.
#[must_use]
pub fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()
}

/// The PKCS #10 request in `bytes`, which are PEM or DER already; `None` when they are neither.
#[must_use]
pub fn request_der(bytes: &[u8]) -> Option<Vec<u8>> {
    /// DER of a request starts with a SEQUENCE.
    const SEQUENCE: u8 = 0x30;
    if bytes.first() == Some(&SEQUENCE) {
        return Some(bytes.to_vec());
    }
    CertificateSigningRequestDer::from_pem_slice(bytes).ok().map(|der| der.as_ref().to_vec())
}

const LINE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_reads_back_whatever_its_length() {
        for length in [1, 47, 48, 49, 95, 96, 97, 1000] {
            let der = vec![0x30; length];
            let text = encode(CERTIFICATE, &der);
            assert!(text.lines().all(|line| line.len() <= 64 && !line.is_empty()), "{length}");
            assert_eq!(certificates(text.as_bytes()).expect("parses").first().map(AsRef::as_ref), Some(&*der));
        }
    }

    #[test]
    fn a_request_is_taken_as_pem_and_as_der() {
        let der = [0x30, 3, 2, 1, 0];
        assert_eq!(request_der(&der), Some(der.to_vec()));
        assert_eq!(request_der(encode("CERTIFICATE REQUEST", &der).as_bytes()), Some(der.to_vec()));
        assert_eq!(request_der(b"something else"), None);
        assert_eq!(request_der(encode(CERTIFICATE, &der).as_bytes()), None);
    }
}
