use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::{AtomicU16, Ordering},
};

use rustls::ServerConfig;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{
    broker::{
        event,
        testing::{Hands, TRUST, admin, apply, days, founded},
    },
    config::{Notify, Route, Smtp, SmtpTls, Webhook},
    mint::webhook::WebhookSecrets,
    model::Topic,
    pb,
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What was posted: headers in lower case, and the body.
#[derive(Clone, Debug)]
struct Posted {
    head: String,
    body: Value,
}

impl Posted {
    fn header(&self, name: &str) -> &str {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
    }
}

/// A receiver on loopback that answers as it is told.
struct Receiver {
    port: u16,
    status: Arc<AtomicU16>,
    posted: Arc<Mutex<Vec<Posted>>>,
    serving: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Receiver {
    /// Its certificate is `ca.pem` in the folder.
    async fn start(folder: &Path) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("certificate");
        std::fs::write(folder.join("ca.pem"), made.cert.pem()).expect("written");
        std::fs::write(folder.join("secret"), format!("{SECRET}\n")).expect("written");
        std::fs::set_permissions(folder.join("secret"), Permissions::from_mode(0o600)).expect("mode");
        let key = made.signing_key.serialize_der().try_into().expect("key");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("certificate and key");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("address").port();
        let (status, posted) = (Arc::new(AtomicU16::new(204)), Arc::new(Mutex::new(Vec::new())));
        let (answers, kept) = (Arc::clone(&status), Arc::clone(&posted));
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(socket).await else { continue };
                let mut stream = BufReader::new(stream);
                let Some(one) = read_post(&mut stream).await else { continue };
                let status = answers.load(Ordering::SeqCst);
                kept.lock().expect("lock").push(one);
                // A body without an end, and a place to be led to.
                let head = format!("HTTP/1.1 {status} X\r\nlocation: https://localhost:{port}/else\r\n\r\n");
                let _gone = stream.write_all(head.as_bytes()).await;
                let _gone = stream.write_all(&[b'x'; 65_536]).await;
                let _gone = stream.flush().await;
            }
        });
        Self { port, status, posted, serving }
    }

    fn posted(&self) -> Vec<Posted> {
        self.posted.lock().expect("lock").clone()
    }

    fn webhook(&self, folder: &Path) -> Webhook {
        Webhook {
            url: format!("https://localhost:{}/hook?key=hunter2", self.port),
            secret_file: folder.join("secret"),
            ca_file: folder.join("ca.pem"),
            allow_private: true,
        }
    }
}

async fn read_post(stream: &mut (impl AsyncBufReadExt + AsyncRead + Unpin)) -> Option<Posted> {
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
        if line == "\r\n" {
            break;
        }
        if let Some(text) = line.strip_prefix("content-length:") {
            length = text.trim().parse().ok()?;
        }
        head.push_str(&line.replace("\r\n", "\n"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let (id, at, signature) = {
        let one = Posted { head: head.clone(), body: Value::Null };
        let [id, at, signature] =
            ["webhook-id", "webhook-timestamp", "webhook-signature"].map(|name| one.header(name).to_owned());
        (id, at.parse().ok()?, signature)
    };
    let wanted = WebhookSecrets::parse(SECRET).expect("a secret").sign(&id, at, &body);
    assert_eq!(signature, wanted, "the signature is not of this message");
    Some(Posted { head, body: serde_json::from_slice(&body).ok()? })
}

struct Bed {
    broker: Arc<Broker>,
    hands: Arc<Hands>,
    folder: tempfile::TempDir,
}

impl Bed {
    async fn new() -> Self {
        let (broker, hands) = founded().await;
        apply(&broker, TRUST).await;
        Self { broker, hands, folder: tempfile::tempdir().expect("folder") }
    }

    fn routes(&self, routes: Vec<Route>, smtp: Option<Smtp>) {
        let config = Notify { routes, smtp, ..Notify::default() };
        let outlets = Outlet::open(&config, "https://mayfly.example.com").expect("opens");
        self.broker.notify_by(config, outlets).expect("reads");
    }

    fn notifier(&self) -> &Notifier {
        self.broker.notifier.get().expect("set")
    }

    async fn collect(&self) {
        self.broker.collect_notices().await.expect("reads");
    }

    async fn deliver(&self) {
        for outlet in &self.notifier().outlets {
            self.broker.deliver_due(outlet).await.expect("answers");
        }
    }

    fn state(&self, outlet: &str) -> State {
        self.notifier().change(outlet, |state| state.clone())
    }

    /// An abandoned task of the workload `w`, which is of the grant `g`.
    async fn abandon(&self, job_url: &str) {
        let now = self.broker.now();
        let mut event = event::own("task.abandoned", now);
        (event.tenant, event.partner, event.workload) = ("acme".into(), "zeta".into(), "w".into());
        (event.purpose, event.task_id) = ("work".into(), "400000010000000000000001".into());
        event.details.push(format!("job_url={job_url}"));
        self.broker.ledger.note(vec![event], now).await.expect("notes");
    }

    async fn told(&self, kind: &str) -> Vec<pb::Event> {
        let request = pb::ListEventsRequest { kind_prefix: kind.into(), ..Default::default() };
        self.broker.list_events(&admin(), request).await.expect("lists").events
    }
}

fn route(name: &str, owners: &[&str]) -> Route {
    Route {
        name: name.into(),
        owners: owners.iter().map(|&owner| owner.to_owned()).collect(),
        is_default: owners.is_empty(),
        topics: Topic::ALL.into_iter().map(|(_, topic)| topic).collect(),
        webhook: None,
        mail: vec![],
    }
}

#[tokio::test]
async fn an_owner_is_told_once_by_a_signed_message_that_says_what_to_do() {
    let bed = Bed::new().await;
    let receiver = Receiver::start(bed.folder.path()).await;
    bed.abandon("https://ci.example/before").await;
    let webhook = Some(receiver.webhook(bed.folder.path()));
    bed.routes(vec![Route { webhook, ..route("own", &["owner@example.com"]) }], None);
    bed.collect().await;
    bed.abandon("https://ci.example/1").await;
    bed.abandon("https://ci.example/2").await;
    for _ in 0..3 {
        bed.collect().await;
        bed.deliver().await;
    }
    let [one] = receiver.posted().try_into().expect("one message, for what came together");
    let data = &one.body["data"];
    assert_eq!((&one.body["type"], &data["owner"]), (&"task.abandoned".into(), &"owner@example.com".into()));
    assert_eq!((&data["count"], &data["route"], &data["test"]), (&2.into(), &"own".into(), &false.into()));
    assert_eq!(data["items"][0]["job_url"], "https://ci.example/1", "what was before is told nobody");
    assert_eq!(data["items"][0]["next"][0], "mayfly task show 400000010000000000000001");
    assert_eq!(one.header("webhook-timestamp"), bed.broker.now().seconds().to_string());
    let state = bed.state("own/webhook");
    assert_eq!((state.waiting, state.record.delivered, state.record.failing_since), (0, 1, 0));
}

#[tokio::test]
async fn a_receiver_that_was_down_gets_everything_under_the_same_ids_and_blocks_no_other() {
    let bed = Bed::new().await;
    let receiver = Receiver::start(bed.folder.path()).await;
    let own = Route { webhook: Some(receiver.webhook(bed.folder.path())), ..route("own", &["owner@example.com"]) };
    let closed = Webhook { url: "https://127.0.0.1:1/".into(), ..receiver.webhook(bed.folder.path()) };
    let dead = Route { webhook: Some(closed), ..route("dead", &[]) };
    bed.routes(vec![own, dead], None);
    receiver.status.store(503, Ordering::SeqCst);
    bed.abandon("https://ci.example/1").await;
    // An alarm goes to the default route, which is dead.
    let now = bed.broker.now();
    bed.broker.ledger.note_act(vec![event::own("clock.jumped", now)], now).await.expect("notes");
    bed.collect().await;
    bed.deliver().await;
    bed.deliver().await;
    assert_eq!(receiver.posted().len(), 1, "it was tried again before its time");
    let state = bed.state("own/webhook");
    assert_eq!((state.waiting, state.failures), (1, 1));
    assert!(state.record.failing_since > 0 && state.record.last_error.contains("503"), "{state:?}");
    assert!(!state.record.last_error.contains("hunter2"));
    // As after a restart.
    let config = bed.notifier().config.clone();
    let outlets = Outlet::open(&config, "https://mayfly.example.com").expect("opens");
    let anew = Notifier::open(&bed.broker.ledger, config, outlets, bed.broker.now()).expect("reads");
    assert_eq!(anew.change("own/webhook", |state| (state.waiting, state.record.failing_since > 0)), (1, true));
    receiver.status.store(200, Ordering::SeqCst);
    bed.hands.advance(Duration::from_secs(1));
    bed.deliver().await;
    let ids: Vec<_> = receiver.posted().iter().map(|one| one.header("webhook-id").to_owned()).collect();
    assert!(ids.len() == 2 && ids[0] == ids[1] && ids[0].starts_with("msg_"), "{ids:?}");
    let state = bed.state("own/webhook");
    assert_eq!((state.waiting, state.record.failing_since, state.record.last_error.as_str()), (0, 0, ""));
    assert_eq!(bed.state("dead/webhook").waiting, 1, "the dead route holds what is its own");
}

#[tokio::test]
async fn an_alarm_goes_ahead_of_whatever_waits_already() {
    let bed = Bed::new().await;
    let receiver = Receiver::start(bed.folder.path()).await;
    let webhook = Some(receiver.webhook(bed.folder.path()));
    bed.routes(vec![Route { webhook, ..route("all", &[]) }], None);
    for n in 0..3 {
        bed.abandon(&format!("https://ci.example/{n}")).await;
        bed.collect().await;
    }
    // Even where those before it fail by themselves, and the next round goes on behind them.
    receiver.status.store(400, Ordering::SeqCst);
    bed.deliver().await;
    let before = receiver.posted().len();
    let now = bed.broker.now();
    bed.broker.ledger.note_act(vec![event::own("clock.jumped", now)], now).await.expect("notes");
    bed.collect().await;
    receiver.status.store(204, Ordering::SeqCst);
    bed.hands.advance(Duration::from_secs(1_200));
    bed.deliver().await;
    let kinds: Vec<_> = receiver.posted()[before..].iter().map(|one| one.body["type"].clone()).collect();
    assert_eq!(kinds.len(), 4, "{kinds:?}");
    assert_eq!(kinds[0], "clock.jumped", "{kinds:?}");
    assert_eq!(bed.state("all/webhook").waiting, 0);
}

#[tokio::test]
async fn what_is_never_taken_is_given_up_and_told_in_the_audit() {
    let bed = Bed::new().await;
    let receiver = Receiver::start(bed.folder.path()).await;
    receiver.status.store(302, Ordering::SeqCst);
    let webhook = Some(receiver.webhook(bed.folder.path()));
    bed.routes(vec![Route { webhook, ..route("all", &[]) }], None);
    bed.abandon("").await;
    bed.collect().await;
    bed.deliver().await;
    assert_eq!(receiver.posted().len(), 1, "a redirect was followed");
    bed.hands.advance(days(3));
    bed.broker.ledger.holds().set(crate::ledger::Hold::Clock);
    bed.deliver().await;
    assert_eq!(bed.state("all/webhook").waiting, 1, "given up on a time that nobody has confirmed");
    bed.broker.ledger.holds().clear(crate::ledger::Hold::Clock);
    bed.hands.advance(Duration::from_secs(600));
    bed.deliver().await;
    let [failed] = bed.told("notify.failed").await.try_into().expect("one event");
    assert!(failed.reason.contains("302") && failed.details.contains(&"route=all".to_owned()), "{failed:?}");
    let state = bed.state("all/webhook");
    assert_eq!((state.waiting, state.record.given_up, state.record.delivered), (0, 1, 0));
    bed.collect().await;
    assert_eq!(bed.state("all/webhook").waiting, 0, "a failure to tell is told again and again");
}

#[tokio::test]
async fn a_private_address_is_not_posted_to_unless_that_is_meant() {
    let bed = Bed::new().await;
    let receiver = Receiver::start(bed.folder.path()).await;
    let open = Webhook { allow_private: false, ..receiver.webhook(bed.folder.path()) };
    let literal = Webhook { url: format!("https://127.0.0.1:{}/", receiver.port), ..open.clone() };
    let routes = [("name", open), ("literal", literal)];
    let routes = routes.map(|(name, webhook)| Route { webhook: Some(webhook), ..route(name, &[name]) });
    bed.routes(routes.to_vec(), None);
    for name in ["name", "literal"] {
        let request = pb::TestNotificationRequest { route: name.into(), ..Default::default() };
        let reply = bed.broker.test_notification(&admin(), request).await.expect("answers");
        assert!(!reply.results[0].delivered && reply.results[0].error.contains("private"), "{reply:?}");
    }
    assert!(receiver.posted().is_empty());
}

#[tokio::test]
async fn each_event_finds_its_route() {
    let bed = Bed::new().await;
    let duty = |who: &str| format!("{{ party = \"vendor\", who = \"{who}\", contact = \"{who}@vendor.example\" }}");
    let accountable = format!(
        "[[accountability]]\ntenant = \"acme\"\npartner = \"zeta\"\nstorage = {}\nscope = {}\nrevocation = {}\nescalation = {}\n",
        duty("a"),
        duty("b"),
        duty("c"),
        duty("d")
    );
    apply(&bed.broker, &format!("{TRUST}\n{accountable}")).await;
    let receiver = Receiver::start(bed.folder.path()).await;
    let to = |route: Route| Route { webhook: Some(receiver.webhook(bed.folder.path())), ..route };
    let quiet = Route { topics: vec![Topic::Quarantine], ..route("contact", &["c@vendor.example"]) };
    bed.routes(vec![to(quiet), to(route("rest", &[]))], None);
    let find = |kind: &str, details: &[&str]| {
        let mut event = event::own(kind, bed.broker.now());
        (event.tenant, event.partner) = ("acme".into(), "zeta".into());
        event.details = details.iter().map(|&detail| detail.to_owned()).collect();
        let topic = Topic::of(&event.kind, &event.details).expect("a topic");
        let found = bed.broker.recipients(bed.notifier(), &event, topic).expect("reads");
        found.into_iter().map(|one| (one.route, one.owner)).collect::<Vec<_>>()
    };
    let owner = "owner@example.com".to_owned();
    // The owner has no route, and whoever revokes has one, which takes only some.
    assert_eq!(find("quarantine.lapsed", &["scope=grant acme/g"]), [(0, owner)]);
    assert_eq!(find("scope.suspended", &["scope=grant acme/g", "cause=dormant"]), []);
    // An alarm reaches the default route in any case.
    assert_eq!(find("identity.token_reused", &["scope=workload acme/w"]), [(1, String::new())]);
    let mut global = event::own("clock.jumped", bed.broker.now());
    global.tenant = String::new();
    let found = bed.broker.recipients(bed.notifier(), &global, Topic::Alarm).expect("reads");
    assert_eq!(found.into_iter().map(|one| one.route).collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn an_attestation_is_asked_for_once_ahead_of_its_date() {
    let bed = Bed::new().await;
    let receiver = Receiver::start(bed.folder.path()).await;
    let webhook = Some(receiver.webhook(bed.folder.path()));
    bed.routes(vec![Route { webhook, ..route("own", &["owner@example.com"]) }], None);
    let due = Timestamp::parse_rfc3339("2025-09-01T00:00:00Z").expect("a time");
    bed.hands.advance(due.before(days(7)).since(bed.broker.now()) - Duration::from_secs(60));
    bed.broker.tend().await.expect("tends");
    assert!(bed.told("grant.attestation_due").await.is_empty(), "asked too early");
    bed.hands.advance(Duration::from_secs(61));
    for _ in 0..3 {
        bed.broker.tend().await.expect("tends");
        bed.hands.advance(Duration::from_secs(60));
    }
    assert_eq!(bed.told("grant.attestation_due").await.len(), 1);
    let reminders = |at| bed.broker.ledger.reminders_before(at).expect("reads").len();
    assert_eq!((reminders(due), reminders(due.after(days(1)))), (0, 1));
    bed.hands.advance(days(7));
    bed.broker.forget_gone_outlets().await.expect("removes");
    assert_eq!(reminders(due.after(days(1))), 0, "a reminder is kept beyond its date");
    bed.broker.tend().await.expect("tends");
    bed.collect().await;
    bed.deliver().await;
    let mut titles: Vec<_> = receiver.posted().iter().map(|one| one.body["data"]["title"].to_string()).collect();
    titles.sort();
    assert_eq!(titles, ["\"attestation due soon\"", "\"attestation overdue, suspended\""]);
}

#[tokio::test]
async fn mail_says_the_same_and_nothing_that_a_job_wrote_forges_it() {
    let bed = Bed::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("address").port();
    let serving = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.expect("connection");
        take_mail(socket).await
    });
    let smtp = Smtp {
        host: "127.0.0.1".into(),
        port,
        tls: SmtpTls::None,
        login: None,
        from: "Mayfly <mayfly@example.com>".into(),
        ca_file: "/nowhere".into(),
        allow_private: true,
    };
    let mail = vec!["pay@acme.example".to_owned(), "sec@acme.example".to_owned()];
    bed.routes(vec![Route { mail, ..route("own", &["owner@example.com"]) }], Some(smtp));
    bed.abandon("https://ci.example/1\r\n.\r\nMAIL FROM:<evil@example.com>\r\nSubject: pay here").await;
    bed.collect().await;
    bed.deliver().await;
    let (commands, text) = serving.await.expect("served");
    assert_eq!(commands.iter().filter(|line| line.starts_with("MAIL FROM")).count(), 1, "{commands:?}");
    assert_eq!(commands.iter().filter(|line| line.starts_with("RCPT TO")).count(), 2, "{commands:?}");
    let (head, body) = text.split_once("\n\n").expect("a head");
    assert_eq!(head.matches("Subject:").count(), 1, "{head}");
    assert!(head.contains("Subject: [mayfly] a job left its task behind"), "{head}");
    assert!(head.contains("Auto-Submitted: auto-generated") && head.contains("Message-ID: <msg_"), "{head}");
    let body = body.replace("=\n", "");
    assert!(body.contains("next: mayfly task show 400000010000000000000001"), "{body}");
    assert!(body.contains("https://ci.example/1??.??MAIL FROM"), "{body}");
    assert_eq!(bed.state("own/mail").record.delivered, 1);
}

/// One mail: the commands, and the text with plain line ends.
async fn take_mail(socket: tokio::net::TcpStream) -> (Vec<String>, String) {
    let mut stream = BufReader::new(socket);
    let (mut commands, mut text) = (Vec::new(), String::new());
    stream.write_all(b"220 here\r\n").await.expect("written");
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return (commands, text);
        }
        let line = line.trim_end().to_owned();
        let answer: &[u8] = match line.get(..4).unwrap_or_default() {
            "EHLO" => b"250-here\r\n250 8BITMIME\r\n",
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await.expect("written");
                loop {
                    let mut line = String::new();
                    stream.read_line(&mut line).await.expect("a line");
                    if line == ".\r\n" {
                        break;
                    }
                    text.push_str(&line.replace("\r\n", "\n"));
                }
                b"250 taken\r\n"
            }
            "QUIT" => b"221 bye\r\n",
            _ => b"250 ok\r\n",
        };
        commands.push(line);
        stream.write_all(answer).await.expect("written");
    }
}

#[tokio::test]
async fn what_waits_for_a_route_that_is_gone_is_given_up() {
    let bed = Bed::new().await;
    let receiver = Receiver::start(bed.folder.path()).await;
    let webhook = Some(receiver.webhook(bed.folder.path()));
    bed.routes(vec![Route { webhook, ..route("new", &["owner@example.com"]) }], None);
    let record = records::NoticeRecord { id: "msg_1".into(), ..Default::default() };
    let queued = vec![(crate::ledger::keys::notice("old/mail", crate::ledger::keys::Urgency::Then, 1, 0), record)];
    let now = bed.broker.now();
    let outlets = vec![("old/mail".to_owned(), records::OutletRecord { delivered: 1, ..Default::default() })];
    let commit = NoticeCommit { queued, outlets, now, ..NoticeCommit::default() };
    bed.broker.ledger.step_notices(commit).await.expect("writes");
    bed.broker.forget_gone_outlets().await.expect("removes");
    assert!(bed.broker.ledger.notices("", &[], 9).expect("reads").0.is_empty());
    assert!(bed.broker.ledger.outlets().expect("reads").is_empty());
    assert_eq!(bed.told("notify.failed").await[0].details, ["route=old", "channel=mail", "messages=1"]);
}

#[tokio::test]
async fn routes_are_shown_to_who_sees_everything_only() {
    let bed = Bed::new().await;
    let more = "[[operator]]\nname = \"one\"\nrole = \"admin\"\ntenants = [\"acme\"]\npartners = \"all\"\n";
    apply(&bed.broker, &format!("{TRUST}\n{more}")).await;
    let receiver = Receiver::start(bed.folder.path()).await;
    let webhook = Some(receiver.webhook(bed.folder.path()));
    bed.routes(vec![Route { webhook, ..route("own", &["owner@example.com"]) }], None);
    let one = crate::broker::testing::operator("one");
    assert!(bed.broker.list_notify_outlets(&one, &pb::ListNotifyOutletsRequest {}).is_err());
    let ask = pb::TestNotificationRequest { owner: "owner@example.com".into(), ..Default::default() };
    assert!(bed.broker.test_notification(&one, ask.clone()).await.is_err());
    let shown = bed.broker.list_notify_outlets(&admin(), &pb::ListNotifyOutletsRequest {}).expect("lists").outlets;
    assert_eq!(shown[0].target, format!("localhost:{}", receiver.port));
    assert!(!format!("{shown:?}").contains("hunter2"));
    let tested = bed.broker.test_notification(&admin(), ask).await.expect("answers");
    assert!(tested.results[0].delivered, "{tested:?}");
    let [one] = receiver.posted().try_into().expect("one");
    assert_eq!((one.header("webhook-id"), &one.body["data"]["test"]), (tested.message_id.as_str(), &true.into()));
    assert_eq!(bed.told("notify.tested").await.len(), 1);
}
