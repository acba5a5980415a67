//! What was minted and not yet handed out.

use std::sync::Arc;

use super::{event, view};
use crate::{
    mint::{Minted, SecretBytes, x509::MintedLeaf},
    model::{Lease, SecretVersion, Standing, Timestamp, secret::SecretText},
    pb,
    policy::Bound,
};

/// A credential on its way to its holder, and the limit that decided its end.
pub(super) struct Fresh {
    pub(super) credential: Credential,
    pub(super) bound: Bound,
}

/// A credential itself. No `Debug`: it is never shown.
pub(super) enum Credential {
    Token(Minted),
    Leaf {
        leaf: MintedLeaf,
        roots: Arc<Vec<Vec<u8>>>,
        subject: String,
    },
    Secret {
        secret: SecretVersion,
        value: SecretBytes,
    },
    /// It waits for who comes with this.
    Waits {
        handle: SecretText,
        until: Timestamp,
    },
}

impl Credential {
    /// As the wire has it.
    pub(super) fn encoded(self) -> pb::issue_response::Credential {
        match self {
            Self::Token(minted) => pb::issue_response::Credential::Token(minted.text.expose().to_owned()),
            Self::Leaf { leaf, roots, subject } => pb::issue_response::Credential::X509(pb::X509Credential {
                chain_der: leaf.chain_der,
                private_key_der: leaf.private_key_der.map(|key| key.expose().to_vec()).unwrap_or_default(),
                bundle_der: roots.to_vec(),
                spiffe_id: subject,
            }),
            Self::Secret { secret, value } => pb::issue_response::Credential::Secret(pb::StaticSecret {
                name: secret.name.to_string(),
                version: secret.number,
                value: value.expose().to_vec(),
            }),
            Self::Waits { handle, until } => pb::issue_response::Credential::Pickup(pb::PickupHandle {
                handle: handle.expose().to_owned(),
                until: Some(event::stamp(until)),
            }),
        }
    }
}

impl Fresh {
    /// The answer, once the lease is durable.
    pub(super) fn response(self, lease: &Lease) -> pb::IssueResponse {
        pb::IssueResponse {
            lease: Some(view::lease(lease, Standing::Live)),
            credential: Some(self.credential.encoded()),
            bound: self.bound.code(),
        }
    }
}
