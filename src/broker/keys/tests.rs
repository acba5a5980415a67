mod rotation;

use super::*;
use crate::broker::testing::{add_tenant, admin, days, founded};

fn states(broker: &Broker, number: TenantNumber, key_use: KeyUse) -> Vec<KeyState> {
    let rows = broker.key_rows(number).expect("rows");
    let mut states: Vec<_> =
        rows.iter().filter(|row| row.key_use == key_use).map(|row| row.facts().state.word()).collect();
    states.sort_unstable();
    states
        .iter()
        .map(|word| {
            [KeyState::Active, KeyState::Prepared, KeyState::Retired, KeyState::Cut]
                .into_iter()
                .find(|state| state.word() == *word)
                .expect("state")
        })
        .collect()
}

fn rotate(use_: &str, step: pb::rotate_keys_request::Step) -> pb::RotateKeysRequest {
    pb::RotateKeysRequest { tenant: "acme".into(), r#use: use_.into(), step: step.into() }
}

#[tokio::test]
async fn a_new_tenants_ring_signs_and_its_ca_is_below_the_issuing_ca() {
    let (broker, _) = founded().await;
    let number = add_tenant(&broker, "acme").await;
    let ring = broker.rings.ring(&broker.ledger, number).expect("ring");
    let ca = ring.ca.as_ref().expect("ca");
    assert!(ring.token.is_some() && ca.not_after() <= broker.issuing().expect("issuing").not_after());
    assert_eq!(ca.chain_der()[1..], *broker.issuing().expect("issuing").chain_der());
}

#[tokio::test]
async fn steps_by_themselves_never_leave_a_gap_and_no_ca_ends_while_it_signs() {
    let (broker, hands) = founded().await;
    let number = add_tenant(&broker, "acme").await;
    let mut ids = std::collections::HashSet::new();
    for _ in 0..200 {
        broker.step_rings(broker.now()).await;
        let ring = broker.rings.ring(&broker.ledger, number).expect("ring");
        let ca = ring.ca.as_ref().expect("a ca signs");
        assert!(ca.not_after() > broker.now().after(broker.settings.ca_ring.retire_keep()));
        ids.insert(ring.token.as_ref().expect("a key signs").key_id().to_owned());
        ids.insert(ring.ca_key_id.clone());
        hands.advance(days(1));
    }
    // 200 days: 15 token keys and 7 CAs.
    assert_eq!(ids.len(), 15 + 7);
    assert!(broker.key_rows(number).expect("rows").len() <= 1 + 3 + 3);
}

#[tokio::test]
async fn after_a_long_stop_a_ca_that_ended_is_replaced_at_once() {
    let (broker, hands) = founded().await;
    let number = add_tenant(&broker, "acme").await;
    broker.step_rings(broker.now()).await;
    hands.advance(days(400));
    broker.step_rings(broker.now()).await;
    let ring = broker.rings.ring(&broker.ledger, number).expect("ring");
    assert!(ring.ca.as_ref().expect("a ca signs").not_after() > broker.now().after(days(30)));
}

#[tokio::test]
async fn nothing_steps_while_the_time_is_in_doubt() {
    let (broker, hands) = founded().await;
    let number = add_tenant(&broker, "acme").await;
    broker.step_rings(broker.now()).await;
    hands.advance(days(20));
    broker.ledger.holds().set(Hold::Clock);
    let before = broker.ledger.basis();
    broker.step_rings(broker.now()).await;
    assert_eq!(before, broker.ledger.basis());
    let now = rotate("token", pb::rotate_keys_request::Step::Now);
    assert!(matches!(broker.rotate_keys(&admin(), now).await, Err(Refusal::Held(_))));
    assert_eq!(states(&broker, number, KeyUse::Token), [KeyState::Active, KeyState::Prepared]);
}

#[tokio::test]
async fn a_step_by_hand_that_comes_too_early_is_refused() {
    use pb::rotate_keys_request::Step as Asked;
    let (broker, hands) = founded().await;
    let number = add_tenant(&broker, "acme").await;
    let early = |refusal: Result<pb::RotateKeysResponse, Refusal>| {
        assert!(matches!(refusal, Err(Refusal::Invalid { field: "step", .. })), "{refusal:?}");
    };
    early(broker.rotate_keys(&admin(), rotate("token", Asked::Activate)).await);
    early(broker.rotate_keys(&admin(), rotate("token", Asked::Destroy)).await);
    broker.rotate_keys(&admin(), rotate("token", Asked::Prepare)).await.expect("prepares");
    early(broker.rotate_keys(&admin(), rotate("token", Asked::Prepare)).await);
    early(broker.rotate_keys(&admin(), rotate("token", Asked::Activate)).await);
    hands.advance(broker.settings.token_ring.publish_before());
    broker.rotate_keys(&admin(), rotate("token", Asked::Activate)).await.expect("activates");
    assert_eq!(states(&broker, number, KeyUse::Token), [KeyState::Active, KeyState::Retired]);
    early(broker.rotate_keys(&admin(), rotate("token", Asked::Destroy)).await);
    hands.advance(broker.settings.token_ring.retire_keep());
    broker.rotate_keys(&admin(), rotate("token", Asked::Destroy)).await.expect("destroys");
    assert_eq!(states(&broker, number, KeyUse::Token), [KeyState::Active]);
    let before = broker.rings.ring(&broker.ledger, number).expect("ring").ca_key_id.clone();
    broker.rotate_keys(&admin(), rotate("ca", Asked::Now)).await.expect("replaces");
    assert_ne!(before, broker.rings.ring(&broker.ledger, number).expect("ring").ca_key_id);
}

#[tokio::test]
async fn listed_keys_say_when_their_next_step_is_due() {
    let (broker, _) = founded().await;
    add_tenant(&broker, "acme").await;
    broker.step_rings(broker.now()).await;
    let request = pb::ListKeysRequest { tenant: "acme".into() };
    let keys = broker.list_keys(&admin(), request).await.expect("lists").keys;
    let due = Some(event::stamp(broker.now().after(days(14))));
    assert_eq!(keys.len(), 4);
    assert!(keys.iter().filter(|key| key.r#use == "token").all(|key| key.next_step == due));
    let own = broker.list_keys(&admin(), pb::ListKeysRequest::default()).await.expect("lists").keys;
    assert_eq!(own.len(), 3);
}
