//! Signing: one file per kind of key or credential.

pub mod audit_key;
