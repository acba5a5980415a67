use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::{Value, json};

use super::*;
use crate::{
    model::{LeaseId, PartnerName, Scope, ScopeId, TaskId, TenantNumber},
    pb::{GetTrustBundleResponse, RevocationEvent, RevocationKind},
};

const NOW: Timestamp = Timestamp::from_seconds(2_000_000_000);
const AUDIENCE: &str = "https://api.example";
const FEED: Freshness = Freshness::Feed { max_staleness: Duration::from_secs(10) };

/// A signing key under the id `k1`, and ids of one lease.
struct Issuer {
    key: EcdsaKeyPair,
    lease: LeaseId,
}

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("entropy");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).expect("own");
        let task = TaskId::fresh(TenantNumber::new(5).expect("small")).expect("entropy");
        Self { key, lease: LeaseId::fresh(task).expect("entropy") }
    }

    fn bundle_of(&self, tenant: &str, root_der: Vec<Vec<u8>>) -> TrustBundle {
        let point = self.key.public_key().as_ref();
        let key = json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "k1",
            "x": encode(&point[1..33]), "y": encode(&point[33..])});
        let foreign = json!({"kty": "AKP", "kid": "pq", "alg": "ML-DSA-44", "pub": "AA"});
        let response = GetTrustBundleResponse {
            issuer: format!("https://broker.example/{tenant}"),
            jwks_json: json!({"keys": [key, foreign]}).to_string(),
            root_der,
            trust_domain: format!("{tenant}.example"),
            max_age_seconds: 300,
        };
        TrustBundle::parse(&response, tenant.parse().expect("name"), NOW).expect("bundle")
    }

    fn verifier(&self, freshness: Freshness) -> OfflineVerifier {
        let verifier = OfflineVerifier::new("acme".parse().expect("name"), freshness);
        assert!(verifier.install(self.bundle_of("acme", Vec::new())));
        if freshness == FEED {
            verifier.apply(&message(10, None), NOW).expect("first");
        }
        verifier
    }

    fn claims(&self) -> Value {
        json!({"iss": "https://broker.example/acme", "sub": "spiffe://acme.example/w/ci", "aud": [AUDIENCE, "other"],
            "client_id": "ci", "iat": NOW.seconds(), "exp": NOW.seconds() + 300, "jti": self.lease.to_string(),
            "scope": "read write", "tenant": "acme", "partner": "zeta", "grant": "deploys",
            "task": self.lease.task().to_string(), "purpose": "deploy", "mf_basis": "0000000000000001.15",
            "mf_scopes": encode(&ScopeId::join(&[extra_scope()]))})
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).expect("entropy");
        format!("{message}.{}", encode(signature.as_ref()))
    }

    fn token(&self) -> String {
        self.sign(&header(), &self.claims())
    }

    fn token_with(&self, claim: &str, value: Value) -> String {
        let mut claims = self.claims();
        if value.is_null() {
            claims.as_object_mut().expect("object").remove(claim);
        } else {
            claims[claim] = value;
        }
        self.sign(&header(), &claims)
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn header() -> Value {
    json!({"alg": "ES256", "typ": "at+jwt", "kid": "k1"})
}

/// A scope that only `mf_scopes` names.
fn extra_scope() -> ScopeId {
    Scope::Proof(Digest([9; 32])).id()
}

fn message(number: u64, event: Option<(RevocationKind, ScopeId)>) -> WatchRevocationsResponse {
    let revision = Some(Revision { incarnation: 1, number });
    let event = event.map(|(kind, scope)| RevocationEvent {
        kind: kind.into(),
        scope_id: scope.as_bytes().to_vec(),
        revision,
        covers_until: None,
    });
    WatchRevocationsResponse { revision, events: event.into_iter().collect(), complete: true }
}

fn check(verifier: &OfflineVerifier, token: &str) -> Result<VerifiedToken, TokenRefusal> {
    verifier.check_token(token, AUDIENCE, None, NOW)
}

#[test]
fn a_good_token_says_who_may_do_what() {
    let issuer = Issuer::new();
    let token = check(&issuer.verifier(FEED), &issuer.token()).expect("good");
    assert_eq!((token.tenant.as_str(), token.partner.as_str(), token.purpose.as_str()), ("acme", "zeta", "deploy"));
    assert_eq!((token.lease, token.task), (issuer.lease, issuer.lease.task()));
    assert_eq!(token.actions, ["read", "write"]);
    assert!(check(&issuer.verifier(FEED), &issuer.token_with("aud", json!(AUDIENCE))).is_ok());
}

#[test]
fn a_header_that_is_not_exactly_as_the_broker_writes_it_is_refused() {
    let issuer = Issuer::new();
    let verifier = issuer.verifier(FEED);
    let cases = [
        (json!({"alg": "none", "typ": "at+jwt", "kid": "k1"}), TokenRefusal::Malformed),
        (json!({"alg": "HS256", "typ": "at+jwt", "kid": "k1"}), TokenRefusal::Algorithm),
        (json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "k1"}), TokenRefusal::Algorithm),
        (json!({"alg": "ES256", "typ": "JWT", "kid": "k1"}), TokenRefusal::Type),
        (json!({"alg": "ES256", "kid": "k1"}), TokenRefusal::Type),
        (json!({"alg": "ES256", "typ": "at+jwt", "kid": "k2"}), TokenRefusal::UnknownKey),
        (json!({"alg": "ES256", "typ": "at+jwt"}), TokenRefusal::UnknownKey),
        (json!({"alg": "ES256", "typ": "at+jwt", "kid": "k1", "crit": ["b64"], "b64": false}), TokenRefusal::Critical),
    ];
    for (header, refusal) in cases {
        assert_eq!(check(&verifier, &issuer.sign(&header, &issuer.claims())), Err(refusal), "{header}");
    }
}

#[test]
fn an_unsigned_token_and_one_signed_with_the_public_key_as_secret_are_refused() {
    let issuer = Issuer::new();
    let verifier = issuer.verifier(FEED);
    let part = |value: &Value| encode(value.to_string().as_bytes());
    let unsigned =
        format!("{}.{}.", part(&json!({"alg": "none", "typ": "at+jwt", "kid": "k1"})), part(&issuer.claims()));
    assert_eq!(check(&verifier, &unsigned), Err(TokenRefusal::Malformed));
    let message =
        format!("{}.{}", part(&json!({"alg": "HS256", "typ": "at+jwt", "kid": "k1"})), part(&issuer.claims()));
    let secret = hmac::Key::new(hmac::HMAC_SHA256, issuer.key.public_key().as_ref());
    let forged = format!("{message}.{}", encode(hmac::sign(&secret, message.as_bytes()).as_ref()));
    assert_eq!(check(&verifier, &forged), Err(TokenRefusal::Algorithm));
}

#[test]
fn a_token_with_one_changed_character_is_refused() {
    let issuer = Issuer::new();
    let (verifier, token) = (issuer.verifier(FEED), issuer.token());
    for at in (0..token.len()).step_by(7) {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        assert!(check(&verifier, &String::from_utf8(changed).expect("ascii")).is_err(), "byte {at}");
    }
    for text in ["", ".", "..", "a.b", &"x".repeat(8193), &format!("{token}.x")] {
        assert!(check(&verifier, text).is_err());
    }
}

#[test]
fn a_token_of_another_key_tenant_issuer_or_audience_is_refused() {
    let issuer = Issuer::new();
    let verifier = issuer.verifier(FEED);
    assert_eq!(check(&verifier, &Issuer::new().token()), Err(TokenRefusal::Signature));
    let cases = [
        ("tenant", json!("bolt"), TokenRefusal::Tenant),
        ("iss", json!("https://broker.example/bolt"), TokenRefusal::Issuer),
        ("aud", json!("other"), TokenRefusal::Audience),
        ("aud", json!([]), TokenRefusal::Audience),
        ("iat", json!(NOW.seconds() + 31), TokenRefusal::Early),
        ("jti", json!("x"), TokenRefusal::Claims),
        ("mf_basis", json!("1.15"), TokenRefusal::Claims),
        ("mf_scopes", json!("AAAA"), TokenRefusal::Claims),
    ];
    for (claim, value, refusal) in cases {
        assert_eq!(check(&verifier, &issuer.token_with(claim, value)), Err(refusal), "{claim}");
    }
    assert!(!verifier.install(issuer.bundle_of("bolt", Vec::new())));
}

#[test]
fn a_token_without_a_required_claim_is_refused() {
    let issuer = Issuer::new();
    let verifier = issuer.verifier(FEED);
    for claim in ["iss", "sub", "aud", "exp", "iat", "jti", "tenant", "task", "mf_basis", "mf_scopes"] {
        assert_eq!(check(&verifier, &issuer.token_with(claim, Value::Null)), Err(TokenRefusal::Claims), "{claim}");
    }
}

#[test]
fn a_token_expires_at_its_time_plus_the_skew() {
    let issuer = Issuer::new();
    let verifier = issuer.verifier(Freshness::KeySetOnly);
    let token = issuer.token_with("exp", json!(NOW.seconds() + 60));
    let end = NOW.after(Duration::from_secs(60)).after(SKEW);
    let at = |now| verifier.check_token(&token, AUDIENCE, None, now).map(|_| ());
    assert_eq!(at(end.before(Duration::from_millis(1))), Ok(()));
    assert_eq!(at(end), Err(TokenRefusal::Expired));
}

#[test]
fn a_bound_token_needs_its_certificate() {
    let issuer = Issuer::new();
    let verifier = issuer.verifier(FEED);
    let token = issuer.token_with("cnf", json!({"x5t#S256": encode(&[3; 32])}));
    let with = |presented| verifier.check_token(&token, AUDIENCE, presented, NOW).map(|token| token.bound);
    assert_eq!(with(Some(Digest([3; 32]))), Ok(Some(Digest([3; 32]))));
    assert_eq!(with(Some(Digest([4; 32]))), Err(TokenRefusal::Binding));
    assert_eq!(with(None), Err(TokenRefusal::Binding));
}

#[test]
fn a_cut_above_the_basis_ends_a_token_through_each_of_its_scopes() {
    let issuer = Issuer::new();
    let (tenant, partner): (TenantName, PartnerName) = ("acme".parse().expect("name"), "zeta".parse().expect("name"));
    let scopes = [
        extra_scope(),
        Scope::Everything.id(),
        Scope::Tenant(tenant.clone()).id(),
        Scope::Partner(partner.clone()).id(),
        Scope::PartnerInTenant(tenant.clone(), partner).id(),
        Scope::Grant(tenant, "deploys".parse().expect("name")).id(),
        Scope::Task(issuer.lease.task()).id(),
        Scope::Lease(issuer.lease).id(),
        Scope::SigningKey("k1".into()).id(),
    ];
    for scope in scopes {
        let verifier = issuer.verifier(FEED);
        verifier.apply(&message(15, Some((RevocationKind::Cut, scope))), NOW).expect("next");
        assert!(check(&verifier, &issuer.token()).is_ok(), "a cut at the basis does not end it");
        verifier.apply(&message(16, Some((RevocationKind::Cut, scope))), NOW).expect("next");
        assert_eq!(check(&verifier, &issuer.token()), Err(TokenRefusal::Ended), "{scope:?}");
    }
    let verifier = issuer.verifier(FEED);
    let other = Scope::Tenant("bolt".parse().expect("name")).id();
    verifier.apply(&message(16, Some((RevocationKind::Cut, other))), NOW).expect("next");
    assert!(check(&verifier, &issuer.token()).is_ok());
}

#[test]
fn a_suspended_token_works_again_once_lifted() {
    let issuer = Issuer::new();
    let verifier = issuer.verifier(FEED);
    verifier.apply(&message(16, Some((RevocationKind::Suspend, extra_scope()))), NOW).expect("next");
    assert_eq!(check(&verifier, &issuer.token()), Err(TokenRefusal::Suspended));
    verifier.apply(&message(17, Some((RevocationKind::Lift, extra_scope()))), NOW).expect("next");
    assert!(check(&verifier, &issuer.token()).is_ok());
}

#[test]
fn a_token_of_another_incarnation_or_before_the_feed_is_complete_is_refused() {
    let issuer = Issuer::new();
    let verifier = issuer.verifier(FEED);
    let token = issuer.token_with("mf_basis", json!("0000000000000002.15"));
    assert_eq!(check(&verifier, &token), Err(TokenRefusal::OtherIncarnation));
    verifier.reset_feed();
    verifier.apply(&WatchRevocationsResponse { complete: false, ..message(20, None) }, NOW).expect("first page");
    assert_eq!(check(&verifier, &issuer.token()), Err(TokenRefusal::NotCovered));
    verifier.apply(&message(20, None), NOW).expect("last page");
    assert!(check(&verifier, &issuer.token()).is_ok());
}

#[test]
fn a_silent_feed_refuses_from_the_bound_on_and_key_set_only_does_not() {
    let issuer = Issuer::new();
    let verifier = issuer.verifier(FEED);
    let at = |verifier: &OfflineVerifier, now| verifier.check_token(&issuer.token(), AUDIENCE, None, now).map(|_| ());
    let bound = NOW.after(Duration::from_secs(10));
    let stale = Err(TokenRefusal::Unusable(Unusable::StaleFeed));
    assert_eq!(at(&verifier, bound), Ok(()));
    assert_eq!(at(&verifier, bound.after(Duration::from_millis(1))), stale);
    verifier.apply(&message(11, None), bound.after(Duration::from_secs(5))).expect("heartbeat");
    assert_eq!(at(&verifier, bound.after(Duration::from_secs(5))), Ok(()));
    // The clock stepped back behind the last message: how old the feed is cannot be told.
    verifier.apply(&message(12, None), NOW.after(Duration::from_secs(600))).expect("heartbeat");
    assert_eq!(at(&verifier, NOW), stale);
    verifier.reset_feed();
    assert_eq!(at(&verifier, bound), stale);
    assert_eq!(at(&issuer.verifier(Freshness::KeySetOnly), bound.after(Duration::from_secs(60))), Ok(()));
}

#[test]
fn a_missing_or_old_bundle_refuses() {
    let issuer = Issuer::new();
    let none = OfflineVerifier::new("acme".parse().expect("name"), Freshness::KeySetOnly);
    assert_eq!(check(&none, &issuer.token()), Err(TokenRefusal::Unusable(Unusable::NoBundle)));
    let verifier = issuer.verifier(Freshness::KeySetOnly);
    let later = NOW.after(Duration::from_millis(300_001));
    let refused = verifier.check_token(&issuer.token(), AUDIENCE, None, later);
    assert_eq!(refused, Err(TokenRefusal::Unusable(Unusable::StaleBundle)));
}

/// A root, and a leaf under it with the given name, serial and stamp.
fn certificate(uri: &str, serial: &[u8], stamp: Option<&[u8]>) -> (Vec<u8>, CertificateDer<'static>) {
    use rcgen::{
        BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
    };
    let day = |offset: i64| {
        let seconds = i64::try_from(NOW.seconds()).expect("small") + offset * 86_400;
        time::OffsetDateTime::from_unix_timestamp(seconds).expect("in range")
    };
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (root.not_before, root.not_after) = (day(-1), day(1));
    let root_key = KeyPair::generate().expect("entropy");
    let root_der = root.self_signed(&root_key).expect("root").der().to_vec();
    let mut leaf = CertificateParams::default();
    (leaf.not_before, leaf.not_after) = (day(-1), day(1));
    leaf.serial_number = Some(serial.to_vec().into());
    leaf.subject_alt_names = vec![SanType::URI(uri.try_into().expect("ascii"))];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    leaf.custom_extensions = stamp
        .map(|bytes| {
            let der = [&[4, u8::try_from(bytes.len()).expect("short")], bytes].concat();
            CustomExtension::from_oid_content(&[2, 25, 5_575_871_294_474_878_977], der)
        })
        .into_iter()
        .collect();
    let key = KeyPair::generate().expect("entropy");
    let issued = leaf.signed_by(&key, &Issuer::new(root, root_key)).expect("leaf");
    (root_der, issued.der().clone())
}

#[test]
fn a_certificate_holds_until_its_chain_time_name_stamp_or_scope_does_not() {
    let issuer = Issuer::new();
    let mut stamp = vec![1];
    stamp.extend(1_u64.to_be_bytes());
    stamp.extend(15_u64.to_be_bytes());
    stamp.extend(extra_scope().as_bytes());
    let (uri, serial) = ("spiffe://acme.example/w/ci", issuer.lease.as_bytes().as_slice());
    let verdict = |uri: &str, serial: &[u8], stamp: Option<&[u8]>, now, event| {
        let (root, leaf) = certificate(uri, serial, stamp);
        let verifier = issuer.verifier(FEED);
        assert!(verifier.install(issuer.bundle_of("acme", vec![root])));
        verifier.apply(&message(16, event), NOW).expect("next");
        verifier.check_certificate(&[leaf], now).map(|verified| verified.lease)
    };
    let good = Some(stamp.as_slice());
    assert_eq!(verdict(uri, serial, good, NOW, None), Ok(issuer.lease));
    let cut = |scope| Some((RevocationKind::Cut, scope));
    for scope in [extra_scope(), Scope::Lease(issuer.lease).id(), Scope::Everything.id()] {
        assert_eq!(verdict(uri, serial, good, NOW, cut(scope)), Err(CertificateRefusal::Ended));
    }
    let held = Some((RevocationKind::Suspend, extra_scope()));
    assert_eq!(verdict(uri, serial, good, NOW, held), Err(CertificateRefusal::Suspended));
    for foreign in ["spiffe://bolt.example/w/ci", "spiffe://acme.example.evil/w/ci", "https://acme.example/w/ci"] {
        assert_eq!(verdict(foreign, serial, good, NOW, None), Err(CertificateRefusal::Tenant), "{foreign}");
    }
    assert_eq!(verdict(uri, &[1; 8], good, NOW, None), Err(CertificateRefusal::Unstamped));
    assert_eq!(verdict(uri, serial, None, NOW, None), Err(CertificateRefusal::Unstamped));
    stamp[0] = 2;
    assert_eq!(verdict(uri, serial, Some(&stamp), NOW, None), Err(CertificateRefusal::Unstamped));
}

#[test]
fn a_certificate_outside_its_time_or_of_another_root_is_refused() {
    let issuer = Issuer::new();
    let (root, leaf) = certificate("spiffe://acme.example/w/ci", issuer.lease.as_bytes(), None);
    let (_, foreign) = certificate("spiffe://acme.example/w/ci", issuer.lease.as_bytes(), None);
    let bundle = issuer.bundle_of("acme", vec![root]);
    let at = |leaf: &CertificateDer<'static>, now| certificate::check(std::slice::from_ref(leaf), &bundle, now).err();
    assert_eq!(at(&leaf, NOW.after(Duration::from_secs(86_401))), Some(CertificateRefusal::Chain));
    assert_eq!(at(&leaf, NOW.before(Duration::from_secs(86_401))), Some(CertificateRefusal::Chain));
    assert_eq!(at(&foreign, NOW), Some(CertificateRefusal::Chain));
    assert_eq!(at(&leaf, NOW), Some(CertificateRefusal::Unstamped));
    assert_eq!(certificate::check(&[], &bundle, NOW).err(), Some(CertificateRefusal::Malformed));
}

#[test]
fn a_token_says_through_whom_it_was_passed_on_and_resold_and_no_longer_a_chain_than_can_be() {
    let issuer = Issuer::new();
    let verifier = issuer.verifier(FEED);
    let plain = check(&verifier, &issuer.token()).expect("good");
    assert!(plain.actors.is_empty() && plain.resellers.is_empty());
    let chain = |length: usize| {
        (0..length).fold(Value::Null, |within, n| {
            if within.is_null() {
                return json!({ "sub": format!("actor-{n}") });
            }
            json!({ "sub": format!("actor-{n}"), "act": within })
        })
    };
    let passed = check(&verifier, &issuer.token_with("act", chain(3))).expect("good");
    assert_eq!(passed.actors, ["actor-2", "actor-1", "actor-0"], "the newest first");
    check(&verifier, &issuer.token_with("act", chain(4))).expect("as deep as tasks go");
    assert_eq!(check(&verifier, &issuer.token_with("act", chain(5))), Err(TokenRefusal::Claims));
    assert_eq!(check(&verifier, &issuer.token_with("act", chain(200))), Err(TokenRefusal::Claims));
    assert_eq!(check(&verifier, &issuer.token_with("act", json!("actor"))), Err(TokenRefusal::Claims));
    let resold = check(&verifier, &issuer.token_with("mf_resellers", json!(["Zeta", "Reseller"]))).expect("good");
    assert_eq!(resold.resellers, ["Zeta", "Reseller"]);
}
