//! The client library in a workload of one's own: TLS, HTTP and gRPC with credentials that renew themselves.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use mayfly::{
    client::{
        Address, Advice, Bearer, Body, ClientConfig, Credential, Identity, Link, LiveCertificate, NoBearer, NotForTls,
        NotSent, Renewing, Task, Wanted, Work, pem,
    },
    pb::{self, CredentialKind},
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::service::Interceptor;

use super::{
    exec::rig::all_over,
    rig::until,
    world::{PARTNER, World, audience, introspect},
};
use crate::support::{SpiffeServer, spiffe_id};

const PATIENCE: Duration = Duration::from_secs(20);

/// Alpha's worker, with a task open.
async fn task(world: &World) -> Task {
    let identity = world.identity("alpha/worker");
    let chain = pem::encode_chain(&identity.chain).into_bytes();
    let key = pem::encode(pem::PRIVATE_KEY, identity.key.secret_der());
    let config = ClientConfig {
        address: Address::Https { host: "127.0.0.1".into(), port: world.process.address.port() },
        ca_pem: pem::encode_chain(&world.roots()).into_bytes(),
        identity: Some(Identity::new(chain, key.as_bytes().to_vec().into())),
        server_name: Some("localhost".into()),
    };
    let work = Work { tenant: "alpha".into(), partner: PARTNER.into(), purpose: "report".into(), ..Work::default() };
    Task::open(Arc::new(Link::to(config)), &work, PATIENCE).await.expect("opened")
}

/// A credential that lives for three seconds.
async fn short(task: &Task, kind: CredentialKind) -> Arc<Renewing> {
    let binding = if kind == CredentialKind::X509 { pb::Binding::Unspecified } else { pb::Binding::None };
    let (audiences, actions) = (vec![audience("alpha")], vec!["read".to_owned()]);
    let wanted = Wanted { kind, audiences, actions, ttl_seconds: 3, binding, ..Wanted::default() };
    Arc::new(task.renewing(wanted, PATIENCE, |_| Ok(())).await.expect("issued"))
}

fn leaf(credential: &Credential) -> CertificateDer<'static> {
    let Body::Certificate { chain_pem, .. } = &credential.body else { panic!("a token") };
    pem::certificates(chain_pem.as_bytes()).expect("PEM").remove(0)
}

/// One connection between two configurations: the server's leaf as the client saw it, and the client's as the server did.
async fn meet(
    client: &Arc<rustls::ClientConfig>,
    server: &Arc<ServerConfig>,
) -> Option<(CertificateDer<'static>, CertificateDer<'static>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let acceptor = TlsAcceptor::from(Arc::clone(server));
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a caller");
        let mut tls = acceptor.accept(stream).await.ok()?;
        let seen = tls.get_ref().1.peer_certificates()?.first()?.clone().into_owned();
        tls.write_all(b"hello").await.ok()?;
        tls.shutdown().await.ok()?;
        Some(seen)
    });
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = TcpStream::connect(address).await.expect("connects");
    let seen = async {
        let mut tls = TlsConnector::from(Arc::clone(client)).connect(name, stream).await.ok()?;
        let seen = tls.get_ref().1.peer_certificates()?.first()?.clone().into_owned();
        // In TLS 1.3 a refusal of the client's certificate comes with the first read.
        tls.read_to_end(&mut Vec::new()).await.ok()?;
        Some(seen)
    };
    let seen = seen.await;
    let callers = serving.await.expect("no panic");
    seen.zip(callers)
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_of_tls_always_show_the_leaf_of_now_and_none_when_it_has_ended() {
    let world = World::new().await;
    let task = task(&world).await;
    let renewing = short(&task, CredentialKind::X509).await;
    let live = LiveCertificate::new(Arc::clone(&renewing)).expect("a certificate");
    let roots = Arc::new(live.roots().expect("roots"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let callers = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider).build().expect("roots");
    let server = Arc::new(live.server(callers).expect("a server"));
    let mut client = live.client(RootCertStore::clone(&roots)).expect("a client");
    let name = spiffe_id(&leaf(&renewing.current())).expect("a SPIFFE ID");
    // Workloads know each other by their SPIFFE ID.
    client.dangerous().set_certificate_verifier(Arc::new(SpiffeServer::new(name, roots)));
    let client = Arc::new(client);

    let shown = async || {
        loop {
            let before = leaf(&renewing.current());
            let seen = meet(&client, &server).await;
            // Unless it was replaced meanwhile.
            if leaf(&renewing.current()) == before {
                assert_eq!(seen, Some((before.clone(), before.clone())), "an old leaf");
                return before;
            }
        }
    };
    let first = shown().await;
    until("a successor", async || (leaf(&renewing.current()) != first).then_some(())).await;
    // The configurations are what they were; what they show is not.
    assert_ne!(shown().await, first);

    assert!(matches!(LiveCertificate::new(short(&task, CredentialKind::Jwt).await), Err(NotForTls::NotACertificate)));
    assert!(task.complete(PATIENCE).await.expect("completed"));
    until("its end", async || live.current().is_none().then_some(())).await;
    assert_eq!(meet(&client, &server).await, None);
    assert_eq!(all_over(&world).await, [pb::EndReason::Completed]);
}

/// A service over TLS that writes down what it is asked, and answers as it is told to.
struct Service {
    url: String,
    ca: Vec<u8>,
    heard: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<Vec<String>>>,
}

impl Service {
    async fn start() -> Self {
        let key = rcgen::KeyPair::generate().expect("key");
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("names");
        let certificate = params.self_signed(&key).expect("signed");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let private = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .expect("fits");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://localhost:{}", listener.local_addr().expect("bound").port());
        let (heard, answers) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let (hear, say) = (Arc::clone(&heard), Arc::clone(&answers));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut tls) = acceptor.accept(stream).await else { continue };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && tls.read_buf(&mut head).await.is_ok_and(|count| count > 0) {}
                hear.lock().expect("unpoisoned").push(String::from_utf8_lossy(&head).into_owned());
                let next = say.lock().expect("unpoisoned").pop();
                let next = next.unwrap_or_else(|| "200 OK\r\n".to_owned());
                let answer = format!("HTTP/1.1 {next}Content-Length: 0\r\nConnection: close\r\n\r\n");
                let _ = tls.write_all(answer.as_bytes()).await;
                let _ = tls.shutdown().await;
            }
        });
        Self { url, ca: certificate.der().to_vec(), heard, answers }
    }

    /// A client that trusts this one and another.
    fn client(&self, other: &Self) -> reqwest::Client {
        let mut roots = RootCertStore::empty();
        for ca in [&self.ca, &other.ca] {
            roots.add(CertificateDer::from(ca.clone())).expect("a root");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        reqwest::Client::builder().use_preconfigured_tls(tls).https_only(true).build().expect("a client")
    }

    /// The tokens that came since the last look; empty texts for requests without one.
    fn tokens(&self) -> Vec<String> {
        let heard = std::mem::take(&mut *self.heard.lock().expect("unpoisoned"));
        let token = |head: &String| {
            let line = head.lines().find_map(|line| line.strip_prefix("authorization: Bearer "));
            line.unwrap_or_default().to_owned()
        };
        heard.iter().map(token).collect()
    }

    fn answers(&self, all: &[&str]) {
        *self.answers.lock().expect("unpoisoned") = all.iter().rev().map(|one| format!("{one}\r\n")).collect();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_have_the_token_of_now_and_nobody_elses_service_gets_it() {
    let world = World::new().await;
    let task = task(&world).await;
    let renewing = short(&task, CredentialKind::Opaque).await;
    let (service, other) = (Service::start().await, Service::start().await);
    let (bearer, client) = (Bearer::new(Arc::clone(&renewing), &service.url).expect("a token"), service.client(&other));
    let current = || renewing.current().expose_secret().to_owned();
    let send = async |url: String| bearer.send(client.get(url), PATIENCE).await;

    assert_eq!(send(format!("{}/a", service.url)).await.expect("answered").status(), 200);
    let first = service.tokens().remove(0);
    let mut verifier = world.verifier("alpha").await;
    let presented = pb::introspect_request::Credential::Token;
    assert!(introspect(&mut verifier, presented(first.clone())).await.active);
    until("a successor", async || (current() != first).then_some(())).await;
    assert_eq!(send(format!("{}/a", service.url)).await.expect("answered").status(), 200);
    let next = service.tokens().remove(0);
    assert!(next != first && introspect(&mut verifier, presented(next)).await.active);

    // Another host, or the same without TLS.
    for target in [format!("{}/", other.url), service.url.replace("https", "http"), "https://evil.example/".into()] {
        let error = send(target.clone()).await.expect_err("not sent");
        assert!(matches!(&error, NotSent::Bearer(NoBearer::Elsewhere { .. })), "{target}: {error:?}");
        assert_eq!(error.advice(), Advice::Stop);
    }
    service.answers(&[&format!("302 Found\r\nLocation: {}/b", other.url)]);
    assert_eq!(send(format!("{}/a", service.url)).await.expect("answered").status(), 200);
    assert!(service.tokens().iter().all(|token| !token.is_empty()));
    assert_eq!(other.tokens(), [""], "the token went on with a redirect");
    // A refusal of the token of now is an answer: nobody asks twice with one token.
    service.answers(&["401 Unauthorized", "200 OK"]);
    let status = send(format!("{}/a", service.url)).await.expect("answered").status();
    let asked = service.tokens();
    assert!(if status == 401 { asked.len() == 1 } else { asked.len() == 2 && asked[0] != asked[1] }, "{asked:?}");

    // gRPC, by an interceptor.
    let request = bearer.clone().call(tonic::Request::new(())).expect("passes");
    let sent = request.metadata().get("authorization").expect("there");
    assert!(sent.is_sensitive() && sent.to_str().expect("ASCII").starts_with("Bearer "));

    assert!(task.complete(PATIENCE).await.expect("completed"));
    until("its end", async || (renewing.current().ends() <= tokio::time::Instant::now()).then_some(())).await;
    let error = bearer.send(client.get(&service.url), Duration::ZERO).await.expect_err("nothing to send");
    assert!(matches!(error, NotSent::Bearer(NoBearer::Ended)) && error.advice() == Advice::Again(Duration::ZERO));
    assert!(bearer.clone().call(tonic::Request::new(())).is_err());
    assert!(service.tokens().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_token_or_no_service_makes_no_bearer() {
    let world = World::new().await;
    let task = task(&world).await;
    let certificate = short(&task, CredentialKind::X509).await;
    assert!(matches!(Bearer::new(certificate, "https://shop.example"), Err(NoBearer::NotAToken)));
    let token = short(&task, CredentialKind::Jwt).await;
    for wrong in ["shop.example", "http://shop.example", "https://shop.example/a", "https://u@shop.example", ""] {
        let refused = Bearer::new(Arc::clone(&token), wrong).expect_err("not said so");
        assert!(matches!(refused, NoBearer::Service(_)) && refused.advice() == Advice::Stop, "{wrong}");
    }
    task.complete(PATIENCE).await.expect("completed");
}
