//! Who is it? One file per way to prove it. Only this module can build a [`Caller`].

mod caller;

pub use caller::{Authority, Caller, CertificateProof, Proof, UnixProof};
