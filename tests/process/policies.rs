//! Policies, through the real command line and the daemon: a task's intent, its refusal explained, a changed policy at a
//! renewal, what runs in shadow, and what cannot be evaluated.

use std::{collections::BTreeMap, path::PathBuf};

use mayfly::pb::{self, CredentialKind, IssueRequest, RenewRequest};
use serde_json::Value;

use super::{
    rig::{Said, arg, mayfly, reason, refused, until},
    world::{PARTNER, World, audience, issue, lease_of, request},
};

const OWN: &str = "\
@id(\"open\")
permit(principal in Partner::\"courier\", action == Action::\"OpenTask\", resource);

@id(\"with-ticket\")
permit(principal in Partner::\"courier\", action in Action::\"Issue\", resource in Grant::\"report\")
when { context.parameters.hasTag(\"ticket\") && context.parameters.getTag(\"ticket\") like \"INC-*\" };

@id(\"no-debug\")
forbid(principal, action in Action::\"Issue\", resource)
when { context.task_type == \"debug\" };
";

const CASES: &str = "\
[[case]]
name = \"a ticket is needed\"
tenant = \"alpha\"
workload = \"worker\"
partner = \"courier\"
purpose = \"report\"
audience = \"https://alpha.example\"
actions = [\"read\"]
expect = \"refused\"
reason = \"POLICY_REFUSED\"

[[case]]
name = \"with one it goes\"
tenant = \"alpha\"
workload = \"worker\"
partner = \"courier\"
purpose = \"report\"
audience = \"https://alpha.example\"
actions = [\"read\"]
parameters = { ticket = \"INC-1\" }
expect = \"allowed\"
policy = \"with-ticket\"
";

/// The world with a folder of trust files, in which alpha has policies.
struct Stage {
    world: World,
    folder: PathBuf,
}

impl Stage {
    async fn new(own: &str) -> Self {
        let world = World::new().await;
        let stage = Self { folder: world.launch.folder.join("trust"), world };
        std::fs::create_dir(&stage.folder).expect("made");
        stage.write("cases.test.toml", CASES);
        stage.policies(own, "");
        let said = stage.apply();
        assert_eq!(said.code, 0, "{said:?}");
        stage
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.join(name), text).expect("written");
    }

    /// Puts policies in force for alpha, and beside it in shadow when there are any.
    fn policies(&self, own: &str, shadow: &str) {
        let and = if shadow.is_empty() { "" } else { ", shadow = \"next.cedar\"" };
        let named = format!("name = \"alpha\"\npolicy = {{ enforce = \"alpha.cedar\"{and} }}");
        self.write("trust.toml", &self.world.trust.replacen("name = \"alpha\"", &named, 1));
        self.write("alpha.cedar", own);
        if !shadow.is_empty() {
            self.write("next.cedar", shadow);
        }
    }

    fn operate(&self, arguments: &[&str]) -> Said {
        self.world.process.ask(&self.world.launch.data().join("operator"), arguments)
    }

    fn apply(&self) -> Said {
        self.operate(&["apply", "-f", arg(&self.folder)])
    }

    fn records(&self, arguments: &[&str]) -> Vec<Value> {
        let said = self.operate(&[&["--output", "json"], arguments].concat());
        assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
        said.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn events(&self, kind: &str) -> Vec<Value> {
        let all = self.records(&["events", "list", "--tenant", "alpha"]);
        all.into_iter().filter(|event| event["kind"] == kind).collect()
    }
}

fn told(task_type: &str, ticket: &str) -> IssueRequest {
    let parameters: BTreeMap<String, String> =
        Some(ticket).filter(|text| !text.is_empty()).map(|text| ("ticket".into(), text.into())).into_iter().collect();
    IssueRequest { task_type: task_type.into(), parameters, ..request("alpha", CredentialKind::Opaque) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_decides_at_issue_and_again_at_renew_and_is_explained_to_operators() {
    let stage = Stage::new(OWN).await;
    let mut broker = stage.world.broker("alpha").await;
    let silent = issue(&mut broker, told("release", "")).await;
    assert_eq!(reason(&silent), "POLICY_REFUSED");
    let said = format!("{:?}", refused(silent, "a task without a ticket"));
    assert!(!said.contains("with-ticket") && !said.contains("alpha.cedar"), "the caller learns no policy: {said}");
    assert_eq!(reason(&issue(&mut broker, told("debug", "INC-1")).await), "POLICY_REFUSED");
    issue(&mut stage.world.broker("beta").await, request("beta", CredentialKind::Opaque)).await.expect("no policies");

    let lease = lease_of(&issue(&mut broker, told("release", "INC-1")).await.expect("issued"));
    assert!(lease.policies.is_empty() && lease.policy_set.is_empty(), "nor does its workload");
    let shown = stage.records(&["lease", "show", &lease.lease_id]).remove(0);
    assert_eq!(shown["policies"], serde_json::json!(["with-ticket"]), "{shown}");
    let task = stage.records(&["task", "show", &lease.task_id]).remove(0);
    assert_eq!((&task["task_type"], &task["parameters"]), (&"release".into(), &serde_json::json!(["ticket=INC-1"])));
    let issued = stage.events("lease.issued").pop().expect("an event");
    assert_eq!((&issued["policies"], &issued["policy_set"]), (&shown["policies"], &shown["policy_set"]), "{issued}");
    assert!(issued["details"].to_string().contains("parameter.ticket=INC-1"), "{issued}");
    let told_of = until("the refusal in the audit", async || {
        stage.events("lease.refused").into_iter().find(|event| event["policies"] == serde_json::json!(["no-debug"]))
    });
    assert_eq!(told_of.await["reason"], "POLICY_REFUSED");

    let ask = ["explain", "--workload", "worker", "--tenant", "alpha", "--partner", PARTNER, "--purpose", "report"];
    let ask = [&ask[..], &["--kind", "opaque", "--action", "read", "--audience", "https://alpha.example"]].concat();
    let why = stage.operate(&[&ask[..], &["--task-type", "debug", "--parameter", "ticket=INC-1"]].concat());
    assert!(why.code == 1 && why.out.contains("forbidden by `no-debug` (alpha.cedar:8)"), "{why:?}");
    let why = stage.operate(&[&ask[..], &["--parameter", "ticket=INC-1"]].concat());
    assert!(why.code == 0 && why.out.contains("permitted by `with-ticket` (alpha.cedar:4)"), "{why:?}");

    let renew = |id: &str| RenewRequest { lease_id: id.into(), ..RenewRequest::default() };
    let renewed = broker.renew(renew(&lease.lease_id)).await.expect("renewed").into_inner();
    stage.policies(&OWN.replace("INC-*", "CHG-*"), "");
    assert_eq!(stage.apply().code, 0);
    let id = lease_of(&renewed).lease_id;
    assert_eq!(reason(&broker.renew(renew(&id)).await), "POLICY_REFUSED", "what it was told at the start counts");
    let live = stage.records(&["lease", "show", &id]).remove(0);
    assert_eq!(live["standing"], "live", "a changed policy ends nothing by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_in_shadow_decide_nothing_and_what_cannot_be_evaluated_refuses() {
    let mut stage = Stage::new(OWN).await;
    stage.policies(OWN, &OWN.replace("INC-*", "CHG-*"));
    assert_eq!(stage.apply().code, 0);
    let mut broker = stage.world.broker("alpha").await;
    for _ in 0..3 {
        issue(&mut broker, told("release", "INC-1")).await.expect("what is in force allows it");
    }
    let seen = stage.records(&["policy", "shadow", "--tenant", "alpha"]);
    let [one] = seen.as_slice() else { panic!("one kind: {seen:?}") };
    assert_eq!((&one["enforced"], &one["shadow"], &one["count"]), (&"allowed".into(), &"refused".into(), &3.into()));
    let events = until("the difference in the audit", async || {
        Some(stage.events("policy.differs")).filter(|events| !events.is_empty())
    });
    assert_eq!(events.await.len(), 1, "the first of an hour");

    let overflow = format!(
        "{OWN}@id(\"sum\") forbid(principal, action in Action::\"Issue\", resource)\n\
                            when {{ context.now * 9223372036854775807 < 0 }};\n"
    );
    stage.policies(&overflow, "");
    std::fs::remove_file(stage.folder.join("next.cedar")).expect("removed");
    assert_eq!(stage.operate(&["apply", "-f", arg(&stage.folder)]).code, 0);
    assert_eq!(reason(&issue(&mut broker, told("release", "INC-1")).await), "POLICY_ERROR");

    stage.write("trust.toml", &format!("{}\n[guardrails]\nenforce = \"rails.cedar\"\n", stage.world.trust));
    std::fs::remove_file(stage.folder.join("alpha.cedar")).expect("removed");
    let rails = "@id(\"frozen\")\nforbid(principal, action in Action::\"Issue\", resource)\nwhen { context.tenant == \"beta\" };\n";
    stage.write("rails.cedar", &rails.replace("forbid", "permit"));
    let wrong = stage.apply();
    assert!(wrong.code == 1 && wrong.errors.contains("rails.cedar:1"), "guardrails only forbid: {wrong:?}");
    stage.write("rails.cedar", rails);
    assert_eq!(stage.apply().code, 0);
    stage.world.process.stop();
    stage.world.restart().await;
    issue(&mut stage.world.broker("alpha").await, request("alpha", CredentialKind::Opaque)).await.expect("not its");
    let mut beta = stage.world.broker("beta").await;
    assert_eq!(reason(&issue(&mut beta, request("beta", CredentialKind::Opaque)).await), "POLICY_REFUSED");
    let opened = pb::OpenTaskRequest {
        tenant: "beta".into(),
        partner: PARTNER.into(),
        purpose: "report".into(),
        ..Default::default()
    };
    beta.open_task(opened).await.expect("a task may be opened all the same");
    assert_eq!(audience("beta"), "https://beta.example");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_cases_run_without_a_daemon() {
    let folder = tempfile::tempdir().expect("folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    let named = "name = \"alpha\"\npolicy = { enforce = \"alpha.cedar\" }";
    write("trust.toml", &super::world::trust().replacen("name = \"alpha\"", named, 1));
    write("alpha.cedar", OWN);
    write("cases.test.toml", CASES);
    let run = |command: &str, more: &[&str]| {
        mayfly(&[&["--output", "json", "policy", command, arg(folder.path())], more].concat())
    };
    let said = run("test", &[]);
    assert!(said.code == 0 && said.out.lines().count() == 2, "{said:?}");
    write("cases.test.toml", &CASES.replace("policy = \"with-ticket\"", "policy = \"other\""));
    let said = run("test", &[]);
    assert!(said.code == 1 && said.errors.contains("1 of 2"), "{said:?}");
    let last: Value = serde_json::from_str(said.out.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&last["passed"], &last["policies"][0]), (&false.into(), &"with-ticket".into()), "{last}");
    assert!(last["steps"].to_string().contains("alpha.cedar:4"), "{last}");

    assert_eq!(run("check", &[]).code, 0);
    write("alpha.cedar", &OWN.replace("task_type", "task_typ"));
    let said = run("check", &[]);
    assert!(said.code == 1 && said.errors.contains("alpha.cedar:10: policy: "), "{said:?}");
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/trust");
    let said = mayfly(&["policy", "test", example]);
    assert!(said.code == 0 && said.out.contains("not while debugging"), "{said:?}");
    let schema = mayfly(&["policy", "schema"]);
    assert!(
        schema.code == 0 && schema.out.contains("action IssueToken, IssueCertificate, IssueSecret, Renew in [Issue]")
    );
}
