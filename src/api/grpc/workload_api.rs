//! The SPIFFE Workload API, for processes on this host.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use prost_types::value::Kind;
use serde_json::Value;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::local::LocalGate;
use crate::{
    broker::spiffe::{Local, TrustBundle, Update, Validated, X509Svid},
    foreign::workload as pb,
};

/// The service over a gate.
#[derive(Clone, Debug)]
pub struct WorkloadApi(pub LocalGate);

/// Answers of a stream.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl pb::spiffe_workload_api_server::SpiffeWorkloadApi for WorkloadApi {
    type FetchX509SVIDStream = Answers<pb::X509svidResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<pb::X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        let broker = self.0.gate().broker();
        let work = |local: Local, _| async move { broker.follow_x509(local).await };
        let updates = self.0.stream("fetch_x509_svid", request, work).await?;
        Ok(Response::new(Box::pin(updates.map(|update| update.map(|update| x509_response(&update))))))
    }

    type FetchX509BundlesStream = Answers<pb::X509BundlesResponse>;

    async fn fetch_x509_bundles(
        &self,
        request: Request<pb::X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        let broker = self.0.gate().broker();
        let roots = |bundle: &TrustBundle| bundle.roots_der.concat();
        let work = |local: Local, _| async move { broker.follow_bundles(local, roots).await };
        let updates = self.0.stream("fetch_x509_bundles", request, work).await?;
        let response = |bundles: Vec<(String, Vec<u8>)>| pb::X509BundlesResponse {
            crl: Vec::new(),
            bundles: bundles.into_iter().collect(),
        };
        Ok(Response::new(Box::pin(updates.map(move |update| update.map(response)))))
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<pb::JwtsvidRequest>,
    ) -> Result<Response<pb::JwtsvidResponse>, Status> {
        let broker = self.0.gate().broker();
        let work = |local: Local, asked: pb::JwtsvidRequest| async move {
            let svids = broker.jwt_svids(&local, asked.audience, &asked.spiffe_id).await?;
            let svids = svids.iter().map(|svid| pb::Jwtsvid {
                spiffe_id: svid.spiffe_id.clone(),
                svid: svid.token.expose().to_owned(),
                hint: svid.hint.clone(),
            });
            Ok(pb::JwtsvidResponse { svids: svids.collect() })
        };
        self.0.answer("fetch_jwt_svid", request, work).await
    }

    type FetchJWTBundlesStream = Answers<pb::JwtBundlesResponse>;

    async fn fetch_jwt_bundles(
        &self,
        request: Request<pb::JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        let broker = self.0.gate().broker();
        let keys = |bundle: &TrustBundle| bundle.jwks.clone().into_bytes();
        let work = |local: Local, _| async move { broker.follow_bundles(local, keys).await };
        let updates = self.0.stream("fetch_jwt_bundles", request, work).await?;
        let response =
            |bundles: Vec<(String, Vec<u8>)>| pb::JwtBundlesResponse { bundles: bundles.into_iter().collect() };
        Ok(Response::new(Box::pin(updates.map(move |update| update.map(response)))))
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<pb::ValidateJwtsvidRequest>,
    ) -> Result<Response<pb::ValidateJwtsvidResponse>, Status> {
        let broker = self.0.gate().broker();
        let work = |local: Local, asked: pb::ValidateJwtsvidRequest| async move {
            let Validated { spiffe_id, claims } = broker.validate_jwt_svid(&local, &asked.audience, &asked.svid)?;
            Ok(pb::ValidateJwtsvidResponse { spiffe_id, claims: Some(structure(claims)) })
        };
        self.0.answer("validate_jwt_svid", request, work).await
    }
}

fn x509_response(update: &Update) -> pb::X509svidResponse {
    let svid = |(svid, bundle): &(Arc<X509Svid>, Arc<TrustBundle>)| pb::X509svid {
        spiffe_id: svid.spiffe_id.clone(),
        x509_svid: svid.chain_der.concat(),
        x509_svid_key: svid.key.expose().to_vec(),
        bundle: bundle.roots_der.concat(),
        hint: svid.hint.clone(),
    };
    pb::X509svidResponse {
        svids: update.0.iter().map(svid).collect(),
        crl: Vec::new(),
        federated_bundles: BTreeMap::new(),
    }
}

fn structure(members: serde_json::Map<String, Value>) -> prost_types::Struct {
    prost_types::Struct { fields: members.into_iter().map(|(name, member)| (name, value(member))).collect() }
}

fn value(of: Value) -> prost_types::Value {
    let kind = match of {
        Value::Null => Kind::NullValue(0),
        Value::Bool(flag) => Kind::BoolValue(flag),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(list) => Kind::ListValue(prost_types::ListValue { values: list.into_iter().map(value).collect() }),
        Value::Object(members) => Kind::StructValue(structure(members)),
    };
    prost_types::Value { kind: Some(kind) }
}
