//! Callers with an identity token of an issuer that the config declares (OpenID Connect Core section 2, SPIFFE JWT-SVID).
//!
//! Pure: a token and a snapshot of its issuer's keys go in, a proof or a fault comes out. The JOSE parts are read here
//! and not by a library: none refuses duplicate members, bounds depth, or skips one unusable key of a set.

mod claims;
mod event;
mod fault;
mod job;
mod json;
mod keys;
mod person;
mod proof;
mod signature;
mod token;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use claims::{ClaimValue, Claims, shown};
pub use event::{EventSubject, SecurityEvent};
pub use fault::{TokenCode, TokenFault};
pub use json::{Json, JsonFault};
pub use keys::{KeySet, NoKeySet};
pub use person::PersonProof;
pub use proof::{FederatedProof, KeyProof, PeerKey};
pub use token::{UnverifiedToken, runs_strangers_code};
