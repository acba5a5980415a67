//! How each message of the contract is shown.

mod audit;
mod issuer;
mod lease;
pub mod revocation;
mod status;
mod trust;
pub mod word;

#[cfg(test)]
mod tests;
