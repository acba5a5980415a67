//! What is given to other CI systems, line by line as it stands in its files.

use std::{os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use mayfly::{
    client::{FederatedCalls, Identity},
    pb,
};

use super::{
    github::{QUICK, active, job_file},
    rig::{Work, gone},
};
use crate::{
    process::{
        exec::rig::{Run, all_over, content, signal_to},
        federated::{Setting, opening},
        rig::{Said, reason},
    },
    signer::{self, AUDIENCE},
};

/// A job of a platform, with the variables that its runner sets.
struct Job {
    setting: Setting,
    work: Work,
    variables: Vec<(&'static str, String)>,
}

impl Job {
    async fn new(kind: &str, claims: &str, extra: &str) -> Self {
        let setting = Setting::of(kind, claims, &format!("{extra}{QUICK}")).await;
        let work = Work::new();
        let ca = std::fs::read(setting.world.launch.data().join("ca.pem")).expect("roots");
        std::fs::write(work.path("work/ca.pem"), ca).expect("written");
        std::fs::write(work.path("work/mayfly-job.toml"), job_file()).expect("written");
        let variables = vec![
            ("MAYFLY_SERVER", format!("https://{}", setting.world.process.address)),
            ("MAYFLY_CA", work.path("work/ca.pem").display().to_string()),
            ("MAYFLY_AUDIENCE", AUDIENCE.to_owned()),
            ("MAYFLY_JOB", "deploy".to_owned()),
            // In a folder that the rig looks into.
            ("MAYFLY_JOB_STATE", work.path("temp/state.json").display().to_string()),
        ];
        Self { setting, work, variables }
    }

    fn set(&mut self, more: &[(&'static str, String)]) {
        self.variables.extend(more.iter().cloned());
    }

    /// Lines in a shell of their own, as runners start one.
    fn shell(&self, lines: &[String]) -> Said {
        let mut command = self.work.command("sh");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.args(["-e", "-c", &lines.join("\n")]);
        Run::start(command).end()
    }

    /// The job ended, and nothing of it is left.
    async fn is_over(&self, tokens: &[&str], tasks: usize) {
        assert_eq!(all_over(&self.setting.world).await, vec![pb::EndReason::Completed; tasks]);
        for token in tokens {
            assert!(token.len() > 20 && !active(&self.setting.world, token).await);
        }
        assert!(self.work.left_behind().is_empty(), "{:?}", self.work.left_behind());
    }
}

fn file(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("integrations").join(name);
    std::fs::read_to_string(path).expect("reads")
}

/// The lines of a list in a YAML file.
fn list(text: &str, key: &str) -> Vec<String> {
    let after = text.lines().skip_while(|line| line.trim() != format!("{key}:")).skip(1);
    let items = after.map(str::trim).map_while(|line| line.strip_prefix("- ").map(str::to_owned));
    let found: Vec<String> = items.collect();
    assert!(!found.is_empty(), "nothing under {key}");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gitlab_component_holds_a_job_and_a_second_one_beside_it() {
    let mut job = Job::new("gitlab", "{ project_id = \"20\", ref_protected = \"true\" }", "").await;
    let token = job.setting.token(signer::gitlab, "gl-1");
    let temp = job.work.path("temp").display().to_string();
    job.set(&[("GITLAB_CI", "true".into()), ("MAYFLY_ID_TOKEN", token), ("TMPDIR", temp)]);
    let template = file("gitlab/templates/job.yml").replace("$[[ inputs.job ]]", "deploy");
    let template = template.replace("$[[ inputs.file ]]", "mayfly-job.toml");
    // A second start with the same static token: a key, a task and a state of its own.
    let second = "mayfly --output json job start --job deploy --state ../temp/second.json";
    let mut lines = list(&template, "before_script");
    let at = lines.len() - 1;
    lines.insert(at, second.to_owned());
    lines
        .push("test -z \"$MAYFLY_ID_TOKEN\" && echo \"kept:$VENDOR_TOKEN\" && test -r \"$MAYFLY_FILE_API\"".to_owned());
    let said = job.shell(&lines);
    assert_eq!(said.code, 0, "{said:?}");
    let kept = said.out.lines().find_map(|line| line.strip_prefix("kept:")).expect("a token").to_owned();
    assert!(active(&job.setting.world, &kept).await);
    // Another shell, as GitLab's runner starts one.
    let said = job.shell(&list(&template, "after_script"));
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!active(&job.setting.world, &kept).await);
    assert_eq!(job.shell(&["mayfly job finish --state ../temp/second.json".to_owned()]).code, 0);
    job.is_over(&[&kept], 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_gitlab_tokens_are_for_one_task_another_key_is_refused_and_a_dead_holder_is_no_error() {
    let claims = "{ project_id = \"20\", ref_protected = \"true\" }";
    let mut job = Job::new("gitlab", claims, "reuse = \"single\"\n").await;
    let token = job.setting.token(signer::gitlab, "gl-1");
    let temp = job.work.path("temp").display().to_string();
    job.set(&[("GITLAB_CI", "true".into()), ("MAYFLY_ID_TOKEN", token.clone()), ("TMPDIR", temp)]);
    let template = file("gitlab/templates/job.yml").replace("$[[ inputs.job ]]", "deploy");
    let template = template.replace("$[[ inputs.file ]]", "mayfly-job.toml");
    assert_eq!(job.shell(&list(&template, "before_script")).code, 0);
    let thief = job.shell(&["mayfly job start --job deploy --state ../temp/second.json".to_owned()]);
    assert!(thief.code != 0 && thief.errors.contains("IDENTITY_TOKEN_SPENT"), "{thief:?}");
    assert!(!thief.errors.contains(&token) && !job.work.path("temp/second.json").exists());
    let calls = FederatedCalls::new(&token).expect("a token");
    let mut elsewhere = job.setting.job(&Identity::ephemeral().expect("a key"), &calls).await;
    assert_eq!(reason(&elsewhere.open_task(opening()).await), "IDENTITY_TOKEN_SPENT");
    // The container of the script has ended, and the holder with it.
    let holder = job.work.holder().expect("held");
    signal_to(holder, rustix::process::Signal::KILL);
    gone(holder).await;
    let said = job.shell(&list(&template, "after_script"));
    assert!(said.code == 0 && said.errors.contains("within its grace time"), "{said:?}");
    assert_ne!(all_over(&job.setting.world).await, [pb::EndReason::Completed]);
    assert!(job.work.left_behind().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_buildkite_hooks_hold_a_job() {
    let mut job = Job::new("buildkite", "{ organization_id = \"0184990a\", pipeline_id = \"0184990b\" }", "").await;
    // The agent's own command, which gives a token for an audience.
    let token = job.setting.token(signer::buildkite, "bk-1");
    let agent = job.work.path("work/buildkite-agent");
    let script = format!("#!/bin/sh\ntest \"$*\" = 'oidc request-token --audience {AUDIENCE}' && echo '{token}'\n");
    std::fs::write(&agent, script).expect("written");
    std::fs::set_permissions(&agent, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let path = format!("{}:{}", job.work.path("work").display(), super::rig::path_with_mayfly());
    let temp = job.work.path("temp").display().to_string();
    job.set(&[("BUILDKITE", "true".into()), ("PATH", path), ("TMPDIR", temp)]);
    let said = job.shell(&[file("buildkite/pre-command"), "echo \"kept:$VENDOR_TOKEN\"".to_owned()]);
    assert_eq!(said.code, 0, "{said:?}");
    let kept = said.out.lines().find_map(|line| line.strip_prefix("kept:")).expect("a token").to_owned();
    assert!(active(&job.setting.world, &kept).await);
    assert_eq!(job.shell(&[file("buildkite/pre-exit")]).code, 0);
    job.is_over(&[&kept], 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_circleci_steps_hold_a_job() {
    let mut job = Job::new("circleci", "{ \"oidc.circleci.com/project-id\" = \"9b1c\" }", "").await;
    let bash_env = job.work.path("work/bash_env");
    std::fs::write(&bash_env, "export OTHER=1\n").expect("written");
    let token = job.setting.token(signer::circleci, "cc-1");
    let variable = bash_env.display().to_string();
    job.set(&[("CIRCLECI", "true".into()), ("CIRCLE_OIDC_TOKEN_V2", token), ("BASH_ENV", variable)]);
    let config = file("circleci/config.yml");
    let commands: Vec<&str> = config.lines().filter_map(|line| line.trim().strip_prefix("command: ")).collect();
    let [start, finish] = commands[..] else { panic!("{commands:?}") };
    assert_eq!(job.shell(&[start.to_owned()]).code, 0);
    let said = job.shell(&[". \"$BASH_ENV\"".to_owned(), "echo \"$OTHER$VENDOR_TOKEN\"".to_owned()]);
    let kept = said.out.trim().strip_prefix('1').expect("what was there before").to_owned();
    assert!(active(&job.setting.world, &kept).await);
    assert_eq!(job.shell(&[finish.to_owned()]).code, 0);
    job.is_over(&[&kept], 1).await;
    assert_eq!(content(&bash_env).await, "export OTHER=1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kubernetes_job_runs_within_a_task() {
    let claims = "{ \"kubernetes.io/namespace\" = \"payments\", \"kubernetes.io/serviceaccount/name\" = \"deployer\" }";
    let mut job = Job::new("kubernetes", claims, "").await;
    let manifest = file("kubernetes/job.yaml");
    let line = manifest.lines().find_map(|line| line.trim().strip_prefix("command: ")).expect("a command");
    let words: Vec<String> = serde_json::from_str(line).expect("a list");
    let projected = job.work.path("work/token");
    std::fs::write(&projected, job.setting.token(signer::kubernetes, "k8s-1")).expect("written");
    std::fs::write(job.work.path("work/deploy.sh"), "#!/bin/sh\necho \"kept:$VENDOR_TOKEN\"\n").expect("written");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(job.work.path("work/deploy.sh"), mode).expect("chmod");
    job.set(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1".into())]);
    // The paths of the pod, as they are here.
    let work = job.work.path("work").display().to_string();
    let mut command: Command = job.work.command(&words[0]);
    command.envs(job.variables.iter().map(|(name, value)| (name, value)));
    for word in &words[1..] {
        command.arg(word.replace("/etc/mayfly", &work));
        if word == "exec" {
            command.arg(format!("--id-token-file={}", projected.display()));
        }
    }
    let said = Run::start(command).end();
    assert_eq!(said.code, 0, "{said:?}");
    let kept = said.out.lines().find_map(|line| line.strip_prefix("kept:")).expect("a token").to_owned();
    job.is_over(&[&kept], 1).await;
}
