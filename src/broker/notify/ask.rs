//! How notifications stand, and a test of them.

use super::{Notifier, State};
use crate::{
    broker::{
        Broker, Refusal,
        event::{self, stamp},
    },
    config::Route,
    identity::Caller,
    model::{Chain, Timestamp, id::hex},
    notify::{Item, Message, Outlet},
    pb,
    policy::Role,
};

impl Broker {
    /// Every route and how its ways out stand.
    ///
    /// # Errors
    /// When the caller may not look at everything: routes name owners of all tenants.
    pub fn list_notify_outlets(
        &self,
        caller: &Caller,
        _request: &pb::ListNotifyOutletsRequest,
    ) -> Result<pb::ListNotifyOutletsResponse, Refusal> {
        let operator = self.operator(caller)?;
        operator.require(Role::Auditor)?;
        operator.require_everywhere()?;
        let Some(notifier) = self.notifier.get() else { return Ok(pb::ListNotifyOutletsResponse::default()) };
        let of = |route: &Route| {
            let outlets = notifier.outlets_of(&route.name);
            outlets.map(|outlet| view(notifier, route, outlet)).collect::<Vec<_>>()
        };
        Ok(pb::ListNotifyOutletsResponse { outlets: notifier.config.routes.iter().flat_map(of).collect() })
    }

    /// Sends a marked message by one route, at once, and says what came of it.
    ///
    /// # Errors
    /// When the caller is no admin of everything, there is no such route, or another test is on its way.
    pub async fn test_notification(
        &self,
        caller: &Caller,
        request: pb::TestNotificationRequest,
    ) -> Result<pb::TestNotificationResponse, Refusal> {
        let operator = self.operator(caller)?;
        operator.require(Role::Admin)?;
        operator.require_everywhere()?;
        let none = "has no route in the server's config; add it to a [[notify.route]], or make one the default";
        let notifier = self.notifier.get().ok_or_else(|| Refusal::invalid("route", none))?;
        let route = chosen(&notifier.config.routes, &request)
            .ok_or_else(|| Refusal::invalid(if request.route.is_empty() { "owner" } else { "route" }, none))?;
        let Ok(_alone) = notifier.testing.try_lock() else { return Err(Refusal::Busy { retry_ms: 1_000 }) };
        let now = self.now();
        let mut tested = event::by(caller, operator.actor(), "notify.tested", now);
        tested.details.push(format!("route={}", route.name));
        self.ledger.note_act(vec![tested], now).await?;
        let message = test_message(&request.owner, &operator.actor(), now);
        let mut response = pb::TestNotificationResponse { message_id: message.id.clone(), ..Default::default() };
        for outlet in notifier.outlets_of(&route.name) {
            let began = tokio::time::Instant::now();
            let outcome = outlet.deliver(&message, now).await;
            response.results.push(pb::NotifyTestResult {
                route: route.name.clone(),
                channel: outlet.channel.code(),
                target: outlet.target(),
                delivered: outcome.is_ok(),
                error: outcome.err().map(|error| Chain(&error).to_string()).unwrap_or_default(),
                milliseconds: u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX),
            });
        }
        Ok(response)
    }
}

/// The route that is named, or the one of an owner, or the default one.
fn chosen<'a>(routes: &'a [Route], request: &pb::TestNotificationRequest) -> Option<&'a Route> {
    if !request.route.is_empty() {
        return routes.iter().find(|route| route.name == request.route);
    }
    let own = routes.iter().find(|route| route.owners.contains(&request.owner));
    own.or_else(|| routes.iter().find(|route| route.is_default))
}

fn test_message(owner: &str, actor: &str, now: Timestamp) -> Message {
    let id = format!("msg_{}", hex(&super::deliver::random().to_be_bytes()));
    let item = Item {
        at: now.rfc3339(),
        summary: "somebody tests whether notifications arrive".to_owned(),
        actor: actor.to_owned(),
        next: vec!["mayfly notify status".to_owned()],
        ..Item::default()
    };
    let (kind, owner) = ("notify.test".to_owned(), owner.chars().take(255).collect());
    Message { id, kind, topic: None, owner, created: now, count: 1, items: vec![item] }
}

fn view(notifier: &Notifier, route: &Route, outlet: &Outlet) -> pb::NotifyOutlet {
    let State { record, waiting, failures, due, .. } = notifier.change(&outlet.name(), |state| state.clone());
    let time = |millis: u64| (millis > 0).then(|| stamp(Timestamp::from_millis(millis)));
    pb::NotifyOutlet {
        route: route.name.clone(),
        channel: outlet.channel.code(),
        target: outlet.target(),
        owners: route.owners.clone(),
        is_default: route.is_default,
        topics: route.topics.iter().map(|topic| topic.word().to_owned()).collect(),
        waiting: u32::try_from(waiting).unwrap_or(u32::MAX),
        last_success: time(record.last_success),
        failing_since: time(record.failing_since),
        failures,
        last_error: record.last_error,
        next_attempt: (waiting > 0 && failures > 0).then(|| stamp(due)),
        delivered: record.delivered,
        given_up: record.given_up,
    }
}
