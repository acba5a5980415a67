//! One server: opened, served, drained, closed.

mod certificate;
mod dev;
mod error;
pub mod host;
mod open;
pub mod restore;
mod sinks;
mod threads;

pub use dev::{Dev, prepare};
pub use error::ServerError;
pub(crate) use open::{lock, open};
pub use threads::EVENT_INTERVAL;

use std::{fs::File, net::SocketAddr, sync::Arc};

use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::{
    certificate::{authorities, identity, renew},
    threads::Threads,
};
use crate::{
    api::{
        grpc::gate::Gate,
        health::Health,
        http::metrics_port::{self, Probes, Readiness},
        listen::{Connections, Edge, EdgeLimits, Listener, TlsSwap},
        routes,
    },
    broker::{
        Broker, CloseConnections,
        found::{self, Founding},
        notify, people, ship, upkeep,
    },
    config::Config,
    identity::Caller,
    model::{Chain, Clock, Digest},
    notify::Outlet,
    policy::Role,
    sink::AnySink,
};

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
