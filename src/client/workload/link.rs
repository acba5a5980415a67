//! The way to a broker, which outlives restarts of the broker and changes of the identity.

use std::{
    fmt, io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};
use tonic::{Response, Status, service::interceptor::InterceptedService, transport::Channel};

use super::{Address, Advice, Backoff, CallError, ClientConfig, Connection, FederatedCalls, Identity, refusal};
use crate::pb::broker_client::BrokerClient;

/// Says whom to connect to and who to be, asked for each new connection: files may have been renewed meanwhile.
pub type Config = Box<dyn Fn() -> Result<ClientConfig, CallError> + Send + Sync>;

/// What the calls of workloads go over.
pub type Calls = BrokerClient<InterceptedService<Channel, FederatedCalls>>;

/// A connection to a broker that is opened when it is needed, and anew when it broke.
pub struct Link {
    config: Config,
    carried: FederatedCalls,
    current: Mutex<Option<(u64, Connection)>>,
    opened: AtomicU64,
}

/// A client over one connection, with the number of that connection.
#[derive(Debug)]
pub struct Client {
    number: u64,
    /// For the calls of workloads.
    pub broker: Calls,
}

impl Link {
    /// Opens nothing yet. Calls carry what `carried` says, which is nothing unless the identity is federated.
    #[must_use]
    pub fn new(config: Config, carried: FederatedCalls) -> Self {
        Self { config, carried, current: Mutex::new(None), opened: AtomicU64::new(0) }
    }

    /// As who `config` says: the holder of its certificate, or the user of this process on a Unix socket.
    #[must_use]
    pub fn to(config: ClientConfig) -> Self {
        Self::new(Box::new(move || Ok(config.clone())), FederatedCalls::default())
    }

    /// With an identity token of a platform, for the broker that `config` names. Over TLS the connection gets a key of its
    /// own, which goes on with the task in the token's place; on a Unix socket the token stays.
    ///
    /// # Errors
    /// [`CallError::Config`] when it is no token, [`CallError::Ephemeral`] when the system has no entropy.
    pub fn federated(config: ClientConfig, token: &str) -> Result<Self, CallError> {
        let wrong = |wrong| CallError::Config(format!("the identity token {wrong}"));
        let (carried, identity) = match config.address {
            Address::Https { .. } => (FederatedCalls::new(token).map_err(wrong)?, Some(Identity::ephemeral()?)),
            Address::Unix(_) => (FederatedCalls::keyless(token).map_err(wrong)?, None),
        };
        let config = ClientConfig { identity, ..config };
        Ok(Self::new(Box::new(move || Ok(config.clone())), carried))
    }

    /// A client over the current connection; opens one when there is none.
    ///
    /// # Errors
    /// When the identity cannot be used or the broker cannot be reached.
    pub async fn client(&self) -> Result<Client, CallError> {
        // Held while connecting, so that many callers open one connection.
        let mut current = self.current.lock().await;
        let (number, connection) = match &*current {
            Some((number, connection)) => (*number, connection.clone()),
            None => {
                let connection = Connection::open(&(self.config)()?).await?;
                let number = self.opened.fetch_add(1, Ordering::Relaxed) + 1;
                *current = Some((number, connection.clone()));
                (number, connection)
            }
        };
        Ok(Client { number, broker: BrokerClient::with_interceptor(connection.channel(), self.carried.clone()) })
    }

    /// From now on calls go on with a task: beside the identity token, or in its place once the task is held. Without a
    /// token nothing changes.
    ///
    /// # Errors
    /// When the id is none.
    pub(super) fn go_on_with(&self, task_id: &str, held: bool) -> Result<(), CallError> {
        if !self.carried.has_token() {
            return Ok(());
        }
        self.carried.carry_task(task_id, held).map_err(|error| CallError::Config(format!("the task's id {error}")))
    }

    /// Whether there is nothing to prove anew with: the key of a held task is all there is.
    pub(super) fn goes_on_by_key(&self) -> bool {
        self.carried.goes_on_by_key()
    }

    /// The connection of `client` is of no more use: the next one asked for is a new one.
    pub async fn lost(&self, client: &Client) {
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|(number, _)| *number == client.number) {
            *current = None;
        }
    }

    /// Makes one call, again and again while that may help and `patience` lasts.
    ///
    /// A call that is not answered in 10 seconds counts as broken. The request should carry an idempotency key, since a
    /// lost answer is asked for again.
    ///
    /// # Errors
    /// What the last attempt came to.
    pub async fn call<T, F>(&self, patience: Duration, mut attempt: impl FnMut(Calls) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let give_up = Instant::now() + patience;
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut proven_anew = false;
        loop {
            let error = match self.attempt(&mut attempt).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let pause = match error.advice() {
                Advice::Again(least) => backoff.pause().max(least),
                Advice::ProveAnew if !proven_anew => {
                    proven_anew = true;
                    Duration::ZERO
                }
                Advice::ProveAnew | Advice::Over | Advice::Stop => return Err(error),
            };
            if Instant::now() + pause >= give_up {
                return Err(error);
            }
            sleep(pause).await;
        }
    }

    async fn attempt<T, F>(&self, attempt: &mut impl FnMut(Calls) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let client = self.client().await?;
        let answered = timeout(ATTEMPT, attempt(client.broker.clone())).await;
        let status = match answered {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) => status,
            Err(_) => Status::from_error(Box::new(io::Error::from(io::ErrorKind::TimedOut))),
        };
        // A broker that pushes back is there: a new connection would only be more work for it.
        let is_broken = refusal::unreachable(&status);
        let error = CallError::from(status);
        if is_broken || error.advice() == Advice::ProveAnew {
            self.lost(&client).await;
        }
        Err(error)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("opened", &self.opened).finish_non_exhaustive()
    }
}

const ATTEMPT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::AtomicU32};

    use super::*;
    use crate::client::ConnectError;

    fn nowhere(asked: Arc<AtomicU32>) -> Link {
        let config: Config = Box::new(move || {
            asked.fetch_add(1, Ordering::Relaxed);
            let address = "unix:///nonexistent/m.sock".parse().expect("an address");
            Ok(ClientConfig { address, ca_pem: Vec::new(), identity: None, server_name: None })
        });
        Link::new(config, FederatedCalls::default())
    }

    #[tokio::test]
    async fn a_broker_that_is_away_is_tried_until_patience_ends() {
        let asked = Arc::new(AtomicU32::new(0));
        let link = nowhere(Arc::clone(&asked));
        let began = Instant::now();
        let call = |_: Calls| async { Ok(Response::new(())) };
        let failed = link.call(Duration::from_millis(400), call).await;
        assert!(matches!(failed, Err(CallError::Connect(ConnectError::Unreachable { .. }))));
        assert!(began.elapsed() <= Duration::from_secs(5));
        // Each time with the identity as it is then.
        assert!(asked.load(Ordering::Relaxed) > 1);
    }

    #[tokio::test]
    async fn without_patience_there_is_one_attempt() {
        let asked = Arc::new(AtomicU32::new(0));
        let link = nowhere(Arc::clone(&asked));
        let call = |_: Calls| async { Ok(Response::new(())) };
        assert!(link.call(Duration::ZERO, call).await.is_err());
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
}
