use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use crate::{
    identity::{
        Caller, FederatedProof, Proof,
        oidc::{
            KeySet, UnverifiedToken,
            testing::{self, AUDIENCE, Signer},
        },
    },
    model::{IssuerKind, IssuerRules, Timestamp},
    policy::{Document, Extent, Origin, Problems, TenantTrust, TrustMap, diff, parse_with},
};

use super::{BASE, grant, now, tenant};

fn issuers() -> Vec<Arc<IssuerRules>> {
    let urls = [
        (IssuerKind::Github, testing::GITHUB),
        (IssuerKind::Gitlab, testing::GITLAB),
        (IssuerKind::Kubernetes, testing::KUBERNETES),
        (IssuerKind::Circleci, testing::CIRCLECI),
        (IssuerKind::Buildkite, testing::BUILDKITE),
        (IssuerKind::Spiffe, testing::SPIFFE),
        (IssuerKind::Generic, "https://idp.example"),
    ];
    let rules = |(kind, url): (IssuerKind, &str)| {
        Arc::new(IssuerRules {
            allow_events: vec!["workflow_run".to_owned(), "pull_request_target".to_owned()],
            allow_ssh_rerun: true,
            ..IssuerRules::of_kind(kind, url, AUDIENCE)
        })
    };
    urls.map(rules).to_vec()
}

fn read(more: &str) -> Result<TrustMap, Problems> {
    let text = format!("{BASE}{more}");
    parse_with(&[Document { path: "a.toml", text: &text }], Extent::Whole, &issuers(), now())
}

fn bound(issuer: &str, claims: &str) -> String {
    format!(
        "[[workload]]\ntenant = \"acme\"\nname = \"job\"\nenvironment = \"prod\"\n\
         selectors = [{{ issuer = \"{issuer}\", claims = {{ {claims} }} }}]\n"
    )
}

fn trust(more: &str) -> TenantTrust {
    tenant(&read(more).unwrap_or_else(|problems| panic!("{problems}")), "acme")
}

fn problem(more: &str) -> String {
    read(more).expect_err(more).to_string()
}

fn caller(claims: &Value) -> Caller {
    let signer = Signer::new();
    let keys = KeySet::parse(signer.key_set().to_string().as_bytes()).expect("keys");
    let token = UnverifiedToken::parse(&signer.rs256(claims)).expect("reads");
    let rules = issuers().into_iter().find(|rules| rules.url == token.claimed_issuer()).expect("declared");
    let at = Timestamp::from_seconds(claims["iat"].as_u64().expect("a time"));
    token.verify(&rules, &keys, None, at).expect("verifies").caller(None)
}

fn selects(trust: &TenantTrust, claims: &Value) -> bool {
    trust.workload_of(&caller(claims), "acme.mayfly.internal").is_ok()
}

fn with(claims: &Value, name: &str, value: Value) -> Value {
    let mut claims = claims.clone();
    claims[name] = value;
    claims
}

const AT: u64 = 1_790_000_000;

#[test]
fn a_binding_that_could_fit_strangers_is_refused_when_it_is_applied() {
    for (issuer, claims) in [
        ("github", r#"sub = "repo:octo-org/octo-repo:ref:refs/heads/main""#),
        ("github", r#"repository = "octo-org/octo-repo", ref = "refs/heads/main""#),
        ("github", r#"repository_owner = "octo-org""#),
        ("github", r#"repository_id = { pattern = "7[0-9]" }"#),
        ("gitlab", r#"project_path = "group/app""#),
        ("gitlab", r#"sub = "project_path:group/app:ref_type:branch:ref:main""#),
        ("circleci", r#""oidc.circleci.com/vcs-origin" = "github.com/acme/app""#),
        ("buildkite", r#"pipeline_id = "0184990b""#),
        ("buildkite", r#"organization_id = "0184990a""#),
        ("buildkite", r#"organization_slug = "acme", pipeline_slug = "app""#),
        ("kubernetes", r#"sub = "system:serviceaccount:payments:deployer""#),
        ("kubernetes", r#""kubernetes.io/namespace" = "payments""#),
        ("kubernetes", r#""kubernetes.io/serviceaccount/name" = "deployer""#),
        ("spiffe", r#"sub = { pattern = 'spiffe://prod\.example/ns/payments/sa/[a-z]+' }"#),
        ("generic", r#"sub = "x""#),
        ("generic", r#"team = { pattern = "payments-[a-z]+" }"#),
    ] {
        let told = problem(&bound(issuer, claims));
        assert!(told.contains("fit too much"), "{issuer} {claims}: {told}");
    }
    for (claims, says) in [
        (r#"repository_id = "74", ref = { pattern = ".*" }"#, "can match across `/`"),
        (r#"repository_id = "74", ref = { pattern = "refs/heads/.+" }"#, "can match across `/`"),
        (r#"repository_id = "74", ref = { pattern = "[^/]+" }"#, "fits anything"),
        (r#"repository_id = "74", ref = { pattern = "^refs/heads/main$" }"#, "anchor"),
        (r#"repository_id = "74", ref = { pattern = "(" }"#, "no regular expression"),
        (r#"repository_id = "74", ref = { patern = "main" }"#, "is no text, list"),
        (r#"repository_id = "74", ref = []"#, "has no entry"),
        (r#"repository_id = "74", ref = """#, "is empty"),
        (r#"repository_id = "74", aud = "https://mayfly.example.com""#, "checked in any case"),
        (r#"repository_id = "74", iss = "https://evil.example""#, "checked in any case"),
        ("", "1 to 16"),
    ] {
        let told = problem(&bound("github", claims));
        assert!(told.contains(says), "{claims}: {told}");
    }
    assert!(problem(&bound("gitea", r#"id = "1""#)).contains("is not declared"));
    let verifier = "[[verifier]]\ntenant = \"acme\"\nname = \"api\"\naudiences = \"all\"\n\
                    selectors = [{ issuer = \"github\", claims = { repository_id = \"74\" } }]\n";
    assert!(problem(verifier).contains("is not for verifiers"));
    let job = bound("github", "repository_id = 74").replace(" }]", ", longest_job = \"7h\" }]");
    assert!(problem(&job).contains("longest_job"));
}

#[test]
fn each_claim_rule_allows_what_it_says_and_nothing_beside() {
    let github = testing::github(AT);
    let workflow = r"octo-org/automation/\.github/workflows/[a-z]+\.yml@refs/tags/v[0-9.]+";
    for (issuer, claims, token, name, refused) in [
        (
            "github",
            r#"repository_id = "74""#.to_owned(),
            github.clone(),
            "repository_id",
            vec![json!("7"), json!("740"), json!("74 "), json!(null)],
        ),
        ("github", "repository_owner_id = 65".to_owned(), github.clone(), "repository_owner_id", vec![json!("66")]),
        (
            "github",
            r#"repository_id = "74", ref = ["refs/heads/main", "refs/heads/next"]"#.to_owned(),
            github.clone(),
            "ref",
            vec![json!("refs/heads/main2"), json!("refs/tags/main"), json!("REFS/HEADS/MAIN"), json!("")],
        ),
        (
            "github",
            format!("repository_id = \"74\", job_workflow_ref = {{ pattern = '{workflow}' }}"),
            github.clone(),
            "job_workflow_ref",
            vec![
                json!("evil/octo-org/automation/.github/workflows/oidc.yml@refs/tags/v1.2"),
                json!("octo-org/automation/.github/workflows/oidc.yml@refs/tags/v1.2\n"),
                json!("octo-org/automation/.github/workflows/oidc.yml@refs/heads/v1"),
                json!("octo-org/automation/xgithub/workflows/oidc.yml@refs/tags/v1.2"),
            ],
        ),
        (
            "github",
            r#"repository_id = "74", environment = "production""#.to_owned(),
            github,
            "environment",
            vec![json!("staging"), json!(null)],
        ),
        (
            "gitlab",
            "project_id = 20, ref_protected = true".to_owned(),
            testing::gitlab(AT),
            "ref_protected",
            vec![json!("false"), json!(false)],
        ),
        (
            "gitlab",
            r#"namespace_id = "72", groups_direct = "group/sub""#.to_owned(),
            testing::gitlab(AT),
            "groups_direct",
            vec![json!(["group"]), json!([]), json!("group/subs")],
        ),
        (
            "circleci",
            r#""oidc.circleci.com/project-id" = "9b1c", "oidc.circleci.com/context-ids" = "c2""#.to_owned(),
            testing::circleci(AT),
            "oidc.circleci.com/context-ids",
            vec![json!(["c1"]), json!("c1"), json!(null)],
        ),
        (
            "buildkite",
            r#"organization_id = "0184990a", pipeline_id = "0184990b", build_number = 1"#.to_owned(),
            testing::buildkite(AT),
            "organization_id",
            vec![json!("0184990b"), json!(null)],
        ),
        (
            "kubernetes",
            r#""kubernetes.io/namespace" = "payments", "kubernetes.io/serviceaccount/name" = "deployer""#.to_owned(),
            testing::kubernetes(AT),
            "kubernetes.io",
            vec![
                json!({}),
                json!({ "namespace": "payments" }),
                json!({ "namespace": "payments", "serviceaccount": { "name": "other" } }),
                json!({ "namespace": ["payments"], "serviceaccount": "deployer" }),
            ],
        ),
        (
            "spiffe",
            r#"sub = "spiffe://prod.example/ns/payments/sa/deployer""#.to_owned(),
            testing::spiffe(AT),
            "sub",
            vec![json!("spiffe://prod.example/ns/payments/sa/deployer2"), json!("spiffe://prod.example/ns/payments")],
        ),
    ] {
        let trust = trust(&bound(issuer, &claims));
        assert!(selects(&trust, &token), "{issuer} {claims}");
        for value in refused {
            assert!(!selects(&trust, &with(&token, name, value.clone())), "{issuer} {claims}: {name} = {value}");
        }
    }
}

#[test]
fn a_token_of_one_issuer_fits_no_binding_of_another_whatever_it_says() {
    let trust = trust(&bound("gitlab", r#"project_id = "20", namespace_id = "72""#));
    let mut lookalike = testing::github(AT);
    (lookalike["project_id"], lookalike["namespace_id"]) = (json!("20"), json!("72"));
    assert!(!selects(&trust, &lookalike));
    assert!(selects(&trust, &testing::gitlab(AT)));
}

#[test]
fn a_token_that_fits_two_workloads_selects_neither() {
    let second = bound("github", r#"repository_owner_id = "65""#).replace("\"job\"", "\"owner\"");
    let both = trust(&format!("{}{second}", bound("github", r#"repository_id = "74""#)));
    let refused = both.workload_of(&caller(&testing::github(AT)), "acme.mayfly.internal").expect_err("ambiguous");
    assert_eq!(refused.reason(), "WORKLOAD_AMBIGUOUS");
    assert!(selects(&both, &with(&testing::github(AT), "repository_id", json!("75"))), "it fits one");
    let same = bound("github", r#"repository_id = "74""#).replace("\"job\"", "\"twin\"");
    assert!(problem(&format!("{}{same}", bound("github", r#"repository_id = "74""#))).contains("selects workload"));
}

#[test]
fn events_that_run_code_of_strangers_must_be_named_by_the_binding_too() {
    for event in ["workflow_run", "pull_request_target"] {
        let token = with(&testing::github(AT), "event_name", json!(event));
        assert!(!selects(&trust(&bound("github", r#"repository_id = "74""#)), &token), "{event}");
        let pattern = format!(r#"repository_id = "74", event_name = {{ pattern = "{event}" }}"#);
        assert!(!selects(&trust(&bound("github", &pattern)), &token), "a pattern does not name it");
        let named = format!(r#"repository_id = "74", event_name = "{event}""#);
        assert!(selects(&trust(&bound("github", &named)), &token), "{event}");
    }
}

#[test]
fn what_an_operator_is_shown_of_a_token_fits_where_it_selects_and_only_there() {
    for (claims, event) in [
        (r#"repository_id = "74""#, "push"),
        (r#"repository_id = "75""#, "push"),
        (r#"repository_id = "74""#, "workflow_run"),
        (r#"repository_id = "75""#, "workflow_run"),
        (r#"repository_id = "74", event_name = "workflow_run""#, "workflow_run"),
        (r#"repository_id = "74", ref = "refs/heads/other""#, "push"),
        (r#"repository_id = "74", not_there = "x""#, "push"),
    ] {
        let (trust, token) = (trust(&bound("github", claims)), with(&testing::github(AT), "event_name", json!(event)));
        let caller = caller(&token);
        let Proof::Federated(proof) = caller.proof() else { panic!("a token") };
        let shown = trust.examine(proof);
        assert_eq!((shown.len(), shown[0].fits()), (1, selects(&trust, &token)), "{claims}, {event}: {shown:?}");
    }
}

#[test]
fn an_operator_is_shown_the_bindings_of_the_tokens_issuer_alone() {
    let second = bound("gitlab", r#"project_id = "20""#).replace("\"job\"", "\"other\"");
    let trust = trust(&format!("{}{second}", bound("github", r#"repository_id = "74""#)));
    for (claims, workload) in [(testing::github(AT), "job"), (testing::gitlab(AT), "other")] {
        let caller = caller(&claims);
        let Proof::Federated(proof) = caller.proof() else { panic!("a token") };
        let shown: Vec<String> = trust.examine(proof).iter().map(|shown| shown.workload.to_string()).collect();
        assert_eq!(shown, [workload]);
    }
}

#[test]
fn a_binding_fits_nothing_any_more_when_its_issuer_has_become_another_kind() {
    let (trust, caller) = (trust(&bound("github", r#"repository_id = "74""#)), caller(&testing::github(AT)));
    let Proof::Federated(proof) = caller.proof() else { panic!("a token") };
    let of_kind = |kind| FederatedProof {
        issuer: Arc::new(IssuerRules { kind, ..proof.issuer.as_ref().clone() }),
        ..FederatedProof::clone(proof)
    };
    for (kind, fits) in [(IssuerKind::Github, true), (IssuerKind::Generic, false)] {
        let shown = trust.examine(&of_kind(kind));
        assert_eq!((shown.len(), shown[0].fits(), shown[0].obstacle.is_none()), (1, fits, fits));
        let caller = Caller::for_test(Proof::Federated(of_kind(kind).into()));
        assert_eq!(trust.workload_of(&caller, "acme.mayfly.internal").is_ok(), fits, "{kind:?}");
    }
}

#[test]
fn a_claim_has_a_name_of_1_to_255_bytes() {
    let named = |name: &str| bound("github", &format!("repository_id = \"74\", \"{name}\" = \"x\""));
    for (bytes, good) in [(0, false), (1, true), (255, true), (256, false)] {
        let read = read(&named(&"n".repeat(bytes)));
        assert_eq!(read.is_ok(), good, "{bytes} bytes");
        assert!(good || read.is_err_and(|problems| problems.to_string().contains("is no name of a claim")));
    }
}

#[test]
fn a_binding_holds_its_own_fields_and_each_claim_at_its_limits() {
    let claims = |more: &str| bound("github", &format!("repository_id = \"74\", {more}"));
    for (bytes, good) in [(1, true), (1_024, true), (1_025, false)] {
        assert_eq!(read(&claims(&format!("ref = \"{}\"", "x".repeat(bytes)))).is_ok(), good, "{bytes} bytes");
    }
    for (count, good) in [(14, true), (15, true), (16, false)] {
        let more: Vec<String> = (0..count).map(|n| format!("c{n} = \"x\"")).collect();
        assert_eq!(read(&claims(&more.join(", "))).is_ok(), good, "{count} beside the first");
    }
    for (count, good) in [(64, true), (65, false)] {
        let refs: Vec<String> = (0..count).map(|n| format!("refs/heads/{n}")).collect();
        assert_eq!(read(&claims(&format!("ref = {refs:?}"))).is_ok(), good, "{count} texts");
    }
    let job = bound("github", "repository_id = \"74\"").replace(" }]", ", event = \"push\" }]");
    assert!(problem(&job).contains(".event: is not known"));
    // One spelling of what says the same.
    let hash = |list: &str| trust(&claims(&format!("ref = [{list}]"))).hash();
    assert_eq!(hash("\"b\", \"a\", \"b\""), hash("\"a\", \"b\""));
    // An issuer that we know nothing of: a claim beside `sub`, exactly.
    assert!(read(&bound("generic", r#"sub = "x", team = "payments""#)).is_ok());
    assert!(read(&bound("generic", r#"team = "payments""#)).is_ok());
}

#[test]
fn a_binding_reads_back_as_itself_and_holds_as_long_as_it_says() {
    let text = r#"
[[workload]]
tenant = "acme"
name = "job"
environment = "prod"
sources = ["10.0.0.0/8", "2001:db8::/32"]
[[workload.selectors]]
issuer = "github"
longest_job = "45m"
[workload.selectors.claims]
repository_id = "74"
ref = { pattern = 'refs/heads/release-[0-9]+' }
"#;
    let trust = trust(text);
    let again = TenantTrust::from_bytes(&trust.to_bytes()).expect("its own form");
    assert_eq!((again.hash(), &again), (trust.hash(), &trust));
    let workload = &trust.workloads()[&"job".parse().expect("a name")];
    let shown = workload.selectors[0].to_string();
    assert_eq!(
        shown,
        "issuer = \"github\", claims = { \"ref\" = { pattern = 'refs/heads/release-[0-9]+' }, \"repository_id\" = \"74\" }, longest_job = \"2700s\""
    );
    let token = caller(&with(&testing::github(AT), "ref", json!("refs/heads/release-7")));
    let Proof::Federated(proof) = token.proof() else { panic!("a token") };
    assert_eq!(again.longest_job(proof, &"job".parse().expect("a name")), Duration::from_secs(2_700));
    let examined = again.examine(proof);
    assert!(examined.len() == 1 && examined[0].fits());
}

#[test]
fn a_workload_and_a_grant_can_be_for_some_networks_only() {
    let from = |address: &str| Origin::Network(address.parse().expect("an address"));
    let job: crate::model::WorkloadName = "ci".parse().expect("a name");
    let text =
        BASE.replacen("environment = \"prod\"", "environment = \"prod\"\nsources = [\"10.0.0.0/8\", \"192.0.2.7\"]", 1);
    let whole = |text: &str| {
        let documents = [Document { path: "a.toml", text }];
        parse_with(&documents, Extent::Whole, &issuers(), now()).unwrap_or_else(|problems| panic!("{problems}"))
    };
    let narrow = whole(&text);
    let trust = tenant(&narrow, "acme");
    for (origin, good) in [
        (from("10.1.2.3"), true),
        (from("192.0.2.7"), true),
        (from("192.0.2.8"), false),
        (from("2001:db8::1"), false),
        (Origin::Local, false),
        (Origin::Unknown, true),
    ] {
        assert_eq!(trust.may_ask_from(&job, origin), good, "{origin:?}");
    }
    assert!(!trust.may_ask_from(&"gone".parse().expect("a name"), Origin::Local), "nobody asks for who is not there");
    assert!(tenant(&whole(BASE), "acme").may_ask_from(&job, Origin::Local), "where no network is named any is good");
    for (bad, says) in [
        ("10.0.0.0/33", "is no network"),
        ("10.0.0.1/8", "behind its prefix"),
        ("0.0.0.0/0", "every address"),
        ("x", "is no network"),
    ] {
        let told = problem(&grant("g", &format!("sources = [\"{bad}\"]")));
        assert!(told.contains(says), "{bad}: {told}");
    }
    let changes = diff(&whole(BASE), &narrow);
    assert_eq!(changes[0].kind, crate::policy::ChangeKind::Narrowed, "naming networks takes the others away");
    assert_eq!(diff(&narrow, &whole(BASE))[0].kind, crate::policy::ChangeKind::Widened);
}

#[test]
fn a_binding_without_a_table_of_claims_says_so() {
    let binding = |rest: &str| bound("github", "X").replace(", claims = { X }", rest);
    assert!(
        problem(&binding("")).contains("claims: is missing; say what the token must say"),
        "{}",
        problem(&binding(""))
    );
    assert!(problem(&binding(", claims = 7")).contains("claims: is a integer, not a table"));
    assert!(problem(&binding(", claims = {}")).contains("claims: has 0 claims, where 1 to "));
}
