//! The identity folder of a sign-in: what is in it, and what may be overwritten.

use std::{fs, io::ErrorKind, path::Path};

use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::{
    cli::{
        failure::{Failure, Outcome},
        private_file,
        session::{CA_FILE, CERTIFICATE_FILE, KEY_FILE},
    },
    client::pem,
};

/// A certificate of a sign-in, by its own word.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignedIn {
    /// The operator.
    pub operator: String,
}

/// The sign-in that a folder holds; `None` when it holds another identity, or none.
///
/// # Errors
/// When a file cannot be read.
pub fn signed_in(folder: &Path) -> Outcome<Option<SignedIn>> {
    let path = folder.join(CERTIFICATE_FILE);
    match fs::read(&path) {
        Ok(text) => Ok(of_sign_in(&text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::file("read", &path, error)),
    }
}

/// Whether it holds an identity that is not of a sign-in.
///
/// # Errors
/// When a file cannot be read.
pub fn holds_another(folder: &Path) -> Outcome<bool> {
    let there = [CERTIFICATE_FILE, KEY_FILE].iter().any(|name| folder.join(name).symlink_metadata().is_ok());
    Ok(there && signed_in(folder)?.is_none())
}

/// Writes a sign-in, each file whole or not at all.
///
/// # Errors
/// When one cannot be written.
pub fn write(folder: &Path, key_pem: &[u8], chain_pem: &[u8], ca_pem: &[u8]) -> Outcome {
    private_file::folder(folder)?;
    if !ca_pem.is_empty() {
        private_file::write(folder, CA_FILE, ca_pem)?;
    }
    private_file::write(folder, KEY_FILE, key_pem)?;
    private_file::write(folder, CERTIFICATE_FILE, chain_pem)
}

/// Removes key and certificate, the key first. The roots stay for the next sign-in.
///
/// # Errors
/// When one cannot be removed.
pub fn remove(folder: &Path) -> Outcome {
    for name in [KEY_FILE, CERTIFICATE_FILE] {
        let path = folder.join(name);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::file("remove", &path, error)),
        }
    }
    Ok(())
}

fn of_sign_in(certificate_pem: &[u8]) -> Option<SignedIn> {
    let chain = pem::certificates(certificate_pem)?;
    let (_, leaf) = X509Certificate::from_der(chain.first()?).ok()?;
    let names = leaf.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| {
        let GeneralName::URI(uri) = name else { return None };
        let (_, path) = uri.strip_prefix("spiffe://")?.split_once("/operator/")?;
        let (operator, _) = path.split_once("/sign-in/")?;
        Some(SignedIn { operator: operator.to_owned() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(uri: &str) -> String {
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().expect("ASCII"))];
        let key = rcgen::KeyPair::generate().expect("entropy");
        params.self_signed(&key).expect("signs").pem()
    }

    #[test]
    fn only_a_sign_in_is_replaced_without_being_told() {
        let folder = tempfile::tempdir().expect("folder");
        let place = folder.path().join("new");
        assert!(!holds_another(&place).expect("looks"), "nothing is there");
        let of_sign_in = certificate("spiffe://mayfly.internal/operator/oncall/sign-in/00");
        write(&place, b"key", of_sign_in.as_bytes(), b"ca").expect("written");
        assert!(!holds_another(&place).expect("looks"));
        assert_eq!(signed_in(&place).expect("looks"), Some(SignedIn { operator: "oncall".into() }));
        for lasting in [certificate("spiffe://mayfly.internal/operator/oncall"), "no certificate".to_owned()] {
            fs::write(place.join(CERTIFICATE_FILE), lasting).expect("written");
            assert!(holds_another(&place).expect("looks"));
        }
        fs::remove_file(place.join(CERTIFICATE_FILE)).expect("removed");
        assert!(holds_another(&place).expect("looks"), "a lone key may be anything");
        remove(&place).expect("removed");
        assert!(!holds_another(&place).expect("looks"));
        assert!(place.join(CA_FILE).exists(), "the roots stay");
    }
}
