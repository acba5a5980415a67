use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{
    mint::signing::Algorithm,
    model::{ScopeId, TaskId, TenantNumber},
};

struct Sample {
    tenant: TenantName,
    partner: PartnerName,
    grant: GrantName,
    workload: WorkloadName,
    purpose: Purpose,
    audiences: Vec<String>,
    actions: Vec<String>,
    lease: LeaseId,
    stamp: Stamp,
}

impl Sample {
    fn new() -> Self {
        let task = TaskId::fresh(TenantNumber::new(7).expect("in range")).expect("entropy");
        let scope = ScopeId::from_slice(&[9; 12]).expect("12 bytes");
        Self {
            tenant: "acme".parse().expect("name"),
            partner: "globex".parse().expect("name"),
            grant: "nightly".parse().expect("name"),
            workload: "exporter".parse().expect("name"),
            purpose: "export".parse().expect("name"),
            audiences: vec!["https://api.acme.example".to_owned()],
            actions: vec!["orders:read".to_owned(), "orders:list".to_owned()],
            lease: LeaseId::fresh(task).expect("entropy"),
            stamp: Stamp::new((0xabc, 42), vec![scope; 8]).expect("few scopes"),
        }
    }

    fn claims(&self) -> TokenClaims<'_> {
        TokenClaims {
            issuer: "https://mayfly.example/t/acme",
            subject: "spiffe://acme.example/globex/exporter",
            actors: &[],
            resellers: &[],
            audiences: &self.audiences,
            tenant: &self.tenant,
            partner: &self.partner,
            grant: &self.grant,
            workload: &self.workload,
            purpose: &self.purpose,
            actions: &self.actions,
            lease: self.lease,
            issued: Timestamp::from_millis(1_800_000_000_999),
            expires: Timestamp::from_seconds(1_800_000_300),
            stamp: &self.stamp,
            bound: Some(Digest([1; 32])),
        }
    }
}

fn key() -> SigningKey {
    SigningKey::generate(Algorithm::Es256).expect("entropy").0
}

/// Header and claims of a token whose signature holds.
fn verified(key: &SigningKey, token: &str) -> (Value, Value) {
    let (signed, signature) = token.rsplit_once('.').expect("three parts");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    assert!(key.public().verify(signed.as_bytes(), &signature));
    let (header, body) = signed.split_once('.').expect("three parts");
    let json = |part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON");
    (json(header), json(body))
}

#[test]
fn a_token_has_exactly_the_documented_claims() {
    let sample = Sample::new();
    for algorithm in [Algorithm::Es256, Algorithm::EdDsa] {
        let (key, _) = SigningKey::generate(algorithm).expect("entropy");
        let minted = mint(&key, &sample.claims()).expect("sound claims");
        assert_eq!(minted.sha256, Digest::of(minted.text.expose().as_bytes()));
        let (header, claims) = verified(&key, minted.text.expose());
        assert_eq!(header, serde_json::json!({ "alg": algorithm.name(), "kid": key.key_id(), "typ": "at+jwt" }));
        assert_eq!(
            claims,
            serde_json::json!({
                "iss": "https://mayfly.example/t/acme",
                "sub": "spiffe://acme.example/globex/exporter",
                "aud": "https://api.acme.example",
                "client_id": "exporter",
                "iat": 1_800_000_000,
                "exp": 1_800_000_300,
                "jti": sample.lease.to_string(),
                "scope": "orders:read orders:list",
                "tenant": "acme",
                "partner": "globex",
                "grant": "nightly",
                "task": sample.lease.task().to_string(),
                "purpose": "export",
                "cnf": { "x5t#S256": URL_SAFE_NO_PAD.encode([1; 32]) },
                "mf_basis": "0000000000000abc.42",
                "mf_scopes": URL_SAFE_NO_PAD.encode([9; 96]),
            })
        );
    }
}

#[test]
fn several_audiences_are_an_array_and_absent_claims_are_left_out() {
    let mut sample = Sample::new();
    sample.audiences = vec!["a".to_owned(), "b\"\u{1}ü".to_owned()];
    sample.actions.clear();
    let key = key();
    let claims = TokenClaims { bound: None, ..sample.claims() };
    let minted = mint(&key, &claims).expect("sound claims");
    let (_, claims) = verified(&key, minted.text.expose());
    assert_eq!(claims["aud"], serde_json::json!(["a", "b\"\u{1}ü"]));
    assert!(claims.get("scope").is_none() && claims.get("cnf").is_none());
}

#[test]
fn a_token_names_every_reseller_in_order_and_none_where_there_is_none() {
    let (sample, key) = (Sample::new(), key());
    for resellers in
        [vec![], vec!["one \"x\"".to_owned()], vec!["one".to_owned(), "two".to_owned(), "three".to_owned()]]
    {
        let minted = mint(&key, &TokenClaims { resellers: &resellers, ..sample.claims() }).expect("sound claims");
        let (_, claims) = verified(&key, minted.text.expose());
        let named = (!resellers.is_empty()).then(|| serde_json::json!(resellers));
        assert_eq!(claims.get("mf_resellers"), named.as_ref());
    }
}

#[test]
fn a_token_names_who_acts_and_within_that_on_whose_behalf() {
    let (sample, key) = (Sample::new(), key());
    for (actors, named) in [
        (vec![], None),
        (vec!["a \"x\""], Some(serde_json::json!({ "sub": "a \"x\"" }))),
        (vec!["a", "b", "c"], Some(serde_json::json!({ "sub": "a", "act": { "sub": "b", "act": { "sub": "c" } } }))),
    ] {
        let actors: Vec<String> = actors.into_iter().map(str::to_owned).collect();
        let minted = mint(&key, &TokenClaims { actors: &actors, ..sample.claims() }).expect("sound claims");
        let (_, claims) = verified(&key, minted.text.expose());
        assert_eq!(claims.get("act"), named.as_ref());
    }
}

#[test]
fn a_token_without_audience_is_refused() {
    let mut sample = Sample::new();
    sample.audiences.clear();
    assert_eq!(mint(&key(), &sample.claims()).expect_err("no audience"), NotMinted::NoAudience);
}

#[test]
fn an_action_that_would_read_as_two_is_refused() {
    for action in ["orders:read admin", "", "a\"b", "a\\b", "é", "a\n"] {
        let mut sample = Sample::new();
        sample.actions = vec![action.to_owned()];
        let refused = mint(&key(), &sample.claims()).expect_err("no scope token");
        assert_eq!(refused, NotMinted::Action { action: action.to_owned() });
    }
}

#[test]
fn a_token_holds_at_its_limit_and_not_one_past() {
    let key = key();
    let (mut fits, mut past) = (0, 0);
    for length in 5_000..5_800 {
        let mut sample = Sample::new();
        sample.audiences = vec!["a".repeat(length)];
        match mint(&key, &sample.claims()) {
            Ok(minted) => {
                fits = minted.text.expose().len();
                assert!(peek(minted.text.expose()).is_some());
            }
            Err(NotMinted::TooLong { bytes }) => {
                past = bytes;
                break;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(fits <= TOKEN_MAX_BYTES && fits + 2 > TOKEN_MAX_BYTES, "{fits}");
    assert!(past > TOKEN_MAX_BYTES && past < TOKEN_MAX_BYTES + 3, "{past}");
}

#[test]
fn peek_reads_the_lease_of_our_tokens() {
    let (sample, key) = (Sample::new(), key());
    let minted = mint(&key, &sample.claims()).expect("sound claims");
    assert_eq!(peek(minted.text.expose()), Some(sample.lease));
}

#[test]
fn peek_refuses_what_cannot_be_ours() {
    let (sample, key) = (Sample::new(), key());
    let minted = mint(&key, &sample.claims()).expect("sound claims");
    let good = minted.text.expose();
    let (signed, _) = good.rsplit_once('.').expect("three parts");
    let body = |json: &str| {
        let (header, signature) = (good.split('.').next().expect("part"), good.rsplit('.').next().expect("part"));
        format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(json))
    };
    let jti = sample.lease;
    for bad in [
        String::new(),
        "..".to_owned(),
        signed.to_owned(),
        format!("{signed}."),
        format!("{good}.x"),
        format!("{good}{}", "x".repeat(TOKEN_MAX_BYTES)),
        body(&format!(r#"{{"jti":"{jti}","x":"{}"}}"#, "x".repeat(TOKEN_MAX_BYTES))),
        body("{}"),
        body("[]"),
        body(r#"{"jti":7}"#),
        body(r#"{"jti":"ff"}"#),
        body(&format!(r#"{{"jti":"{jti}","jti":"{jti}"}}"#)),
    ] {
        assert_eq!(peek(&bad), None, "{bad}");
    }
    assert!(peek(&body(&format!(r#"{{"jti":"{jti}"}}"#))).is_some());
}

proptest! {
    #[test]
    fn any_text_is_written_as_the_json_string_that_reads_back(text in ".*") {
        let mut json = String::new();
        push_member(&mut json, "", &text);
        prop_assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), text);
    }

    #[test]
    fn peek_takes_any_text_without_a_panic(text in ".{0,200}") {
        let _ = peek(&text);
    }
}

#[test]
fn a_jwt_svid_has_a_header_of_three_members_and_the_claims_of_a_token() {
    let (sample, key) = (Sample::new(), key());
    let minted = mint_as(Form::Svid, &key, &sample.claims()).expect("mints");
    let (header, claims) = verified(&key, minted.text.expose());
    assert_eq!(header, serde_json::json!({ "alg": "ES256", "kid": key.key_id(), "typ": "JWT" }));
    assert_eq!(claims["sub"], "spiffe://acme.example/globex/exporter");
    assert_eq!(peek(minted.text.expose()), Some(sample.lease));
}
