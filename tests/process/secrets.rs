//! Static secrets and one-time pickup as people use them: the real program, from the operator's file to the job.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use mayfly::pb::{self, ApplyOptions, CredentialKind};

use super::{
    backup,
    exec::rig::{Bench, Run, content},
    rig::{Said, arg, get_plain, mayfly, reason},
    world::{World, request},
};

/// The world, in which alpha's worker may have `vendor` for the purpose `pay`, and its operator's folder.
async fn world() -> (World, PathBuf) {
    let world = World::configured("[telemetry]\nlog = \"trace\"\n").await;
    let operator = trusting(&world).await;
    (world, operator)
}

/// Adds the grant to a world; the folder of its first operator.
async fn trusting(world: &World) -> PathBuf {
    world.apply(&with_vendor(&world.trust), ApplyOptions::default()).await.expect("applies");
    world.launch.data().join("operator")
}

/// The trust map, in which alpha's worker may have `vendor` for the purpose `pay`.
pub fn with_vendor(trust: &str) -> String {
    let grant = |text: &str| {
        let from = text.find("[[grant]]\ntenant = \"alpha\"").expect("alpha's grant");
        let rest = &text[from..];
        rest[..rest[9..].find("[[").map_or(rest.len(), |end| end + 9)].to_owned()
    };
    let pay = grant(trust)
        .replace("name = \"report\"", "name = \"pay\"")
        .replace("purposes = [\"report\"]", "purposes = [\"pay\"]")
        .replace("kinds = [\"jwt\", \"opaque\", \"x509\"]", "kinds = [\"secret\"]\nsecrets = [\"vendor\"]");
    format!("{trust}\n{pay}")
}

/// What alpha's worker asks for to have it.
pub fn vendor_request() -> pb::IssueRequest {
    pb::IssueRequest {
        purpose: "pay".into(),
        secret: "vendor".into(),
        audiences: Vec::new(),
        actions: Vec::new(),
        binding: 0,
        ..request("alpha", CredentialKind::Secret)
    }
}

fn file(folder: &Path, name: &str, value: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, format!("{value}\n")).expect("written");
    path
}

fn put(world: &World, operator: &Path, value: &Path) -> Said {
    let said = ["secret", "put", "alpha/vendor", "--partner", "courier", "--owner", "pay@example.com"];
    let more = ["--purpose", "charges", "--reason", "first", "--file", arg(value)];
    world.process.ask(operator, &[&said[..], &more].concat())
}

fn holders(world: &World, operator: &Path, more: &[&str]) -> Vec<serde_json::Value> {
    let said =
        world.process.ask(operator, &[&["--output", "json", "secret", "holders", "alpha/vendor"], more].concat());
    assert_eq!(said.code, 0, "{said:?}");
    said.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Every file below a folder that holds one of the texts, as it is, reversed in base64 or as numbers.
fn files_with(folder: &Path, texts: &[&str], found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("listed").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files_with(&path, texts, found);
            continue;
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        let holds = |text: &&str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        if texts.iter().any(holds) {
            found.push(path);
        }
    }
}

const FIRST: &str = "sk-vendor-first-3f9c1d7e5b";
const SECOND: &str = "sk-vendor-second-8a2b6c4d0e";

#[tokio::test(flavor = "multi_thread")]
async fn a_vendors_key_reaches_its_job_and_everybody_who_had_it_is_known_and_it_shows_nowhere_else() {
    let (mut world, operator) = world().await;
    let bench = Bench::new(&world).await;
    let (first, second) = (file(bench.folder.path(), "first", FIRST), file(bench.folder.path(), "second", SECOND));
    let said = put(&world, &operator, &first);
    assert!(said.code == 0 && !said.out.contains(FIRST), "{said:?}");

    let mut command = bench.bare();
    command.args(["--tenant", "alpha", "--partner", "courier", "--purpose", "pay", "--mask"]);
    command.args(["--credential", "name=vendor,secret=vendor,ttl=6s,env=VENDOR_KEY,file=key", "--", "sh", "-c"]);
    command.arg(
        "printf %s \"$VENDOR_KEY\" > env; cp \"$MAYFLY_FILE_VENDOR\" seen; echo \"it is $VENDOR_KEY.\"; \
         while ! grep -q second \"$MAYFLY_FILE_VENDOR\"; do sleep 0.05; done; cp \"$MAYFLY_FILE_VENDOR\" later; echo done",
    );
    let job = Run::start(command);
    assert_eq!(job.line(), "it is ***.");
    assert_eq!(
        (content(&bench.path("env")).await.as_str(), content(&bench.path("seen")).await.as_str()),
        (FIRST, FIRST)
    );
    for process in std::fs::read_dir("/proc").expect("listed").flatten() {
        let arguments = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&arguments).contains(FIRST), "in {:?}", process.path());
    }
    let live = holders(&world, &operator, &["--live"]);
    assert_eq!(live.len(), 1, "{live:?}");
    assert_eq!((&live[0]["version"], &live[0]["workload"]), (&1.into(), &"worker".into()), "{live:?}");

    // A rotation reaches the job that runs by the way on which it renews.
    let rotate = ["secret", "rotate", "alpha/vendor", "--reason", "leaked", "--file", arg(&second)];
    let said = world.process.ask(&operator, &rotate);
    assert!(said.code == 0 && said.errors.contains("1 task(s) hold the old version"), "{said:?}");
    assert_eq!(job.line(), "done");
    assert_eq!(content(&bench.path("later")).await, SECOND);
    assert_eq!(job.end().code, 0);
    let all = holders(&world, &operator, &[]);
    let told: Vec<_> = all.iter().map(|one| (one["version"].as_u64(), one["superseded"].as_bool())).collect();
    assert_eq!(told, [(Some(1), Some(true)), (Some(2), Some(false))], "{all:?}");
    assert_eq!(all[0]["task_id"], all[1]["task_id"]);

    let list = world.process.ask(&operator, &["secret", "list"]);
    let show = world.process.ask(&operator, &["secret", "show", "alpha/vendor"]);
    let events = world.process.ask(&operator, &["--output", "json", "events", "list", "--limit", "0"]);
    assert!(events.out.contains("secret.rotated") && events.out.contains("secret_version=2"), "{events:?}");
    let (_, metrics) = get_plain(world.process.metrics, "/metrics").await;
    assert!(world.process.stop().success());
    let log = world.process.log();
    assert!(log.contains("TRACE"), "the log is not at trace");
    let encoded = [FIRST, SECOND].map(|text| STANDARD.encode(text)).map(|text| text[..text.len() - 4].to_owned());
    let texts = [FIRST, SECOND, &encoded[0], &encoded[1]];
    for (place, text) in
        [("list", &list.out), ("show", &show.out), ("events", &events.out), ("metrics", &metrics), ("log", &log)]
    {
        assert!(!texts.iter().any(|secret| text.contains(secret)), "a value shows in the {place}");
    }
    let mut found = Vec::new();
    files_with(&world.launch.data(), &texts, &mut found);
    assert!(found.is_empty(), "a value lies in {found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_refused_with_its_mend_where_there_is_none_and_never_taken_from_arguments() {
    let (world, operator) = world().await;
    let bench = Bench::new(&world).await;
    let mut command = bench.bare();
    command.args(["--tenant", "alpha", "--partner", "courier", "--purpose", "pay"]);
    command.args(["--credential", "name=vendor,secret=vendor,env=K", "--", "true"]);
    let said = Run::start(command).end();
    assert!(said.code == 125 && said.errors.contains("SECRET_UNAVAILABLE"), "{said:?}");
    // What comes without a file comes from stdin, which is empty here.
    let base = ["secret", "put", "alpha/vendor", "--partner", "courier", "--owner", "o", "--purpose", "p"];
    let said = world.process.ask(&operator, &[&base[..], &["--reason", "r"]].concat());
    assert!(said.code == 2 && said.errors.contains("the value is empty"), "{said:?}");
    let said = mayfly(&[&base[..], &["--reason", "r", FIRST]].concat());
    assert!(said.code == 2, "{said:?}");
    let said = world.process.ask(&operator, &["secret", "show", "alpha/vendor"]);
    assert!(said.code == 1 && said.errors.contains("no secret"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_is_picked_up_once_by_another_process_and_a_second_time_says_so() {
    let (world, operator) = world().await;
    let bench = Bench::new(&world).await;
    let first = file(bench.folder.path(), "first", FIRST);
    assert_eq!(put(&world, &operator, &first).code, 0);
    let worker = bench.folder.path();
    let issue = |more: &[&str]| {
        let base = ["issue", "--tenant", "alpha", "--partner", "courier", "--pickup", "30s", "--pickup-by", "worker"];
        world.process.ask(worker, &[&base[..], more].concat())
    };
    let said = issue(&["--purpose", "pay", "--secret", "vendor"]);
    assert!(said.code == 0 && said.out.starts_with("mfp_") && !said.out.contains(FIRST), "{said:?}");
    std::fs::write(bench.path("handle"), &said.out).expect("written");
    let pickup = ["pickup", "--from", arg(&bench.path("handle"))].map(str::to_owned);
    let pickup: Vec<&str> = pickup.iter().map(String::as_str).collect();
    let got = world.process.ask(worker, &pickup);
    assert_eq!((got.code, got.out.as_str()), (0, FIRST), "byte by byte: {got:?}");
    let again = world.process.ask(worker, &pickup);
    assert!(again.code == 1 && again.errors.contains("PICKED_UP") && again.out.is_empty(), "{again:?}");
    // Never as an argument.
    let said = world.process.ask(worker, &["pickup", "--from", said.out.trim()]);
    assert!(said.code == 2 && !said.errors.contains("mfp_"), "{said:?}");

    let said = issue(&["--purpose", "report", "--kind", "x509", "--audience", "https://alpha.example"]);
    assert_eq!(said.code, 0, "{said:?}");
    std::fs::write(bench.path("handle"), &said.out).expect("written");
    let out = bench.path("tls");
    let got = world.process.ask(worker, &[&pickup[..], &["--out", arg(&out)]].concat());
    assert_eq!(got.code, 0, "{got:?}");
    let mode = |name: &str| out.join(name).metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!((mode("cert.pem"), mode("key.pem")), (0o600, 0o600));
    let events = world.process.ask(&operator, &["--output", "json", "events", "list", "--limit", "0"]);
    for kind in ["pickup.taken", "pickup.misused", "secret.needs_rotation"] {
        assert!(events.out.contains(kind), "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_outlives_a_restart_and_the_store_alone_does_not_open_what_waits() {
    let (mut world, _) = world().await;
    let wished = pb::IssueRequest {
        pickup: Some(pb::PickupWish { ttl_seconds: 600, workload: String::new() }),
        ..request("alpha", CredentialKind::Opaque)
    };
    let reply = world.broker("alpha").await.issue(wished).await.expect("issued").into_inner();
    let Some(pb::issue_response::Credential::Pickup(pickup)) = reply.credential else { panic!("no handle") };
    assert!(world.process.stop().success());
    let mut found = Vec::new();
    files_with(&world.launch.data(), &[&pickup.handle, "mfy_"], &mut found);
    assert!(found.is_empty(), "{found:?}");
    world.restart().await;
    let request = pb::PickupRequest { handle: pickup.handle };
    let got = world.broker("alpha").await.pickup(request).await.expect("picked up").into_inner();
    assert!(matches!(got.credential, Some(pb::issue_response::Credential::Token(text)) if text.starts_with("mfy_")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_carries_sealed_values_and_what_was_rotated_since_is_barred_after_its_restore() {
    let mut world = World::new().await;
    let operator = trusting(&world).await;
    let folder = world.launch.folder.clone();
    let (first, second) = (file(&folder, "first", FIRST), file(&folder, "second", SECOND));
    assert_eq!(put(&world, &operator, &first).code, 0);
    let made = backup::backup_of(&world);
    let bytes = std::fs::read(&made).expect("a backup");
    assert!(!bytes.windows(FIRST.len()).any(|part| part == FIRST.as_bytes()));
    let rotate = ["secret", "rotate", "alpha/vendor", "--reason", "leaked", "--file", arg(&second)];
    assert_eq!(world.process.ask(&operator, &rotate).code, 0);
    let events = folder.join("audit.jsonl");
    let exported = world.process.ask(&operator, &["events", "export", "--out", arg(&events)]);
    assert_eq!(exported.code, 0, "{exported:?}");
    world.process.kill();
    let elsewhere = folder.join("elsewhere");
    std::fs::create_dir(&elsewhere).expect("folder");
    let restored = backup::restore(&world, &made, &elsewhere.join("data"), "fjall", &["--events", arg(&events)]);
    let told = backup::said(&restored);
    assert!(restored.status.success() && told.contains("barred again: secret alpha/vendor"), "{told}");
    backup::serve(&mut world, &elsewhere).await;
    backup::confirm(&world).await;
    assert_eq!(reason(&world.broker("alpha").await.issue(vendor_request()).await), "BARRED");
    let operator = world.launch.data().join("operator");
    let lift = ["lift", "secret", "alpha/vendor", "--reason", "looked at"];
    let lifted = world.process.ask(&operator, &lift);
    assert_eq!(lifted.code, 0, "{lifted:?}");
    let reply = world.broker("alpha").await.issue(vendor_request()).await.expect("issued").into_inner();
    let Some(pb::issue_response::Credential::Secret(secret)) = reply.credential else { panic!("no secret") };
    assert_eq!((secret.version, secret.value.as_slice()), (1, FIRST.as_bytes()), "the backup's");
}
