//! A broker on a memory store whose clock is moved by hand.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{
    Broker, Settings,
    hold::Holds,
    people::{Door, People},
    registry::Registry,
    rings::Rings,
    ship::Ships,
    time::Time,
};
use crate::{
    config::{self, Config},
    identity::{Authority, Caller, CertificateProof, Proof, oidc::testing::Signer},
    issuers::{Document, Issuers, Provider},
    ledger::{LaneLimits, Ledger, Opening, TenantChange, TrustCommit, engine::memory::Memory},
    mint::{
        keyring::RingPolicy,
        seal::{Seal, SealKey},
        signing::Algorithm,
    },
    model::{
        Clock, Digest, IssuerKind, IssuerRules, PersonId, SignInRule, SignInRules, TenantName, TenantNumber, Timestamp,
        TrustDomain,
    },
    policy::TenantTrust,
};

/// Wall and boot clock in one.
#[derive(Debug)]
pub(super) struct Hands(Mutex<u64>);

impl Hands {
    /// Moves both forward.
    pub(super) fn advance(&self, by: Duration) {
        *self.0.lock().expect("lock") += u64::try_from(by.as_millis()).expect("short");
    }
}

impl Clock for Hands {
    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(START_MILLIS + *self.0.lock().expect("lock"))
    }

    fn boot(&self) -> Duration {
        Duration::from_millis(*self.0.lock().expect("lock"))
    }
}

/// A broker without keys and tenants.
pub(super) fn bare() -> (Arc<Broker>, Arc<Hands>) {
    bare_with(Issuers::default(), People::default())
}

fn bare_with(issuers: Issuers, people: People) -> (Arc<Broker>, Arc<Hands>) {
    let seal = Seal::new(&SealKey::random().expect("entropy"));
    let hands = Arc::new(Hands(Mutex::new(0)));
    let ledger = Ledger::open(Opening {
        engine: Arc::new(Memory::new()),
        row_key: seal.row_key(),
        seal_check: seal.check_value(),
        ballast: None,
        anchor: None,
        lanes: LaneLimits::default(),
        now: hands.wall(),
    })
    .expect("opens");
    let (time, _) = Time::start(hands.clone(), ledger.opened_mark, Duration::from_secs(300), days(30));
    let config = Config::dev(std::path::Path::new("."), 0);
    let hour = Duration::from_secs(3_600);
    let settings = Settings {
        trust_domain: TrustDomain::default(),
        public_url: config.public_url,
        key_set_max_age: Duration::from_secs(300),
        token_ring: RingPolicy::new(Duration::from_secs(900), days(14), hour * 2).expect("policy"),
        ca_ring: RingPolicy::new(Duration::from_secs(900), days(30), hour * 2).expect("policy"),
        hold_grace: Duration::from_secs(10),
        heartbeat: Duration::from_secs(3),
        ended_lease_kept: Duration::from_secs(600),
        audit_kept: days(400),
        started: hands.wall(),
    };
    let broker = Broker {
        registry: Arc::new(Registry::load(&ledger).expect("loads")),
        ledger: Arc::new(ledger),
        issuers: Arc::new(issuers),
        people: Arc::new(people),
        rings: Arc::new(Rings::new(seal)),
        time,
        settings,
        holds: Holds::new(100),
        ships: Ships::default(),
        ring_steps: tokio::sync::Mutex::default(),
        backups: Arc::default(),
        watchers: Arc::default(),
        refusals: super::refusals::RefusalLog::default(),
        policies: super::policies::PolicyLog::default(),
        dues: crate::broker::keeper::Dues::default(),
        uses: super::introspect::UseLog::default(),
        csrs: crate::mint::x509::KnownCsrs::default(),
        roots: std::sync::OnceLock::new(),
        connections: std::sync::OnceLock::new(),
        spiffe: super::spiffe::Spiffe::default(),
        notifier: std::sync::OnceLock::new(),
    };
    super::lapse::watch(&broker.registry, &broker.ledger);
    super::people::watch(&broker.people, &broker.ledger);
    (Arc::new(broker), hands)
}

/// A founded broker.
pub(super) async fn founded() -> (Arc<Broker>, Arc<Hands>) {
    let (broker, hands) = bare();
    super::found::ensure(&broker, &super::found::Founding::default()).await.expect("founds");
    (broker, hands)
}

/// A founded broker that believes some issuers.
pub(super) async fn founded_with(issuers: Issuers) -> (Arc<Broker>, Arc<Hands>) {
    let (broker, hands) = bare_with(issuers, People::default());
    super::found::ensure(&broker, &super::found::Founding::default()).await.expect("founds");
    (broker, hands)
}

/// A founded broker with a provider that people sign in at.
pub(super) struct Company {
    pub(super) broker: Arc<Broker>,
    pub(super) hands: Arc<Hands>,
    signer: Signer,
    _keys: tempfile::TempDir,
}

impl Company {
    /// `rules` changes what is declared: rules make `op-a` of who is in group `a`, and so on to `c`.
    pub(super) async fn new(rules: impl FnOnce(&mut SignInRules)) -> Self {
        let signer = Signer::new();
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("keys.json");
        std::fs::write(&file, signer.key_set().to_string()).expect("written");
        let mut issuer = IssuerRules::of_kind(IssuerKind::Generic, PROVIDER, CLIENT);
        issuer.max_age = Duration::from_secs(600);
        let rule = |group: &str| SignInRule {
            operator: format!("op-{group}").parse().expect("name"),
            claims: [("groups".to_owned(), vec![group.to_owned()])].into(),
        };
        let issuer = Arc::new(issuer);
        let mut declared = SignInRules {
            issuer: Arc::clone(&issuer),
            scopes: vec!["openid".to_owned()],
            audiences: vec![],
            require_nonce: false,
            directory_claim: None,
            require_provisioned: false,
            life: Duration::from_secs(28_800),
            rules: ["a", "b", "c"].map(rule).to_vec(),
        };
        rules(&mut declared);
        let keys = config::Issuer {
            rules: issuer,
            keys: config::KeySource::Pinned(file),
            refresh: Duration::from_secs(600),
            stale: Duration::from_secs(3_600),
        };
        let provider = Provider::open(&keys, Document::OpenId).expect("a provider");
        let mut people = People::default();
        people.door = Some(Door { rules: Arc::new(declared), provider });
        let (broker, hands) = bare_with(Issuers::default(), people);
        super::found::ensure(&broker, &super::found::Founding::default()).await.expect("founds");
        Self { broker, hands, signer, _keys: folder }
    }

    /// What the provider says of somebody in a group, now.
    pub(super) fn claims(&self, name: &str, group: &str) -> serde_json::Value {
        let now = self.broker.now().seconds();
        serde_json::json!({
            "iss": PROVIDER, "aud": CLIENT, "sub": format!("00u-{name}"), "oid": format!("oid-{name}"), "iat": now,
            "exp": now + 3_600, "email": format!("{name}@acme.example"), "email_verified": true, "groups": [group],
            "jti": PersonId::fresh().expect("entropy").to_string(),
        })
    }

    /// Signs in with what the provider says.
    pub(super) async fn sign_in_with(&self, claims: &serde_json::Value) -> Result<(Caller, Timestamp), &'static str> {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut nameless = rcgen::CertificateParams::default();
        nameless.distinguished_name = rcgen::DistinguishedName::new();
        let csr = nameless.serialize_request(&key).expect("request");
        let request = crate::pb::SignInRequest {
            id_token: self.signer.rs256(claims),
            csr_der: csr.der().to_vec(),
            operator: String::new(),
        };
        let reply = self.broker.sign_in(request, None).await.map_err(|why| why.reason())?;
        let expires = reply.session.expect("a session").expires.expect("an end");
        let leaf = reply.chain_der.into_iter().next().expect("a leaf");
        let shown = String::from_utf8_lossy(&leaf).into_owned();
        let from = shown.find("spiffe://").expect("an id");
        let to = shown.find("/sign-in/").expect("a sign-in") + "/sign-in/".len() + 2 * PersonId::BYTES;
        let caller = Caller::for_test(Proof::Certificate(CertificateProof {
            sha256: Digest::of(&leaf),
            key: Digest::of(shown.as_bytes()),
            authority: Authority::Own,
            spiffe_id: Some(shown.get(from..to).expect("text").to_owned()),
            dns_names: vec![],
            serial: vec![0x43; 16],
            not_after: Timestamp::from_millis(u64::MAX / 2),
        }));
        Ok((caller, super::event::unstamp(&expires)))
    }

    /// Signs in as somebody of a group.
    pub(super) async fn sign_in(&self, name: &str, group: &str) -> Caller {
        self.sign_in_with(&self.claims(name, group)).await.expect("signed in").0
    }
}

const PROVIDER: &str = "https://login.acme.example";
const CLIENT: &str = "mayfly-cli";

/// Adds a tenant with keys and one workload, `w`, named by its SPIFFE ID.
pub(super) async fn add_tenant(broker: &Broker, name: &str) -> TenantNumber {
    let name: TenantName = name.parse().expect("name");
    let now = broker.now();
    let basis = broker.ledger.basis().1;
    let number = TenantNumber::new(broker.ledger.reserve_tenants(1).await.expect("reserved")).expect("number");
    let json = format!(
        r#"{{"name":"{name}","issuer":null,"token_algorithm":"ES256","max_live_leases":1000,
        "workloads":{{}},"grants":{{}},"verifiers":{{}}}}"#
    );
    let trust = TenantTrust::from_bytes(json.as_bytes()).expect("trust");
    let keys = broker.new_tenant_keys(number, &name, Algorithm::Es256, now).expect("keys");
    let change = TenantChange {
        number,
        name: name.clone(),
        trust: trust.to_bytes(),
        hash: trust.hash(),
        version: 1,
        removed: false,
        gone: vec![],
    };
    let commit = TrustCommit { tenants: vec![change], keys, ..TrustCommit::new(basis, now) };
    broker.ledger.apply(commit, || ()).await.expect("applies");
    broker.registry.changed(&[(name, number)]);
    number
}

/// Writes what an edit makes of acme's trust map, behind the back of an apply, which would have ended what lives by it.
pub(super) async fn slip_in(broker: &Broker, edit: impl FnOnce(String) -> String) {
    let name: TenantName = "acme".parse().expect("name");
    let known = broker.registry.tenant(&broker.ledger, &name).expect("reads").expect("there");
    let text = String::from_utf8(known.trust.to_bytes()).expect("JSON");
    let edited = edit(text.clone());
    assert_ne!(edited, text, "nothing changed");
    let trust = TenantTrust::from_bytes(edited.as_bytes()).expect("a trust map");
    let change = TenantChange {
        number: known.number,
        name: name.clone(),
        trust: trust.to_bytes(),
        hash: trust.hash(),
        version: known.version + 1,
        removed: false,
        gone: vec![],
    };
    let commit = TrustCommit { tenants: vec![change], ..TrustCommit::new(broker.ledger.basis().1, broker.now()) };
    broker.ledger.apply(commit, || ()).await.expect("written");
    broker.registry.changed(&[(name, known.number)]);
}

/// The first operator, with a certificate of the broker's.
pub(super) fn admin() -> Caller {
    Caller::for_test(Proof::Certificate(CertificateProof {
        sha256: Digest::of(b"admin"),
        key: Digest::of(b"admin's key"),
        authority: Authority::Own,
        spiffe_id: Some("spiffe://mayfly.internal/operator/admin".into()),
        dns_names: vec![],
        serial: vec![0x40; 16],
        not_after: Timestamp::from_millis(u64::MAX / 2),
    }))
}

pub(super) fn days(count: u64) -> Duration {
    Duration::from_secs(86_400 * count)
}

const START_MILLIS: u64 = 1_750_000_000_000;

/// Takes a trust map, as `mayfly apply` would.
pub(super) async fn apply(broker: &Broker, text: &str) {
    let document = crate::pb::TrustDocument { path: "trust.toml".into(), text: text.into() };
    broker.apply(&admin(), crate::pb::ApplyOptions::default(), vec![document]).await.expect("applies");
}

/// A trust map with tenant `acme`, its workload `w` and a grant `g` of all kinds for partner `zeta`.
pub(super) const TRUST: &str = r#"
    [[operator]]
    name = "admin"
    role = "admin"
    tenants = "all"
    partners = "all"
    [[partner]]
    name = "zeta"
    display_name = "Zeta"
    contact = "zeta@example.com"
    max_live_leases = 100000
    [[tenant]]
    name = "acme"
    max_live_leases = 100000
    [[workload]]
    tenant = "acme"
    name = "w"
    environment = "prod"
    selectors = [{ spiffe_id = "spiffe://platform.example/w", authority = "platform" }]
    [[grant]]
    tenant = "acme"
    name = "g"
    partner = "zeta"
    workloads = ["w"]
    purposes = ["work"]
    audiences = ["https://api.example"]
    actions = ["read"]
    kinds = ["jwt", "opaque", "x509"]
    ttl_default = 300
    ttl_max = 3600
    task_max = 7200
    require_binding = false
    owner = "owner@example.com"
    expires = 2025-12-01
    revokers = ["admin"]
    attest_by = 2025-09-01
    environment = "prod"
    max_live_leases = 100000
"#;

/// Events of a kind. What was to be written without anyone waiting is written by then.
pub(super) async fn told(broker: &Broker, kind: &str) -> Vec<crate::pb::Event> {
    // It has a task of its own, which comes to the lane before us.
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    let now = broker.now();
    broker.ledger.note(vec![super::event::own("test.behind", now)], now).await.expect("notes");
    let request = crate::pb::ListEventsRequest { kind_prefix: kind.into(), ..Default::default() };
    broker.list_events(&admin(), request).await.expect("lists").events
}

/// The workload of [`TRUST`].
pub(super) fn worker() -> Caller {
    Caller::for_test(Proof::Certificate(CertificateProof {
        sha256: Digest::of(b"worker"),
        key: Digest::of(b"worker's key"),
        authority: Authority::Foreign("platform".into()),
        spiffe_id: Some("spiffe://platform.example/w".into()),
        dns_names: vec![],
        serial: vec![0x41; 16],
        not_after: Timestamp::from_millis(u64::MAX / 2),
    }))
}

/// An operator of this name, with a certificate of the broker's.
pub(super) fn operator(name: &str) -> Caller {
    Caller::for_test(Proof::Certificate(CertificateProof {
        sha256: Digest::of(name.as_bytes()),
        key: Digest::of(b"a key"),
        authority: Authority::Own,
        spiffe_id: Some(format!("spiffe://mayfly.internal/operator/{name}")),
        dns_names: vec![],
        serial: vec![0x42; 16],
        not_after: Timestamp::from_millis(u64::MAX / 2),
    }))
}
