//! Envoy's secret discovery (SDS, version 3), for processes on this host: the same identities as over the Workload API.

use std::{sync::Arc, time::Instant};

use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use super::{local::LocalGate, stream::Outflow};
use crate::{
    broker::{
        Refusal,
        spiffe::{Local, Update},
    },
    foreign::envoy::service::{
        discovery::v3::{DiscoveryRequest, DiscoveryResponse},
        secret::v3::secret_discovery_service_server::SecretDiscoveryService,
    },
};

mod complaints;
mod secrets;
mod subscription;

use complaints::Complaints;
use subscription::{Subscription, check_type};

/// The service over a gate.
#[derive(Clone, Debug)]
pub struct Sds {
    gate: LocalGate,
    complaints: Arc<Complaints>,
}

impl Sds {
    /// Over a gate.
    #[must_use]
    pub fn new(gate: LocalGate) -> Self {
        Self { gate, complaints: Arc::default() }
    }
}

#[tonic::async_trait]
impl SecretDiscoveryService for Sds {
    type StreamSecretsStream = Outflow<DiscoveryResponse>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Outflow<DiscoveryResponse>>, Status> {
        let broker = self.gate.gate().broker();
        let work = |local: Local, inbound: Streaming<DiscoveryRequest>| async move {
            let updates = broker.follow_x509(local).await?;
            let (to, answers) = mpsc::channel(BUFFER);
            tokio::spawn(serve(inbound, updates, to, Arc::clone(&self.complaints)));
            Ok(answers)
        };
        self.gate.stream("stream_secrets", request, work).await.map(Response::new)
    }

    async fn fetch_secrets(&self, request: Request<DiscoveryRequest>) -> Result<Response<DiscoveryResponse>, Status> {
        let broker = self.gate.gate().broker();
        let work = |local: Local, asked: DiscoveryRequest| async move {
            check_type(&asked)?;
            let update = broker.x509_now(&local).await?;
            Subscription::default().response(&asked.resource_names, &update)
        };
        self.gate.answer("fetch_secrets", request, work).await
    }
}

/// Answers requests, and tells of updates, until either side ends.
async fn serve(
    mut inbound: Streaming<DiscoveryRequest>,
    mut updates: mpsc::Receiver<Result<Update, Refusal>>,
    to: mpsc::Sender<Result<DiscoveryResponse, Refusal>>,
    complaints: Arc<Complaints>,
) {
    let (mut subscription, mut current) = (Subscription::default(), None);
    loop {
        let answer = tokio::select! {
            () = to.closed() => return,
            message = inbound.message() => match message {
                Ok(Some(request)) => {
                    subscription.complaint(&request).into_iter().for_each(|said| complaints.note(said, Instant::now()));
                    subscription.asked(request, current.as_ref())
                }
                Ok(None) | Err(_) => return,
            },
            update = updates.recv() => match update {
                Some(Ok(update)) => subscription.updated(current.insert(update)),
                Some(Err(refusal)) => Err(refusal),
                None => return,
            },
        };
        let is_over = answer.is_err();
        if let Some(answer) = answer.transpose()
            && to.send(answer).await.is_err()
        {
            return;
        }
        if is_over {
            return;
        }
    }
}

/// Answers that wait for a slow reader.
const BUFFER: usize = 2;
