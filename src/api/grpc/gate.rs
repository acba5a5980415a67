//! What every service stands on: who asks, how often, how many streams, and how an answer is told.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, metadata::MetadataMap};
use tracing::{Instrument as _, Span};

use super::{
    rate::Rates,
    shares::{Share, Shares},
    status,
    stream::Outflow,
    turns::{Payer, Turn, TurnLimits, Turns},
};
use crate::{
    api::listen::{Link, Peer},
    broker::{Broker, Refusal},
    config::Limits,
    identity::{Caller, Proof, Shown},
    model::secret::SecretText,
    telemetry,
};

/// Shared by the services of a server.
pub struct Gate {
    broker: Arc<Broker>,
    rates: Rates,
    /// Of who proves nothing, or proves it within the request.
    visits: Rates,
    turns: Turns,
    watchers: Shares,
    holds: Shares,
    locals: Shares,
    applies: Arc<Semaphore>,
    drain: CancellationToken,
    limits: Limits,
}

/// Who asks, put beside the request before its body is read.
#[derive(Clone, Debug)]
struct Admitted {
    who: Who,
    peer: Arc<Peer>,
}

/// Who need not have proven anything, put beside the request before its body is read.
#[derive(Clone, Debug)]
struct Visitor(Arc<Peer>);

#[derive(Clone, Debug)]
enum Who {
    /// Proven by now.
    Caller(Arc<Caller>),
    /// Who comes with an identity token, which takes its issuer's keys to check.
    Token(Arc<SecretText>),
}

/// What a stream counts among.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StreamKind {
    /// Watches something.
    Watch,
    /// Keeps a task alive.
    Hold,
    /// Serves identities to a process on this host.
    Local,
}

impl Gate {
    /// `drain` ends streams when the server stops.
    #[must_use]
    pub fn new(broker: Arc<Broker>, limits: Limits, drain: CancellationToken) -> Self {
        Self {
            rates: Rates::new(limits.rate_per_caller_per_second, limits.rate_burst),
            visits: Rates::new(VISITS_PER_SECOND, VISITS_AT_ONCE),
            turns: Turns::new(TurnLimits {
                at_work: limits.requests_at_work(),
                beside_others: limits.requests_at_work_per_tenant(),
                waiting_per_tenant: limits.queue_per_tenant,
                waiting: limits.queue_per_tenant.saturating_mul(TENANTS_THAT_WAIT),
            }),
            watchers: Shares::new(limits.watchers),
            holds: Shares::new(limits.holds),
            locals: Shares::new(limits.holds),
            applies: Arc::new(Semaphore::new(APPLIES)),
            broker,
            drain,
            limits,
        }
    }

    /// The use cases.
    #[must_use]
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// What bounds load.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Admits a request before its body is read: its caller is proven now and within its rate.
    ///
    /// # Errors
    /// The status of the refusal.
    pub fn admit(&self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let admitted = self.admitted(&request).map_err(|refusal| not_admitted(&request, &refusal))?;
        request.extensions_mut().insert(admitted);
        Ok(request)
    }

    /// As [`Self::admit`], for workloads: who shows no certificate that counts may come with an identity token, or with
    /// the key of a task that was opened with one.
    ///
    /// # Errors
    /// The status of the refusal.
    pub fn admit_workload(&self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if self.broker.issuers.is_empty() {
            return self.admit(request);
        }
        let admitted = self.federated(&request).map_err(|refusal| not_admitted(&request, &refusal))?;
        request.extensions_mut().insert(admitted);
        Ok(request)
    }

    /// As [`Self::admit`], for who need not prove anything before: within the rate of its address, or of its user on a Unix
    /// socket.
    ///
    /// # Errors
    /// The status of the refusal.
    pub fn admit_visitor(&self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let peer = request.extensions().get::<Arc<Peer>>().cloned();
        let taken = peer.ok_or(Refusal::Unproven(NO_PROOF)).and_then(|peer| {
            self.take_visit(&peer)?;
            Ok(peer)
        });
        let visitor = Visitor(taken.map_err(|refusal| not_admitted(&request, &refusal))?);
        request.extensions_mut().insert(visitor);
        Ok(request)
    }

    /// Takes one visit of whoever is at the other end.
    ///
    /// # Errors
    /// [`Refusal::Busy`].
    pub fn take_visit(&self, peer: &Peer) -> Result<(), Refusal> {
        let now = self.broker.now();
        let taken = match (peer.source(), peer.link()) {
            (Some(source), _) => self.visits.take_address(source.ip().to_canonical(), now),
            (None, Link::Unix { proof, .. }) => self.visits.take(&crate::identity::unix::caller(*proof), now).map(drop),
            (None, Link::Tls { .. } | Link::Plain { .. }) => Ok(()),
        };
        taken.map_err(|retry_ms| Refusal::Busy { retry_ms })
    }

    /// Answers one request of a visitor by one use case.
    ///
    /// # Errors
    /// The status of the refusal.
    pub async fn visit<Q, R, F>(
        &self,
        method: &'static str,
        request: Request<Q>,
        work: impl FnOnce(Arc<Peer>, Q) -> F,
    ) -> Result<Response<R>, Status>
    where
        F: Future<Output = Result<R, Refusal>>,
    {
        let began = Instant::now();
        let span = telemetry::rpc(method, request.metadata().as_ref());
        let outcome = match request.extensions().get::<Visitor>().cloned() {
            Some(Visitor(peer)) => work(peer, request.into_inner()).instrument(span.clone()).await,
            None => Err(Refusal::Unproven(NO_PROOF)),
        };
        told(method, began, &span, outcome.map(Response::new))
    }

    /// Who a visitor proves to be by its certificate.
    ///
    /// # Errors
    /// [`Refusal::Unproven`].
    pub fn proven_peer(&self, peer: &Peer) -> Result<Caller, Refusal> {
        let caller = peer.caller(self.broker.now());
        caller.ok().flatten().ok_or(Refusal::Unproven(NO_PROOF))
    }

    /// Room for one apply, which may hold its documents in memory.
    ///
    /// # Errors
    /// [`Refusal::Busy`].
    pub fn apply_room(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.applies).try_acquire_owned().map_err(|_| Refusal::Busy { retry_ms: STREAM_RETRY_MS })
    }

    /// Waits until it is a caller's turn to begin something; the work is to be done while the turn is held.
    ///
    /// # Errors
    /// [`Refusal::Busy`] when too many wait.
    pub async fn turn(&self, caller: &Caller) -> Result<Turn, Refusal> {
        let entered = self.turns.enter(Payer::of(caller), self.broker.now());
        Ok(entered.map_err(|full| Refusal::Busy { retry_ms: full.retry_ms })?.turn().await)
    }

    /// Answers one request that begins something, when it is its turn.
    ///
    /// # Errors
    /// The status of the refusal.
    pub async fn begin<Q, R, F>(
        &self,
        method: &'static str,
        request: Request<Q>,
        work: impl FnOnce(Arc<Caller>, Q) -> F,
    ) -> Result<Response<R>, Status>
    where
        F: Future<Output = Result<R, Refusal>>,
    {
        let in_turn = |caller: Arc<Caller>, asked| async move {
            let working = self.turn(&caller).await?.working();
            let outcome = work(caller, asked).await;
            working.done();
            outcome
        };
        self.answer(method, request, in_turn).await
    }

    /// Answers one request by one use case.
    ///
    /// # Errors
    /// The status of the refusal.
    pub async fn answer<Q, R, F>(
        &self,
        method: &'static str,
        request: Request<Q>,
        work: impl FnOnce(Arc<Caller>, Q) -> F,
    ) -> Result<Response<R>, Status>
    where
        F: Future<Output = Result<R, Refusal>>,
    {
        let began = Instant::now();
        let span = telemetry::rpc(method, request.metadata().as_ref());
        let outcome = match admission(&request) {
            Ok(admitted) => match self.proven(admitted).await {
                Ok((caller, _)) => work(caller, request.into_inner()).instrument(span.clone()).await,
                Err(refusal) => Err(refusal),
            },
            Err(refusal) => Err(refusal),
        };
        told(method, began, &span, outcome.map(Response::new))
    }

    /// Begins one stream by one use case; the time of the call is that of its beginning.
    ///
    /// # Errors
    /// The status of the refusal.
    pub async fn stream<Q, R, F>(
        &self,
        method: &'static str,
        kind: StreamKind,
        request: Request<Q>,
        work: impl FnOnce(Arc<Caller>, Arc<Peer>, Q) -> F,
    ) -> Result<Response<Outflow<R>>, Status>
    where
        F: Future<Output = Result<mpsc::Receiver<Result<R, Refusal>>, Refusal>>,
    {
        let began = Instant::now();
        let span = telemetry::rpc(method, request.metadata().as_ref());
        let admitted = match admission(&request) {
            Ok(admitted) => self.proven(admitted).await,
            Err(refusal) => Err(refusal),
        };
        let outcome = match admitted {
            Ok((caller, peer)) => {
                let begun = async {
                    let cut = peer.cut().clone();
                    // A hold's use case waits for its first message and knows only then whether the caller is anybody
                    // here: strangers to all tenants must not take the room of those who are not.
                    let early = match kind {
                        StreamKind::Watch | StreamKind::Local => Some(self.stream_room(kind, &caller)?),
                        StreamKind::Hold => None,
                    };
                    let receiver = work(Arc::clone(&caller), peer, request.into_inner()).await?;
                    let room = match early {
                        Some(room) => room,
                        None => self.stream_room(kind, &caller)?,
                    };
                    let life = self.life(kind, &caller);
                    Ok(Outflow::new(receiver, room, cut, self.drain.clone(), life))
                };
                begun.instrument(span.clone()).await
            }
            Err(refusal) => Err(refusal),
        };
        told(method, began, &span, outcome.map(Response::new))
    }

    fn admitted(&self, request: &Request<()>) -> Result<Admitted, Refusal> {
        let peer = request.extensions().get::<Arc<Peer>>().ok_or(Refusal::Unproven(NO_PROOF))?;
        let now = self.broker.now();
        let caller = peer.caller(now).map_err(|_| Refusal::Unproven("your certificate is not valid now"))?;
        let caller = caller.ok_or(Refusal::Unproven(NO_PROOF))?;
        let account = self.rates.take(&caller, now).map_err(|retry_ms| Refusal::Busy { retry_ms })?;
        Ok(Admitted { who: Who::Caller(Arc::new(caller.with_account(account))), peer: Arc::clone(peer) })
    }

    /// The proven caller of a request, within its rate, and its connection: for what takes no other proof.
    pub(super) fn local(&self, request: &Request<()>) -> Result<(Arc<Caller>, Arc<Peer>), Refusal> {
        let Admitted { who, peer } = self.admitted(request)?;
        match who {
            Who::Caller(caller) => Ok((caller, peer)),
            Who::Token(_) => Err(Refusal::Unproven(NO_PROOF)),
        }
    }

    /// Room for one stream of a process on this host.
    pub(super) fn local_room(&self, caller: &Caller) -> Result<Room, Refusal> {
        self.stream_room(StreamKind::Local, caller)
    }

    /// Cancelled when the server stops.
    pub(super) fn drain(&self) -> &CancellationToken {
        &self.drain
    }

    fn federated(&self, request: &Request<()>) -> Result<Admitted, Refusal> {
        let bearer = bearer(request.metadata())?;
        let peer = request.extensions().get::<Arc<Peer>>().ok_or(Refusal::Unproven(NO_PROOF))?;
        let who = match (peer.link(), bearer) {
            (Link::Unix { .. }, Some(token)) => {
                // The user is there in any case; who brings a token means to be known by that.
                self.admitted(request)?;
                Who::Token(token)
            }
            (Link::Unix { .. }, None) | (Link::Tls { shown: Shown::Certificate(_), .. }, None) => {
                return self.admitted(request);
            }
            (Link::Tls { shown: Shown::Certificate(_), .. }, Some(_)) => return Err(Refusal::Unproven(TWO_PROOFS)),
            (Link::Tls { shown: Shown::Nothing | Shown::Key(_), .. } | Link::Plain { .. }, token) => {
                self.unproven(request, peer, token)?
            }
        };
        Ok(Admitted { who, peer: Arc::clone(peer) })
    }

    /// Who shows no certificate that counts. The rate is taken by address, before anything costs more than looking.
    fn unproven(&self, request: &Request<()>, peer: &Peer, token: Option<Arc<SecretText>>) -> Result<Who, Refusal> {
        let task = one(request.metadata(), TASK_METADATA)?;
        if let Some(source) = peer.source() {
            let address = source.ip().to_canonical();
            self.rates.take_address(address, self.broker.now()).map_err(|retry_ms| Refusal::Busy { retry_ms })?;
        }
        if token.is_none() && (task.is_none() || peer.own_key().is_none()) {
            return Err(Refusal::Unproven(NO_PROOF));
        }
        let Some((task, key)) = task.zip(peer.own_key()) else {
            return token.map(Who::Token).ok_or(Refusal::Unproven(NO_PROOF));
        };
        match (self.broker.task_caller(key, task, peer.source()), token) {
            // The key of a held task is the proof, whatever token came along.
            (Ok(caller), None) => Ok(Who::Caller(Arc::new(caller))),
            (Ok(caller), Some(_)) if caller.expires().is_some_and(|end| end > self.broker.now()) => {
                Ok(Who::Caller(Arc::new(caller)))
            }
            (_, Some(token)) => Ok(Who::Token(token)),
            (Err(refusal), None) => Err(refusal),
        }
    }

    async fn proven(&self, admitted: Admitted) -> Result<(Arc<Caller>, Arc<Peer>), Refusal> {
        let Admitted { who, peer } = admitted;
        let caller = match who {
            Who::Caller(caller) => caller,
            Who::Token(token) => {
                let proof = self.broker.prove_token(token.expose(), peer.own_key(), peer.source());
                Arc::new(proof.await?)
            }
        };
        Ok((caller, peer))
    }

    /// How long a stream may last at most. A held task goes on with the key that its token came over, which is looked at
    /// with each beat.
    fn life(&self, kind: StreamKind, caller: &Caller) -> Option<Duration> {
        let goes_on =
            kind == StreamKind::Hold && matches!(caller.proof(), Proof::Federated(token) if token.key.is_some());
        let expires = caller.expires().filter(|_| !goes_on);
        expires.map(|expires| expires.since(self.broker.now()))
    }

    fn stream_room(&self, kind: StreamKind, caller: &Caller) -> Result<Room, Refusal> {
        let (room, gauge) = match kind {
            StreamKind::Watch => (&self.watchers, "mayfly_watchers"),
            StreamKind::Hold => (&self.holds, "mayfly_holds"),
            StreamKind::Local => (&self.locals, "mayfly_local_streams"),
        };
        let share = room.take(caller).ok_or(Refusal::Busy { retry_ms: STREAM_RETRY_MS })?;
        metrics::gauge!(gauge).increment(1);
        Ok(Room { _share: share, gauge })
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The place of one stream among those that are open.
#[derive(Debug)]
pub(super) struct Room {
    _share: Share,
    gauge: &'static str,
}

impl Drop for Room {
    fn drop(&mut self) {
        metrics::gauge!(self.gauge).decrement(1);
    }
}

/// Who asks too often, or without a proof, is heard more slowly.
fn not_admitted(request: &Request<()>, refusal: &Refusal) -> Status {
    if let Some(peer) = request.extensions().get::<Arc<Peer>>() {
        peer.slow_down();
    }
    status::of(refusal)
}

fn admission<Q>(request: &Request<Q>) -> Result<Admitted, Refusal> {
    request.extensions().get::<Admitted>().cloned().ok_or(Refusal::Unproven(NO_PROOF))
}

/// The one identity token of a call (RFC 6750 section 2.1).
fn bearer(metadata: &MetadataMap) -> Result<Option<Arc<SecretText>>, Refusal> {
    let Some(value) = one(metadata, "authorization")? else { return Ok(None) };
    let token = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let (_, token) = token.ok_or(Refusal::Unproven(NO_BEARER))?;
    Ok(Some(Arc::new(SecretText::new(token.trim().to_owned()))))
}

fn one<'a>(metadata: &'a MetadataMap, name: &'static str) -> Result<Option<&'a str>, Refusal> {
    let mut values = metadata.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| Refusal::Unproven(NO_BEARER)),
        (Some(_), Some(_)) => Err(Refusal::Unproven(TWO_PROOFS)),
    }
}

fn told<R>(method: &'static str, began: Instant, span: &Span, outcome: Result<R, Refusal>) -> Result<R, Status> {
    let outcome = outcome.map_err(|refusal| status::of(&refusal));
    let code = outcome.as_ref().err().map_or(Code::Ok, Status::code);
    let histogram = metrics::histogram!("mayfly_rpc_seconds", "method" => method, "code" => status::name(code));
    histogram.record(began.elapsed().as_secs_f64());
    telemetry::ended(span, status::name(code));
    outcome
}

const NO_PROOF: &str = "prove who you are with a client certificate";
const NO_BEARER: &str = "authorization must be `Bearer` and one identity token";
const TWO_PROOFS: &str = "come with one proof: a certificate of a CA that counts, or one identity token";
/// Names the task that a call goes on with.
const TASK_METADATA: &str = "mayfly-task";
/// Applies at a time: each may hold 256 MiB.
const APPLIES: usize = 2;
/// How many full lines of tenants may wait at once: beyond it, all are told to come again.
const TENANTS_THAT_WAIT: usize = 16;
/// Visits of one address a second, and at once: a whole office behind one address may sign in in the morning.
const VISITS_PER_SECOND: u32 = 5;
const VISITS_AT_ONCE: u32 = 60;
/// When to try again where streams are many.
const STREAM_RETRY_MS: u32 = 1_000;
