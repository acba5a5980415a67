//! grpc.health.v1: whether each service is offered now.

use tonic_health::{ServingStatus, server::HealthReporter};

use super::routes;
use crate::config::Service;

/// What health checks are told.
#[derive(Clone, Debug)]
pub struct Health(HealthReporter);

impl Health {
    /// Nothing is offered yet.
    #[must_use]
    pub fn new() -> Self {
        Self(tonic_health::server::health_reporter().0)
    }

    /// Every service is offered, or the daemon is about to stop.
    pub async fn tell(&self, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in Service::ALL.into_iter().filter_map(routes::name) {
            self.0.set_service_status(name, status).await;
        }
    }

    pub(super) fn reporter(&self) -> &HealthReporter {
        &self.0
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}
