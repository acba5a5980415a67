//! Certificate requests that were read before.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::csr::{Csr, CsrRefusal, parse_csr};
use crate::model::Digest;

/// Remembers requests whose signature was found to hold.
///
/// Checking the signature is the dearest step of issuing a certificate, and a workload sends the same request, for the
/// same key, every few minutes. What a request says and whether its signature holds follows from its bytes alone, so
/// their SHA-256 stands for it. Refused requests are not remembered.
///
/// A request is no secret and has no freshness: whoever saw it could always send it, with the cache or without. What it
/// proves is that its key can sign, not that the caller holds that key. Who the certificate speaks for comes from the
/// caller's own proof, and it is worth something only to the key's holder.
///
/// Holds at most twice [`Self::GENERATION`] requests of at most [`super::CSR_MAX_BYTES`] each; the older half goes when
/// the newer is full.
#[derive(Debug, Default)]
pub struct KnownCsrs {
    generations: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    newer: HashMap<Digest, Arc<Csr>>,
    older: HashMap<Digest, Arc<Csr>>,
}

impl KnownCsrs {
    /// Requests in one half.
    pub const GENERATION: usize = 4_096;

    /// As [`parse_csr`], at the price of a hash when the same bytes were read before.
    ///
    /// # Errors
    /// As [`parse_csr`].
    pub fn parse(&self, der: &[u8]) -> Result<Arc<Csr>, CsrRefusal> {
        let hash = Digest::of(der);
        if let Some(known) = self.lock().find(&hash) {
            return Ok(known);
        }
        let csr = Arc::new(parse_csr(der)?);
        self.lock().keep(hash, Arc::clone(&csr));
        Ok(csr)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations> {
        // A panic while it is held leaves maps of whole entries.
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn find(&mut self, hash: &Digest) -> Option<Arc<Csr>> {
        if let Some(known) = self.newer.get(hash) {
            return Some(Arc::clone(known));
        }
        let known = self.older.remove(hash)?;
        self.keep(*hash, Arc::clone(&known));
        Some(known)
    }

    fn keep(&mut self, hash: Digest, csr: Arc<Csr>) {
        if self.newer.len() >= KnownCsrs::GENERATION {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(hash, csr);
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn request() -> Vec<u8> {
        let key = KeyPair::generate().expect("key");
        CertificateParams::default().serialize_request(&key).expect("request").der().to_vec()
    }

    #[test]
    fn a_known_request_is_the_same_and_any_other_bytes_are_read_anew() {
        let known = KnownCsrs::default();
        let der = request();
        let first = known.parse(&der).expect("sound");
        let again = known.parse(&der).expect("sound");
        assert!(Arc::ptr_eq(&first, &again), "it was not read a second time");

        let mut forged = der;
        *forged.last_mut().expect("not empty") ^= 1;
        assert_eq!(known.parse(&forged).expect_err("its signature was changed"), CsrRefusal::WrongSignature);
        assert_eq!(known.parse(&forged).expect_err("and stays so"), CsrRefusal::WrongSignature);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_used_stays() {
        let known = KnownCsrs::default();
        let der = request();
        let first = known.parse(&der).expect("sound");
        for round in 0..4 * KnownCsrs::GENERATION {
            let hash = Digest::of(&round.to_be_bytes());
            known.lock().keep(hash, Arc::clone(&first));
            if round % 100 == 0 {
                assert!(known.lock().find(&Digest::of(&der)).is_some(), "in use at {round}");
            }
        }
        let held = known.lock();
        assert!(held.newer.len() + held.older.len() <= 2 * KnownCsrs::GENERATION);
    }
}
