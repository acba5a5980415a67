//! reviewdog/action-setup (CVE-2025-30154) and tj-actions/changed-files (CVE-2025-30066), March 2025: one action's token
//! was used to change the next, and each wrote the memory of the job's runner into its public log, twice in base64.
//!
//! Replayed: a step within `mayfly exec` that was taken over does so, in the form of then and in one that nothing masks.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use mayfly::{
    client::{FederatedCalls, Identity},
    pb::{self, introspect_request::Credential as Presented},
};

use crate::process::{
    exec::{
        federated::{runner, started},
        rig::{Bench, all_over, tasks},
    },
    federated::{Setting, opening},
    rig::reason,
    world::introspect,
};

/// All that the step finds, in one line: its environment, its files, the environments of others, the descriptors it has.
const DUMP: &str =
    "dump() { env; cat \"$MAYFLY_DIR\"/token; for p in /proc/[0-9]*; do tr '\\0' '\\n' < $p/environ; done; }";

/// What stands in a text of base64 in base64, wherever a reader begins.
fn decoded_twice(text: &str) -> Vec<String> {
    let once = |text: &str| -> Vec<Vec<u8>> {
        let plain = |part: &str| part.bytes().filter(|b| b.is_ascii_alphanumeric() || b"+/".contains(b)).collect();
        let texts: Vec<Vec<u8>> = text.split("***").map(plain).collect();
        let from = |text: &[u8], at: usize| {
            let rest = text.get(at..)?;
            STANDARD_NO_PAD.decode(&rest[..rest.len() - rest.len() % 4]).ok()
        };
        texts.iter().flat_map(|text| (0..4).filter_map(|at| from(text, at))).collect()
    };
    let lossy = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    once(text).into_iter().map(lossy).flat_map(|text| once(&text)).map(lossy).collect()
}

fn from_hex(text: &str) -> String {
    let digits: Vec<char> = text.trim().chars().collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).expect("hex");
    String::from_utf8(digits.chunks(2).map(byte).collect()).expect("UTF-8")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_step_writes_into_a_public_log_opens_no_next_door() {
    let setting = Setting::new().await;
    let bench = Bench::new(&setting.world).await;
    let identity_token = setting.signer.rs256(&setting.claims());
    let url = runner(vec![identity_token.clone()]);
    let credentials = ["name=a,kind=opaque,env=T", "name=b,kind=jwt,file=token"];
    let script = format!(
        "{DUMP}; dump 2>/dev/null | base64 -w 0 | base64 -w 0; echo; for t in \"$T\" \"$(cat \"$MAYFLY_DIR/token\")\"; do \
         printf %s \"$t\" | od -An -v -tx1 | tr -d ' \\n'; echo; done; while ! test -e go; do sleep 0.05; done"
    );
    let job = started(&url, &bench, &bench.exec(&credentials, &["--mask"], &script));
    let (log, first, second) = (job.line(), from_hex(&job.line()), from_hex(&job.line()));

    // 1. In the form of March 2025 the log shows nothing, wherever one begins to read.
    let found = decoded_twice(&log);
    assert!(found.iter().any(|text| text.contains("MAYFLY_TASK_ID=")), "the replay shows nothing");
    for secret in [&first, &second, &identity_token] {
        let (head, tail) = (&secret[..16], &secret[secret.len() - 16..]);
        assert!(found.iter().all(|text| !text.contains(head) && !text.contains(tail)), "in the log");
    }

    // 2. In another form it does: masks are for accidents. Somebody reads it while the job runs.
    let mut verifier = setting.world.verifier("alpha").await;
    let mut active = async |token: &str, audience: &str| {
        let request = pb::IntrospectRequest {
            credential: Some(Presented::Token(token.to_owned())),
            audience: audience.to_owned(),
            ..Default::default()
        };
        verifier.introspect(request).await.is_ok_and(|answer| answer.into_inner().active)
    };
    for token in [&first, &second] {
        assert!(active(token, "https://alpha.example").await, "for what the job was given it for");
        assert!(!active(token, "https://api.github.com").await, "for anything else");
        // There is no next door: what was stolen is no identity with which to obtain more.
        let Ok(calls) = FederatedCalls::new(token) else { continue };
        let thief = Identity::ephemeral().expect("a key");
        let refused = reason(&setting.job(&thief, &calls).await.open_task(opening()).await);
        assert!(refused.starts_with("IDENTITY_TOKEN_REFUSED") || refused == "UNPROVEN", "{refused}");
    }
    let spent = FederatedCalls::new(&identity_token).expect("a token");
    let thief = Identity::ephemeral().expect("a key");
    assert_eq!(reason(&setting.job(&thief, &spent).await.open_task(opening()).await), "IDENTITY_TOKEN_SPENT");

    // 3. Who finds one pastes it: it is known for what it is, and dead with the next check. The job goes on without it.
    let operator = setting.world.launch.data().join("operator");
    let pasted = bench.path("found");
    std::fs::write(&pasted, format!("{first}\n")).expect("written");
    let pasted = pasted.to_str().expect("UTF-8");
    let known = setting.world.process.ask(&operator, &["--output", "json", "whois", pasted]);
    let [task] = tasks(&setting.world).await.try_into().expect("one task");
    assert!(known.code == 0 && known.out.contains(&task.task_id) && !known.out.contains(&first), "{known:?}");
    let revoke = ["revoke", "--credential", pasted, "--reason", "found in a public log"];
    assert_eq!(setting.world.process.ask(&operator, &revoke).code, 0);
    assert!(!active(&first, "https://alpha.example").await && active(&second, "https://alpha.example").await);

    // 4. The job ends, and with it all that any log has of it.
    std::fs::write(bench.path("go"), "").expect("written");
    assert_eq!(job.end().code, 0);
    assert_eq!(all_over(&setting.world).await, [pb::EndReason::Completed]);
    assert!(!active(&second, "https://alpha.example").await);
    assert_eq!(setting.world.live().await, 0);
    let presented = Presented::Token(identity_token);
    assert!(!introspect(&mut setting.world.verifier("alpha").await, presented).await.active);
}
