//! What one listener offers: its services, health, reflection, and HTTP.

use std::sync::Arc;

pub use axum::Router;
use tonic::service::{Routes, interceptor::InterceptedService};
use tonic_health::{pb::health_server::HealthServer, server::HealthService};

use super::{
    grpc::{
        admin::{self, AdminService},
        broker::BrokerService,
        gate::Gate,
        local::LocalGate,
        sds::Sds,
        sign_in::SignInService,
        verifier::VerifierService,
        workload_api::WorkloadApi,
    },
    health::Health,
    http,
};
use crate::{
    config::{Listener, Service},
    foreign::{
        self, envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryServiceServer,
        workload::spiffe_workload_api_server::SpiffeWorkloadApiServer,
    },
    model::TenantName,
    pb::{
        self, admin_server::AdminServer, broker_server::BrokerServer, sign_in_server::SignInServer,
        verifier_server::VerifierServer,
    },
};

/// The descriptors that reflection shows cannot be read.
pub type DescriptorError = tonic_reflection::server::Error;

/// The routes of a listener with these services.
///
/// # Errors
/// When the descriptors that reflection shows cannot be read.
pub fn routes(listener: &Listener, gate: &Arc<Gate>, health: &Health) -> Result<Router, DescriptorError> {
    let services = listener.services.as_slice();
    let http = if services.contains(&Service::Http) { http::router(Arc::clone(gate.broker())) } else { Router::new() };
    let [directory, signals] = [Service::Scim, Service::SharedSignals].map(|one| services.contains(&one));
    let http = http.merge(http::of_people(gate.broker(), directory, signals));
    let mut routes = Routes::from(http.fallback(http::not_found));
    let mut reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
        .register_encoded_file_descriptor_set(foreign::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name("grpc.health.v1.Health");
    let mut reflection_alpha = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
        .register_encoded_file_descriptor_set(foreign::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name("grpc.health.v1.Health");
    for service in services {
        routes = offer(routes, *service, gate, &listener.tenants);
        if let Some(name) = name(*service) {
            reflection = reflection.with_service_name(name);
            reflection_alpha = reflection_alpha.with_service_name(name);
        }
    }
    let health = HealthServer::new(HealthService::from_health_reporter(health.reporter().clone()));
    let routes = routes.add_service(health).add_service(reflection.build_v1()?);
    Ok(routes.add_service(reflection_alpha.build_v1alpha()?).prepare().into_axum_router())
}

/// A service's name in health and reflection; HTTP has none.
#[must_use]
pub fn name(service: Service) -> Option<&'static str> {
    match service {
        Service::Broker => Some("mayfly.v1.Broker"),
        Service::Verifier => Some("mayfly.v1.Verifier"),
        Service::Admin => Some("mayfly.v1.Admin"),
        Service::SignIn => Some("mayfly.v1.SignIn"),
        Service::WorkloadApi => Some("SpiffeWorkloadAPI"),
        Service::Sds => Some("envoy.service.secret.v3.SecretDiscoveryService"),
        Service::Http | Service::Scim | Service::SharedSignals => None,
    }
}

fn offer(routes: Routes, service: Service, gate: &Arc<Gate>, tenants: &[TenantName]) -> Routes {
    let (own, bytes) = (Arc::clone(gate), gate.limits().request_bytes);
    let admit = {
        let gate = Arc::clone(gate);
        move |request| gate.admit(request)
    };
    match service {
        Service::Broker => {
            let gate = Arc::clone(gate);
            let admit = move |request| gate.admit_workload(request);
            let server = BrokerServer::new(BrokerService(own)).max_decoding_message_size(bytes);
            routes.add_service(InterceptedService::new(server, admit))
        }
        Service::Verifier => {
            let server = VerifierServer::new(VerifierService(own)).max_decoding_message_size(bytes);
            routes.add_service(InterceptedService::new(server, admit))
        }
        Service::Admin => {
            let bytes = bytes.max(admin::MESSAGE_BYTES);
            let server = AdminServer::new(AdminService(own)).max_decoding_message_size(bytes);
            routes.add_service(InterceptedService::new(server, admit))
        }
        Service::SignIn => {
            let gate = Arc::clone(gate);
            let admit = move |request| gate.admit_visitor(request);
            let server = SignInServer::new(SignInService(own)).max_decoding_message_size(bytes.min(SIGN_IN_BYTES));
            routes.add_service(InterceptedService::new(server, admit))
        }
        Service::WorkloadApi => {
            let local = LocalGate::new(own, tenants);
            let server = SpiffeWorkloadApiServer::new(WorkloadApi(local.clone()));
            let server = server.max_decoding_message_size(bytes.min(LOCAL_BYTES));
            routes.add_service(InterceptedService::new(server, move |request| local.admit_with_header(request)))
        }
        Service::Sds => {
            let local = LocalGate::new(own, tenants);
            let server = SecretDiscoveryServiceServer::new(Sds::new(local.clone()));
            let server = server.max_decoding_message_size(bytes.min(LOCAL_BYTES));
            routes.add_service(InterceptedService::new(server, move |request| local.admit(request)))
        }
        Service::Http | Service::Scim | Service::SharedSignals => routes,
    }
}

/// An ID token, a request for a certificate, and room.
const SIGN_IN_BYTES: usize = 32 << 10;
/// A token to be checked, or what an Envoy says of itself, and room.
const LOCAL_BYTES: usize = 128 << 10;
