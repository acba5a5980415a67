//! Notifications of a running daemon: signed, kept through an outage and a crash, and told apart by their ids.

use std::{
    collections::BTreeSet,
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use base64::{Engine, engine::general_purpose::STANDARD};
use mayfly::pb;
use ring::hmac;
use rustls::ServerConfig;
use serde_json::Value;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::{
    rig::{Said, until},
    world::{PARTNER, World},
};

const SECRETS: [&str; 2] = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"];

/// Every owner's office: one port for webhooks, one for mail, both over TLS.
struct Office {
    ports: [u16; 2],
    away: Arc<AtomicBool>,
    /// Ids and bodies, those that were refused among them.
    posted: Arc<Mutex<Vec<(String, Value)>>>,
    mail: Arc<Mutex<Vec<String>>>,
    serving: [JoinHandle<()>; 2],
}

impl Drop for Office {
    fn drop(&mut self) {
        self.serving.iter().for_each(JoinHandle::abort);
    }
}

impl Office {
    async fn open(folder: &Path) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]);
        let made = made.expect("certificate");
        std::fs::write(folder.join("office.pem"), made.cert.pem()).expect("written");
        for (name, text) in [("secrets", SECRETS.join("\n")), ("password", "hunter2\n".to_owned())] {
            std::fs::write(folder.join(name), text).expect("written");
            std::fs::set_permissions(folder.join(name), Permissions::from_mode(0o600)).expect("mode");
        }
        let key = made.signing_key.serialize_der().try_into().expect("key");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("certificate and key");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (away, posted, mail) = (Arc::default(), Arc::default(), Arc::default());
        let hooks = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let letters = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let ports = [&hooks, &letters].map(|one| one.local_addr().expect("address").port());
        let by_hook = {
            let (acceptor, away, posted) = (acceptor.clone(), Arc::clone(&away), Arc::clone(&posted));
            tokio::spawn(async move {
                while let Ok((socket, _)) = hooks.accept().await {
                    let Ok(stream) = acceptor.accept(socket).await else { continue };
                    take_post(&mut BufReader::new(stream), &away, &posted).await;
                }
            })
        };
        let by_mail = {
            let (away, mail) = (Arc::clone(&away), Arc::clone(&mail));
            tokio::spawn(async move {
                while let Ok((socket, _)) = letters.accept().await {
                    if away.load(Ordering::SeqCst) {
                        continue;
                    }
                    let Ok(stream) = acceptor.accept(socket).await else { continue };
                    take_mail(&mut BufReader::new(stream), &mail).await;
                }
            })
        };
        Self { ports, away, posted, mail, serving: [by_hook, by_mail] }
    }

    fn config(&self, folder: &Path, owner: &str) -> String {
        let file = |name: &str| folder.join(name);
        format!(
            "[limits]\nhold_grace_seconds = 2\nheartbeat_seconds = 1\n\
             [notify.smtp]\nhost = \"127.0.0.1\"\nport = {}\nfrom = \"mayfly@example.com\"\nusername = \"mayfly\"\n\
             password_file = {:?}\nca_file = {:?}\nallow_private = true\n\
             [[notify.route]]\nname = \"office\"\nowners = [{owner:?}]\nmail = [{owner:?}]\n\
             [notify.route.webhook]\nurl = \"https://localhost:{}/hook?key=hunter2\"\nsecret_file = {:?}\n\
             ca_file = {:?}\nallow_private = true\n",
            self.ports[1],
            file("password"),
            file("office.pem"),
            self.ports[0],
            file("secrets"),
            file("office.pem"),
        )
    }

    fn posted(&self) -> Vec<(String, Value)> {
        self.posted.lock().unwrap().clone()
    }
}

async fn take_post(
    stream: &mut (impl AsyncBufRead + AsyncWrite + Unpin),
    away: &AtomicBool,
    posted: &Mutex<Vec<(String, Value)>>,
) {
    let (mut head, mut line) = (Vec::new(), String::new());
    while stream.read_line(&mut line).await.unwrap_or(0) > 2 {
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        head.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        line.clear();
    }
    let header =
        |wanted: &str| head.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone()).unwrap_or_default();
    let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
    if stream.read_exact(&mut body).await.is_err() {
        return;
    }
    let (id, at, signatures) = (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"));
    let signed = [format!("{id}.{at}.").as_bytes(), &body].concat();
    let good = SECRETS.iter().all(|secret| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(&secret[6..]).expect("base64"));
        let mine = format!("v1,{}", STANDARD.encode(hmac::sign(&key, &signed)));
        signatures.split(' ').any(|one| one == mine)
    });
    if good {
        posted.lock().unwrap().push((id, serde_json::from_slice(&body).expect("JSON")));
    }
    let status = if !good || away.load(Ordering::SeqCst) { "503 Away" } else { "204 No Content" };
    let _gone = stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await;
    let _gone = stream.flush().await;
}

async fn take_mail(stream: &mut (impl AsyncBufRead + AsyncWrite + Unpin), mail: &Mutex<Vec<String>>) {
    let (mut answer, mut text, mut is_text) = ("220 here\r\n", String::new(), false);
    loop {
        if stream.write_all(answer.as_bytes()).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        answer = match line.trim_end() {
            "." if is_text => {
                is_text = false;
                mail.lock().unwrap().push(std::mem::take(&mut text));
                "250 taken\r\n"
            }
            _ if is_text => {
                text.push_str(&line);
                ""
            }
            "DATA" => {
                is_text = true;
                "354 go on\r\n"
            }
            line if line.starts_with("EHLO") => "250-here\r\n250 AUTH PLAIN\r\n",
            line if line.starts_with("AUTH PLAIN") && line.ends_with(&STANDARD.encode("\0mayfly\0hunter2")) => {
                "235 welcome\r\n"
            }
            line if line.starts_with("AUTH") => "535 no\r\n",
            _ => "250 ok\r\n",
        };
    }
}

fn operate(world: &World, arguments: &[&str]) -> Said {
    world.process.ask(&world.launch.data().join("operator"), arguments)
}

fn records(world: &World, arguments: &[&str]) -> Vec<Value> {
    let said = operate(world, &[&["--output", "json"], arguments].concat());
    assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
    said.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_hears_of_an_abandoned_job_though_office_and_broker_were_down() {
    let folder = tempfile::tempdir().expect("folder");
    let office = Office::open(folder.path()).await;
    let owner = "owner@example.com";
    let mut world = World::configured(&office.config(folder.path(), owner)).await;
    office.away.store(true, Ordering::SeqCst);
    let open = pb::OpenTaskRequest {
        tenant: "alpha".into(),
        partner: PARTNER.into(),
        purpose: "report".into(),
        hold: true,
        job_url: "https://ci.example/jobs/7".into(),
        ..Default::default()
    };
    // Nobody holds it.
    let task = world.broker("alpha").await.open_task(open).await.expect("opened").into_inner().task.expect("a task");
    let failing = || async {
        let outlets = records(&world, &["notify", "status"]);
        outlets.iter().all(|one| one["failing_since"].is_string() && one["waiting"] == 1).then_some(outlets)
    };
    let outlets = until("both ways to fail", failing).await;
    assert!(outlets[0]["last_error"].as_str().expect("an error").contains("503"), "{outlets:?}");
    world.process.kill();
    world.restart().await;
    office.away.store(false, Ordering::SeqCst);
    let told = || async {
        let outlets = records(&world, &["notify", "status"]);
        outlets.iter().all(|one| one["waiting"] == 0 && one["failing_since"].is_null()).then_some(())
    };
    until("everything to be told", told).await;

    let posted = office.posted();
    let abandoned: Vec<_> = posted.iter().filter(|(_, body)| body["type"] == "task.abandoned").collect();
    let ids: BTreeSet<_> = abandoned.iter().map(|(id, _)| id).collect();
    assert!(abandoned.len() >= 2 && ids.len() == 1, "{posted:?}");
    let item = &abandoned[0].1["data"]["items"][0];
    assert_eq!(
        (&item["task_id"], &item["job_url"]),
        (&task.task_id.as_str().into(), &"https://ci.example/jobs/7".into())
    );
    let mail = office.mail.lock().unwrap().clone();
    let one = mail.iter().find(|text| text.contains("a job left its task behind")).expect("a mail");
    assert!(one.contains(abandoned[0].0.as_str()), "mail and webhook have one id: {one}");
    let listed = records(&world, &["task", "list", "--abandoned"]);
    assert_eq!((listed.len(), &listed[0]["job_url"]), (1, &"https://ci.example/jobs/7".into()));

    let tested = operate(&world, &["notify", "test", "--owner", owner]);
    assert!(tested.code == 0 && tested.out.contains("webhook") && tested.out.contains("mail"), "{tested:?}");
    office.away.store(true, Ordering::SeqCst);
    let tested = operate(&world, &["notify", "test", "--route", "office"]);
    assert!(tested.code == 1 && tested.out.contains("503"), "{tested:?}");
    let log = world.process.log();
    assert!(!log.contains("hunter2") && !log.contains("whsec_") && !tested.out.contains("hunter2"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_nobody_manages_are_imported_whole_or_not_at_all() {
    let world = World::new().await;
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("keys.csv");
    let path = file.to_str().expect("UTF-8");
    let head = "tenant,name,kind,owner,location,expires\n";
    let secret = concat!("ghp", "_0123456789abcdefABCDEF0123456789abcd");
    let text =
        format!("{head}alpha,one,api-key,o@example.com,vault,2099-01-01\nnobody,two,api-key,,,\nalpha,TWO,cookie,,,\n");
    std::fs::write(&file, &text).expect("written");
    let said = operate(&world, &["unmanaged", "import", path, "--reason", "inventory"]);
    for want in [":3: `tenant`", ":4: `name`", ":4: `kind`", "nothing was imported"] {
        assert!(said.code == 1 && said.errors.contains(want), "{want}: {said:?}");
    }
    std::fs::write(&file, format!("{head}alpha,one,api-key,,{secret},\n")).expect("written");
    let said = operate(&world, &["unmanaged", "import", path, "--reason", "inventory"]);
    assert!(said.code == 2 && said.errors.contains("line 2") && !said.errors.contains(secret), "{said:?}");
    assert!(records(&world, &["unmanaged", "list"]).is_empty());
    let json = "[{\"tenant\": \"alpha\", \"name\": \"one\", \"kind\": \"test-token\"}]";
    std::fs::write(&file, json).expect("written");
    let done = records(&world, &["unmanaged", "import", path, "--reason", "inventory"]);
    assert_eq!(done[0]["added"], 1);
    let shown = records(&world, &["inventory", "--tenant", "alpha"]);
    let one = shown.iter().find(|one| one["kind"] == "test-token").expect("in the inventory");
    assert!(one["reasons"].as_array().expect("a list").contains(&"no owner".into()), "{one}");
    let said = operate(&world, &["unmanaged", "remove", "alpha/one", "--reason", "ended"]);
    assert_eq!(said.code, 0, "{said:?}");
    let events = records(&world, &["events", "list", "--kind", "unmanaged."]);
    assert_eq!(events.len(), 2, "{events:?}");
}
