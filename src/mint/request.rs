//! Certificate requests (PKCS #10) that the command line makes for keys of its own machine.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, SigningKey};
use rustls::pki_types::PrivatePkcs8KeyDer;

use super::{
    SecretBytes,
    ec::EcKey,
    x509::{self, NotIssued},
};

/// A fresh P-256 key in PKCS #8, and a request for it, DER, that asks for no name.
///
/// # Errors
/// When the system has no entropy.
pub fn fresh() -> Result<(SecretBytes, Vec<u8>), NotIssued> {
    let (key, pkcs8) = EcKey::generate()?;
    Ok((pkcs8, nameless(&key)?))
}

/// A request, DER, for the key of an earlier certificate; it asks for no name.
///
/// # Errors
/// When the key is none that can sign a request.
pub fn with_key(pkcs8: &SecretBytes) -> Result<Vec<u8>, NotIssued> {
    match EcKey::from_pkcs8(pkcs8) {
        Some(key) => nameless(&key),
        // The broker takes keys of other kinds too, if they were made elsewhere.
        None => nameless(&KeyPair::try_from(&PrivatePkcs8KeyDer::from(pkcs8.expose())).map_err(x509::encoding)?),
    }
}

fn nameless(key: &impl SigningKey) -> Result<Vec<u8>, NotIssued> {
    let mut params = CertificateParams::default();
    // The broker decides the names; rcgen would ask for one of its own.
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key).map_err(x509::encoding)?.der().to_vec())
}
