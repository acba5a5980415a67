//! One server: opened, served, drained, closed.

mod dev;
pub mod host;
pub mod restore;
mod sinks;
mod threads;

pub use dev::{Dev, prepare};
pub use threads::EVENT_INTERVAL;

use std::{
    fs::File,
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::threads::Threads;
use crate::{
    api::{
        grpc::gate::Gate,
        health::Health,
        http::metrics_port::{self, Probes, Readiness},
        listen::{BindError, Connections, Edge, EdgeLimits, Listener, ServerIdentity, TlsError, TlsSwap, certificates},
        routes,
    },
    broker::{
        Broker, CloseConnections, Refusal, Settings,
        found::{self, Founding},
        hold::Holds,
        introspect::UseLog,
        lapse, notify,
        people::{self, People, PeopleError},
        policies::PolicyLog,
        refusals::RefusalLog,
        registry::Registry,
        rings::Rings,
        ship::{self, Ships},
        spiffe::Spiffe,
        time::{Start, Time},
        upkeep,
    },
    config::{Config, Engine, SealSource, ServerCertificate},
    identity::{AuthorityError, Caller, ClientAuthorities},
    issuers::{Issuers, IssuersError},
    ledger::{
        Anchor, FileAnchor, LaneLimits, Ledger, OpenError, Opening, Refused,
        engine::{self, EngineError},
    },
    mint::{
        ca::{self, Validity},
        keyring::{RingPolicy, RotatesTooFast},
        seal::{Seal, SealKey, SealKeyError},
        x509::{CaKey, KnownCsrs, NotIssued},
    },
    model::{Chain, Clock, Digest, TenantNumber, Timestamp, Ttl, time::SKEW},
    notify::{Outlet, OutletError},
    policy::Role,
    sink::AnySink,
};

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The data folder is another process's.
    #[error("{} is in use by another mayfly; stop it, or give another data_dir", .0.display())]
    InUse(PathBuf),
    /// The data folder cannot be used.
    #[error("cannot use the data folder {}", .0.display())]
    Folder(PathBuf, #[source] io::Error),
    /// There is nothing to look after.
    #[error("{} holds no store; give the data_dir of one, or make one with `mayfly init`", .0.display())]
    NoStore(PathBuf),
    /// A restore into the data folder has not ended.
    #[error("{} is half restored; remove it and restore again", .0.display())]
    HalfRestored(PathBuf),
    /// There is no seal key.
    #[error(transparent)]
    Seal(#[from] SealKeyError),
    /// systemd gave no credentials.
    #[error("there is no systemd credential `{0}`; add LoadCredential= to the unit")]
    NoCredential(String),
    /// The engine is not built in.
    #[error("this mayfly was built without the store engine `{0}`")]
    NoEngine(&'static str),
    /// The engine failed.
    #[error("the store cannot be opened")]
    Engine(#[from] EngineError),
    /// The ledger does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Reading the trust map failed.
    #[error(transparent)]
    Ledger(#[from] Refused),
    /// A use case of the start failed.
    #[error("the broker cannot begin")]
    Broker(#[from] Refusal),
    /// The chain of a root elsewhere is no good.
    #[error("the chain cannot be adopted")]
    Adopt(#[source] Refusal),
    /// An issuer of identity tokens.
    #[error(transparent)]
    Issuers(#[from] IssuersError),
    /// Where people sign in, or who tells of them.
    #[error(transparent)]
    People(#[from] PeopleError),
    /// Key lives do not fit.
    #[error(transparent)]
    Rotation(#[from] RotatesTooFast),
    /// There is no issuing CA yet.
    #[error("there is no issuing CA; bring one in with `mayfly adopt-root`")]
    NoCa,
    /// The server's certificate was not made.
    #[error("the server's certificate cannot be made")]
    Certificate(#[from] NotIssued),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The client CAs cannot be used.
    #[error(transparent)]
    Authorities(#[from] AuthorityError),
    /// A listener.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Threads.
    #[error("cannot start threads")]
    Threads(#[source] io::Error),
    /// The metrics port.
    #[error("cannot listen on {0} for metrics")]
    Metrics(SocketAddr, #[source] io::Error),
    /// An audit sink.
    #[error("the audit sink `{0}` cannot be used")]
    Sink(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// A route of notifications.
    #[error("the route `{0}` of notifications cannot be used")]
    Notify(String, #[source] OutletError),
    /// The descriptors for reflection.
    #[error("the contract's descriptors cannot be read")]
    Reflection(#[from] routes::DescriptorError),
}

/// Where a server listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Addresses {
    /// TCP listeners, in the order of the config.
    pub listeners: Vec<SocketAddr>,
    /// Metrics and probes.
    pub metrics: SocketAddr,
}

/// One server, listening but not serving yet.
#[derive(Debug)]
pub struct Server {
    broker: Arc<Broker>,
    config: Config,
    tls: Arc<TlsSwap>,
    edge: Arc<Edge>,
    listeners: Vec<(Listener, routes::Router)>,
    metrics: TcpListener,
    addresses: Addresses,
    health: Health,
    stop: CancellationToken,
    sinks: Vec<AnySink>,
    threads: Threads,
    /// Held for its lock on the data folder.
    _lock: File,
}

impl Server {
    /// Opens the store, founds what is missing, and binds every listener.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub async fn build(config: Config, clock: Arc<dyn Clock>) -> Result<Self, ServerError> {
        let lock = lock(&config.data_dir)?;
        let (broker, start) = open(&config, Arc::clone(&clock))?;
        found::ensure(&broker, &Founding { external_root: false }).await?;
        broker.settle_start(start).await?;
        let stop = CancellationToken::new();
        let tls = Arc::new(TlsSwap::new(identity(&broker, &config)?, authorities(&broker, &config)?)?);
        let threads = Threads::start().map_err(ServerError::Threads)?;
        let workers = threads.workers();
        // Who only looks does not share threads with who revokes.
        let is_operator = {
            let broker = Arc::clone(&broker);
            Arc::new(move |caller: &Caller| broker.operator(caller).is_ok_and(|own| own.role >= Role::Revoker))
        };
        let limits = EdgeLimits::from(&config.limits);
        let edge = Edge::new(
            Arc::clone(&tls),
            limits,
            clock,
            stop.clone(),
            workers.clone(),
            is_operator,
            !broker.issuers.is_empty(),
        );
        let gate = Arc::new(Gate::new(Arc::clone(&broker), config.limits.clone(), stop.clone()));
        let health = Health::new();
        let mut listeners = Vec::new();
        for listener in &config.listeners {
            let router = routes::routes(listener, &gate, &health)?;
            let socket = listener.socket.clone();
            let bound = workers.front.spawn(async move { Listener::bind(&socket).await }).await;
            listeners.push((bound.map_err(|error| ServerError::Threads(error.into()))??, router));
        }
        health.tell(true).await;
        let unbound = |error| ServerError::Metrics(config.metrics, error);
        let metrics = TcpListener::bind(config.metrics).await.map_err(unbound)?;
        let addresses = Addresses {
            listeners: listeners.iter().filter_map(|(listener, _)| listener.local_address()).collect(),
            metrics: metrics.local_addr().map_err(unbound)?,
        };
        let edge = Arc::new(edge);
        let closer = Closer(edge.connections().clone());
        // Set once: the broker was made above.
        let _first = broker.connections.set(Box::new(closer));
        let sinks = sinks::open(&config)?;
        if !config.notify.routes.is_empty() {
            let outlets = Outlet::open(&config.notify, config.public_url.as_str());
            let outlets = outlets.map_err(|(route, error)| ServerError::Notify(route, error))?;
            broker.notify_by(config.notify.clone(), outlets)?;
        }
        Ok(Self { broker, config, tls, edge, listeners, metrics, addresses, health, stop, sinks, threads, _lock: lock })
    }

    /// The broker behind it.
    #[must_use]
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Serves until `stop`, lets requests in flight finish within the drain time, and closes the ledger.
    pub async fn run_until(self, render: Arc<dyn Fn() -> String + Send + Sync>, stop: impl Future<Output = ()>) {
        let front = self.threads.workers().front;
        let mut serving = JoinSet::new();
        for (listener, router) in self.listeners {
            serving.spawn_on(listener.serve(router, Arc::clone(&self.edge)), &front);
        }
        let readiness: Arc<dyn Fn() -> Readiness + Send + Sync> = {
            let broker = Arc::clone(&self.broker);
            Arc::new(move || match broker.ledger.holds().first() {
                Some(hold) => Readiness::Not(hold.explanation().to_owned()),
                None => Readiness::Ready,
            })
        };
        let background = CancellationToken::new();
        let mut loops = JoinSet::new();
        let probes = Probes { metrics: render, readiness };
        loops.spawn(metrics_port::serve(self.metrics, probes, background.clone()));
        let renewing = renew(Arc::clone(&self.broker), self.config, self.tls);
        let renewing = tokio::spawn(background.clone().run_until_cancelled_owned(renewing));
        loops.spawn(people::keep_fresh(Arc::clone(&self.broker), background.clone()));
        let issuers = Arc::clone(&self.broker.issuers);
        let broker = Arc::clone(&self.broker);
        let fresh = issuers.keep_fresh(move || broker.now(), background.clone());
        loops.spawn(async move {
            fresh.await;
            Ok(())
        });
        // Shipping first: retention only respects the sinks that it knows.
        let mut ships = ship::start(&self.broker, self.sinks, &background);
        let mut notices = notify::start(&self.broker, &background);
        let mut upkeep = upkeep::start(&self.broker, &background).unwrap_or_else(|error| {
            tracing::error!(error = %Chain(&error), "the background work did not start");
            JoinSet::new()
        });
        stop.await;
        self.health.tell(false).await;
        self.stop.cancel();
        while serving.join_next().await.is_some() {}
        self.broker.spiffe.stop.cancel();
        // While what ships events still runs.
        for outcome in [self.broker.write_uses().await.map(|_| ()), self.broker.write_last_uses(true).await] {
            if let Err(error) = outcome {
                tracing::warn!(%error, "some last uses were not written");
            }
        }
        background.cancel();
        while loops.join_next().await.is_some() {}
        while ships.join_next().await.is_some() {}
        while notices.join_next().await.is_some() {}
        while upkeep.join_next().await.is_some() {}
        let _ = renewing.await;
        let broker = self.broker;
        let _ = tokio::task::spawn_blocking(move || broker.ledger.close()).await;
    }
}

/// Closes the connections of a certificate that was cut.
#[derive(Debug)]
struct Closer(Connections);

impl CloseConnections for Closer {
    fn close(&self, proof: &Digest) {
        self.0.close_proof(proof);
    }
}

pub(crate) fn lock(folder: &Path) -> Result<File, ServerError> {
    let failed = |error| ServerError::Folder(folder.to_path_buf(), error);
    std::fs::create_dir_all(folder).map_err(failed)?;
    let path = folder.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(ServerError::InUse(folder.to_path_buf())),
        Err(std::fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}

pub(crate) fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<(Arc<Broker>, Start), ServerError> {
    let engine = open_engine(config)?;
    let seal = Seal::new(&seal_key(&config.seal)?);
    let anchor = (config.engine != Engine::Memory).then(|| anchor(config, &seal));
    assemble(config, clock, engine, anchor)
}

/// A broker over an open engine.
fn assemble(
    config: &Config,
    clock: Arc<dyn Clock>,
    engine: Arc<dyn engine::Engine>,
    anchor: Option<Arc<dyn Anchor>>,
) -> Result<(Arc<Broker>, Start), ServerError> {
    let seal = Seal::new(&seal_key(&config.seal)?);
    let ledger = Ledger::open(Opening {
        engine,
        row_key: seal.row_key(),
        seal_check: seal.check_value(),
        ballast: (config.engine != Engine::Memory).then(|| config.data_dir.join("reserve")),
        anchor,
        lanes: LaneLimits { begin_per_tenant: config.limits.queue_per_tenant, ..LaneLimits::default() },
        now: clock.wall(),
    })?;
    let bounds = &config.clock;
    let (time, start) = Time::start(clock, ledger.opened_mark, bounds.max_jump, bounds.max_downtime);
    let keep = Ttl::MAX.duration() + SKEW;
    let settings = Settings {
        trust_domain: config.trust_domain.clone(),
        public_url: config.public_url.clone(),
        key_set_max_age: config.keys.key_set_max_age,
        token_ring: RingPolicy::new(config.keys.token_publish, config.keys.token_active, keep)?,
        ca_ring: RingPolicy::new(config.keys.key_set_max_age, config.keys.ca_active, keep)?,
        hold_grace: config.limits.hold_grace,
        heartbeat: config.limits.heartbeat,
        ended_lease_kept: config.retention.ended_lease,
        audit_kept: config.retention.audit,
        started: time.now(),
    };
    let registry = Arc::new(Registry::load(&ledger)?);
    let issuers = Arc::new(Issuers::open(&config.issuers)?);
    let people = Arc::new(People::open(config, &ledger)?);
    let (ledger, rings) = (Arc::new(ledger), Arc::new(Rings::new(seal)));
    let broker = Broker {
        ledger,
        registry,
        issuers,
        people,
        rings,
        time,
        settings,
        holds: Holds::new(config.limits.holds),
        ships: Ships::default(),
        ring_steps: tokio::sync::Mutex::default(),
        backups: Arc::default(),
        watchers: Arc::default(),
        refusals: RefusalLog::default(),
        policies: PolicyLog::default(),
        dues: crate::broker::keeper::Dues::default(),
        uses: UseLog::default(),
        csrs: KnownCsrs::default(),
        roots: OnceLock::new(),
        connections: OnceLock::new(),
        spiffe: Spiffe::default(),
        notifier: OnceLock::new(),
    };
    lapse::watch(&broker.registry, &broker.ledger);
    people::watch(&broker.people, &broker.ledger);
    Ok((Arc::new(broker), start))
}

fn anchor(config: &Config, seal: &Seal) -> Arc<dyn Anchor> {
    Arc::new(FileAnchor::new(config.anchor.clone(), seal.anchor_key()))
}

fn open_engine(config: &Config) -> Result<Arc<dyn engine::Engine>, ServerError> {
    if restore::marker(&config.data_dir).exists() {
        return Err(ServerError::HalfRestored(config.data_dir.clone()));
    }
    engine_of(config)
}

fn engine_of(config: &Config) -> Result<Arc<dyn engine::Engine>, ServerError> {
    let store = config.data_dir.join("store");
    Ok(match config.engine {
        Engine::Fjall => Arc::new(engine::fjall::Fjall::open(&store)?),
        #[cfg(feature = "sled")]
        Engine::Sled => Arc::new(engine::sled::Sled::open(&store)?),
        #[cfg(not(feature = "sled"))]
        Engine::Sled => return Err(ServerError::NoEngine("sled")),
        Engine::Memory => Arc::new(engine::memory::Memory::new()),
    })
}

fn seal_key(source: &SealSource) -> Result<SealKey, ServerError> {
    match source {
        SealSource::KeyFile(path) => Ok(SealKey::read(path)?),
        SealSource::SystemdCredential(name) => {
            let folder = std::env::var_os("CREDENTIALS_DIRECTORY");
            let folder = folder.ok_or_else(|| ServerError::NoCredential(name.clone()))?;
            Ok(SealKey::read_credential(&Path::new(&folder).join(name))?)
        }
    }
}

fn identity(broker: &Broker, config: &Config) -> Result<ServerIdentity, ServerError> {
    let names = match &config.server_certificate {
        ServerCertificate::Files { certificate, key } => {
            show_end(certificates(certificate)?.first().and_then(|leaf| CaKey::end_of(leaf)));
            return Ok(ServerIdentity::from_files(certificate, key)?);
        }
        ServerCertificate::Own { names } => names,
    };
    let ring = broker.rings.ring(&broker.ledger, TenantNumber::BROKER)?;
    let issuing = ring.ca.as_ref().ok_or(ServerError::NoCa)?;
    let addresses: Vec<IpAddr> = names.iter().filter_map(|name| name.parse().ok()).collect();
    let dns: Vec<String> = names.iter().filter(|name| name.parse::<IpAddr>().is_err()).cloned().collect();
    let now = broker.now();
    let not_after = own_end(now, broker.time.wall()).min(issuing.not_after());
    let leaf = ca::mint_server(issuing, &dns, &addresses, Validity { not_before: now.before(SKEW), not_after })?;
    show_end(leaf.chain_der.first().and_then(|leaf| CaKey::end_of(leaf)));
    let key = leaf.private_key_der.as_ref().map(|key| key.expose().to_vec()).unwrap_or_default();
    let chain = leaf.chain_der.into_iter().map(CertificateDer::from).collect();
    Ok(ServerIdentity::new(chain, PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key))))
}

/// When a certificate of the broker's own ends that is made now. While time stands at the store's mark, clients go by the
/// real one: else nobody could connect and confirm it.
fn own_end(now: Timestamp, wall: Timestamp) -> Timestamp {
    now.max(wall).after(CERTIFICATE_LIFE)
}

/// Shows when the certificate that new connections get ends.
fn show_end(end: Option<Timestamp>) {
    if let Some(end) = end.and_then(|end| u32::try_from(end.seconds()).ok()) {
        metrics::gauge!("mayfly_server_certificate_end_seconds").set(f64::from(end));
    }
}

fn authorities(broker: &Broker, config: &Config) -> Result<Arc<ClientAuthorities>, ServerError> {
    let own: Vec<CertificateDer<'static>> = broker.roots()?.into_iter().map(CertificateDer::from).collect();
    let foreign = config.client_cas.iter().map(|ca| Ok((ca.name.clone(), certificates(&ca.file)?)));
    let foreign: Vec<_> = foreign.collect::<Result<_, TlsError>>()?;
    let mut authorities = ClientAuthorities::new(config.trust_domain.clone(), &own, &foreign)?;
    for ca in config.client_cas.iter().filter(|ca| !ca.trust_domains.is_empty()) {
        authorities = authorities.limited(&ca.name, &ca.trust_domains);
    }
    // Where no identity token counts, a key of one's own is of no use.
    Ok(Arc::new(if config.issuers.is_empty() { authorities } else { authorities.taking_keys() }))
}

/// Gives new connections a fresh certificate and the CAs as they are then, well before the old one ends.
async fn renew(broker: Arc<Broker>, config: Config, tls: Arc<TlsSwap>) {
    let mut pause = CERTIFICATE_LIFE * 7 / 10;
    loop {
        tokio::time::sleep(pause).await;
        let fresh = identity(&broker, &config).and_then(|own| Ok(tls.swap(own, authorities(&broker, &config)?)?));
        pause = match fresh {
            Ok(()) => CERTIFICATE_LIFE * 7 / 10,
            Err(error) => {
                tracing::error!(error = %Chain(&error), "the server's certificate was not renewed");
                RENEW_RETRY
            }
        };
    }
}

/// Of the broker's own TLS certificate.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(7 * 86_400);
const RENEW_RETRY: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_made_while_time_is_held_is_good_by_the_clock_of_those_who_connect() {
        let mark = Timestamp::from_seconds(1_000_000);
        let wall = mark.after(Duration::from_hours(24 * 90));
        assert_eq!(own_end(mark, wall), wall.after(CERTIFICATE_LIFE));
        // A wall clock that is behind shortens nothing.
        assert_eq!(own_end(wall, mark), wall.after(CERTIFICATE_LIFE));
    }
}
