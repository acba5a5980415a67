//! Shai-Hulud, September and November 2025: an install script of one package carried off the tokens that it found in CI, and
//! published other packages with them, which carried it further.
//!
//! Replayed: a job that publishes `left` within `mayfly exec` installs a dependency that was taken over. It wants `right`.

use mayfly::{
    client::{FederatedCalls, Identity},
    pb::{self, ApplyOptions, introspect_request::Credential as Presented, verifier_client::VerifierClient},
};

use crate::{
    process::{
        exec::{
            federated::{runner, started},
            rig::{Bench, all_over, content, tasks},
        },
        federated::{Setting, under},
        rig::{reason, until},
        world::{PARTNER, audience},
    },
    support::{Grant, Trust},
};

const RIGHT: &str = "https://index.example/right";

/// One grant a package: `left` is the job's, `right` another repository's. A task may derive ten credentials in all.
async fn registry() -> Setting {
    let setting = Setting::new().await;
    let mut more = Trust::default();
    more.verifier("index", "spiffe://platform.example/alpha/index", "platform", RIGHT, &["alpha"]);
    let mut grant = Trust::default();
    let workloads = &["right"];
    grant.grant(&Grant { tenant: "alpha", name: "right", partner: PARTNER, workloads, audience: RIGHT });
    let workload = "[[workload]]\ntenant = \"alpha\"\nname = \"right\"\nenvironment = \"prod\"\n\
                    [[workload.selectors]]\nissuer = \"github\"\n\
                    claims = { repository_id = \"75\", ref = \"refs/heads/main\" }\n";
    let left = setting.trust.replacen("task_max = 7200", "velocity = { derivations = 10 }\ntask_max = 7200", 1);
    let trust = [left, more.text().to_owned(), workload.to_owned(), grant.text().to_owned()].concat();
    setting.world.apply(&trust, ApplyOptions::default()).await.expect("applies");
    setting
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worm_in_the_job_that_publishes_one_package_reaches_no_other() {
    let setting = registry().await;
    let bench = Bench::new(&setting.world).await;
    let url = runner(vec![setting.signer.rs256(&setting.claims())]);
    let credentials = ["name=token,kind=jwt,file=token", "name=tls,kind=x509,file=tls"];
    // The install script: what it finds goes to where its maker collects.
    let script = "(env; cat \"$MAYFLY_DIR\"/token; echo; cat \"$MAYFLY_DIR\"/tls/cert.pem \"$MAYFLY_DIR\"/tls/key.pem) > loot; echo robbed; \
                  while ! test -e go; do sleep 0.05; done";
    let job = started(&url, &bench, &bench.exec(&credentials, &[], script));
    job.until("robbed");
    let loot = content(&bench.path("loot")).await;
    let token = loot.lines().find(|line| line.starts_with("eyJ")).expect("a token").to_owned();
    let pem = |label: &str| {
        let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----\n"));
        let parts = loot.split(&begin).skip(1).filter_map(|part| part.split(&end).next());
        parts.map(|part| format!("{begin}{part}{end}")).collect::<String>()
    };
    // What would give it another identity of this place is not there to be found.
    assert!(!loot.contains("ACTIONS_ID_TOKEN_REQUEST") && !loot.contains("runners-own"), "the runner's own");

    // 1. The token, at the index, for another package.
    let index = setting.world.channel(Some(&setting.world.identity("alpha/index"))).await;
    let mut index = VerifierClient::new(index);
    let mut takes = async |token: &str| {
        let credential = Some(Presented::Token(token.to_owned()));
        let request = pb::IntrospectRequest { credential, audience: RIGHT.into(), ..Default::default() };
        index.introspect(request).await.is_ok_and(|answer| answer.into_inner().active)
    };
    assert!(!takes(&token).await, "a token of `left` publishes `right`");

    // 2. The certificate, at the broker: for the other package, by its grant, in a task beside this one.
    let [task] = tasks(&setting.world).await.try_into().expect("one task");
    let (chain, key) = (pem("CERTIFICATE"), pem("PRIVATE KEY"));
    let stolen = Identity::new(chain.into_bytes(), key.into_bytes().into());
    let mut worm = setting.job(&stolen, &FederatedCalls::default()).await;
    let ask = |audience: &str| pb::IssueRequest { audiences: vec![audience.into()], ..under(&task) };
    assert_eq!(reason(&worm.issue(ask(RIGHT)).await), "AUDIENCE_NOT_GRANTED");
    let named = pb::IssueRequest { grant: "right".into(), ..ask(RIGHT) };
    assert_eq!(reason(&worm.issue(named).await), "WORKLOAD_NOT_GRANTED");
    let beside = pb::IssueRequest { task_id: String::new(), ..ask(RIGHT) };
    assert!(worm.issue(beside).await.is_err());

    // 3. More of what it has, as fast as it can, to outlive the job: that is noticed, and then the job's own is asleep too.
    let mine = audience("alpha");
    let mut obtained = Vec::new();
    let refused = loop {
        match worm.issue(ask(&mine)).await {
            Ok(reply) => obtained.push(reply.into_inner()),
            Err(status) => break reason::<()>(&Err(status)),
        }
        assert!(obtained.len() < 20, "nobody stops it");
    };
    assert_eq!((refused.as_str(), obtained.len()), ("SUSPENDED", 8));
    let mut shop = setting.world.verifier("alpha").await;
    for reply in &obtained {
        assert!(!crate::process::world::is_active(&mut shop, reply).await, "it goes on with what it has");
    }
    let events =
        pb::ListEventsRequest { kind_prefix: "task.suspended".into(), tenant: "alpha".into(), ..Default::default() };
    let told = async || {
        let told = setting.world.admin().await.list_events(events.clone()).await.expect("listed").into_inner().events;
        told.into_iter().find(|event| event.task_id == task.task_id && event.reason == "velocity")
    };
    until("an event", told).await;

    // 4. The report: its task ends, with the job and all that anybody has of it.
    let operator = setting.world.launch.data().join("operator");
    let revoked = setting.world.process.ask(&operator, &["revoke", "task", &task.task_id, "--reason", "a worm"]);
    assert_eq!(revoked.code, 0, "{revoked:?}");
    let said = job.end();
    assert!(said.code == 128 + 15 && said.errors.contains("revoked"), "{said:?}");
    assert_eq!(all_over(&setting.world).await, [pb::EndReason::Revoked]);
    assert!(
        worm.issue(ask(&mine)).await.is_err() && worm.open_task(crate::process::federated::opening()).await.is_err()
    );
    assert_eq!(setting.world.live().await, 0);

    // It got as far as the package that it was in: of `right` there never was a credential.
    let leases = pb::ListLeasesRequest { tenant: "alpha".into(), grant: "right".into(), ..Default::default() };
    let hops = setting.world.admin().await.list_leases(leases).await.expect("listed").into_inner().leases;
    assert!(hops.is_empty(), "{hops:?}");
}
