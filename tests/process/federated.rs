//! Jobs that come with an identity token of a real issuer, over real TLS, to the real daemon.

use mayfly::{
    client::{ClientConfig, Connection, FederatedCalls, Identity, TASK_METADATA},
    pb::{self, ApplyOptions, CredentialKind, admin_client::AdminClient, broker_client::BrokerClient},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, service::interceptor::InterceptedService, transport::Channel};

use super::{
    rig::{arg, reason, until},
    world::{PARTNER, World, is_active, request},
};
use crate::{
    local_issuer::LocalIssuer,
    signer::{self, AUDIENCE, Signer},
};

pub type Jobs = BrokerClient<InterceptedService<Channel, FederatedCalls>>;

pub struct Setting {
    pub world: World,
    local: LocalIssuer,
    url: String,
    pub signer: Signer,
    /// As it was applied.
    pub trust: String,
    _folder: tempfile::TempDir,
}

impl Setting {
    pub async fn new() -> Self {
        Self::with("").await
    }

    /// With more in the issuer's section of the configuration.
    pub async fn with(more: &str) -> Self {
        Self::of("github", "{ repository_id = \"74\", ref = \"refs/heads/main\" }", more).await
    }

    /// One issuer of a kind, whose tokens with these claims are alpha's `job`; `extra` is appended to the configuration.
    pub async fn of(kind: &str, claims: &str, extra: &str) -> Self {
        let signer = Signer::new();
        let local = LocalIssuer::start(&signer.key_set()).await;
        let folder = tempfile::tempdir().expect("folder");
        let ca = folder.path().join("issuer-ca.pem");
        std::fs::write(&ca, &local.ca_pem).expect("written");
        // CircleCI's issuers have an organisation in their URL, which the one on loopback has not: its keys are pinned.
        let pinned = folder.path().join("keys.json");
        std::fs::write(&pinned, signer.key_set().to_string()).expect("written");
        let (url, keys) = match kind {
            "circleci" => (signer::CIRCLECI.to_owned(), format!("jwks_file = {pinned:?}\n")),
            _ => (local.url.clone(), format!("ca_file = {ca:?}\nallow_private = true\n")),
        };
        let world = World::configured(&format!(
            "[[issuer]]\nname = {kind:?}\nkind = {kind:?}\nurl = {url:?}\naudience = {AUDIENCE:?}\n{keys}{extra}"
        ))
        .await;
        let federated = format!(
            "[[workload]]\ntenant = \"alpha\"\nname = \"job\"\nenvironment = \"prod\"\n\
             [[workload.selectors]]\nissuer = {kind:?}\nclaims = {claims}\n"
        );
        let trust =
            world.trust.replacen("workloads = [\"worker\"]", "workloads = [\"worker\", \"job\"]", 1) + &federated;
        world.apply(&trust, ApplyOptions::default()).await.expect("applies");
        Self { world, local, url, signer, trust, _folder: folder }
    }

    pub fn claims(&self) -> Value {
        let now = mayfly::model::time::system_wall().seconds();
        let mut claims = signer::github(now);
        claims["iss"] = json!(self.local.url);
        claims
    }

    /// A token of this shape, unlike any other of the same `id`.
    pub fn token(&self, shape: fn(u64) -> Value, id: &str) -> String {
        let mut claims = shape(mayfly::model::time::system_wall().seconds());
        claims["iss"] = json!(self.url);
        claims["jti"] = json!(id);
        self.signer.rs256(&claims)
    }

    async fn connect(&self, own: &Identity) -> Channel {
        let config = ClientConfig {
            address: format!("https://{}", self.world.process.address).parse().expect("an address"),
            ca_pem: std::fs::read(self.world.launch.data().join("ca.pem")).expect("roots"),
            identity: Some(own.clone()),
            server_name: Some("localhost".into()),
        };
        Connection::open(&config).await.expect("connects").channel()
    }

    pub async fn job(&self, own: &Identity, calls: &FederatedCalls) -> Jobs {
        BrokerClient::with_interceptor(self.connect(own).await, calls.clone())
    }

    fn operator(&self) -> std::path::PathBuf {
        self.world.launch.data().join("operator")
    }
}

pub fn opening() -> pb::OpenTaskRequest {
    pb::OpenTaskRequest {
        tenant: "alpha".into(),
        partner: PARTNER.into(),
        purpose: "report".into(),
        hold: true,
        ..Default::default()
    }
}

pub fn under(task: &pb::Task) -> pb::IssueRequest {
    pb::IssueRequest { task_id: task.task_id.clone(), ..request("alpha", CredentialKind::Opaque) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_token_opens_a_task_and_the_jobs_key_goes_on_with_it() {
    let mut setting = Setting::new().await;
    let own = Identity::ephemeral().expect("a key");
    let token = setting.signer.rs256(&setting.claims());
    let calls = FederatedCalls::new(&token).expect("a token");
    let mut job = setting.job(&own, &calls).await;
    let task = job.open_task(opening()).await.expect("opened").into_inner().task.expect("a task");

    // From here on without the token.
    calls.carry_task(&task.task_id, true).expect("an id");
    let (beat, beats) = mpsc::channel(4);
    beat.send(pb::HoldTaskRequest { task_id: task.task_id.clone() }).await.expect("sent");
    let mut held = job.hold_task(ReceiverStream::new(beats)).await.expect("held").into_inner();
    held.message().await.expect("answers").expect("lives");
    let reply = job.issue(under(&task)).await.expect("issued").into_inner();
    assert!(is_active(&mut setting.world.verifier("alpha").await, &reply).await);

    // Whoever else has the token, or knows the task, gets nothing.
    let thief = Identity::ephemeral().expect("a key");
    let stolen = FederatedCalls::new(&token).expect("a token");
    assert_eq!(reason(&setting.job(&thief, &stolen).await.open_task(opening()).await), "IDENTITY_TOKEN_SPENT");
    let guessed = FederatedCalls::default();
    guessed.carry_task(&task.task_id, true).expect("an id");
    assert_eq!(reason(&setting.job(&thief, &guessed).await.issue(under(&task)).await), "UNPROVEN");
    let said = setting.world.process.ask(&setting.operator(), &["events", "list", "--kind", "identity.token_reused"]);
    assert!(said.out.contains("identity.token_reused"), "{}{}", said.out, said.errors);

    // The task outlives the daemon: its key is in its row.
    setting.world.process.kill();
    setting.world.restart().await;
    let mut job = setting.job(&own, &calls).await;
    let reply = job.issue(under(&task)).await.expect("goes on").into_inner();
    assert!(is_active(&mut setting.world.verifier("alpha").await, &reply).await);

    // An operator looks, and cuts the issuer.
    let said = setting.world.process.ask(&setting.operator(), &["issuer", "show", "github"]);
    assert!(said.code == 0 && said.out.contains(&setting.local.url), "{}{}", said.out, said.errors);
    let said = setting.world.process.ask(&setting.operator(), &["revoke", "issuer", "github", "--reason", "test"]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.errors);
    let verifier = setting.world.verifier("alpha").await;
    until("the job's credential ends", || {
        let mut verifier = verifier.clone();
        let reply = reply.clone();
        async move { (!is_active(&mut verifier, &reply).await).then_some(()) }
    })
    .await;
    let fresh = FederatedCalls::new(&setting.signer.rs256(&setting.claims())).expect("a token");
    let refused = setting.job(&Identity::ephemeral().expect("a key"), &fresh).await.open_task(opening()).await;
    assert_eq!(reason(&refused), "UNPROVEN");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_ones_own_is_no_identity_and_two_proofs_are_none() {
    let setting = Setting::new().await;
    let own = Identity::ephemeral().expect("a key");
    let channel = setting.connect(&own).await;
    // A key alone.
    assert_eq!(reason(&BrokerClient::new(channel.clone()).open_task(opening()).await), "UNPROVEN");
    let token = setting.signer.rs256(&setting.claims());
    let bearer = |token: &str| format!("Bearer {token}").parse::<tonic::metadata::MetadataValue<_>>().expect("ASCII");
    // A token is for workloads.
    let mut status = Request::new(pb::GetStatusRequest {});
    status.metadata_mut().insert("authorization", bearer(&token));
    assert_eq!(reason(&AdminClient::new(channel.clone()).get_status(status).await), "UNPROVEN");
    // Two of them, one of another scheme, one beside a certificate that counts, two tasks.
    let with = |metadata: &[(&'static str, String)]| {
        let mut request = Request::new(opening());
        for (name, value) in metadata {
            request.metadata_mut().append(*name, value.parse().expect("ASCII"));
        }
        request
    };
    let token_entry = ("authorization", format!("Bearer {token}"));
    let mut job = BrokerClient::new(channel);
    for metadata in [
        vec![token_entry.clone(), token_entry.clone()],
        vec![("authorization", format!("Basic {token}"))],
        vec![("authorization", token.clone())],
        vec![token_entry.clone(), (TASK_METADATA, "a".into()), (TASK_METADATA, "b".into())],
    ] {
        assert_eq!(reason(&job.open_task(with(&metadata)).await), "UNPROVEN");
    }
    let mut worker = setting.world.broker("alpha").await;
    assert_eq!(reason(&worker.open_task(with(std::slice::from_ref(&token_entry))).await), "UNPROVEN");
    worker.open_task(with(&[])).await.expect("its certificate alone is good");
    // Without a key of its own a token for one use is none.
    let mut keyless = BrokerClient::new(setting.world.channel(None).await);
    assert_eq!(reason(&keyless.open_task(with(std::slice::from_ref(&token_entry))).await), "CLIENT_KEY_REQUIRED");
    for (name, value) in [("aud", json!("https://other")), ("iss", json!("https://evil.example")), ("exp", json!(1))] {
        let mut claims = setting.claims();
        claims[name] = value;
        let entry = ("authorization", format!("Bearer {}", setting.signer.rs256(&claims)));
        let want = if name == "exp" { "IDENTITY_TOKEN_EXPIRED" } else { "IDENTITY_TOKEN_REFUSED" };
        assert_eq!(reason(&job.open_task(with(&[entry])).await), want, "{name}");
    }
    // What the caller may not learn an operator finds out.
    let mut claims = setting.claims();
    claims["ref"] = json!("refs/heads/other");
    let other = setting.signer.rs256(&claims);
    assert_eq!(reason(&job.open_task(with(&[("authorization", format!("Bearer {other}"))])).await), "UNKNOWN_WORKLOAD");
    let file = setting.world.launch.folder.join("token.jwt");
    std::fs::write(&file, &other).expect("written");
    let said = setting.world.process.ask(&setting.operator(), &["issuer", "test", "--token-file", arg(&file)]);
    assert_ne!(said.code, 0);
    assert!(
        said.out.contains("no: ref is refs/heads/other, asked for is \"refs/heads/main\""),
        "{}{}",
        said.out,
        said.errors
    );
    std::fs::write(&file, &token).expect("written");
    let said = setting.world.process.ask(&setting.operator(), &["issuer", "test", "--token-file", arg(&file)]);
    assert!(said.code == 0 && said.out.contains("fits: workload alpha/job"), "{}{}", said.out, said.errors);
    // Looking at it did not spend it.
    job.open_task(with(&[token_entry])).await.expect("opened");
    let logged = setting.world.process.log();
    assert!(!logged.contains(&token) && !logged.contains(&other), "a token in the log");
}
