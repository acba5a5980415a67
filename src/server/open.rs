//! From a data folder to a broker: lock, engine, seal, anchor, ledger, time.

use std::{
    fs::File,
    path::Path,
    sync::{Arc, OnceLock},
};

use super::{error::ServerError, restore};
use crate::{
    broker::{
        Broker, Settings,
        hold::Holds,
        introspect::UseLog,
        lapse,
        people::{self, People},
        policies::PolicyLog,
        refusals::RefusalLog,
        registry::Registry,
        rings::Rings,
        ship::Ships,
        spiffe::Spiffe,
        time::{Start, Time},
    },
    config::{Config, Engine, SealSource},
    issuers::Issuers,
    ledger::{Anchor, FileAnchor, LaneLimits, Ledger, Opening, engine},
    mint::{
        keyring::RingPolicy,
        seal::{Seal, SealKey},
        x509::KnownCsrs,
    },
    model::{Clock, Ttl, time::SKEW},
};

/// Takes the data folder for this process.
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

/// The broker over the store that the config names, and how its time begins.
pub(crate) fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<(Arc<Broker>, Start), ServerError> {
    let engine = open_engine(config)?;
    let seal = Seal::new(&seal_key(&config.seal)?);
    let anchor = (config.engine != Engine::Memory).then(|| anchor(config, &seal));
    assemble(config, clock, engine, anchor)
}

/// A broker over an open engine.
pub(super) fn assemble(
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

pub(super) fn anchor(config: &Config, seal: &Seal) -> Arc<dyn Anchor> {
    Arc::new(FileAnchor::new(config.anchor.clone(), seal.anchor_key()))
}

pub(super) fn open_engine(config: &Config) -> Result<Arc<dyn engine::Engine>, ServerError> {
    if restore::marker(&config.data_dir).exists() {
        return Err(ServerError::HalfRestored(config.data_dir.clone()));
    }
    engine_of(config)
}

pub(super) fn engine_of(config: &Config) -> Result<Arc<dyn engine::Engine>, ServerError> {
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

pub(super) fn seal_key(source: &SealSource) -> Result<SealKey, ServerError> {
    match source {
        SealSource::KeyFile(path) => Ok(SealKey::read(path)?),
        SealSource::SystemdCredential(name) => {
            let folder = std::env::var_os("CREDENTIALS_DIRECTORY");
            let folder = folder.ok_or_else(|| ServerError::NoCredential(name.clone()))?;
            Ok(SealKey::read_credential(&Path::new(&folder).join(name))?)
        }
    }
}
