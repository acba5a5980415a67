//! docs/ci.md, and the two sections of the README that lead to a CI job, command by command.

use std::{collections::BTreeMap, net::TcpListener, path::PathBuf};

use super::rig::Work;
use crate::{
    local_issuer::LocalIssuer,
    process::exec::{federated::runner, rig::Run},
    signer::{self, Signer},
};

/// The shell blocks of the page, by the name in front of each.
fn blocks() -> BTreeMap<String, String> {
    let page = std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/ci.md")).expect("reads");
    let mut found = BTreeMap::new();
    for part in page.split("<!-- run: ").skip(1) {
        let (name, rest) = part.split_once(" -->\n```sh\n").expect("a shell block after its name");
        let (block, _) = rest.split_once("\n```").expect("its end");
        found.insert(name.to_owned(), block.to_owned());
    }
    assert_eq!(page.matches("```sh").count(), found.len(), "a block that is not run");
    found
}

/// The shell blocks of a section of the README, in their order.
fn section(name: &str) -> Vec<String> {
    let page = std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("reads");
    let (_, rest) = page.split_once(&format!("\n### {name}\n")).expect("a section");
    let rest = rest.split("\n## ").next().and_then(|rest| rest.split("\n### ").next()).expect("its end");
    let blocks = rest.split("```sh\n").skip(1).map(|part| part.split("\n```").next().expect("its end").to_owned());
    blocks.collect()
}

/// The address of a service of this machine, when it listens.
fn listening(port: u16) -> String {
    format!("for i in $(seq 400); do (: < /dev/tcp/localhost/{port}) 2>/dev/null && break; sleep 0.05; done")
}

/// Two ports that are free now.
fn ports() -> (u16, u16) {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let [one, other] = listeners.map(|listener| listener.local_addr().expect("bound").port());
    (one, other)
}

fn has_programs() -> bool {
    let has = |program: &str| std::process::Command::new(program).arg("--version").output().is_ok();
    let all = ["bash", "curl", "openssl"].into_iter().all(has);
    if !all {
        eprintln!("skipped: there is no bash, curl or openssl");
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_who_follows_the_page_gets_there() {
    if !has_programs() {
        return;
    }
    let signer = Signer::new();
    let local = LocalIssuer::start(&signer.key_set()).await;
    let mut claims = signer::github(mayfly::model::time::system_wall().seconds());
    claims["iss"] = serde_json::json!(local.url);
    let work = Work::new();
    std::fs::write(work.path("issuer-ca.pem"), &local.ca_pem).expect("written");
    // The page's issuer and ports, as they are here.
    let (broker, service) = ports();
    let kind = format!("kind = \"github\"\nallow_private = true\nca_file = {:?}\nurl", work.path("issuer-ca.pem"));
    let here = |text: &str| {
        let text = text.replace("https://token.actions.githubusercontent.com", &local.url);
        text.replace("\nurl =", &format!("\n{kind} ="))
            .replace("7443", &broker.to_string())
            .replace("8443", &service.to_string())
    };
    let blocks = blocks();
    let block = |name: &str| here(&blocks[name]);
    // What stays in a terminal of its own stays in the background; it goes with this one's process group.
    let ready = "for i in $(seq 400); do grep -q 'ready https' broker.log && break; sleep 0.05; done";
    let open = listening(service);
    let script = format!(
        "set -e\n(\n{}\n) > broker.log 2>&1 &\n{ready}\n{}\n{}\n(\n{}\n) > service.log 2>&1 &\n{open}\n{}\n{}\necho arrived\n",
        block("broker"),
        block("trust"),
        block("file"),
        block("service"),
        block("job"),
        block("after"),
    );
    let mut command = work.command("bash");
    command.args(["-c", &script]).env("MAYFLY_SERVER", format!("https://127.0.0.1:{broker}"));
    command.env("MAYFLY_JOB_STATE", work.path("temp/state.json")).env("GITHUB_ACTIONS", "true");
    let url = runner(vec![signer.rs256(&claims)]);
    command.env("ACTIONS_ID_TOKEN_REQUEST_URL", url).env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "runners-own");
    let run = Run::start(command);
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line| line != "arrived") {
        let Some(line) = run.next() else { break };
        lines.push(line);
    }
    let text = lines.join("\n");
    let logs = ["broker.log", "service.log"].map(|name| std::fs::read_to_string(work.path("work").join(name)));
    assert_eq!(lines.last().map(String::as_str), Some("arrived"), "{text}\n{logs:?}\n{}", run.kill_and_errors());
    assert!(text.contains("the copy is dead") && text.contains("completed"), "{text}");
    assert!(std::fs::metadata(work.path("work/page.html")).is_ok_and(|page| page.len() > 100));
    assert!(work.left_behind().is_empty(), "{:?}", work.left_behind());
}

#[test]
fn the_readme_leads_from_nothing_to_a_job_that_leaves_nothing_behind() {
    if !has_programs() {
        return;
    }
    let (work, (broker, service)) = (Work::new(), ports());
    let here = |text: &str| {
        let text = text.replace("mayfly serve --dev", &format!("mayfly serve --dev --port {broker}"));
        text.replace("8443", &service.to_string())
    };
    // What the page lets fail is to fail, and nothing else.
    let mut script = "trap 'echo \"failed: $BASH_COMMAND\"' ERR\n".to_owned();
    for (at, block) in section("Protect a service of your own")
        .iter()
        .chain(&section("In a CI job"))
        .map(|block| here(block))
        .enumerate()
    {
        let terminal = [("mayfly serve", broker), ("openssl s_server", service)];
        match terminal.into_iter().find(|(program, _)| block.contains(program)) {
            // What stays in a terminal of its own stays in the background; it goes with this one's process group.
            Some((_, port)) => script += &format!("(\n{block}\n) > terminal-{at}.log 2>&1 &\n{}\n", listening(port)),
            None => script += &format!("{block}\n"),
        }
    }
    script += "echo arrived\n";
    let mut command = work.command("bash");
    command.args(["-c", &script]).env("MAYFLY_SERVER", format!("https://127.0.0.1:{broker}"));
    let run = Run::start(command);
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line| line != "arrived") {
        let Some(line) = run.next() else { break };
        lines.push(line);
    }
    let (text, errors) = (lines.join("\n"), run.kill_and_errors());
    assert_eq!(lines.last().map(String::as_str), Some("arrived"), "{text}\n{errors}");
    let failed: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("failed: ")).collect();
    let introspect = "mayfly --identity shop introspect";
    let bound = "--audience https://shop.example --presented \"$presented\"";
    let want = [
        format!("{introspect} token --audience https://shop.example"),
        format!("{introspect} token {bound}"),
        format!("{introspect} copy {bound}"),
    ];
    assert_eq!(failed, want, "{text}\n{errors}");
    assert!(text.contains("completed") && text.contains("worker"), "{text}");
    assert!(std::fs::metadata(work.path("work/page.html")).is_ok_and(|page| page.len() > 100));
    assert!(std::fs::read_to_string(work.path("work/copy")).is_ok_and(|copy| copy.starts_with("eyJ")));
    assert!(work.left_behind().is_empty(), "{:?}", work.left_behind());
}
