//! For resource servers.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    gate::{Gate, StreamKind},
    stream::Outflow,
};
use crate::{identity::Caller, pb};

/// The service over a gate.
#[derive(Clone, Debug)]
pub struct VerifierService(pub Arc<Gate>);

#[tonic::async_trait]
impl pb::verifier_server::Verifier for VerifierService {
    async fn introspect(
        &self,
        request: Request<pb::IntrospectRequest>,
    ) -> Result<Response<pb::IntrospectResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.introspect(&caller, request).await };
        self.0.answer("introspect", request, work).await
    }

    async fn get_trust_bundle(
        &self,
        request: Request<pb::GetTrustBundleRequest>,
    ) -> Result<Response<pb::GetTrustBundleResponse>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, request| async move { broker.get_trust_bundle(&caller, request).await };
        self.0.answer("get_trust_bundle", request, work).await
    }

    type WatchRevocationsStream = Outflow<pb::WatchRevocationsResponse>;

    async fn watch_revocations(
        &self,
        request: Request<pb::WatchRevocationsRequest>,
    ) -> Result<Response<Outflow<pb::WatchRevocationsResponse>>, Status> {
        let broker = self.0.broker();
        let work = |caller: Arc<Caller>, _, request| async move { broker.watch_revocations(&caller, request).await };
        self.0.stream("watch_revocations", StreamKind::Watch, request, work).await
    }
}
