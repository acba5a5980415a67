//! Words and bounds of credentials that nobody here manages, for both sides of the wire.

/// Kinds of credentials, as requests and files spell them.
pub const KINDS: [&str; 8] =
    ["oauth-grant", "api-key", "service-account", "certificate", "ssh-key", "password", "test-token", "other"];
/// Entries of one call.
pub const AT_ONCE: usize = 500;
