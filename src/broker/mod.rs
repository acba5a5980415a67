//! One file per use case. The order of checks in each is the security argument.

pub mod event;
pub mod events;
pub mod explain;
pub mod identify;
pub mod inspect;
pub mod page;
pub mod reach;
pub mod refusal;
pub mod registry;
pub mod rings;
pub mod time;
pub mod trail;
pub mod view;
pub mod who;

use std::{sync::Arc, time::Duration};

pub use refusal::Refusal;

use crate::{
    config::{PublicUrl, TrustDomain},
    ledger::Ledger,
    mint::keyring::RingPolicy,
    model::{TenantName, Timestamp},
};

/// The broker: every use case is a method of it, in a file of its own.
#[derive(Debug)]
pub struct Broker {
    /// What is true.
    pub ledger: Arc<Ledger>,
    /// The trust map.
    pub registry: Arc<registry::Registry>,
    /// Keys.
    pub rings: Arc<rings::Rings>,
    /// Time.
    pub time: time::Time,
    /// What the config says.
    pub settings: Settings,
}

/// What the config says to the use cases.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The broker's trust domain; tenants' are below it.
    pub trust_domain: TrustDomain,
    /// Where the HTTP surface is reached.
    pub public_url: PublicUrl,
    /// How long key sets may be kept by who checks.
    pub key_set_max_age: Duration,
    /// The life of token keys.
    pub token_ring: RingPolicy,
    /// The life of CA keys.
    pub ca_ring: RingPolicy,
    /// How long a held task lives without a stream.
    pub hold_grace: Duration,
    /// How often a holder must beat.
    pub heartbeat: Duration,
}

impl Broker {
    /// Now, read once a request.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.time.now()
    }

    /// A tenant's token issuer.
    #[must_use]
    pub fn issuer(&self, tenant: &registry::Tenant) -> String {
        let name: &TenantName = tenant.trust.name();
        tenant.trust.issuer().map_or_else(|| self.settings.public_url.issuer(name), str::to_owned)
    }
}
