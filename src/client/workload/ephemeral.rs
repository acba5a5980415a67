//! A key for one run, for who comes with an identity token (docs/federation.md).

use zeroize::Zeroizing;

use super::{Identity, Key, pem};

/// Why no key of one's own could be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a key for this run")]
pub struct NoEphemeralKey(#[source] rcgen::Error);

impl Identity {
    /// A fresh P-256 key in a self-signed certificate without names: for one run, never stored.
    ///
    /// It proves nothing but itself. A task opened over it with an identity token is bound to it.
    ///
    /// # Errors
    /// When the system has no entropy.
    pub fn ephemeral() -> Result<Self, NoEphemeralKey> {
        let key = Key::generate().map_err(NoEphemeralKey)?;
        let certificate_pem = pem::encode(pem::CERTIFICATE, &key.certificate().map_err(NoEphemeralKey)?);
        let key_pem = key.expose_pem();
        Ok(Self::new(certificate_pem.as_bytes().to_vec(), Zeroizing::new(key_pem.as_bytes().to_vec())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_fresh_and_in_one_certificate() {
        let one = Identity::ephemeral().expect("entropy");
        let other = Identity::ephemeral().expect("entropy");
        assert_ne!(one.expose_key_pem(), other.expose_key_pem());
        assert_eq!(pem::certificates(one.certificate_pem()).expect("PEM").len(), 1);
    }
}
