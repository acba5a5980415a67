//! Passing tasks on as laws.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::Value;

use crate::{
    broker::{
        Broker,
        testing::{TRUST, admin, founded, slip_in, worker},
    },
    identity::{Authority, Caller, CertificateProof, Proof},
    model::{Digest, LeaseId, ScopeId, Standing, Timestamp},
    pb,
};

mod approved;
mod chain;
mod limits;

fn named(name: &str) -> Caller {
    Caller::for_test(Proof::Certificate(CertificateProof {
        sha256: Digest::of(name.as_bytes()),
        key: Digest::of(format!("{name}'s key").as_bytes()),
        authority: Authority::Foreign("platform".into()),
        spiffe_id: Some(format!("spiffe://platform.example/{name}")),
        dns_names: vec![],
        serial: vec![0x41; 16],
        not_after: Timestamp::from_millis(u64::MAX / 2),
    }))
}

/// `w`, `x` and `y` have grant `g`; `x` alone has `own`, for an audience of its own.
async fn bed() -> Arc<Broker> {
    bed_with("", &[]).await
}

/// The same, with more text in the trust map and other files beside it.
async fn bed_with(more: &str, files: &[(&str, &str)]) -> Arc<Broker> {
    let (broker, _) = founded().await;
    let workloads = ["x", "y"].map(|name| {
        format!(
            "[[workload]]\ntenant = \"acme\"\nname = \"{name}\"\nenvironment = \"prod\"\n\
             selectors = [{{ spiffe_id = \"spiffe://platform.example/{name}\", authority = \"platform\" }}]\n"
        )
    });
    let shared = TRUST.replace("[\"w\"]", "[\"w\", \"x\", \"y\"]");
    let at = TRUST.rfind("[[grant]]").expect("a grant");
    let own = TRUST.split_at(at).1.replace("name = \"g\"", "name = \"own\"").replace("[\"w\"]", "[\"x\"]");
    let own = own.replace("https://api.example", "https://own.example");
    let policy = if files.is_empty() { "" } else { "policy = { enforce = \"own.cedar\" }\n" };
    let text = format!("{shared}{}{own}{more}", workloads.concat());
    let text = text.replacen("name = \"acme\"\n", &format!("name = \"acme\"\n{policy}"), 1);
    let documents = [("trust.toml", text.as_str())].into_iter().chain(files.iter().copied());
    let documents = documents.map(|(path, text)| pb::TrustDocument { path: path.into(), text: text.into() }).collect();
    broker.apply(&admin(), pb::ApplyOptions::default(), documents).await.expect("applies");
    broker
}

async fn open(broker: &Broker, by: &Caller, parent: &str, for_workload: &str) -> Result<String, &'static str> {
    open_as(broker, by, parent, for_workload, 0).await
}

async fn open_as(
    broker: &Broker,
    by: &Caller,
    parent: &str,
    for_workload: &str,
    deadline_seconds: u32,
) -> Result<String, &'static str> {
    let request = pb::OpenTaskRequest {
        tenant: "acme".into(),
        partner: "zeta".into(),
        purpose: "work".into(),
        parent_task_id: parent.into(),
        for_workload: for_workload.into(),
        deadline_seconds,
        ..Default::default()
    };
    let opened = broker.open_task(by, request).await.map_err(|why| why.reason())?;
    Ok(opened.task.expect("task").task_id)
}

async fn issue(broker: &Broker, by: &Caller, task: &str, audience: &str) -> Result<pb::IssueResponse, &'static str> {
    let request = pb::IssueRequest {
        task_id: task.into(),
        kind: pb::CredentialKind::Jwt.into(),
        audiences: vec![audience.into()],
        binding: pb::Binding::None.into(),
        ..Default::default()
    };
    broker.issue(by, request).await.map_err(|why| why.reason())
}

fn claims(reply: &pb::IssueResponse) -> Value {
    let Some(pb::issue_response::Credential::Token(token)) = &reply.credential else { panic!("a token") };
    let body = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).expect("a body")).expect("base64url");
    serde_json::from_slice(&body).expect("JSON")
}

fn standing(broker: &Broker, reply: &pb::IssueResponse) -> Standing {
    let id: LeaseId = reply.lease.as_ref().expect("lease").lease_id.parse().expect("id");
    let lease = broker.ledger.lease(id).expect("reads").expect("there");
    broker.ledger.lease_standing(&lease, broker.now()).expect("reads")
}

const API: &str = "https://api.example";

#[tokio::test]
async fn a_token_names_whom_it_is_for_and_who_acts_the_newest_outermost() {
    let broker = bed().await;
    let own = open(&broker, &worker(), "", "").await.expect("opened");
    let plain = claims(&issue(&broker, &worker(), &own, API).await.expect("issued"));
    assert!(plain.get("act").is_none() && plain["client_id"] == "w");
    let child = open(&broker, &worker(), &own, "x").await.expect("passed on");
    let below = open(&broker, &named("x"), &child, "y").await.expect("and again");
    let reply = issue(&broker, &named("y"), &below, API).await.expect("issued");
    let told = claims(&reply);
    let id = |workload: &str, task: &str| {
        format!("spiffe://acme.mayfly.internal/partner/zeta/workload/{workload}/task/{task}")
    };
    let tail = |value: &Value| value.as_str().expect("text").split_once("/partner/").expect("an id").1.to_owned();
    let want = |workload: &str, task: &str| id(workload, task).split_once("/partner/").expect("an id").1.to_owned();
    assert_eq!(tail(&told["sub"]), want("w", &own));
    assert_eq!(tail(&told["act"]["sub"]), want("y", &below));
    assert_eq!(tail(&told["act"]["act"]["sub"]), want("x", &child));
    assert!(told["act"]["act"].get("act").is_none() && told["client_id"] == "y");
    assert_eq!(reply.lease.expect("lease").delegated_by, ["w", "x"]);
    let events = pb::ListEventsRequest { kind_prefix: "lease.issued".into(), ..Default::default() };
    let events = broker.list_events(&admin(), events).await.expect("listed").events;
    let event = events.iter().find(|event| event.task_id == below).expect("told");
    let chain: Vec<_> = event.details.iter().filter(|detail| detail.starts_with("delegated_by=")).collect();
    assert_eq!(chain, [&format!("delegated_by=w/{own}"), &format!("delegated_by=x/{child}")]);
}

#[tokio::test]
async fn passing_on_only_narrows() {
    let broker = bed().await;
    let own = open(&broker, &worker(), "", "").await.expect("opened");
    let child = open(&broker, &worker(), &own, "x").await.expect("passed on");
    issue(&broker, &named("x"), &child, API).await.expect("both may");
    assert_eq!(
        issue(&broker, &named("x"), &child, "https://own.example").await.err(),
        Some("WORKLOAD_NOT_GRANTED"),
        "x may, w may not"
    );
    let mine = open(&broker, &named("x"), "", "").await.expect("opened");
    issue(&broker, &named("x"), &mine, "https://own.example").await.expect("for itself");
    assert_eq!(open(&broker, &worker(), "", "x").await, Err("INVALID_FIELD"), "nothing to pass on");
    assert_eq!(open(&broker, &worker(), &own, "nobody").await, Err("UNKNOWN_WORKLOAD"));
    assert_eq!(open(&broker, &worker(), &mine, "y").await, Err("NOT_FOUND"), "not its own");
    let short = open_as(&broker, &worker(), "", "", 60).await.expect("opened");
    assert_eq!(open_as(&broker, &worker(), &short, "x", 61).await, Err("PARENT_ENDS_SOONER"));
    // Each acts in its own task, and in no other of the chain.
    assert_eq!(issue(&broker, &worker(), &child, API).await.err(), Some("NOT_FOUND"));
    assert_eq!(issue(&broker, &named("x"), &own, API).await.err(), Some("NOT_FOUND"));
}

#[tokio::test]
async fn what_was_passed_on_ends_with_who_passed_it_on() {
    let broker = bed().await;
    let own = open(&broker, &worker(), "", "").await.expect("opened");
    let child = open(&broker, &worker(), &own, "x").await.expect("passed on");
    let reply = issue(&broker, &named("x"), &child, API).await.expect("issued");
    let bar = |suspend| pb::BarRequest {
        scope: Some(pb::Scope {
            kind: pb::ScopeKind::Workload.into(),
            tenant: "acme".into(),
            workload: "w".into(),
            ..Default::default()
        }),
        suspend,
        reason: "test".into(),
    };
    broker.bar(&admin(), bar(true)).await.expect("barred");
    assert_eq!(standing(&broker, &reply), Standing::Suspended);
    let lift = pb::LiftRequest { scope: bar(true).scope, reason: "test".into(), only_quarantine: false };
    broker.lift(&admin(), lift).await.expect("lifted");
    assert_eq!(standing(&broker, &reply), Standing::Live);
    broker.complete_task(&worker(), pb::CompleteTaskRequest { task_id: own }).await.expect("completed");
    assert!(matches!(standing(&broker, &reply), Standing::Ended(_)));
}

#[tokio::test]
async fn a_task_is_passed_on_so_often_and_so_deep_and_no_more() {
    let broker = bed().await;
    let own = open(&broker, &worker(), "", "").await.expect("opened");
    for _ in 0..crate::model::Task::MAX_DELEGATIONS {
        open(&broker, &worker(), &own, "x").await.expect("passed on");
    }
    assert_eq!(open(&broker, &worker(), &own, "y").await, Err("QUOTA_USED_UP"));
    open(&broker, &worker(), &own, "").await.expect("its own child tasks are another matter");
    let mut task = open(&broker, &worker(), "", "").await.expect("opened");
    for (by, to) in [("w", "x"), ("x", "y"), ("y", "w")] {
        task = open(&broker, &named(by), &task, to).await.expect("passed on");
    }
    assert_eq!(open(&broker, &worker(), &task, "x").await, Err("INVALID_FIELD"), "three above are the most");
}

async fn renew(broker: &Broker, by: &Caller, reply: &pb::IssueResponse) -> Result<pb::IssueResponse, &'static str> {
    let lease_id = reply.lease.as_ref().expect("lease").lease_id.clone();
    broker.renew(by, pb::RenewRequest { lease_id, ..Default::default() }).await.map_err(|why| why.reason())
}

#[tokio::test]
async fn what_was_passed_on_is_renewed_only_while_everybody_above_may() {
    let broker = bed().await;
    let own = open(&broker, &worker(), "", "").await.expect("opened");
    let child = open(&broker, &worker(), &own, "x").await.expect("passed on");
    let reply = issue(&broker, &named("x"), &child, API).await.expect("issued");
    let reply = renew(&broker, &named("x"), &reply).await.expect("both may");
    // The grant is not for `w` any more: what `x` has through `w` goes, and what it has itself stays.
    let mine = open(&broker, &named("x"), "", "").await.expect("opened");
    slip_in(&broker, |text| text.replace("[\"w\",\"x\",\"y\"]", "[\"x\",\"y\"]")).await;
    assert_eq!(renew(&broker, &named("x"), &reply).await.err(), Some("WORKLOAD_NOT_GRANTED"));
    assert_eq!(issue(&broker, &named("x"), &child, API).await.err(), Some("WORKLOAD_NOT_GRANTED"));
    issue(&broker, &named("x"), &mine, API).await.expect("its own");
}

#[tokio::test]
async fn policies_are_asked_of_each_of_the_chain_and_of_what_the_first_was_about() {
    let own = "@id(\"some\") permit(principal, action, resource);\n\
               @id(\"not-w\") forbid(principal == Workload::\"w\", action in Action::\"Issue\", resource) when { \
               context.task_type == \"backup\" };";
    let broker = bed_with("", &[("own.cedar", own)]).await;
    let opened = async |by: &Caller, parent: &str, to: &str, task_type: &str| {
        let request = pb::OpenTaskRequest {
            tenant: "acme".into(),
            partner: "zeta".into(),
            purpose: "work".into(),
            parent_task_id: parent.into(),
            for_workload: to.into(),
            task_type: task_type.into(),
            ..Default::default()
        };
        let opened = broker.open_task(by, request).await.map_err(|why| why.reason())?;
        Ok::<_, &str>(opened.task.expect("a task").task_id)
    };
    let fine = opened(&worker(), "", "", "release").await.expect("opened");
    let child = opened(&worker(), &fine, "x", "").await.expect("passed on");
    issue(&broker, &named("x"), &child, API).await.expect("both may");
    assert_eq!(opened(&worker(), &fine, "x", "backup").await, Err("INVALID_FIELD"), "about something else");
    let backup = opened(&worker(), "", "", "backup").await.expect("opened");
    let child = opened(&worker(), &backup, "x", "").await.expect("passed on");
    assert_eq!(issue(&broker, &named("x"), &child, API).await.err(), Some("POLICY_REFUSED"), "`w` may not");
    let mine = opened(&named("x"), "", "", "backup").await.expect("opened");
    issue(&broker, &named("x"), &mine, API).await.expect("`x` itself may");
}

#[tokio::test]
async fn who_is_asked_hears_of_the_chain_and_through_whom_it_was_resold() {
    let duty = "{ party = \"vendor\", who = \"a\", contact = \"a@vendor.example\" }";
    let accountable = format!(
        "[[accountability]]\ntenant = \"acme\"\npartner = \"zeta\"\nstorage = {duty}\nscope = {duty}\n\
         revocation = {duty}\nescalation = {duty}\nchain = [\"Zeta \\\"Inc\\\"\", \"Reseller GmbH\"]\n"
    );
    let broker = bed_with(&accountable, &[]).await;
    let own = open(&broker, &worker(), "", "").await.expect("opened");
    let child = open(&broker, &worker(), &own, "x").await.expect("passed on");
    let reply = issue(&broker, &named("x"), &child, API).await.expect("issued");
    let told = claims(&reply);
    assert_eq!(told["mf_resellers"], serde_json::json!(["Zeta \"Inc\"", "Reseller GmbH"]));
    let Some(pb::issue_response::Credential::Token(token)) = reply.credential.clone() else { panic!("a token") };
    let ask = pb::IntrospectRequest {
        credential: Some(pb::introspect_request::Credential::Token(token)),
        ..Default::default()
    };
    let answer = broker.introspect(&admin(), ask).await.expect("answers");
    assert!(answer.active);
    assert_eq!(answer.resellers, ["Zeta \"Inc\"", "Reseller GmbH"]);
    assert_eq!((answer.subject.as_str(), answer.actors.len()), (told["sub"].as_str().expect("text"), 1));
    assert_eq!(answer.actors[0], told["act"]["sub"].as_str().expect("text"));
    let request = pb::GetTaskRequest { task_id: child.clone() };
    assert_eq!(broker.get_task(&admin(), &request).expect("seen").task.expect("a task").delegated_by, ["w"]);
    let events = pb::ListEventsRequest { kind_prefix: "lease.issued".into(), ..Default::default() };
    let events = broker.list_events(&admin(), events).await.expect("listed").events;
    assert!(events[0].details.contains(&"reseller=Reseller GmbH".to_owned()), "{events:?}");
    // Who checks offline sees what would end it: also the one who passed it on.
    let id: LeaseId = reply.lease.expect("lease").lease_id.parse().expect("id");
    let scopes = told["mf_scopes"].as_str().expect("text");
    let scopes = ScopeId::split(&URL_SAFE_NO_PAD.decode(scopes).expect("base64url")).expect("ids");
    let tenant = "acme".parse().expect("name");
    for scope in [
        ScopeId::workload(&tenant, &"w".parse().expect("name")),
        ScopeId::workload(&tenant, &"x".parse().expect("name")),
        ScopeId::task(own.parse().expect("an id")),
        ScopeId::task(id.task()),
    ] {
        assert!(scopes.contains(&scope), "{scope:?}");
    }
}

/// What a random task allows, in words of the grant and others.
fn some_limits() -> impl Strategy<Value = pb::TaskLimits> {
    let audiences =
        ["https://api.example", "https://api.example/*", "https://api.example/a", "https://api.example/a/*"];
    let actions = ["read", "write/*", "write/one"];
    let some = |from: &'static [&'static str]| {
        proptest::sample::subsequence(from.to_vec(), 0..=from.len())
            .prop_map(|texts| texts.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    let kinds = proptest::sample::subsequence(vec![1_i32, 2, 3], 0..=3);
    (some(Box::leak(Box::new(audiences))), some(Box::leak(Box::new(actions))), kinds, 0_u32..4).prop_map(
        |(audiences, actions, kinds, minutes)| pb::TaskLimits {
            audiences,
            actions,
            kinds,
            ttl_max_seconds: minutes * 60,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_child_task_never_gives_more_than_its_parent_at_issue_and_at_renewal(
        chain in proptest::collection::vec((some_limits(), any::<bool>()), 1..3),
        audience in proptest::sample::select(vec!["https://api.example", "https://api.example/a", "https://api.example/a/b"]),
        action in proptest::sample::select(vec!["read", "write/one", "write/two"]),
        kind in 1_i32..3,
        ttl in proptest::sample::select(vec![0_u32, 60, 120, 300]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let wide = TRUST.replace("[\"w\"]", "[\"w\", \"x\"]")
                .replace("audiences = [\"https://api.example\"]", "audiences = [\"https://api.example\", \"https://api.example/*\"]")
                .replace("actions = [\"read\"]", "actions = [\"read\", \"write/*\"]");
            let x = "[[workload]]\ntenant = \"acme\"\nname = \"x\"\nenvironment = \"prod\"\n\
                     selectors = [{ spiffe_id = \"spiffe://platform.example/x\", authority = \"platform\" }]\n";
            let (broker, _) = founded().await;
            crate::broker::testing::apply(&broker, &format!("{wide}{x}")).await;
            let wish = |task: &str| pb::IssueRequest {
                task_id: task.into(),
                kind,
                audiences: vec![audience.into()],
                actions: vec![action.into()],
                ttl_seconds: ttl,
                ..Default::default()
            };
            let open = async |by: &Caller, parent: &str, to: &str, limits: pb::TaskLimits| {
                let request = pb::OpenTaskRequest {
                    tenant: "acme".into(),
                    partner: "zeta".into(),
                    purpose: "work".into(),
                    parent_task_id: parent.into(),
                    for_workload: to.into(),
                    limits: Some(limits),
                    ..Default::default()
                };
                broker.open_task(by, request).await.ok().map(|reply| reply.task.expect("a task").task_id)
            };
            let (mut by, mut task) = ("w", String::new());
            // What each task of the chain gives of this wish: how long it may live, if at all.
            let mut given: Option<u64> = None;
            let mut first = true;
            for (limits, passes_on) in chain.clone() {
                let to = if passes_on && !first { if by == "w" { "x" } else { "w" } } else { by };
                let Some(child) = open(&named(by), &task, to, limits).await else { return };
                (by, task) = (to, child);
                let reply = broker.issue(&named(by), wish(&task)).await.ok();
                let life = |reply: &pb::IssueResponse| {
                    let lease = reply.lease.as_ref().expect("a lease");
                    let at = |time: &Option<prost_types::Timestamp>| time.as_ref().expect("a time").seconds;
                    u64::try_from(at(&lease.expires) - at(&lease.issued)).expect("later")
                };
                let lives = reply.as_ref().map(life);
                if !first {
                    assert!(lives <= given, "{chain:?}: a child gives {lives:?} where its parent gives {given:?}");
                }
                if let Some(reply) = reply {
                    let lease_id = reply.lease.as_ref().expect("a lease").lease_id.clone();
                    let (who, ask) = (named(by), pb::RenewRequest { lease_id, ttl_seconds: ttl, ..Default::default() });
                    let again = broker.renew(&who, ask).await.expect("renewed").lease.expect("a lease");
                    assert_eq!((again.audiences.as_slice(), again.actions.as_slice()), (&[audience.to_owned()][..], &[action.to_owned()][..]));
                }
                given = lives;
                first = false;
            }
        });
    }
}

#[tokio::test]
async fn limits_that_exceed_the_parents_are_refused_and_those_left_out_are_inherited() {
    let broker = bed().await;
    let open = async |parent: &str, limits: pb::TaskLimits| {
        let request = pb::OpenTaskRequest {
            tenant: "acme".into(),
            partner: "zeta".into(),
            purpose: "work".into(),
            parent_task_id: parent.into(),
            limits: Some(limits),
            ..Default::default()
        };
        broker
            .open_task(&worker(), request)
            .await
            .map(|reply| reply.task.expect("a task"))
            .map_err(|why| why.to_string())
    };
    let narrow = pb::TaskLimits {
        audiences: vec!["https://api.example/a/*".into()],
        actions: vec!["read".into()],
        kinds: vec![pb::CredentialKind::Jwt.into()],
        ttl_max_seconds: 60,
    };
    let own = open("", narrow.clone()).await.expect("opened");
    assert_eq!(own.limits, Some(narrow.clone()));
    let child = open(&own.task_id, pb::TaskLimits::default()).await.expect("opened");
    assert_eq!(child.limits, Some(narrow.clone()), "a child that says nothing has its parent's");
    for (wide, told) in [
        (pb::TaskLimits { audiences: vec!["https://api.example/*".into()], ..narrow.clone() }, "limits.audiences"),
        (pb::TaskLimits { actions: vec!["write".into()], ..narrow.clone() }, "limits.actions"),
        (pb::TaskLimits { kinds: vec![pb::CredentialKind::X509.into()], ..narrow.clone() }, "limits.kinds"),
        (pb::TaskLimits { ttl_max_seconds: 61, ..narrow.clone() }, "limits.ttl_max_seconds"),
        (pb::TaskLimits { kinds: vec![7], ..narrow.clone() }, "limits.kinds"),
        (pb::TaskLimits { audiences: vec!["*".into()], ..narrow.clone() }, "limits.audiences"),
        (pb::TaskLimits { actions: vec!["read".into(); 33], ..narrow.clone() }, "limits.actions"),
    ] {
        let why = open(&own.task_id, wide).await.expect_err(told);
        assert!(why.contains(told), "{told}: {why}");
    }
    assert_eq!(issue(&broker, &worker(), &own.task_id, API).await.err(), Some("BEYOND_TASK"));
}
