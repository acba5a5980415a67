//! Enums of the contract as lower-case words.

use crate::pb;

macro_rules! word {
    ($($(#[$doc:meta])* $name:ident: $type:ty, $prefix:literal;)*) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub fn $name(value: i32) -> String {
                word(value, <$type>::try_from(value).ok().map(|value| value.as_str_name()), $prefix)
            }
        )*
    };
}

word! {
    /// `jwt`, `opaque`, `x509`.
    kind: pb::CredentialKind, "CREDENTIAL_KIND_";
    /// `live`, `suspended`, `ended`.
    standing: pb::Standing, "STANDING_";
    /// `expired`, `completed` and so on.
    end_reason: pb::EndReason, "END_REASON_";
    /// `lease`, `task`, `partner_in_tenant` and so on.
    scope: pb::ScopeKind, "SCOPE_KIND_";
    /// The limit that decided an expiry.
    bound: pb::Bound, "BOUND_";
    /// `cut`, `suspend`, `lift`.
    revocation: pb::RevocationKind, "REVOCATION_KIND_";
    /// `added`, `removed`, `widened`, `narrowed`, `edited`.
    change: pb::trust_change::Kind, "KIND_";
    /// What a credential in hand looks like.
    form: pb::identify_response::Form, "FORM_";
}

/// The word without its prefix; empty when unspecified. A value from a newer broker keeps its number.
fn word(value: i32, name: Option<&str>, prefix: &str) -> String {
    match name.map(|name| name.strip_prefix(prefix).unwrap_or(name)) {
        Some("UNSPECIFIED") => String::new(),
        Some(name) => name.to_ascii_lowercase(),
        None => format!("unknown_{value}"),
    }
}
