//! The action under real node, with the runner's files, its token service and its way of cancelling.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpListener,
    path::PathBuf,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use mayfly::pb::{self, introspect_request::Credential as Presented};
use rustix::process::{Pid, Signal, kill_process_group};

use super::rig::{Work, gone, lives, opened, runner_file};
use crate::{
    process::{
        exec::rig::{Door, Run, all_over, content, signal_to},
        federated::Setting,
        rig::{Said, until},
        world::{World, audience, introspect},
    },
    signer::{self, AUDIENCE},
};

/// Seconds: a killed job's task is over so soon.
pub const QUICK: &str = "[limits]\nhold_grace_seconds = 2\nheartbeat_seconds = 1\n";

/// One job on a runner of ours.
pub struct Job {
    pub work: Work,
    pub door: Door,
    tokens: Tokens,
    /// Where the action lies.
    pub action: PathBuf,
    /// Every line that any step has printed.
    pub log: Mutex<Vec<String>>,
}

/// A runner's token service.
struct Tokens {
    url: String,
    asked: Arc<AtomicUsize>,
    /// How many requests are answered; those beyond wait.
    answers: Arc<AtomicUsize>,
}

impl Tokens {
    fn start(tokens: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/token?api-version=2", listener.local_addr().expect("bound"));
        let (asked, answers) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(usize::MAX)));
        let (count, most) = (Arc::clone(&asked), Arc::clone(&answers));
        std::thread::spawn(move || {
            let mut waiting = Vec::new();
            let mut tokens = tokens.into_iter();
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut head = vec![0; 4096];
                let length = stream.read(&mut head).unwrap_or(0);
                // Whoever asks may have been killed before it did.
                if length == 0 {
                    continue;
                }
                let head = String::from_utf8_lossy(&head[..length]).to_ascii_lowercase();
                assert!(head.contains("audience=https%3a%2f%2fmayfly.example.com"), "{head}");
                assert!(head.contains("authorization: bearer runners-own-secret"), "{head}");
                if count.fetch_add(1, Ordering::SeqCst) >= most.load(Ordering::SeqCst) {
                    waiting.push(stream);
                    continue;
                }
                let Some(token) = tokens.next() else { return };
                let body = format!("{{\"value\":\"{token}\"}}");
                let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            }
        });
        Self { url, asked, answers }
    }
}

impl Job {
    pub async fn new(setting: &Setting, tokens: Vec<String>) -> Self {
        let work = Work::new();
        let ca = std::fs::read_to_string(setting.world.launch.data().join("ca.pem")).expect("roots");
        std::fs::write(work.path("work/ca.pem"), ca).expect("written");
        for name in ["env", "output", "state"] {
            std::fs::write(work.path(name), "").expect("written");
        }
        std::fs::write(work.path("work/mayfly-job.toml"), job_file()).expect("written");
        let door = Door::to(&setting.world).await;
        Self { work, door, tokens: Tokens::start(tokens), action: action_folder(), log: Mutex::default() }
    }

    /// What every step of a job with `id-token: write` has.
    fn environment(&self, command: &mut Command) {
        command.env("GITHUB_ACTIONS", "true").env("RUNNER_TEMP", self.work.path("temp"));
        command.env("ACTIONS_ID_TOKEN_REQUEST_URL", &self.tokens.url);
        command.env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "runners-own-secret");
        for (name, file) in [("GITHUB_ENV", "env"), ("GITHUB_OUTPUT", "output"), ("GITHUB_STATE", "state")] {
            command.env(name, self.work.path(file));
        }
        for (name, value) in self.file("env") {
            command.env(name, value);
        }
    }

    /// One of the action's two programs, as the runner starts it. `None` where there is no node.
    pub fn action(&self, program: &str, inputs: &[(&str, &str)]) -> Option<Command> {
        let has_node = Command::new("node").arg("--version").output().is_ok_and(|done| done.status.success());
        if !has_node {
            eprintln!("skipped: there is no node");
            return None;
        }
        let mut command = self.work.command("node");
        command.arg(self.action.join(program));
        self.environment(&mut command);
        let server = format!("https://{}", self.door.address);
        let all =
            [("server", server.as_str()), ("ca-file", "ca.pem"), ("audience", AUDIENCE), ("file", "mayfly-job.toml")];
        let given = [("path", env!("CARGO_BIN_EXE_mayfly")), ("job", "deploy"), ("wait", "20s")];
        for (name, value) in all.iter().chain(&given).chain(inputs) {
            command.env(format!("INPUT_{}", name.to_uppercase()), value);
        }
        for (name, value) in self.file("state") {
            command.env(format!("STATE_{name}"), value);
        }
        Some(command)
    }

    /// A `run:` step.
    pub fn step(&self, script: &str) -> Said {
        let mut command = self.work.command("sh");
        self.environment(&mut command);
        command.args(["-c", script]);
        self.end(Run::start(command))
    }

    /// What one of the runner's files says.
    pub fn file(&self, name: &str) -> BTreeMap<String, String> {
        runner_file(&std::fs::read_to_string(self.work.path(name)).expect("reads"))
    }

    pub fn end(&self, run: Run) -> Said {
        let said = run.end();
        let lines = said.out.lines().chain(said.errors.lines()).map(str::to_owned);
        self.log.lock().expect("unpoisoned").extend(lines);
        said
    }

    pub fn run(&self, command: Command) -> Said {
        self.end(Run::start(command))
    }

    /// No secret in the log, but in the lines that have it masked.
    pub fn shows_none_of(&self, secrets: &[&str]) {
        let log = self.log.lock().expect("unpoisoned");
        for line in log.iter().filter(|line| !line.starts_with("::add-mask::")) {
            for secret in secrets.iter().chain(&["runners-own-secret"]) {
                assert!(secret.len() > 7 && !line.contains(secret), "{line}");
            }
        }
    }

    pub fn holder(&self) -> Option<u32> {
        self.work.holder()
    }
}

pub fn action_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("integrations/github")
}

pub fn job_file() -> String {
    let credential = |name: &str, kind: &str, way: &str| {
        let audience = audience("alpha");
        format!(
            "[[job.deploy.credential]]\nname = \"{name}\"\nkind = \"{kind}\"\naudience = \"{audience}\"\nactions = [\"read\"]\n{way}\n"
        )
    };
    let head = "[job.deploy]\ntenant = \"alpha\"\npartner = \"courier\"\npurpose = \"report\"\n";
    head.to_owned()
        + &credential("api", "jwt", "file = \"token\"")
        + &credential("vendor", "opaque", "env = \"VENDOR_TOKEN\"")
        + &credential("db", "x509", "file = \"db\"\nenv = \"DB\"").replace("actions = [\"read\"]\n", "")
}

pub async fn github() -> Setting {
    Setting::of("github", "{ repository_id = \"74\", ref = \"refs/heads/main\" }", QUICK).await
}

pub fn tokens(setting: &Setting, count: usize) -> Vec<String> {
    (0..count).map(|at| setting.token(signer::github, &format!("gh-{at}"))).collect()
}

pub async fn active(world: &World, token: &str) -> bool {
    introspect(&mut world.verifier("alpha").await, Presented::Token(token.trim().into())).await.active
}

#[tokio::test(flavor = "multi_thread")]
async fn the_action_gives_a_job_what_it_needs_and_its_post_step_takes_it_away() {
    let setting = github().await;
    let all = tokens(&setting, 1);
    let job = Job::new(&setting, all.clone()).await;
    // What an earlier step set for all later ones does not decide who mayfly is or whom it trusts.
    let Some(mut main) = job.action("main.js", &[]) else { return };
    main.env("MAYFLY_ID_TOKEN", "another").env("MAYFLY_IDENTITY", "/elsewhere").env("MAYFLY_CA", "/elsewhere");
    let said = job.run(main);
    assert_eq!(said.code, 0, "{said:?}");
    let masks = said.out.lines().take_while(|line| line.starts_with("::add-mask::")).count();
    assert!(masks > 3 && said.out.lines().skip(masks).all(|line| line.starts_with("task ")), "{said:?}");

    let (env, output) = (job.file("env"), job.file("output"));
    assert!(env["DB_KEY"].starts_with("-----BEGIN PRIVATE KEY-----\n") && env["DB_KEY"].lines().count() > 3);
    assert_eq!(output["task-id"], env["MAYFLY_TASK_ID"]);
    let token = content(&PathBuf::from(&env["MAYFLY_FILE_API"])).await;
    assert!(active(&setting.world, &token).await && active(&setting.world, &env["VENDOR_TOKEN"]).await);
    let key_line = env["DB_KEY"].lines().nth(1).expect("a line").to_owned();
    for secret in [&token, &env["VENDOR_TOKEN"], &key_line] {
        assert!(said.out.contains(&format!("::add-mask::{secret}")), "not masked");
    }
    // A step uses them, and can have successors masked.
    let step = "test \"$(cat \"$MAYFLY_DIR/token\")\" && test \"$VENDOR_TOKEN\" && test -r \"$MAYFLY_FILE_DB/key.pem\" && exit 7";
    assert_eq!(job.step(step).code, 7);
    let state = &job.file("state")["state"];
    let masks = job.step(&format!("mayfly job add-mask --state '{state}'"));
    assert!(masks.code == 0 && masks.out.contains(&format!("::add-mask::{token}")), "{masks:?}");

    let holder = job.holder().expect("held");
    let said = job.run(job.action("post.js", &[]).expect("node"));
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!lives(holder) && job.work.left_behind().is_empty(), "{:?}", job.work.left_behind());
    assert_eq!(all_over(&setting.world).await, [pb::EndReason::Completed]);
    assert!(!active(&setting.world, &token).await && !active(&setting.world, &env["VENDOR_TOKEN"]).await);
    // The post step of a job that was finished already, or of one that never began.
    assert_eq!(job.run(job.action("post.js", &[]).expect("node")).code, 0);
    job.shows_none_of(&[&token, &env["VENDOR_TOKEN"], &key_line, &all[0]]);
    assert!(!setting.world.process.log().contains(&token));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_cancelled_leaves_nothing_in_whatever_phase() {
    let setting = github().await;
    let job = Job::new(&setting, tokens(&setting, 9)).await;
    let signals = [Signal::INT, Signal::TERM, Signal::KILL];
    // The platform does not answer: no task is there yet.
    job.tokens.answers.store(0, Ordering::SeqCst);
    for signal in signals {
        let asked = job.tokens.asked.load(Ordering::SeqCst);
        let Some(main) = job.action("main.js", &[]) else { return };
        let run = Run::start(main);
        until("a request", async || (job.tokens.asked.load(Ordering::SeqCst) > asked).then_some(())).await;
        cancelled(&job, run, signal).await;
    }
    assert_eq!(opened(&setting.world).await, 0);
    job.tokens.answers.store(usize::MAX, Ordering::SeqCst);
    // The broker does not.
    job.door.shut();
    for signal in signals {
        let run = Run::start(job.action("main.js", &[]).expect("node"));
        until("a holder", async || job.holder()).await;
        cancelled(&job, run, signal).await;
    }
    job.door.open(&setting.world);
    assert_eq!(opened(&setting.world).await, 0);
    // The steps run: the runner goes on to the post step, which is hurried, or killed with all of the job.
    for (at, signal) in signals.into_iter().enumerate() {
        std::fs::write(job.work.path("env"), "").expect("emptied");
        let said = job.run(job.action("main.js", &[]).expect("node"));
        assert_eq!(said.code, 0, "{said:?}");
        let (holder, token) = (job.holder().expect("held"), job.file("env")["VENDOR_TOKEN"].clone());
        if signal == Signal::KILL {
            // The runner's machine is cut off: nobody runs a post step, and nobody lives to complete.
            signal_to(holder, Signal::KILL);
            gone(holder).await;
        }
        let post = Run::start(job.action("post.js", &[]).expect("node"));
        let pid = post.pid();
        if signal != Signal::KILL && lives(pid) {
            signal_to(pid, signal);
        }
        let said = job.end(post);
        // A signal before node has begun to listen ends the post step: then the runner's end does it.
        if said.code != 0 {
            let said = job.run(job.action("post.js", &[]).expect("node"));
            assert_eq!(said.code, 0, "{said:?}");
        }
        gone(holder).await;
        assert!(job.work.left_behind().is_empty(), "{signal:?}: {:?}", job.work.left_behind());
        let ends = all_over(&setting.world).await;
        let killed = ends.iter().filter(|why| **why != pb::EndReason::Completed).count();
        assert_eq!((ends.len(), killed), (at + 1, usize::from(signal == Signal::KILL)), "{ends:?}");
        assert!(!active(&setting.world, &token).await);
    }
    job.shows_none_of(&["eyJhbGciOiJSUzI1NiI"]);
}

/// Ends a main step as the runner does, with all processes of the step where it kills, and looks at what is left.
async fn cancelled(job: &Job, run: Run, signal: Signal) {
    let holder = job.holder();
    let group = Pid::from_raw(i32::try_from(run.pid()).expect("a process id")).expect("not zero");
    if signal == Signal::KILL {
        kill_process_group(group, signal).expect("ours");
    } else {
        signal_to(run.pid(), signal);
    }
    let said = job.end(run);
    assert_ne!(said.code, 0, "{said:?}");
    if let Some(holder) = holder {
        gone(holder).await;
    }
    until("an empty place", async || job.work.left_behind().is_empty().then_some(())).await;
    // What the runner would have read of it holds no secret.
    assert!(job.file("env").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_ends_with_the_runner_that_was_killed() {
    let setting = github().await;
    let job = Job::new(&setting, tokens(&setting, 1)).await;
    let Some(main) = job.action("main.js", &[]) else { return };
    // A process in the runner's place, with the action below it.
    let mut runner = job.work.command("node");
    runner.envs(main.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let script = "require('child_process').spawnSync(process.execPath, [process.argv[1]], {stdio: 'inherit'}); \
                  console.log('ready'); process.stdin.resume()";
    runner.args(["-e", script]).args(main.get_args());
    let (runner, keys) = Run::with_keys(runner);
    runner.until("ready");
    let holder = job.holder().expect("held");
    let token = job.file("env")["VENDOR_TOKEN"].clone();
    assert!(active(&setting.world, &token).await);
    runner.signal(Signal::KILL);
    gone(holder).await;
    drop(keys);
    assert!(!active(&setting.world, &token).await);
    assert_eq!(all_over(&setting.world).await, [pb::EndReason::Completed]);
    until("an empty place", async || job.work.left_behind().is_empty().then_some(())).await;
}
