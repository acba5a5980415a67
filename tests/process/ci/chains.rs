//! What happened to others, played again: code in a job that takes what it can read.

use base64::{Engine, engine::general_purpose::STANDARD};
use mayfly::{
    client::{FederatedCalls, Identity},
    pb,
};

use super::github::{Job, active, github, tokens};
use crate::process::{
    exec::rig::tasks,
    federated::{opening, under},
    rig::reason,
    world::is_active,
};

/// All that a process of the job's user finds: its environment, files, the runner's files, and the environments of others.
const HARVEST: &str = "env; cat \"$MAYFLY_DIR\"/token \"$MAYFLY_DIR\"/db/*.pem \"$GITHUB_ENV\" \"$GITHUB_STATE\" \
    \"$GITHUB_OUTPUT\" \"$RUNNER_TEMP\"/*; for p in /proc/[0-9]*; do tr '\\0' '\\n' < $p/environ; done; true";

/// March 2025, tj-actions and reviewdog: secrets of a job in its public log, twice in base64 so that nothing masks them.
/// September 2025, Shai-Hulud: an install script carries off what it finds, and uses it from elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn what_malware_carries_off_opens_nothing_more_during_the_job_and_nothing_at_all_after_it() {
    let setting = github().await;
    let identity_tokens = tokens(&setting, 1);
    let job = Job::new(&setting, identity_tokens.clone()).await;
    let Some(main) = job.action("main.js", &[]) else { return };
    assert_eq!(job.run(main).code, 0);
    let said = job.step(&format!("({HARVEST}) 2>/dev/null | base64 -w 0 | base64 -w 0"));
    let twice = STANDARD.decode(said.out.trim()).expect("base64");
    let loot = String::from_utf8_lossy(&STANDARD.decode(twice).expect("base64")).into_owned();
    let (env, state) = (job.file("env"), job.file("state"));
    let token = std::fs::read_to_string(&env["MAYFLY_FILE_API"]).expect("reads");
    assert!(loot.contains(&token) && loot.contains(&env["VENDOR_TOKEN"]), "the replay takes nothing");

    // The identity token is in no place that a step can read, and spent. The task is its holder's key's alone.
    assert!(!loot.contains(&identity_tokens[0]), "the identity token lies about");
    let thief = Identity::ephemeral().expect("a key");
    let spent = FederatedCalls::new(&identity_tokens[0]).expect("a token");
    assert_eq!(reason(&setting.job(&thief, &spent).await.open_task(opening()).await), "IDENTITY_TOKEN_SPENT");
    let [task] = tasks(&setting.world).await.try_into().expect("one task");
    let calls = FederatedCalls::default();
    calls.carry_task(&task.task_id, true).expect("an id");
    assert_eq!(reason(&setting.job(&thief, &calls).await.issue(under(&task)).await), "UNPROVEN");
    // A certificate of the broker's stands for the task that it was issued under, and for no other.
    let stolen = Identity::new(env["DB_CERT"].clone().into(), env["DB_KEY"].clone().into_bytes().into());
    let mut posing = setting.job(&stolen, &FederatedCalls::default()).await;
    let child = pb::OpenTaskRequest { hold: false, ..opening() };
    let child = posing.open_task(child).await.expect("below the task").into_inner().task.expect("a task");
    assert_eq!(child.parent_task_id, task.task_id, "a task that outlives the job's");
    let more = posing.issue(under(&task)).await.expect("the task's own").into_inner();
    assert!(is_active(&mut setting.world.verifier("alpha").await, &more).await);
    // Not from its own credentials either: a token for a service is no identity with the broker.
    let bearer = FederatedCalls::new(&token).expect("a token");
    let own = Identity::ephemeral().expect("a key");
    let refused = reason(&setting.job(&own, &bearer).await.open_task(opening()).await);
    assert!(refused.starts_with("IDENTITY_TOKEN_REFUSED") || refused == "UNPROVEN", "{refused}");

    // The worst it can do while the job runs is what the job itself may, or end it.
    assert!(active(&setting.world, &token).await);
    assert_eq!(job.run(job.action("post.js", &[]).expect("node")).code, 0);
    let [completed] = tasks(&setting.world)
        .await
        .into_iter()
        .filter(|known| known.task_id == task.task_id)
        .collect::<Vec<_>>()
        .try_into()
        .expect("the job's");
    assert_eq!(completed.end_reason(), pb::EndReason::Completed);
    assert!(tasks(&setting.world).await.iter().all(|task| task.standing() == pb::Standing::Ended));
    assert!(
        !is_active(&mut setting.world.verifier("alpha").await, &more).await,
        "what the thief obtained is good after the job"
    );
    for stolen in [&token, &env["VENDOR_TOKEN"]] {
        assert!(!active(&setting.world, stolen).await, "good after the job");
    }
    let leases = pb::ListLeasesRequest { tenant: "alpha".into(), ..Default::default() };
    let leases = setting.world.admin().await.list_leases(leases).await.expect("listed").into_inner().leases;
    assert!(leases.iter().all(|lease| lease.standing() == pb::Standing::Ended), "a certificate is alive");
    assert!(!std::path::Path::new(&state["state"]).exists() && job.work.left_behind().is_empty());
}
