//! For processes on this host: what the kernel says of them is all that they prove.

use std::{sync::Arc, time::Instant};

use tokio::sync::mpsc;
use tonic::{Code, Request, Response, Status, metadata::MetadataMap};
use tracing::{Instrument as _, Span};

use super::{gate::Gate, status, stream::Outflow};
use crate::{
    api::listen::Peer,
    broker::{Refusal, spiffe::Local},
    identity::Caller,
    model::TenantName,
    telemetry,
};

/// The gate of a Unix socket that serves identities of some tenants.
#[derive(Clone, Debug)]
pub struct LocalGate {
    gate: Arc<Gate>,
    tenants: Arc<[TenantName]>,
}

/// Who asks, put beside the request before its body is read.
#[derive(Clone, Debug)]
struct Admitted {
    local: Local,
    peer: Arc<Peer>,
}

impl LocalGate {
    /// For the identities of these tenants, the default one's first.
    #[must_use]
    pub fn new(gate: Arc<Gate>, tenants: &[TenantName]) -> Self {
        Self { gate, tenants: tenants.into() }
    }

    /// The shared gate.
    #[must_use]
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Admits a request before its body is read: the process that connected lives, and its user is within its rate.
    ///
    /// # Errors
    /// The status of the refusal.
    pub fn admit(&self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let admitted = self.gate.local(&request).and_then(|(caller, peer)| {
            let process = peer.process().ok_or(UNSEEN)?.clone();
            let local = Local { caller, process, tenants: Arc::clone(&self.tenants) };
            if local.process.lives() { Ok(Admitted { local, peer }) } else { Err(UNSEEN) }
        });
        let admitted = admitted.map_err(|refusal| {
            if let Some(peer) = request.extensions().get::<Arc<Peer>>() {
                peer.slow_down();
            }
            status::of_local(&refusal)
        })?;
        request.extensions_mut().insert(admitted);
        Ok(request)
    }

    /// As [`Self::admit`], with the header that a request has that a browser or another confused deputy would not send
    /// (SPIFFE_Workload_Endpoint.md section 5.3). It is looked for first.
    ///
    /// # Errors
    /// The status of the refusal.
    pub fn admit_with_header(&self, request: Request<()>) -> Result<Request<()>, Status> {
        if !has_header(request.metadata()) {
            return Err(Status::invalid_argument("the metadata `workload.spiffe.io: true` is missing"));
        }
        self.admit(request)
    }

    /// Answers one request by one use case.
    ///
    /// # Errors
    /// The status of the refusal.
    pub async fn answer<Q, R, F>(
        &self,
        method: &'static str,
        request: Request<Q>,
        work: impl FnOnce(Local, Q) -> F,
    ) -> Result<Response<R>, Status>
    where
        F: Future<Output = Result<R, Refusal>>,
    {
        let (began, span) = (Instant::now(), telemetry::rpc(method, request.metadata().as_ref()));
        let done = async {
            let Admitted { local, .. } = admission(&request)?;
            let working = self.gate.turn(&local.caller).await?.working();
            let outcome = work(local, request.into_inner()).await;
            working.done();
            outcome
        };
        told(method, began, &span, done.instrument(span.clone()).await.map(Response::new))
    }

    /// Begins one stream by one use case; the time of the call is that of its beginning.
    ///
    /// # Errors
    /// The status of the refusal.
    pub async fn stream<Q, R, F>(
        &self,
        method: &'static str,
        request: Request<Q>,
        work: impl FnOnce(Local, Q) -> F,
    ) -> Result<Outflow<R>, Status>
    where
        F: Future<Output = Result<mpsc::Receiver<Result<R, Refusal>>, Refusal>>,
    {
        let (began, span) = (Instant::now(), telemetry::rpc(method, request.metadata().as_ref()));
        let begun = async {
            let Admitted { local, peer } = admission(&request)?;
            let caller: Arc<Caller> = Arc::clone(&local.caller);
            let working = self.gate.turn(&caller).await?.working();
            let receiver = work(local, request.into_inner()).await;
            working.done();
            // Only now: whoever has no identity takes nobody's room.
            let (receiver, room) = (receiver?, self.gate.local_room(&caller)?);
            let outflow = Outflow::new(receiver, room, peer.cut().clone(), self.gate.drain().clone(), None);
            Ok(outflow.telling(status::of_local))
        };
        told(method, began, &span, begun.instrument(span.clone()).await)
    }
}

fn admission<Q>(request: &Request<Q>) -> Result<Admitted, Refusal> {
    request.extensions().get::<Admitted>().cloned().ok_or(UNSEEN)
}

fn has_header(metadata: &MetadataMap) -> bool {
    let mut values = metadata.get_all("workload.spiffe.io").iter();
    matches!((values.next(), values.next()), (Some(value), None) if value.as_bytes() == b"true")
}

fn told<R>(method: &'static str, began: Instant, span: &Span, outcome: Result<R, Refusal>) -> Result<R, Status> {
    let outcome = outcome.map_err(|refusal| status::of_local(&refusal));
    let code = outcome.as_ref().err().map_or(Code::Ok, Status::code);
    let histogram = metrics::histogram!("mayfly_rpc_seconds", "method" => method, "code" => status::name(code));
    histogram.record(began.elapsed().as_secs_f64());
    telemetry::ended(span, status::name(code));
    outcome
}

const UNSEEN: Refusal = Refusal::Unproven("the kernel does not tell which process asks, or it has ended");
