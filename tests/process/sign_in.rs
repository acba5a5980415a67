//! People who sign in at a real provider over HTTPS, and those who tell that they left, against the real daemon.

use std::{path::PathBuf, process::Stdio, sync::Arc};
mod left;

use mayfly::{
    model::id::hex,
    pb::{self, ApplyOptions, CredentialKind, sign_in_client::SignInClient},
};
use rcgen::KeyPair;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;
use tonic::transport::Channel;

use super::{
    rig::{Said, arg, reason, until},
    world::{World, is_active, issue, request},
};
use crate::{
    local_issuer::{Answer, LocalIssuer},
    signer::Signer,
    support::{signing_request, tls_client},
};

const CLIENT: &str = "mayfly-cli";
const ANN: &str = "ann@alpha.example";
const SCIM_TOKEN: &str = "0123456789abcdef0123456789abcdef0123";

struct Company {
    world: World,
    provider: LocalIssuer,
    signer: Signer,
    folder: tempfile::TempDir,
}

impl Company {
    async fn new() -> Self {
        let signer = Signer::new();
        let provider = LocalIssuer::start(&signer.key_set()).await;
        let url = provider.url.clone();
        let endpoints = json!({
            "issuer": url, "jwks_uri": format!("{url}/keys"),
            "device_authorization_endpoint": format!("{url}/device"), "token_endpoint": format!("{url}/token"),
        });
        provider.discovers(Answer::Body(endpoints.to_string()));
        let folder = tempfile::tempdir().expect("folder");
        let ca = folder.path().join("provider-ca.pem");
        std::fs::write(&ca, &provider.ca_pem).expect("written");
        let hashes = folder.path().join("scim.sha256");
        std::fs::write(&hashes, format!("{}\n", mayfly::model::Digest::of(SCIM_TOKEN.as_bytes()))).expect("written");
        private(&hashes);
        let keys = folder.path().join("keys.json");
        std::fs::write(&keys, signer.key_set().to_string()).expect("written");
        let world = World::configured(&format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\n\
             services = [\"broker\", \"verifier\", \"admin\", \"http\", \"sign_in\", \"scim\", \"shared_signals\"]\n\
             [operators.sign_in]\nissuer = {url:?}\nclient_id = {CLIENT:?}\nca_file = {ca:?}\nallow_private = true\n\
             [[operators.sign_in.rule]]\noperator = \"oncall\"\nclaims = {{ groups = \"oncall\" }}\n\
             [scim]\ntoken_hashes_file = {hashes:?}\n\
             [shared_signals]\nissuer = \"https://events.example\"\naudience = \"https://mayfly.example/ssf\"\n\
             jwks_file = {keys:?}\n"
        ))
        .await;
        let company = Self { world, provider, signer, folder };
        company.apply(&company.trust()).await;
        company
    }

    /// Ann owns the grant of alpha, and who is on call may do anything.
    fn trust(&self) -> String {
        let steward = format!(
            "[[operator]]\nname = \"steward\"\nrole = \"auditor\"\ntenants = [\"alpha\"]\npartners = \"all\"\n\
             speaks_for = [{ANN:?}]\n"
        );
        let oncall = "[[operator]]\nname = \"oncall\"\nrole = \"admin\"\ntenants = \"all\"\npartners = \"all\"\n";
        format!("{}{steward}{oncall}", self.world.trust.replacen("owner@example.com", ANN, 1))
    }

    async fn apply(&self, trust: &str) {
        self.world.apply(trust, ApplyOptions::default()).await.expect("applies");
    }

    fn now() -> u64 {
        mayfly::model::time::system_wall().seconds()
    }

    /// What the provider says of Ann.
    fn claims(&self) -> Value {
        let now = Self::now();
        json!({
            "iss": self.provider.url, "aud": CLIENT, "azp": CLIENT, "sub": "00u-ann", "iat": now, "exp": now + 300,
            "auth_time": now, "email": ANN, "email_verified": true, "groups": ["staff", "oncall"],
            "jti": hex(&rand16()),
        })
    }

    async fn door(&self) -> SignInClient<Channel> {
        SignInClient::new(self.world.channel(None).await)
    }

    async fn try_token(&self, claims: &Value) -> Result<pb::SignInResponse, tonic::Status> {
        let token = self.signer.rs256(claims);
        self.try_text(&token, &KeyPair::generate().expect("entropy")).await
    }

    async fn try_text(&self, token: &str, key: &KeyPair) -> Result<pb::SignInResponse, tonic::Status> {
        let request = pb::SignInRequest {
            id_token: token.to_owned(),
            csr_der: signing_request(key).expect("request"),
            operator: String::new(),
        };
        self.door().await.sign_in(request).await.map(tonic::Response::into_inner)
    }

    /// Ann signs in with the program, and gets the folder of it.
    async fn log_in(&self, name: &str) -> PathBuf {
        let place = self.folder.path().join(name);
        let begun = json!({
            "device_code": "dev", "user_code": "WDJB-MJHT", "verification_uri": format!("{}/page", self.provider.url),
            "expires_in": 60, "interval": 1,
        });
        self.provider.answers("/device", Answer::Body(begun.to_string()));
        self.provider.answers("/token", Answer::Said(400, json!({ "error": "authorization_pending" }).to_string()));
        let program = env!("CARGO_BIN_EXE_mayfly");
        let (server, ca) = (format!("https://{}", self.world.process.address), self.world.launch.data().join("ca.pem"));
        let mut command = tokio::process::Command::new(program);
        command.args(["--server", &server, "--ca", arg(&ca), "--identity", arg(&place), "--output", "json", "login"]);
        command.arg("--provider-ca").arg(self.folder.path().join("provider-ca.pem"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        self.provider.forget();
        let running = tokio::spawn(command.output());
        // The page is visited: from now on the token is there, with the nonce that was asked for.
        let form = until("a code is asked for", || async { self.provider.sent("/device") }).await;
        let nonce = form.split("nonce=").nth(1).expect("a nonce").split('&').next().expect("text").to_owned();
        let mut claims = self.claims();
        claims["nonce"] = json!(nonce);
        self.provider.answers("/token", Answer::Body(json!({ "id_token": self.signer.rs256(&claims) }).to_string()));
        let done = running.await.expect("runs").expect("starts");
        let errors = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success() && errors.contains("WDJB-MJHT"), "{errors}");
        let said: Value = serde_json::from_slice(&done.stdout).expect("JSON");
        assert_eq!((said["operator"].as_str(), said["person"].as_str()), (Some("oncall"), Some(ANN)), "{said}");
        place
    }

    fn admin(&self, arguments: &[&str]) -> Said {
        self.world.process.ask(&self.world.launch.data().join("operator"), arguments)
    }

    /// Kinds and actors of the broker's own events.
    fn events(&self, kind: &str) -> Vec<Value> {
        let said = self.admin(&["--output", "json", "events", "list", "--kind", kind]);
        assert_eq!(said.code, 0, "{said:?}");
        said.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// One request over HTTP: the status and the body.
    async fn http(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut config = tls_client(&self.world.roots(), None).expect("roots");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let tcp = tokio::net::TcpStream::connect(self.world.process.address).await.expect("connects");
        let name = ServerName::try_from("localhost").expect("a name");
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("TLS");
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        stream.write_all(text.as_bytes()).await.expect("sent");
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply).await;
        let reply = String::from_utf8_lossy(&reply).into_owned();
        let (head, body) = reply.split_once("\r\n\r\n").expect("a reply");
        (head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status"), body.to_owned())
    }

    async fn scim(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let headers = format!("Authorization: Bearer {SCIM_TOKEN}\r\nContent-Type: application/scim+json\r\n");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, said) = self.http(method, &format!("/scim/v2{path}"), &headers, &body).await;
        (status, serde_json::from_str(&said).unwrap_or(Value::Null))
    }

    /// An event of the provider's; `claims` are put over what it has.
    fn event(&self, kind: &str, claims: &Value) -> String {
        let mut all = json!({
            "iss": "https://events.example", "aud": "https://mayfly.example/ssf", "iat": Self::now(),
            "jti": hex(&rand16()), "sub_id": { "format": "email", "email": ANN },
            "events": { format!("https://schemas.openid.net/secevent/{kind}"): {} },
        });
        for (name, value) in claims.as_object().into_iter().flatten() {
            all[name] = value.clone();
        }
        self.signer.token(&json!({ "alg": "RS256", "typ": "secevent+jwt", "kid": "rsa" }), &all)
    }

    async fn push(&self, event: &str) -> (u16, String) {
        let headers = "Content-Type: application/secevent+jwt\r\nAccept: application/json\r\n";
        let (status, body) = self.http("POST", "/shared-signals/events", headers, event).await;
        let code = serde_json::from_str::<Value>(&body).ok().and_then(|body| body["err"].as_str().map(str::to_owned));
        (status, code.unwrap_or_default())
    }

    /// Ann says that the grant of alpha, which came to her, is needed. Others could not.
    fn attest(&self, me: &std::path::Path) {
        let soon = mayfly::model::Timestamp::from_seconds(Self::now() + 30 * 86_400).rfc3339();
        let arguments = ["attest", "alpha/report", "--until", &soon, "--reason", "needed"];
        let lasting = self.admin(&arguments);
        assert!(lasting.code == 1 && lasting.errors.contains("NOT_ALLOWED"), "{lasting:?}");
        let said = self.world.process.ask(me, &arguments);
        assert_eq!(said.code, 0, "{said:?}");
    }

    async fn alphas(&self) -> pb::IssueResponse {
        issue(&mut self.world.broker("alpha").await, request("alpha", CredentialKind::Opaque)).await.expect("issued")
    }
}

fn private(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
}

fn rand16() -> Vec<u8> {
    KeyPair::generate().expect("entropy").serialize_der()[40..56].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_in_with_the_program_and_is_an_operator_until_it_signs_out() {
    let company = Company::new().await;
    let me = company.log_in("me").await;
    for name in ["key.pem", "cert.pem"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(me.join(name)).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    let ask = |arguments: &[&str]| company.world.process.ask(&me, arguments);
    assert_eq!(ask(&["login", "--status"]).code, 0);
    company.attest(&me);
    assert_eq!(company.events("grant.attested")[0]["actor"], json!(format!("operator:oncall/{ANN}")));
    // What outlives a sign-in is not made with one.
    let lasting = ask(&["operator", "add", "admin", "--out", arg(&company.folder.path().join("lasting"))]);
    assert!(lasting.code == 1 && lasting.errors.contains("NOT_ALLOWED"), "{lasting:?}");
    // An identity of another kind is not overwritten.
    let server = company.world.launch.data().join("operator");
    let other = company.world.process.ask(&server, &["login"]);
    assert!(other.code == 2 && other.errors.contains("--replace"), "{other:?}");

    let copy = company.folder.path().join("copy");
    std::fs::create_dir(&copy).expect("made");
    for name in ["key.pem", "cert.pem", "ca.pem"] {
        std::fs::copy(me.join(name), copy.join(name)).expect("copied");
    }
    assert_eq!(ask(&["logout"]).code, 0);
    assert!(!me.join("key.pem").exists() && !me.join("cert.pem").exists());
    let gone = company.world.process.ask(&copy, &["status"]);
    assert!(gone.code == 1 && gone.errors.contains("UNPROVEN"), "{gone:?}");
    assert_eq!(company.world.process.ask(&copy, &["login", "--status"]).code, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_signs_in_once_and_only_as_the_rules_say() {
    let mut company = Company::new().await;
    let told = company.door().await.get_sign_in(pb::GetSignInRequest {}).await.expect("told").into_inner();
    assert_eq!((told.issuer.as_str(), told.client_id.as_str()), (company.provider.url.as_str(), CLIENT));
    let token = company.signer.rs256(&company.claims());
    let key = KeyPair::generate().expect("entropy");
    company.try_text(&token, &key).await.expect("signed in");
    assert_eq!(reason(&company.try_text(&token, &key).await), "IDENTITY_TOKEN_SPENT");
    // Not even after a restart.
    company.world.process.kill();
    company.world.restart().await;
    assert_eq!(reason(&company.try_text(&token, &key).await), "IDENTITY_TOKEN_SPENT");
    let with = |name: &str, value: Value| {
        let mut claims = company.claims();
        claims[name] = value;
        claims
    };
    for (name, value, want) in [
        ("aud", json!("another"), "IDENTITY_TOKEN_REFUSED"),
        ("aud", json!([CLIENT, "another"]), "IDENTITY_TOKEN_REFUSED"),
        ("azp", json!("another"), "IDENTITY_TOKEN_REFUSED"),
        ("iss", json!("https://evil.example"), "IDENTITY_TOKEN_REFUSED"),
        ("nonce", json!("of another key"), "IDENTITY_TOKEN_REFUSED"),
        ("events", json!({ "x": {} }), "IDENTITY_TOKEN_REFUSED"),
        ("iat", json!(Company::now() + 3_600), "IDENTITY_TOKEN_REFUSED"),
        ("exp", json!(Company::now() - 1), "IDENTITY_TOKEN_EXPIRED"),
        ("iat", json!(Company::now() - 700), "IDENTITY_TOKEN_EXPIRED"),
        ("groups", json!(["staff"]), "SIGN_IN_NOT_MAPPED"),
    ] {
        assert_eq!(reason(&company.try_token(&with(name, value.clone())).await), want, "{name} = {value}");
    }
    let refused = company.events("sign_in.refused");
    assert!(refused.iter().any(|event| event.to_string().contains("nonce")), "{refused:?}");
    // The provider of people vouches for no workload (A9).
    let mut job = pb::broker_client::BrokerClient::new(company.world.channel(None).await);
    let mut opening = tonic::Request::new(pb::OpenTaskRequest { tenant: "alpha".into(), ..Default::default() });
    let bearer = format!("Bearer {}", company.signer.rs256(&company.claims()));
    opening.metadata_mut().insert("authorization", bearer.parse().expect("ASCII"));
    assert_eq!(reason(&job.open_task(opening).await), "UNPROVEN");
    assert!(!company.world.process.log().contains(&token), "a token in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_ends_with_its_operator_and_by_an_admins_word() {
    let company = Company::new().await;
    let me = company.log_in("me").await;
    let status = || company.world.process.ask(&me, &["status"]).code;
    assert_eq!(status(), 0);
    let said = company.admin(&["operator", "sign-out", "--person", "ANN@alpha.example", "--reason", "laptop lost"]);
    assert_eq!((said.code, status()), (0, 1), "{said:?}");
    // What was issued before that word is no way back; a fresh sign-in is.
    let mut old = company.claims();
    old["iat"] = json!(Company::now() - 30);
    assert_eq!(reason(&company.try_token(&old).await), "SIGN_IN_CLOSED");
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let me = company.log_in("again").await;
    let status = || company.world.process.ask(&me, &["status"]).code;
    assert_eq!(status(), 0);
    let without = company.trust().split("[[operator]]\nname = \"oncall\"").next().expect("text").to_owned();
    company.world.apply(&without, ApplyOptions::default()).await.expect("applies");
    assert_eq!(status(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_deactivated_in_the_directory_leaves_and_nobody_else() {
    let company = Company::new().await;
    let (status, _) = company.http("GET", "/scim/v2/Users", "", "").await;
    assert_eq!(status, 401);
    let ann = json!({ "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": "Ann@Alpha.example",
        "externalId": "00u-ann", "active": true });
    let (status, made) = company.scim("POST", "/Users", &ann).await;
    assert_eq!((status, made["active"].as_bool()), (201, Some(true)), "{made}");
    assert_eq!(company.scim("POST", "/Users", &ann).await.0, 409);
    let id = made["id"].as_str().expect("an id").to_owned();
    let found = company.scim("GET", "/Users?filter=userName%20eq%20%22ann@alpha.example%22", &Value::Null).await.1;
    assert_eq!((found["totalResults"].as_u64(), found["Resources"][0]["id"].as_str()), (Some(1), Some(id.as_str())));

    let me = company.log_in("me").await;
    company.attest(&me);
    let mine = company.alphas().await;
    let beta =
        issue(&mut company.world.broker("beta").await, request("beta", CredentialKind::Opaque)).await.expect("issued");
    let patch = json!({ "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
        "Operations": [{ "op": "Replace", "path": "active", "value": "False" }] });
    let (status, patched) = company.scim("PATCH", &format!("/Users/{id}"), &patch).await;
    assert_eq!((status, patched["active"].as_bool()), (200, Some(false)), "{patched}");
    assert_eq!(company.world.process.ask(&me, &["status"]).code, 1, "the sign-in goes on");
    assert!(!is_active(&mut company.world.verifier("alpha").await, &mine).await);
    assert!(is_active(&mut company.world.verifier("beta").await, &beta).await, "another owner's grant was suspended");
    assert_eq!(reason(&company.try_token(&company.claims()).await), "SIGN_IN_CLOSED");
    let left = company.events("owner.left");
    assert_eq!((left.len(), left[0]["actor"].as_str()), (1, Some("scim")), "{left:?}");

    // Removed it stays closed, and added anew it is open.
    assert_eq!(company.scim("DELETE", &format!("/Users/{id}"), &Value::Null).await.0, 204);
    assert_eq!(company.scim("GET", &format!("/Users/{id}"), &Value::Null).await.0, 404);
    assert_eq!(reason(&company.try_token(&company.claims()).await), "SIGN_IN_CLOSED");
    assert_eq!(company.scim("POST", "/Users", &ann).await.0, 201);
    let mut fresh = company.claims();
    fresh["iat"] = json!(Company::now() + 2);
    company.try_token(&fresh).await.expect("signed in");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_the_provider_says_is_disabled_leaves_whatever_comes_twice() {
    let company = Company::new().await;
    assert_eq!(company.push(&company.event("ssf/event-type/verification", &json!({ "state": "x" }))).await.0, 202);
    let me = company.log_in("me").await;
    let status = || company.world.process.ask(&me, &["status"]).code;
    for (claims, code) in [
        (json!({ "aud": "https://other.example" }), "invalid_audience"),
        (json!({ "iss": "https://other.example" }), "invalid_issuer"),
        (json!({ "iat": 1 }), "invalid_request"),
        (json!({ "sub": "00u-ann" }), "invalid_request"),
    ] {
        let event = company.event("risc/event-type/account-disabled", &claims);
        assert_eq!(company.push(&event).await, (400, code.to_owned()), "{claims}");
    }
    // An ID token is no event.
    assert_eq!(company.push(&company.signer.rs256(&company.claims())).await.0, 400);
    assert_eq!(status(), 0);
    company.attest(&me);
    let mine = company.alphas().await;
    // A session ends, and no more.
    assert_eq!(company.push(&company.event("caep/event-type/session-revoked", &json!({}))).await.0, 202);
    assert_eq!(status(), 1);
    assert!(is_active(&mut company.world.verifier("alpha").await, &mine).await);
    // By the provider's own id, which the sign-in has made known.
    let subject = json!({ "sub_id": { "format": "iss_sub", "iss": company.provider.url, "sub": "00u-ann" } });
    let event = company.event("risc/event-type/account-disabled", &subject);
    assert_eq!(company.push(&event).await, (202, String::new()));
    assert!(!is_active(&mut company.world.verifier("alpha").await, &mine).await);
    assert_eq!(reason(&company.try_token(&company.claims()).await), "SIGN_IN_CLOSED");
    assert_eq!(company.push(&event).await.0, 202);
    let left = company.events("owner.left");
    assert_eq!((left.len(), left[0]["actor"].as_str()), (1, Some("shared_signals")), "{left:?}");
}
