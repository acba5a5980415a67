use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    testing::{self, AUDIENCE, Signer, b64},
    *,
};
use crate::model::{Digest, IssuerKind, IssuerRules, Reuse, SignatureAlgorithm, Timestamp};

const NOW: u64 = 1_790_000_000;

fn rules(kind: IssuerKind, url: &str) -> IssuerRules {
    IssuerRules::of_kind(kind, url, AUDIENCE)
}

fn github() -> IssuerRules {
    rules(IssuerKind::Github, testing::GITHUB)
}

fn keys(signer: &Signer) -> KeySet {
    KeySet::parse(signer.key_set().to_string().as_bytes()).expect("a key set")
}

fn verify_at(token: &str, rules: IssuerRules, keys: &KeySet, at: u64) -> Result<FederatedProof, TokenFault> {
    UnverifiedToken::parse(token)?.verify(&Arc::new(rules), keys, None, Timestamp::from_seconds(at))
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

fn without(mut claims: Value, name: &str) -> Value {
    claims.as_object_mut().expect("an object").remove(name);
    claims
}

#[test]
fn tokens_of_each_platforms_shape_are_taken() {
    let signer = Signer::new();
    let keys = keys(&signer);
    for (kind, url, claims, seconds, claim, says) in [
        (IssuerKind::Github, testing::GITHUB, testing::github(NOW), 300, "repository_id", "74"),
        (IssuerKind::Gitlab, testing::GITLAB, testing::gitlab(NOW), 3_600, "runner_id", "1"),
        (
            IssuerKind::Kubernetes,
            testing::KUBERNETES,
            testing::kubernetes(NOW),
            600,
            "kubernetes.io/serviceaccount/name",
            "deployer",
        ),
        (
            IssuerKind::Circleci,
            testing::CIRCLECI,
            testing::circleci(NOW),
            3_600,
            "oidc.circleci.com/ssh-rerun",
            "false",
        ),
        (IssuerKind::Buildkite, testing::BUILDKITE, testing::buildkite(NOW), 300, "organization_id", "0184990a"),
        (
            IssuerKind::Spiffe,
            testing::SPIFFE,
            testing::spiffe(NOW),
            300,
            "sub",
            "spiffe://prod.example/ns/payments/sa/deployer",
        ),
    ] {
        let token = signer.rs256(&claims);
        let proof =
            verify_at(&token, rules(kind, url), &keys, NOW + 1).unwrap_or_else(|fault| panic!("{url}: {fault}"));
        assert_eq!(proof.expires, Timestamp::from_seconds(NOW + seconds), "{url}");
        assert_eq!(proof.claims.one(claim), Some(says), "{url}");
        assert_eq!(proof.token, Digest::of(token.rsplit_once('.').expect("signed").0.as_bytes()));
    }
}

#[test]
fn every_declared_algorithm_verifies_and_no_other_does() {
    let signer = Signer::new();
    let keys = keys(&signer);
    for (algorithm, kid) in [("RS256", "rsa"), ("PS256", "rsa"), ("ES256", "p256"), ("ES384", "p384"), ("EdDSA", "ed")]
    {
        let token = signer.token(&json!({ "alg": algorithm, "kid": kid }), &testing::github(NOW));
        let only = |one: &str| IssuerRules {
            algorithms: vec![SignatureAlgorithm::from_word(one).expect("known")],
            ..github()
        };
        assert!(verify_at(&token, only(algorithm), &keys, NOW).is_ok(), "{algorithm}");
        let other = if algorithm == "RS256" { "PS256" } else { "RS256" };
        let refused = verify_at(&token, only(other), &keys, NOW).expect_err(algorithm);
        assert_eq!(refused, TokenFault::Algorithm(algorithm.to_owned()));
        // An algorithm of another kind of key, under its id.
        let every = IssuerRules { algorithms: SignatureAlgorithm::ALL.map(|(_, one)| one).to_vec(), ..github() };
        let crossed = signer
            .token(&json!({ "alg": algorithm, "kid": if kid == "ed" { "rsa" } else { "ed" } }), &testing::github(NOW));
        assert_eq!(verify_at(&crossed, every, &keys, NOW).expect_err("crossed"), TokenFault::Signature);
    }
}

#[test]
fn a_header_that_asks_for_anything_else_is_refused() {
    let signer = Signer::new();
    let keys = keys(&signer);
    let claims = testing::github(NOW);
    let code = |header: &Value| verify_at(&signer.token(header, &claims), github(), &keys, NOW).expect_err("refused");
    for (header, says) in [
        (json!({ "alg": "none", "kid": "rsa" }), "algorithm `none`"),
        (json!({ "alg": "None", "kid": "rsa" }), "algorithm `None`"),
        (json!({ "alg": "HS256", "kid": "rsa" }), "algorithm `HS256`"),
        (json!({ "alg": "rs256", "kid": "rsa" }), "algorithm `rs256`"),
        (json!({ "alg": "RS512", "kid": "rsa" }), "algorithm `RS512`"),
        (json!({ "alg": "RS256", "kid": "rsa", "typ": "at+jwt" }), "`typ`"),
        (json!({ "alg": "RS256", "kid": "rsa", "typ": 7 }), "`typ`"),
        (json!({ "alg": "RS256", "kid": "rsa", "crit": ["exp"] }), "critical"),
        (json!({ "alg": "RS256", "kid": "rsa", "crit": [] }), "critical"),
        (json!({ "alg": "RS256", "kid": "rsa", "b64": false }), "critical"),
        (json!({ "alg": "RS256", "kid": "rsa", "jku": "https://evil.example" }), "key of its own"),
        (json!({ "alg": "RS256", "kid": "rsa", "jwk": {} }), "key of its own"),
        (json!({ "alg": "RS256", "kid": "rsa", "x5c": [] }), "key of its own"),
        (json!({ "alg": "RS256", "kid": "rsa", "enc": "A128GCM" }), "encrypted"),
        (json!({ "alg": "RS256" }), "no `kid`"),
        (json!({ "kid": "rsa" }), "no `alg`"),
        (json!({ "alg": "RS256", "kid": "" }), "`kid`"),
        (json!({ "alg": "RS256", "kid": "k".repeat(257) }), "`kid`"),
        (json!({ "alg": "RS256", "kid": "../../etc/passwd" }), "no key with id `../../etc/passwd`"),
        (json!({ "alg": "RS256", "kid": "rsa' OR 1=1" }), "no key with id"),
        (json!({ "alg": "RS256", "kid": "\u{0}\n\u{202e}" }), "no key with id `???`"),
        (json!({ "alg": "ES256", "kid": "rsa" }), "algorithm `ES256`"),
    ] {
        let fault = code(&header);
        assert!(fault.to_string().contains(says), "{header}: {fault}");
        assert_eq!(fault.code(), TokenCode::Refused, "{header}");
    }
}

#[test]
fn a_token_that_says_one_thing_twice_or_too_much_is_refused() {
    let signer = Signer::new();
    let keys = keys(&signer);
    let header = r#"{"alg":"RS256","kid":"rsa"}"#;
    let claims = testing::github(NOW).to_string();
    let twice = claims.replacen('{', r#"{"repository_id":"1","#, 1);
    let nested = format!(r#"{{"x":{}1{},{}"#, "[".repeat(2_000), "]".repeat(2_000), claims.trim_start_matches('{'));
    let many: String = (0..200).map(|at| format!(r#""c{at}":1,"#)).collect();
    let many = claims.replacen('{', &format!("{{{many}"), 1);
    let meeting = claims.replacen('{', r#"{"a/b":"1","a":{"b":"2"},"#, 1);
    let long = claims.replacen('{', &format!(r#"{{"x":"{}","#, "y".repeat(4_097)), 1);
    for (header, claims, says) in [
        (r#"{"alg":"RS256","alg":"none","kid":"rsa"}"#, &claims, "member twice"),
        (header, &twice, "member twice"),
        (header, &nested, "deeply"),
        (header, &many, "more than 128"),
        (header, &meeting, "two have one name"),
        (header, &long, "longer than 4,096"),
        (header, &"[]".to_owned(), "no object"),
        (header, &"{".to_owned(), "no JSON"),
        ("\"x\"", &claims, "no object"),
    ] {
        let fault = verify_at(&signer.raw("RS256", header, claims), github(), &keys, NOW).expect_err(says);
        assert!(fault.to_string().contains(says), "{fault}");
    }
    let good = signer.rs256(&testing::github(NOW));
    let padded = format!("{good}=");
    let long = signer.rs256(&with(testing::github(NOW), "x", json!(vec!["y".repeat(4_000); 5])));
    for (token, says) in [
        ("", "three parts"),
        ("a.b", "three parts"),
        (&*format!("{good}.x"), "three parts"),
        ("a.b.c.d.e", "three parts"),
        (&*padded, "base64url"),
        (&*good.replacen('.', " .", 1), "base64url"),
        (&*long, "16 KiB"),
    ] {
        let fault = verify_at(token, github(), &keys, NOW).expect_err(says);
        assert!(fault.to_string().contains(says), "{fault}");
    }
}

#[test]
fn a_changed_token_is_no_token() {
    let signer = Signer::new();
    let keys = keys(&signer);
    let good = signer.rs256(&testing::github(NOW));
    let parts: Vec<&str> = good.split('.').collect();
    let other = b64(with(testing::github(NOW), "repository_id", json!("1")).to_string().as_bytes());
    let swapped = format!("{}.{other}.{}", parts[0], parts[2]);
    assert_eq!(verify_at(&swapped, github(), &keys, NOW).expect_err("changed"), TokenFault::Signature);
    let stripped = format!("{}.{}.", parts[0], parts[1]);
    assert_eq!(verify_at(&stripped, github(), &keys, NOW).expect_err("stripped"), TokenFault::Signature);
    let stranger = Signer::new().token(&json!({ "alg": "ES256", "kid": "p256" }), &testing::github(NOW));
    let every = IssuerRules { algorithms: vec![SignatureAlgorithm::Es256], ..github() };
    assert_eq!(verify_at(&stranger, every, &keys, NOW).expect_err("a stranger's"), TokenFault::Signature);
}

#[test]
fn another_signature_of_the_same_token_is_the_same_token() {
    let signer = Signer::new();
    let keys = keys(&signer);
    let es256 = || IssuerRules { algorithms: vec![SignatureAlgorithm::Es256], ..github() };
    let token = signer.token(&json!({ "alg": "ES256", "kid": "p256" }), &testing::github(NOW));
    let other = Signer::malleate(&token);
    assert_ne!(token, other);
    let ids = [token, other].map(|token| verify_at(&token, es256(), &keys, NOW).expect("both hold").token);
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn times_hold_at_their_limits_and_not_one_past() {
    let signer = Signer::new();
    let keys = keys(&signer);
    let at = |claims: &Value, at: u64| verify_at(&signer.rs256(claims), github(), &keys, at);
    let claims = testing::github(NOW);
    assert!(at(&claims, NOW + 299).is_ok());
    assert_eq!(at(&claims, NOW + 300).expect_err("over").code(), TokenCode::Expired);
    assert!(at(&claims, NOW - 30).is_ok(), "clocks may differ");
    assert!(matches!(at(&claims, NOW - 31), Err(TokenFault::Early(_))));
    let later = with(claims.clone(), "nbf", json!(NOW + 31));
    assert!(matches!(at(&later, NOW), Err(TokenFault::Early(_))));
    // An issuer that lets tokens live long does not make them live longer here.
    let long = with(claims.clone(), "exp", json!(NOW + 86_400));
    let proof = at(&long, NOW).expect("taken");
    assert_eq!(proof.expires, Timestamp::from_seconds(NOW + 900));
    assert!(at(&long, NOW + 899).is_ok());
    assert_eq!(at(&long, NOW + 900).expect_err("old").code(), TokenCode::Expired);
    assert_eq!(
        proof.forgotten,
        Timestamp::from_seconds(NOW + 86_400),
        "its use is remembered for as long as any config takes it"
    );
    for (name, value) in [
        ("exp", json!("soon")),
        ("exp", json!(-1)),
        ("exp", json!(1e300)),
        ("exp", json!(u64::MAX)),
        ("iat", json!([NOW])),
        ("nbf", json!(true)),
    ] {
        assert_eq!(at(&with(claims.clone(), name, value), NOW).expect_err(name), TokenFault::Claim(name));
    }
    assert!(at(&with(claims.clone(), "exp", json!(NOW as f64 + 300.5)), NOW).is_ok());
    for name in ["exp", "iat", "sub", "aud", "iss", "event_name"] {
        let fault = at(&without(claims.clone(), name), NOW).expect_err(name);
        assert_eq!(fault, TokenFault::Claim(name));
    }
}

#[test]
fn a_token_is_for_this_broker_alone() {
    let signer = Signer::new();
    let keys = keys(&signer);
    for (audience, good) in [
        (json!(AUDIENCE), true),
        (json!([AUDIENCE]), true),
        (json!([AUDIENCE, "https://other.example"]), false),
        (json!([]), false),
        (json!(""), false),
        (json!("https://github.com/octo-org"), false),
        (json!(format!("{AUDIENCE}/")), false),
        (json!({ "x": AUDIENCE }), false),
        (json!(null), false),
    ] {
        let token = signer.rs256(&with(testing::github(NOW), "aud", audience.clone()));
        assert_eq!(verify_at(&token, github(), &keys, NOW).is_ok(), good, "{audience}");
    }
    let elsewhere = signer.rs256(&with(
        testing::github(NOW),
        "iss",
        json!("https://token.actions.githubusercontent.com.evil.example"),
    ));
    assert!(matches!(verify_at(&elsewhere, github(), &keys, NOW), Err(TokenFault::UnknownIssuer(_))));
}

#[test]
fn events_that_run_code_of_strangers_and_jobs_changed_by_hand_are_refused_unless_meant() {
    let signer = Signer::new();
    let keys = keys(&signer);
    for event in ["pull_request_target", "workflow_run"] {
        let token = signer.rs256(&with(testing::github(NOW), "event_name", json!(event)));
        assert_eq!(verify_at(&token, github(), &keys, NOW).expect_err(event), TokenFault::Event(event.to_owned()));
        let meant = IssuerRules { allow_events: vec![event.to_owned()], ..github() };
        assert!(verify_at(&token, meant, &keys, NOW).is_ok());
    }
    let circleci = || rules(IssuerKind::Circleci, testing::CIRCLECI);
    for (rerun, good) in [(json!(false), true), (json!(true), false), (json!("true"), false), (json!([false]), false)] {
        let token = signer.rs256(&with(testing::circleci(NOW), "oidc.circleci.com/ssh-rerun", rerun.clone()));
        assert_eq!(verify_at(&token, circleci(), &keys, NOW).is_ok(), good, "{rerun}");
        let meant = IssuerRules { allow_ssh_rerun: true, ..circleci() };
        assert!(verify_at(&token, meant, &keys, NOW).is_ok());
    }
}

#[test]
fn a_person_who_signed_in_is_no_workload() {
    let signer = Signer::new();
    let keys = keys(&signer);
    let generic = || rules(IssuerKind::Generic, "https://idp.example");
    let mut claims =
        json!({ "iss": "https://idp.example", "aud": AUDIENCE, "sub": "u1", "iat": NOW, "exp": NOW + 300 });
    assert!(verify_at(&signer.rs256(&claims), generic(), &keys, NOW).is_ok());
    for (name, value) in
        [("auth_time", json!(NOW)), ("amr", json!(["pwd", "otp"])), ("nonce", json!("n")), ("at_hash", json!("h"))]
    {
        let token = signer.rs256(&with(claims.clone(), name, value));
        assert_eq!(verify_at(&token, generic(), &keys, NOW).expect_err(name), TokenFault::Person(name));
    }
    claims["auth_time"] = json!(null);
    assert!(verify_at(&signer.rs256(&claims), generic(), &keys, NOW).is_ok(), "nothing said is nothing");
}

#[test]
fn a_spiffe_id_is_taken_from_its_own_trust_domain_only() {
    let signer = Signer::new();
    let keys = keys(&signer);
    for (subject, good) in [
        ("spiffe://prod.example/ns/payments/sa/deployer", true),
        ("spiffe://prod.example.evil/ns/payments", false),
        ("spiffe://other/x", false),
        ("spiffe://prod.example", false),
        ("spiffe://prod.example/../x", false),
        ("deployer", false),
    ] {
        let token = signer.rs256(&with(testing::spiffe(NOW), "sub", json!(subject)));
        let verified = verify_at(&token, rules(IssuerKind::Spiffe, testing::SPIFFE), &keys, NOW);
        assert_eq!(verified.is_ok(), good, "{subject}");
    }
    // JWT-SVIDs may leave `iat` out: then what is left of their time is bounded.
    let bare = without(testing::spiffe(NOW), "iat");
    assert!(verify_at(&signer.rs256(&bare), rules(IssuerKind::Spiffe, testing::SPIFFE), &keys, NOW).is_ok());
    let long = with(bare, "exp", json!(NOW + 3_601));
    assert!(verify_at(&signer.rs256(&long), rules(IssuerKind::Spiffe, testing::SPIFFE), &keys, NOW).is_err());
}

#[test]
fn unusable_keys_of_a_set_are_skipped_and_the_rest_counts() {
    let signer = Signer::new();
    let mut set = signer.key_set();
    let list = set["keys"].as_array_mut().expect("a list");
    let mut encrypting = list[0].clone();
    encrypting["use"] = json!("enc");
    let mut other_algorithm = list[0].clone();
    (other_algorithm["kid"], other_algorithm["alg"]) = (json!("only-ps"), json!("PS256"));
    list.extend([encrypting, other_algorithm]);
    list.extend([
        json!({ "kty": "oct", "kid": "secret", "k": "AAAA" }),
        json!({ "kty": "EC", "kid": "p521", "crv": "P-521", "x": "AA", "y": "AA" }),
        json!({ "kty": "RSA", "kid": "future", "alg": "ML-DSA-65", "n": "AQAB", "e": "AQAB" }),
        json!({ "kty": "EC", "kid": "short", "crv": "P-256", "x": "AA", "y": "AA" }),
        json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB" }),
        json!({ "kty": "RSA", "kid": "weak", "n": b64(&[0xff; 128]), "e": "AQAB" }),
        json!("nonsense"),
    ]);
    let keys = KeySet::parse(set.to_string().as_bytes()).expect("usable ones are left");
    let ids: Vec<&str> = keys.key_ids().collect();
    assert_eq!(ids, ["ed", "only-ps", "p256", "p384", "rsa", "weak"]);
    assert_eq!(keys.skipped(), 7);
    let only_ps = signer.token(&json!({ "alg": "RS256", "kid": "only-ps" }), &testing::github(NOW));
    assert_eq!(verify_at(&only_ps, github(), &keys, NOW).expect_err("its key is for PS256"), TokenFault::Signature);
    for (bad, says) in [
        ("{}", "no list"),
        (r#"{"keys":{}}"#, "no list"),
        (r#"{"keys":[]}"#, "none of"),
        (r#"{"keys":[{"kty":"oct","kid":"s","k":"AAAA"}]}"#, "none of"),
        (r#"{"keys":[],"keys":[]}"#, "twice"),
        ("<html>", "no JSON"),
    ] {
        let error = KeySet::parse(bad.as_bytes()).expect_err(bad).to_string();
        assert!(error.contains(says), "{bad}: {error}");
    }
    let many = json!({ "keys": vec![signer.key_set()["keys"][0].clone(); 65] }).to_string();
    assert!(matches!(KeySet::parse(many.as_bytes()), Err(NoKeySet::TooMany(65))));
}

#[test]
fn what_is_foreign_is_shown_without_control_characters_and_cut() {
    let token = Signer::new().rs256(&with(
        testing::github(NOW),
        "iss",
        json!(format!("https://x/\u{1b}[31m\n{}", "y".repeat(500))),
    ));
    let shown = UnverifiedToken::parse(&token).expect("reads").shown_issuer();
    assert!(shown.len() < 220 && shown.bytes().all(|b| b.is_ascii_graphic() || b == b' '), "{shown}");
    assert_eq!(Reuse::Single.keys(), 1);
}
