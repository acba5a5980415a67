//! For operators.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};

use super::{
    gate::{Gate, StreamKind},
    stream::Outflow,
};
use crate::{broker::Refusal, identity::Caller, pb, policy::Role};

/// The service over a gate.
#[derive(Clone, Debug)]
pub struct AdminService(pub Arc<Gate>);

#[tonic::async_trait]
impl pb::admin_server::Admin for AdminService {
    async fn list_tenants(
        &self,
        request: Request<pb::ListTenantsRequest>,
    ) -> Result<Response<pb::ListTenantsResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.list_tenants(&caller, request).await };
        self.0.answer("list_tenants", request, work).await
    }

    async fn list_partners(
        &self,
        request: Request<pb::ListPartnersRequest>,
    ) -> Result<Response<pb::ListPartnersResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.list_partners(&caller, request).await };
        self.0.answer("list_partners", request, work).await
    }

    async fn list_grants(
        &self,
        request: Request<pb::ListGrantsRequest>,
    ) -> Result<Response<pb::ListGrantsResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.list_grants(&caller, request).await };
        self.0.answer("list_grants", request, work).await
    }

    async fn list_workloads(
        &self,
        request: Request<pb::ListWorkloadsRequest>,
    ) -> Result<Response<pb::ListWorkloadsResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.list_workloads(&caller, request).await };
        self.0.answer("list_workloads", request, work).await
    }

    async fn end_sign_ins(
        &self,
        request: Request<pb::EndSignInsRequest>,
    ) -> Result<Response<pb::EndSignInsResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.end_sign_ins(&caller, request).await };
        self.0.answer("end_sign_ins", request, work).await
    }

    async fn list_operators(
        &self,
        request: Request<pb::ListOperatorsRequest>,
    ) -> Result<Response<pb::ListOperatorsResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.list_operators(&caller, request).await };
        self.0.answer("list_operators", request, work).await
    }

    async fn list_tasks(
        &self,
        request: Request<pb::ListTasksRequest>,
    ) -> Result<Response<pb::ListTasksResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.list_tasks(&caller, request).await };
        self.0.answer("list_tasks", request, work).await
    }

    async fn get_task(&self, request: Request<pb::GetTaskRequest>) -> Result<Response<pb::GetTaskResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.get_task(&caller, &request) };
        self.0.answer("get_task", request, work).await
    }

    async fn list_leases(
        &self,
        request: Request<pb::ListLeasesRequest>,
    ) -> Result<Response<pb::ListLeasesResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.list_leases(&caller, request).await };
        self.0.answer("list_leases", request, work).await
    }

    async fn identify(&self, request: Request<pb::IdentifyRequest>) -> Result<Response<pb::IdentifyResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.identify(&caller, request).await };
        self.0.answer("identify", request, work).await
    }

    async fn revoke(&self, request: Request<pb::RevokeRequest>) -> Result<Response<pb::RevokeResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.revoke(&caller, request).await };
        self.0.answer("revoke", request, work).await
    }

    async fn get_revocation(
        &self,
        request: Request<pb::GetRevocationRequest>,
    ) -> Result<Response<pb::RevocationStatus>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.get_revocation(&caller, request).await };
        self.0.answer("get_revocation", request, work).await
    }

    async fn list_revocations(
        &self,
        request: Request<pb::ListRevocationsRequest>,
    ) -> Result<Response<pb::ListRevocationsResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.list_revocations(&caller, request).await };
        self.0.answer("list_revocations", request, work).await
    }

    async fn bar(&self, request: Request<pb::BarRequest>) -> Result<Response<pb::BarResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.bar(&caller, request).await };
        self.0.answer("bar", request, work).await
    }

    async fn lift(&self, request: Request<pb::LiftRequest>) -> Result<Response<pb::LiftResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.lift(&caller, request).await };
        self.0.answer("lift", request, work).await
    }

    async fn list_bars(&self, request: Request<pb::ListBarsRequest>) -> Result<Response<pb::ListBarsResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.list_bars(&caller, request).await };
        self.0.answer("list_bars", request, work).await
    }

    async fn attest(&self, request: Request<pb::AttestRequest>) -> Result<Response<pb::AttestResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.attest(&caller, request).await };
        self.0.answer("attest", request, work).await
    }

    async fn quarantine(
        &self,
        request: Request<pb::QuarantineRequest>,
    ) -> Result<Response<pb::QuarantineResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.quarantine(&caller, request).await };
        self.0.answer("quarantine", request, work).await
    }

    async fn transfer_grant(
        &self,
        request: Request<pb::TransferGrantRequest>,
    ) -> Result<Response<pb::TransferGrantResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.transfer_grant(&caller, request).await };
        self.0.answer("transfer_grant", request, work).await
    }

    async fn leave_owner(
        &self,
        request: Request<pb::LeaveOwnerRequest>,
    ) -> Result<Response<pb::LeaveOwnerResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.leave_owner(&caller, request).await };
        self.0.answer("leave_owner", request, work).await
    }

    async fn decommission(
        &self,
        request: Request<pb::DecommissionRequest>,
    ) -> Result<Response<pb::DecommissionResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.decommission(&caller, request).await };
        self.0.answer("decommission", request, work).await
    }

    async fn inventory(
        &self,
        request: Request<pb::InventoryRequest>,
    ) -> Result<Response<pb::InventoryResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.inventory(&caller, request).await };
        self.0.answer("inventory", request, work).await
    }

    async fn list_trust_edges(
        &self,
        request: Request<pb::ListTrustEdgesRequest>,
    ) -> Result<Response<pb::ListTrustEdgesResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.list_trust_edges(&caller, request).await };
        self.0.answer("list_trust_edges", request, work).await
    }

    async fn who_can_revoke(
        &self,
        request: Request<pb::WhoCanRevokeRequest>,
    ) -> Result<Response<pb::WhoCanRevokeResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.who_can_revoke(&caller, request).await };
        self.0.answer("who_can_revoke", request, work).await
    }

    async fn get_drift(&self, request: Request<pb::GetDriftRequest>) -> Result<Response<pb::GetDriftResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.get_drift(&caller, request).await };
        self.0.answer("get_drift", request, work).await
    }

    async fn explain(&self, request: Request<pb::ExplainRequest>) -> Result<Response<pb::ExplainResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.explain(&caller, request).await };
        self.0.answer("explain", request, work).await
    }

    async fn list_events(
        &self,
        request: Request<pb::ListEventsRequest>,
    ) -> Result<Response<pb::ListEventsResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.list_events(&caller, request).await };
        self.0.answer("list_events", request, work).await
    }

    async fn list_issuers(
        &self,
        request: Request<pb::ListIssuersRequest>,
    ) -> Result<Response<pb::ListIssuersResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.list_issuers(&caller, request).await };
        self.0.answer("list_issuers", request, work).await
    }

    async fn test_identity_token(
        &self,
        request: Request<pb::TestIdentityTokenRequest>,
    ) -> Result<Response<pb::TestIdentityTokenResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.test_identity_token(&caller, request).await };
        self.0.answer("test_identity_token", request, work).await
    }

    async fn verify_events(
        &self,
        request: Request<pb::VerifyEventsRequest>,
    ) -> Result<Response<pb::VerifyEventsResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.verify_events(&caller, request).await };
        self.0.answer("verify_events", request, work).await
    }

    async fn list_keys(&self, request: Request<pb::ListKeysRequest>) -> Result<Response<pb::ListKeysResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.list_keys(&caller, request).await };
        self.0.answer("list_keys", request, work).await
    }

    async fn rotate_keys(
        &self,
        request: Request<pb::RotateKeysRequest>,
    ) -> Result<Response<pb::RotateKeysResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.rotate_keys(&caller, request).await };
        self.0.answer("rotate_keys", request, work).await
    }

    async fn issue_operator_certificate(
        &self,
        request: Request<pb::IssueOperatorCertificateRequest>,
    ) -> Result<Response<pb::IssueOperatorCertificateResponse>, Status> {
        let broker = self.0.broker();
        let work =
            |caller: Arc<Caller>, request| async move { broker.issue_operator_certificate(&caller, request).await };
        self.0.answer("issue_operator_certificate", request, work).await
    }

    async fn get_status(
        &self,
        request: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::GetStatusResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.get_status(&caller, request).await };
        self.0.answer("get_status", request, work).await
    }

    async fn confirm_time(
        &self,
        request: Request<pb::ConfirmTimeRequest>,
    ) -> Result<Response<pb::ConfirmTimeResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.confirm_time(&caller, request).await };
        self.0.answer("confirm_time", request, work).await
    }

    async fn confirm_store(
        &self,
        request: Request<pb::ConfirmStoreRequest>,
    ) -> Result<Response<pb::ConfirmStoreResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.confirm_store(&caller, request).await };
        self.0.answer("confirm_store", request, work).await
    }

    async fn list_notify_outlets(
        &self,
        request: Request<pb::ListNotifyOutletsRequest>,
    ) -> Result<Response<pb::ListNotifyOutletsResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.list_notify_outlets(&caller, &request) };
        self.0.answer("list_notify_outlets", request, work).await
    }

    async fn test_notification(
        &self,
        request: Request<pb::TestNotificationRequest>,
    ) -> Result<Response<pb::TestNotificationResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.test_notification(&caller, request).await };
        self.0.answer("test_notification", request, work).await
    }

    async fn add_unmanaged(
        &self,
        request: Request<pb::AddUnmanagedRequest>,
    ) -> Result<Response<pb::AddUnmanagedResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.add_unmanaged(&caller, request).await };
        self.0.answer("add_unmanaged", request, work).await
    }

    async fn remove_unmanaged(
        &self,
        request: Request<pb::RemoveUnmanagedRequest>,
    ) -> Result<Response<pb::RemoveUnmanagedResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.remove_unmanaged(&caller, request).await };
        self.0.answer("remove_unmanaged", request, work).await
    }

    async fn list_unmanaged(
        &self,
        request: Request<pb::ListUnmanagedRequest>,
    ) -> Result<Response<pb::ListUnmanagedResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.list_unmanaged(&caller, request).await };
        self.0.answer("list_unmanaged", request, work).await
    }

    async fn put_secret(
        &self,
        request: Request<pb::PutSecretRequest>,
    ) -> Result<Response<pb::PutSecretResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.put_secret(&caller, request).await };
        self.0.answer("put_secret", request, work).await
    }

    async fn rotate_secret(
        &self,
        request: Request<pb::RotateSecretRequest>,
    ) -> Result<Response<pb::RotateSecretResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.rotate_secret(&caller, request).await };
        self.0.answer("rotate_secret", request, work).await
    }

    async fn edit_secret(
        &self,
        request: Request<pb::EditSecretRequest>,
    ) -> Result<Response<pb::EditSecretResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.edit_secret(&caller, request).await };
        self.0.answer("edit_secret", request, work).await
    }

    async fn retire_secret(
        &self,
        request: Request<pb::RetireSecretRequest>,
    ) -> Result<Response<pb::RetireSecretResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.retire_secret(&caller, request).await };
        self.0.answer("retire_secret", request, work).await
    }

    async fn list_secrets(
        &self,
        request: Request<pb::ListSecretsRequest>,
    ) -> Result<Response<pb::ListSecretsResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.list_secrets(&caller, request).await };
        self.0.answer("list_secrets", request, work).await
    }

    async fn list_secret_holders(
        &self,
        request: Request<pb::ListSecretHoldersRequest>,
    ) -> Result<Response<pb::ListSecretHoldersResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.list_secret_holders(&caller, request).await };
        self.0.answer("list_secret_holders", request, work).await
    }

    async fn file_appeal(
        &self,
        request: Request<pb::FileAppealRequest>,
    ) -> Result<Response<pb::FileAppealResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.file_appeal(&caller, request).await };
        self.0.answer("file_appeal", request, work).await
    }

    async fn list_appeals(
        &self,
        request: Request<pb::ListAppealsRequest>,
    ) -> Result<Response<pb::ListAppealsResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.list_appeals(&caller, request).await };
        self.0.answer("list_appeals", request, work).await
    }

    async fn answer_appeal(
        &self,
        request: Request<pb::AnswerAppealRequest>,
    ) -> Result<Response<pb::AnswerAppealResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.answer_appeal(&caller, request).await };
        self.0.answer("answer_appeal", request, work).await
    }

    async fn return_owner(
        &self,
        request: Request<pb::ReturnOwnerRequest>,
    ) -> Result<Response<pb::ReturnOwnerResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.return_owner(&caller, request).await };
        self.0.answer("return_owner", request, work).await
    }

    async fn list_policy_differences(
        &self,
        request: Request<pb::ListPolicyDifferencesRequest>,
    ) -> Result<Response<pb::ListPolicyDifferencesResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.list_policy_differences(&caller, request).await };
        self.0.answer("list_policy_differences", request, work).await
    }

    async fn request_approval_for(
        &self,
        request: Request<pb::RequestApprovalForRequest>,
    ) -> Result<Response<pb::RequestApprovalForResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.request_approval_for(&caller, request).await };
        self.0.answer("request_approval_for", request, work).await
    }

    async fn list_approvals(
        &self,
        request: Request<pb::ListApprovalsRequest>,
    ) -> Result<Response<pb::ListApprovalsResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.list_approvals(&caller, request).await };
        self.0.answer("list_approvals", request, work).await
    }

    async fn get_approval(
        &self,
        request: Request<pb::GetApprovalRequest>,
    ) -> Result<Response<pb::GetApprovalResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.get_approval(&caller, &request) };
        self.0.answer("get_approval", request, work).await
    }

    async fn decide_approval(
        &self,
        request: Request<pb::DecideApprovalRequest>,
    ) -> Result<Response<pb::DecideApprovalResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.decide_approval(&caller, request).await };
        self.0.answer("decide_approval", request, work).await
    }

    async fn retract_approval(
        &self,
        request: Request<pb::RetractApprovalRequest>,
    ) -> Result<Response<pb::RetractApprovalResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.retract_approval(&caller, request).await };
        self.0.answer("retract_approval", request, work).await
    }

    type CreateBackupStream = Outflow<pb::CreateBackupResponse>;

    async fn create_backup(
        &self,
        request: Request<pb::CreateBackupRequest>,
    ) -> Result<Response<Outflow<pb::CreateBackupResponse>>, Status> {
        let broker = Arc::clone(self.0.broker());
        let work = |caller: Arc<Caller>, _, request| async move { broker.create_backup(&caller, request).await };
        self.0.stream("create_backup", StreamKind::Watch, request, work).await
    }

    type WatchRevocationStream = Outflow<pb::RevocationStatus>;

    async fn watch_revocation(
        &self,
        request: Request<pb::GetRevocationRequest>,
    ) -> Result<Response<Outflow<pb::RevocationStatus>>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, _, request| async move { broker.watch_revocation(&caller, request).await };
        self.0.stream("watch_revocation", StreamKind::Watch, request, work).await
    }

    type TailEventsStream = Outflow<pb::Event>;

    async fn tail_events(
        &self,
        request: Request<pb::TailEventsRequest>,
    ) -> Result<Response<Outflow<pb::Event>>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, _, request| async move { broker.tail_events(&caller, request).await };
        self.0.stream("tail_events", StreamKind::Watch, request, work).await
    }

    type ExportEventsStream = Outflow<pb::ExportEventsResponse>;

    async fn export_events(
        &self,
        request: Request<pb::ExportEventsRequest>,
    ) -> Result<Response<Outflow<pb::ExportEventsResponse>>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, _, request| async move { broker.export_events(&caller, request).await };
        self.0.stream("export_events", StreamKind::Watch, request, work).await
    }

    async fn apply(
        &self,
        request: Request<Streaming<pb::ApplyRequest>>,
    ) -> Result<Response<pb::ApplyResponse>, Status> {
        let gate = &self.0;
        let work = |caller: Arc<Caller>, inbound| async move {
            // Before anything is gathered: only who may apply may fill memory.
            gate.broker().operator(&caller)?.require(Role::Admin)?;
            let room = gate.apply_room()?;
            let (options, documents) = gather(inbound).await?;
            let broker = Arc::clone(gate.broker());
            // To its end, also when nobody waits any more: what it has set going counts until it is done.
            let applied = tokio::spawn(async move {
                let _room = room;
                broker.apply(&caller, options, documents).await
            });
            applied.await.map_err(Refusal::fault)?
        };
        gate.answer("apply", request, work).await
    }
}

/// All documents of an apply, within bounds.
async fn gather(
    mut inbound: Streaming<pb::ApplyRequest>,
) -> Result<(pb::ApplyOptions, Vec<pb::TrustDocument>), Refusal> {
    let (mut options, mut documents, mut room) = (None, Vec::new(), ALL_DOCUMENTS_BYTES);
    let mut is_first = true;
    loop {
        let message = timeout(PATIENCE, inbound.message()).await;
        let Ok(Ok(message)) = message else {
            return Err(Refusal::invalid("document", "did not arrive whole; send it again"));
        };
        let Some(message) = message else { break };
        if message.options.is_some() && !is_first {
            return Err(Refusal::invalid("options", "came later than the first message"));
        }
        options = options.or(message.options);
        is_first = false;
        let Some(document) = message.document else { continue };
        if document.path.len() > PATH_BYTES {
            return Err(Refusal::invalid("document.path", format!("is longer than {PATH_BYTES} bytes")));
        }
        if document.text.len() > DOCUMENT_BYTES {
            return Err(Refusal::invalid("document.text", format!("is longer than {DOCUMENT_BYTES} bytes; split it")));
        }
        // Each counts for something, so that empty ones cannot fill memory.
        room = room.checked_sub(document.text.len() + PATH_BYTES).ok_or_else(|| {
            Refusal::invalid("document", format!("all together have more than {ALL_DOCUMENTS_BYTES} bytes"))
        })?;
        documents.push(document);
    }
    Ok((options.unwrap_or_default(), documents))
}

/// The longest message: a document with its path and frame.
pub const MESSAGE_BYTES: usize = DOCUMENT_BYTES + (64 << 10);
const DOCUMENT_BYTES: usize = 4 << 20;
const ALL_DOCUMENTS_BYTES: usize = 256 << 20;
const PATH_BYTES: usize = 255;
/// How long the next message of an apply may take.
const PATIENCE: Duration = Duration::from_secs(30);
