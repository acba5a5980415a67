//! For workloads.

use std::sync::Arc;

use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{
    gate::{Gate, StreamKind},
    stream::Outflow,
};
use crate::{api::listen::Peer, broker::Refusal, identity::Caller, pb};

/// The service over a gate.
#[derive(Clone, Debug)]
pub struct BrokerService(pub Arc<Gate>);

#[tonic::async_trait]
impl pb::broker_server::Broker for BrokerService {
    async fn open_task(&self, request: Request<pb::OpenTaskRequest>) -> Result<Response<pb::OpenTaskResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.open_task(&caller, request).await };
        self.0.begin("open_task", request, work).await
    }

    async fn issue(&self, request: Request<pb::IssueRequest>) -> Result<Response<pb::IssueResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.issue(&caller, request).await };
        self.0.begin("issue", request, work).await
    }

    async fn renew(&self, request: Request<pb::RenewRequest>) -> Result<Response<pb::IssueResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.renew(&caller, request).await };
        self.0.begin("renew", request, work).await
    }

    async fn release(&self, request: Request<pb::ReleaseRequest>) -> Result<Response<pb::ReleaseResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.release(&caller, request).await };
        self.0.answer("release", request, work).await
    }

    async fn complete_task(
        &self,
        request: Request<pb::CompleteTaskRequest>,
    ) -> Result<Response<pb::CompleteTaskResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.complete_task(&caller, request).await };
        self.0.answer("complete_task", request, work).await
    }

    async fn request_approval(
        &self,
        request: Request<pb::RequestApprovalRequest>,
    ) -> Result<Response<pb::RequestApprovalResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.request_approval(&caller, request).await };
        self.0.begin("request_approval", request, work).await
    }

    async fn check_approval(
        &self,
        request: Request<pb::CheckApprovalRequest>,
    ) -> Result<Response<pb::CheckApprovalResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.check_approval(&caller, &request) };
        self.0.answer("check_approval", request, work).await
    }

    async fn withdraw_approval(
        &self,
        request: Request<pb::WithdrawApprovalRequest>,
    ) -> Result<Response<pb::WithdrawApprovalResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.withdraw_approval(&caller, request).await };
        self.0.answer("withdraw_approval", request, work).await
    }

    async fn pickup(&self, request: Request<pb::PickupRequest>) -> Result<Response<pb::IssueResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.pick_up(&caller, request).await };
        self.0.begin("pickup", request, work).await
    }

    async fn appeal(&self, request: Request<pb::AppealRequest>) -> Result<Response<pb::AppealResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.appeal(&caller, request).await };
        self.0.begin("appeal", request, work).await
    }

    type HoldTaskStream = Outflow<pb::HoldTaskResponse>;

    async fn hold_task(
        &self,
        request: Request<Streaming<pb::HoldTaskRequest>>,
    ) -> Result<Response<Outflow<pb::HoldTaskResponse>>, Status> {
        let (gate, broker) = (&self.0, self.0.broker());
        let patience = self.0.limits().handshake;
        let work = |caller: Arc<Caller>, peer: Arc<Peer>, mut inbound: Streaming<pb::HoldTaskRequest>| async move {
            let first = timeout(patience, inbound.message()).await;
            let Ok(Ok(Some(first))) = first else {
                return Err(Refusal::invalid(
                    "task_id",
                    "did not come in time; send a first message that names the task",
                ));
            };
            let _turn = gate.turn(&caller).await?;
            let (beat, beats) = mpsc::channel(BEATS);
            let answers = broker.hold_task(&caller, first, beats).await?;
            tokio::spawn(forward(inbound, beat, peer.cut().clone()));
            Ok(answers)
        };
        self.0.stream("hold_task", StreamKind::Hold, request, work).await
    }
}

/// Makes a beat of every message; that the sender is gone says that the stream broke.
async fn forward(mut inbound: Streaming<pb::HoldTaskRequest>, beat: mpsc::Sender<()>, cut: CancellationToken) {
    loop {
        let message = tokio::select! {
            () = cut.cancelled() => return,
            () = beat.closed() => return,
            message = inbound.message() => message,
        };
        match message {
            // Where beats wait already, one more says nothing new.
            Ok(Some(_)) => drop(beat.try_send(())),
            Ok(None) | Err(_) => return,
        }
    }
}

/// Beats that may wait.
const BEATS: usize = 4;
