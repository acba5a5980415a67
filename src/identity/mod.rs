//! Who is it? One file per way to prove it. Only this module can build a [`Caller`].

mod caller;
pub mod mtls;
pub mod oidc;
mod own_key;
pub mod process;
pub mod spiffe;
#[cfg(test)]
pub(crate) mod testing;
pub mod unix;

pub use caller::{Account, Authority, Caller, CertificateProof, Proof, UnixProof};
pub use mtls::{AuthorityError, ClientAuthorities, IdentityError, PeerCertificate, Shown};
pub use oidc::{FederatedProof, KeyProof, PeerKey};
pub use process::Process;
