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

/// The service as a table of what is asked and told; each RPC has the name of the broker's use case.
macro_rules! admin {
    (
        asks { $($ask:ident: $asked:ident => $told:ident,)* }
        reads { $($read:ident: $of:ident => $found:ident,)* }
        watches { $($watch:ident as $Stream:ident: $from:ident => $item:ident,)* }
        besides { $($besides:tt)* }
    ) => {
        #[tonic::async_trait]
        impl pb::admin_server::Admin for AdminService {
            $(async fn $ask(&self, request: Request<pb::$asked>) -> Result<Response<pb::$told>, Status> {
                let broker = self.0.broker();
                let work = |caller: Arc<Caller>, request| async move { broker.$ask(&caller, request).await };
                self.0.answer(stringify!($ask), request, work).await
            })*

            $(async fn $read(&self, request: Request<pb::$of>) -> Result<Response<pb::$found>, Status> {
                let broker = self.0.broker();
                let work = |caller: Arc<Caller>, request| async move { broker.$read(&caller, &request) };
                self.0.answer(stringify!($read), request, work).await
            })*

            $(type $Stream = Outflow<pb::$item>;

            async fn $watch(&self, request: Request<pb::$from>) -> Result<Response<Outflow<pb::$item>>, Status> {
                let broker = self.0.broker();
                let work = |caller: Arc<Caller>, _, request| async move { broker.$watch(&caller, request).await };
                self.0.stream(stringify!($watch), StreamKind::Watch, request, work).await
            })*

            $($besides)*
        }
    };
}

admin! {
    asks {
        list_tenants: ListTenantsRequest => ListTenantsResponse,
        list_partners: ListPartnersRequest => ListPartnersResponse,
        list_grants: ListGrantsRequest => ListGrantsResponse,
        list_workloads: ListWorkloadsRequest => ListWorkloadsResponse,
        end_sign_ins: EndSignInsRequest => EndSignInsResponse,
        list_operators: ListOperatorsRequest => ListOperatorsResponse,
        list_tasks: ListTasksRequest => ListTasksResponse,
        list_leases: ListLeasesRequest => ListLeasesResponse,
        identify: IdentifyRequest => IdentifyResponse,
        revoke: RevokeRequest => RevokeResponse,
        get_revocation: GetRevocationRequest => RevocationStatus,
        list_revocations: ListRevocationsRequest => ListRevocationsResponse,
        bar: BarRequest => BarResponse,
        lift: LiftRequest => LiftResponse,
        list_bars: ListBarsRequest => ListBarsResponse,
        attest: AttestRequest => AttestResponse,
        quarantine: QuarantineRequest => QuarantineResponse,
        transfer_grant: TransferGrantRequest => TransferGrantResponse,
        leave_owner: LeaveOwnerRequest => LeaveOwnerResponse,
        decommission: DecommissionRequest => DecommissionResponse,
        inventory: InventoryRequest => InventoryResponse,
        list_trust_edges: ListTrustEdgesRequest => ListTrustEdgesResponse,
        who_can_revoke: WhoCanRevokeRequest => WhoCanRevokeResponse,
        get_drift: GetDriftRequest => GetDriftResponse,
        explain: ExplainRequest => ExplainResponse,
        list_events: ListEventsRequest => ListEventsResponse,
        list_issuers: ListIssuersRequest => ListIssuersResponse,
        test_identity_token: TestIdentityTokenRequest => TestIdentityTokenResponse,
        verify_events: VerifyEventsRequest => VerifyEventsResponse,
        list_keys: ListKeysRequest => ListKeysResponse,
        rotate_keys: RotateKeysRequest => RotateKeysResponse,
        issue_operator_certificate: IssueOperatorCertificateRequest => IssueOperatorCertificateResponse,
        get_status: GetStatusRequest => GetStatusResponse,
        confirm_time: ConfirmTimeRequest => ConfirmTimeResponse,
        confirm_store: ConfirmStoreRequest => ConfirmStoreResponse,
        test_notification: TestNotificationRequest => TestNotificationResponse,
        add_unmanaged: AddUnmanagedRequest => AddUnmanagedResponse,
        remove_unmanaged: RemoveUnmanagedRequest => RemoveUnmanagedResponse,
        list_unmanaged: ListUnmanagedRequest => ListUnmanagedResponse,
        put_secret: PutSecretRequest => PutSecretResponse,
        rotate_secret: RotateSecretRequest => RotateSecretResponse,
        edit_secret: EditSecretRequest => EditSecretResponse,
        retire_secret: RetireSecretRequest => RetireSecretResponse,
        list_secrets: ListSecretsRequest => ListSecretsResponse,
        list_secret_holders: ListSecretHoldersRequest => ListSecretHoldersResponse,
        file_appeal: FileAppealRequest => FileAppealResponse,
        list_appeals: ListAppealsRequest => ListAppealsResponse,
        answer_appeal: AnswerAppealRequest => AnswerAppealResponse,
        list_policy_differences: ListPolicyDifferencesRequest => ListPolicyDifferencesResponse,
        request_approval_for: RequestApprovalForRequest => RequestApprovalForResponse,
        list_approvals: ListApprovalsRequest => ListApprovalsResponse,
        decide_approval: DecideApprovalRequest => DecideApprovalResponse,
        retract_approval: RetractApprovalRequest => RetractApprovalResponse,
    }
    reads {
        get_task: GetTaskRequest => GetTaskResponse,
        list_notify_outlets: ListNotifyOutletsRequest => ListNotifyOutletsResponse,
        get_approval: GetApprovalRequest => GetApprovalResponse,
    }
    watches {
        watch_revocation as WatchRevocationStream: GetRevocationRequest => RevocationStatus,
        tail_events as TailEventsStream: TailEventsRequest => Event,
        export_events as ExportEventsStream: ExportEventsRequest => ExportEventsResponse,
    }
    besides {
        type CreateBackupStream = Outflow<pb::CreateBackupResponse>;

        async fn create_backup(
            &self,
            request: Request<pb::CreateBackupRequest>,
        ) -> Result<Response<Outflow<pb::CreateBackupResponse>>, Status> {
            let broker = Arc::clone(self.0.broker());
            let work = |caller: Arc<Caller>, _, request| async move { broker.create_backup(&caller, request).await };
            self.0.stream("create_backup", StreamKind::Watch, request, work).await
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
