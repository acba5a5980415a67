use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{
    held::UNKNOWN_KEY_PAUSE,
    testing::{Answer, LocalIssuer, discovery},
    *,
};
use crate::{
    identity::oidc::testing::{self as tokens, AUDIENCE, Signer},
    model::IssuerKind,
};

const NOW: u64 = 1_790_000_000;
const REFRESH: Duration = Duration::from_secs(600);
const STALE: Duration = Duration::from_secs(3_600);

struct Bed {
    local: LocalIssuer,
    issuers: Arc<Issuers>,
    signer: Signer,
    now: Arc<AtomicU64>,
    _folder: tempfile::TempDir,
}

impl Bed {
    async fn new() -> Self {
        Self::with(true).await
    }

    async fn with(allow_private: bool) -> Self {
        let signer = Signer::new();
        let local = LocalIssuer::start(&signer.key_set()).await;
        let folder = tempfile::tempdir().expect("folder");
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, &local.ca_pem).expect("written");
        let declared = declared(&local.url, config::KeySource::Fetched { ca_file, allow_private });
        let issuers = Arc::new(Issuers::open(&[declared]).expect("opens"));
        Self { local, issuers, signer, now: Arc::new(AtomicU64::new(NOW)), _folder: folder }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_seconds(self.now.load(Ordering::SeqCst))
    }

    fn advance(&self, by: Duration) {
        self.now.fetch_add(by.as_secs(), Ordering::SeqCst);
    }

    fn token(&self, kid: &str) -> String {
        let mut claims = tokens::github(self.now.load(Ordering::SeqCst));
        claims["iss"] = json!(self.local.url);
        self.signer.token(&json!({ "alg": "RS256", "kid": kid }), &claims)
    }

    async fn prove(&self, kid: &str) -> Result<FederatedProof, TokenFault> {
        let token = UnverifiedToken::parse(&self.token(kid)).expect("reads");
        self.issuers.prove(token, None, || self.now()).await
    }

    fn state(&self) -> IssuerState {
        self.issuers.states(self.now()).remove(0)
    }

    /// The fault of a fetch from scratch.
    async fn fault(&self) -> String {
        self.advance(Duration::from_secs(61));
        match self.prove("rsa").await {
            Err(TokenFault::NoKeys { why, .. }) => why,
            other => panic!("{other:?}"),
        }
    }
}

fn declared(url: &str, keys: config::KeySource) -> config::Issuer {
    config::Issuer {
        rules: Arc::new(IssuerRules {
            name: "local".parse().expect("a name"),
            ..IssuerRules::of_kind(IssuerKind::Github, url, AUDIENCE)
        }),
        keys,
        refresh: REFRESH,
        stale: STALE,
    }
}

fn keys_named(signer: &Signer, kid: &str) -> Value {
    let mut set = signer.key_set();
    set["keys"][0]["kid"] = json!(kid);
    set
}

#[tokio::test]
async fn a_token_is_checked_with_keys_that_discovery_names() {
    let bed = Bed::new().await;
    let proof = bed.prove("rsa").await.expect("proven");
    assert_eq!(proof.issuer.name.as_str(), "local");
    assert_eq!(bed.local.asked(), 1);
    bed.prove("rsa").await.expect("proven");
    assert_eq!(bed.local.asked(), 1, "the set is kept");
    let state = bed.state();
    assert!(state.usable && !state.stale && state.error.is_none());
    assert!(state.key_ids.contains(&"rsa".to_owned()));
}

#[tokio::test]
async fn an_issuer_that_is_not_declared_is_not_asked() {
    let (bed, stranger) = (Bed::new().await, LocalIssuer::start(&Signer::new().key_set()).await);
    for url in [stranger.url.clone(), format!("{}/", bed.local.url), bed.local.url.replace("localhost", "127.0.0.1")] {
        let mut claims = tokens::github(NOW);
        claims["iss"] = json!(url);
        let token = UnverifiedToken::parse(&bed.signer.rs256(&claims)).expect("reads");
        let refused = bed.issuers.prove(token, None, || bed.now()).await.expect_err("refused");
        assert!(matches!(refused, TokenFault::UnknownIssuer(_)), "{url}: {refused}");
    }
    assert_eq!((bed.local.asked(), stranger.asked()), (0, 0));
    let none = Issuers::default();
    let token = UnverifiedToken::parse(&bed.token("rsa")).expect("reads");
    assert!(none.prove(token, None, || bed.now()).await.is_err(), "where none is declared, none is believed");
}

#[tokio::test]
async fn a_key_made_since_is_fetched_once_and_not_at_the_callers_will() {
    let bed = Bed::new().await;
    bed.prove("rsa").await.expect("proven");
    bed.local.has(Answer::Body(keys_named(&bed.signer, "rsa-2").to_string()));
    assert!(matches!(bed.prove("rsa-2").await, Err(TokenFault::UnknownKey(_))), "asked for just now");
    bed.advance(UNKNOWN_KEY_PAUSE);
    bed.prove("rsa-2").await.expect("rotated");
    assert_eq!(bed.local.asked(), 2);
    for kid in ["a", "b", "../../x", "c"] {
        assert!(matches!(bed.prove(kid).await, Err(TokenFault::UnknownKey(_))), "{kid}");
    }
    assert_eq!(bed.local.asked(), 2, "made-up ids ask nobody");
    assert!(matches!(bed.prove("rsa").await, Err(TokenFault::UnknownKey(_))), "a key that is gone is gone");
}

#[tokio::test]
async fn many_who_come_at_once_wait_for_one_fetch() {
    let bed = Bed::new().await;
    let gate = Arc::new(Notify::new());
    bed.local.wait_at(&gate);
    gate.notify_one();
    let proofs = futures_like(&bed, 20).await;
    assert!(proofs.iter().all(Result::is_ok));
    assert_eq!(bed.local.asked(), 1);
}

async fn futures_like(bed: &Bed, count: usize) -> Vec<Result<(), String>> {
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..count {
        let (issuers, token, now) = (Arc::clone(&bed.issuers), bed.token("rsa"), bed.now());
        waiting.spawn(async move {
            let token = UnverifiedToken::parse(&token).expect("reads");
            issuers.prove(token, None, || now).await.map(drop).map_err(|fault| fault.to_string())
        });
    }
    waiting.join_all().await
}

#[tokio::test]
async fn while_the_issuer_is_down_older_keys_serve_for_so_long_and_no_longer() {
    let bed = Bed::new().await;
    bed.prove("rsa").await.expect("proven");
    bed.local.has(Answer::Status(503, String::new()));
    bed.advance(REFRESH);
    bed.issuers.0.values().for_each(|held| held.refresh_if_due(bed.now()));
    bed.prove("rsa").await.expect("stale keys serve");
    assert!(bed.state().stale);
    bed.advance(STALE - Duration::from_secs(1));
    bed.prove("rsa").await.expect("until the last second");
    bed.advance(Duration::from_secs(1));
    let refused = bed.prove("rsa").await.expect_err("too old");
    assert!(matches!(&refused, TokenFault::NoKeys { why, .. } if why.contains("503")), "{refused}");
    assert!(!bed.state().usable);
    bed.local.has(Answer::Body(bed.signer.key_set().to_string()));
    bed.advance(Duration::from_secs(61));
    bed.prove("rsa").await.expect("it is back");
}

#[tokio::test]
async fn keys_are_fetched_ahead_of_their_end_without_anybody_waiting() {
    let bed = Bed::new().await;
    let (stop, now) = (CancellationToken::new(), Arc::clone(&bed.now));
    let clock = move || Timestamp::from_seconds(now.load(Ordering::SeqCst));
    let keeping = tokio::spawn(Arc::clone(&bed.issuers).keep_fresh(clock, stop.clone()));
    while bed.local.asked() == 0 || !bed.state().usable {
        tokio::task::yield_now().await;
    }
    bed.prove("rsa").await.expect("was there before the first token");
    assert_eq!(bed.local.asked(), 1);
    stop.cancel();
    keeping.await.expect("stops");
}

#[tokio::test]
async fn a_discovery_document_that_is_not_this_issuers_is_refused_with_its_reason() {
    let bed = Bed::new().await;
    let (url, keys) = (bed.local.url.clone(), format!("{}/keys", bed.local.url));
    for (answer, says) in [
        (Answer::Body(discovery("https://evil.example", &keys)), "another issuer"),
        (Answer::Body(discovery(&format!("{url}/"), &keys)), "another issuer"),
        (Answer::Body(discovery(&url, "http://localhost/keys")), "no plain https URL"),
        (Answer::Body(discovery(&url, "https://user:pass@localhost/keys")), "no plain https URL"),
        (Answer::Body(discovery(&url, "file:///etc/passwd")), "no plain https URL"),
        (Answer::Body(json!({ "issuer": url }).to_string()), "no text `jwks_uri`"),
        (Answer::Body(format!(r#"{{"issuer":"{url}","issuer":"{url}","jwks_uri":"{keys}"}}"#)), "twice"),
        (Answer::Body("<html>".into()), "no JSON"),
        (Answer::Status(302, keys.clone()), "answered 302"),
        (Answer::Status(404, String::new()), "answered 404"),
        (Answer::Endless, "longer than"),
        (Answer::Nothing, "failed"),
    ] {
        bed.local.discovers(answer.clone());
        let fault = bed.fault().await;
        assert!(fault.contains(says), "{answer:?}: {fault}");
    }
    assert_eq!(bed.local.asked(), 0);
    bed.local.discovers(Answer::Body(discovery(&url, &keys)));
    for (answer, says) in [
        (Answer::Status(301, "https://localhost/elsewhere".into()), "answered 301"),
        (Answer::Endless, "longer than"),
        (Answer::Body(r#"{"keys":[]}"#.into()), "none of"),
        (Answer::Body("[".repeat(50_000)), "deeply"),
    ] {
        bed.local.has(answer.clone());
        let fault = bed.fault().await;
        assert!(fault.contains(says), "{answer:?}: {fault}");
    }
}

#[tokio::test]
async fn neighbours_are_not_asked_unless_that_is_meant() {
    let bed = Bed::with(false).await;
    let fault = bed.fault().await;
    assert!(fault.contains("private address"), "{fault}");
    assert_eq!(bed.local.asked(), 0);
    // Nor by way of a discovery document.
    let open = Bed::new().await;
    for keys in ["https://169.254.169.254/latest", "https://[::1]/keys", "https://10.0.0.1/keys", "https://127.1/keys"]
    {
        let source =
            Source::https(&bed.local.url, bed.local.ca_pem.as_bytes(), false, Document::OpenId).expect("a source");
        let Source::Https(https) = source else { panic!("https") };
        let error = https.check(keys).expect_err(keys);
        assert!(matches!(error, FetchError::Private(_)), "{keys}: {error}");
    }
    assert_eq!(open.local.asked(), 0);
}

#[tokio::test]
async fn a_pinned_set_needs_no_network_and_is_read_anew() {
    let signer = Signer::new();
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("keys.json");
    std::fs::write(&file, signer.key_set().to_string()).expect("written");
    let source = || config::KeySource::Pinned(file.clone());
    let issuers = Issuers::open(&[declared(tokens::GITHUB, source())]).expect("opens");
    let prove = |kid: &str, at: u64| {
        let token = signer.token(&json!({ "alg": "RS256", "kid": kid }), &tokens::github(at));
        issuers.prove(UnverifiedToken::parse(&token).expect("reads"), None, move || Timestamp::from_seconds(at))
    };
    prove("rsa", NOW).await.expect("proven");
    prove("rsa", NOW + 10_000_000).await.expect("a file does not age");
    std::fs::write(&file, keys_named(&signer, "rsa-2").to_string()).expect("written");
    prove("rsa-2", NOW + 10_000_000).await.expect("replaced");
    std::fs::write(&file, "broken").expect("written");
    prove("rsa-2", NOW + 20_000_000).await.expect("what was read before stays");
    assert!(matches!(Issuers::open(&[declared(tokens::GITHUB, source())]), Err(IssuersError::Pinned { .. })));
    std::fs::remove_file(&file).expect("removed");
    assert!(matches!(Issuers::open(&[declared(tokens::GITHUB, source())]), Err(IssuersError::File { .. })));
}
