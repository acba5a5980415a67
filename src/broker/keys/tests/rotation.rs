//! Rotation as resource servers see it, each with a copy of the key set that is as old as may be.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::*;
use crate::{
    broker::testing::{Hands, TRUST, apply, worker},
    model::time::SKEW,
    verifier::{Freshness, OfflineVerifier, TrustBundle},
};

const AUDIENCE: &str = "https://api.example";
const TOKEN_LIFE: Duration = Duration::from_secs(300);
const ACTIVE: Duration = Duration::from_secs(1_800);
const TURN: Duration = Duration::from_secs(30);

struct Token {
    text: String,
    key_id: String,
    expires: Timestamp,
}

/// A broker whose keys sign half an hour each.
async fn rotating() -> (Arc<Broker>, Arc<Hands>) {
    let (mut broker, hands) = founded().await;
    let settings = &mut Arc::get_mut(&mut broker).expect("not shared yet").settings;
    let publish = settings.key_set_max_age;
    settings.token_ring = RingPolicy::new(publish, ACTIVE, TOKEN_LIFE + SKEW).expect("policy");
    apply(&broker, TRUST).await;
    (broker, hands)
}

async fn issue(broker: &Broker) -> Token {
    let request = pb::IssueRequest {
        tenant: "acme".into(),
        partner: "zeta".into(),
        purpose: "work".into(),
        kind: pb::CredentialKind::Jwt.into(),
        audiences: vec![AUDIENCE.into()],
        actions: vec!["read".into()],
        binding: pb::Binding::None.into(),
        ..Default::default()
    };
    let reply = broker.issue(&worker(), request).await.expect("issued");
    let Some(pb::issue_response::Credential::Token(text)) = reply.credential else { panic!("no token") };
    let number = broker.registry.number(&"acme".parse().expect("name")).expect("known");
    let ring = broker.rings.ring(&broker.ledger, number).expect("ring");
    let key_id = ring.token.as_ref().expect("signs").key_id().to_owned();
    Token { text, key_id, expires: broker.now().after(TOKEN_LIFE) }
}

/// A verifier that keeps its copy of the key set for as long as the broker allows, and not a moment less.
struct Reader {
    verifier: OfflineVerifier,
    until: Timestamp,
}

impl Reader {
    fn new(freshness: Freshness) -> Self {
        let verifier = OfflineVerifier::new("acme".parse().expect("name"), freshness);
        Self { verifier, until: Timestamp::default() }
    }

    async fn look(&mut self, broker: &Broker) {
        if broker.now() > self.until {
            let request = pb::GetTrustBundleRequest { tenant: "acme".into() };
            let answer = broker.get_trust_bundle(&admin(), request).await.expect("served");
            let bundle = TrustBundle::parse(&answer, "acme".parse().expect("name"), broker.now()).expect("parses");
            self.until = broker.now().after(bundle.max_age());
            self.verifier.install(bundle);
        }
    }

    fn takes(&self, token: &Token, now: Timestamp) -> bool {
        self.verifier.check_token(&token.text, AUDIENCE, None, now).is_ok()
    }
}

#[tokio::test]
async fn no_valid_token_is_refused_while_keys_are_prepared_activated_retired_and_destroyed() {
    let (broker, hands) = rotating().await;
    let mut readers: Vec<Reader> = (0..3).map(|_| Reader::new(Freshness::KeySetOnly)).collect();
    let (mut tokens, mut keys): (Vec<Token>, BTreeSet<String>) = (Vec::new(), BTreeSet::new());
    for turn in 0_usize..200 {
        broker.step_rings(broker.now()).await;
        tokens.push(issue(&broker).await);
        keys.extend(tokens.last().map(|token| token.key_id.clone()));
        let now = broker.now();
        tokens.retain(|token| now < token.expires);
        // Their copies are of different age.
        for (at, reader) in readers.iter_mut().enumerate().filter(|(at, _)| turn >= at * 3) {
            reader.look(&broker).await;
            for token in &tokens {
                assert!(reader.takes(token, now), "turn {turn}: reader {at} lacks key {}", token.key_id);
            }
        }
        hands.advance(TURN);
    }
    assert!(keys.len() >= 3, "only {} keys have signed", keys.len());
    let listed = broker.list_keys(&admin(), pb::ListKeysRequest { tenant: "acme".into() }).await.expect("lists").keys;
    let kept = listed.iter().filter(|key| key.r#use == "token").count();
    assert!(kept <= 3, "{kept} keys are kept of {}", keys.len());
}

#[tokio::test]
async fn after_a_signing_key_is_revoked_all_its_tokens_are_refused() {
    let (broker, hands) = rotating().await;
    let follows = Freshness::Feed { max_staleness: Duration::from_secs(3_600) };
    let (mut cached, mut follower) = (Reader::new(Freshness::KeySetOnly), Reader::new(follows));
    let watch = pb::WatchRevocationsRequest { tenant: "acme".into(), after: None };
    let mut feed = broker.watch_revocations(&admin(), watch).await.expect("watches");
    let first = feed.recv().await.expect("a message").expect("well");
    follower.verifier.apply(&first, broker.now()).expect("applies");
    let mut tokens = Vec::new();
    for _ in 0..5 {
        tokens.push(issue(&broker).await);
        hands.advance(TURN);
    }
    for reader in [&mut cached, &mut follower] {
        reader.look(&broker).await;
        assert!(tokens.iter().all(|token| reader.takes(token, broker.now())));
    }
    let key_id = tokens[0].key_id.clone();
    let scope = pb::Scope { kind: pb::ScopeKind::SigningKey.into(), key_id: key_id.clone(), ..Default::default() };
    let request = pb::RevokeRequest { scope: Some(scope), reason: "leaked".into(), ..Default::default() };
    let revoked = broker.revoke(&admin(), request).await.expect("revoked").revision.expect("a revision");
    loop {
        let message = feed.recv().await.expect("a message").expect("well");
        let reached = message.revision.as_ref().is_some_and(|revision| revision.number >= revoked.number);
        follower.verifier.apply(&message, broker.now()).expect("applies");
        if reached {
            break;
        }
    }
    assert!(tokens.iter().all(|token| !follower.takes(token, broker.now())), "at once for who follows the feed");
    hands.advance(broker.settings.key_set_max_age + Duration::from_millis(1));
    cached.look(&broker).await;
    assert!(tokens.iter().all(|token| !cached.takes(token, broker.now())), "with the next key set for who does not");
    let fresh = issue(&broker).await;
    assert_ne!(fresh.key_id, key_id);
    follower.look(&broker).await;
    for reader in [&cached, &follower] {
        assert!(reader.takes(&fresh, broker.now()), "the successor signs");
    }
}
