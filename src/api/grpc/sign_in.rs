//! For people who sign in.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::gate::Gate;
use crate::{api::listen::Peer, pb};

/// The service over a gate.
#[derive(Clone, Debug)]
pub struct SignInService(pub Arc<Gate>);

#[tonic::async_trait]
impl pb::sign_in_server::SignIn for SignInService {
    async fn get_sign_in(
        &self,
        request: Request<pb::GetSignInRequest>,
    ) -> Result<Response<pb::GetSignInResponse>, Status> {
        let broker = self.0.broker();
        let work = |_: Arc<Peer>, _| async move { broker.get_sign_in() };
        self.0.visit("get_sign_in", request, work).await
    }

    async fn sign_in(&self, request: Request<pb::SignInRequest>) -> Result<Response<pb::SignInResponse>, Status> {
        let broker = self.0.broker();
        let work = |peer: Arc<Peer>, request| async move { broker.sign_in(request, peer.source()).await };
        self.0.visit("sign_in", request, work).await
    }

    async fn get_session(
        &self,
        request: Request<pb::GetSessionRequest>,
    ) -> Result<Response<pb::GetSessionResponse>, Status> {
        let broker = self.0.broker();
        let work = |peer: Arc<Peer>, _| async move { broker.get_session(&self.0.proven_peer(&peer)?) };
        self.0.visit("get_session", request, work).await
    }

    async fn sign_out(&self, request: Request<pb::SignOutRequest>) -> Result<Response<pb::SignOutResponse>, Status> {
        let broker = self.0.broker();
        let work = |peer: Arc<Peer>, _| async move { broker.sign_out(&self.0.proven_peer(&peer)?).await };
        self.0.visit("sign_out", request, work).await
    }
}
