//! One file per use case. The order of checks in each is the security argument.

mod appeals;
mod apply;
mod approve;
mod attest;
pub mod backup;
mod bars;
pub mod bundle;
mod confirm;
mod covered;
mod decided;
mod decommission;
mod delegate;
pub mod directory;
pub mod event;
pub mod events;
mod explain;
mod federate;
pub mod found;
mod fresh;
mod gauges;
pub mod hold;
pub mod identify;
pub mod inspect;
pub mod introspect;
mod issue;
pub mod keeper;
pub mod keys;
pub mod lapse;
pub mod lastuse;
mod minting;
pub mod notify;
mod owners;
pub mod page;
pub mod people;
mod pickup;
pub mod policies;
mod quarantine;
pub mod reach;
pub mod refusal;
pub mod refusals;
pub mod registry;
mod renew;
mod revoke;
pub mod rings;
mod secrets;
pub mod ship;
mod sign_in;
pub mod signals;
pub mod spiffe;
pub mod task;
pub mod time;
pub mod trail;
pub mod unmanaged;
pub mod upkeep;
pub mod view;
mod watch;
pub mod who;
mod wish;

#[cfg(test)]
mod life;
#[cfg(test)]
mod testing;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

pub use federate::IdentityRefusal;
pub use refusal::Refusal;

use crate::{
    config::PublicUrl,
    issuers::Issuers,
    ledger::Ledger,
    mint::{keyring::RingPolicy, x509::KnownCsrs},
    model::{Digest, TenantName, Timestamp, TrustDomain},
};

/// The broker: every use case is a method of it, in a file of its own.
#[derive(Debug)]
pub struct Broker {
    /// What is true.
    pub ledger: Arc<Ledger>,
    /// The trust map.
    pub registry: Arc<registry::Registry>,
    /// Issuers of identity tokens.
    pub issuers: Arc<Issuers>,
    /// People who sign in, and who tells of them.
    pub people: Arc<people::People>,
    /// Keys.
    pub rings: Arc<rings::Rings>,
    /// Time.
    pub time: time::Time,
    /// What the config says.
    pub settings: Settings,
    /// Held tasks.
    pub holds: hold::Holds,
    /// How far audit sinks are.
    pub ships: ship::Ships,
    /// Held while a key ring is read, stepped and written: two steps from one state would both prepare.
    pub ring_steps: tokio::sync::Mutex<()>,
    /// Held while a backup is made.
    pub backups: Arc<tokio::sync::Mutex<()>>,
    /// Streams that watch revocations now.
    pub watchers: Arc<std::sync::atomic::AtomicU32>,
    /// Refusals of this minute.
    pub refusals: refusals::RefusalLog,
    /// What policies said that operators ought to know.
    pub policies: policies::PolicyLog,
    /// When something is due in each tenant.
    pub dues: keeper::Dues,
    /// Uses that are not written yet.
    pub uses: introspect::UseLog,
    /// Certificate requests that were read before.
    pub csrs: KnownCsrs,
    /// The roots, once read.
    pub roots: OnceLock<Arc<Vec<Vec<u8>>>>,
    /// Closes connections that came with a certificate; set by who has them.
    pub connections: OnceLock<Box<dyn CloseConnections>>,
    /// Identities of processes on this host.
    pub spiffe: spiffe::Spiffe,
    /// Who is notified; set where the config says so.
    pub notifier: OnceLock<notify::Notifier>,
}

/// Closes the connections of a client certificate.
pub trait CloseConnections: Send + Sync + std::fmt::Debug {
    /// Those of the certificate with this SHA-256.
    fn close(&self, proof: &Digest);
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
    /// How long leases and tasks are kept after their end.
    pub ended_lease_kept: Duration,
    /// How long audit events are kept.
    pub audit_kept: Duration,
    /// When the daemon started.
    pub started: Timestamp,
}

impl Broker {
    /// Now, read once a request.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.time.now()
    }

    /// Closes the connections that came with a certificate that was cut.
    pub fn close_connections(&self, proof: &Digest) {
        if let Some(connections) = self.connections.get() {
            connections.close(proof);
        }
    }

    /// A tenant's token issuer.
    #[must_use]
    pub fn issuer(&self, tenant: &registry::Tenant) -> String {
        let name: &TenantName = tenant.trust.name();
        tenant.trust.issuer().map_or_else(|| self.settings.public_url.issuer(name), str::to_owned)
    }
}
