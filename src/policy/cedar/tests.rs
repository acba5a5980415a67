//! Policies as laws.

mod cells;

use std::{collections::BTreeMap, time::Duration};

use crate::{
    model::{CredentialKind, Intent, Timestamp},
    policy::{
        Asked, BindingWish, ChangeKind, Decision, Denied, Document, Extent, Facts, GlobalTrust, Noun, Origin, Scene,
        TaskAsked, TaskDecision, TaskFacts, TenantTrust, TrustMap, decide, decide_task, diff, explain, explain_task,
        tests::{BASE, grant, now},
    },
};

use super::*;

const AUDIENCE: &str = "https://api.test";

/// A trust folder: the tenant's policies, those in shadow, the guardrails.
#[derive(Default)]
struct Folder<'a> {
    own: &'a str,
    shadow: &'a str,
    rails: &'a str,
}

impl Folder<'_> {
    fn read(&self) -> Result<TrustMap, Vec<String>> {
        let table = |head: &str, files: &[(&str, &str, &str)]| {
            let named: Vec<String> = files
                .iter()
                .filter(|(_, _, text)| !text.is_empty())
                .map(|(field, path, _)| format!("{field} = \"{path}\""))
                .collect();
            if named.is_empty() { String::new() } else { format!("{head}{}", named.join("\n")) }
        };
        let own = [("enforce", "own.cedar", self.own), ("shadow", "next.cedar", self.shadow)];
        let rails = [("enforce", "rails.cedar", self.rails)];
        let named = own.iter().filter(|(_, _, text)| !text.is_empty());
        let named: Vec<String> = named.map(|(field, path, _)| format!("{field} = \"{path}\"")).collect();
        let policy = if named.is_empty() { String::new() } else { format!("\npolicy = {{ {} }}", named.join(", ")) };
        let base = BASE.replacen("name = \"acme\"", &format!("name = \"acme\"{policy}"), 1);
        let toml = format!("{base}{}{}", grant("g", ""), table("\n[guardrails]\n", &rails));
        let mut documents = vec![Document { path: "a.toml", text: &toml }];
        let files = own.iter().chain(&rails).filter(|(_, _, text)| !text.is_empty());
        documents.extend(files.map(|(_, path, text)| Document { path, text }));
        crate::policy::parse(&documents, Extent::Whole, now())
            .map_err(|problems| problems.list().iter().map(ToString::to_string).collect())
    }

    fn map(&self) -> TrustMap {
        self.read().unwrap_or_else(|problems| panic!("{problems:#?}"))
    }
}

/// One request in words; the default fits the grant.
struct Ask {
    audiences: Vec<String>,
    intent: Option<Intent>,
    origin: Origin,
    renewals: Option<u32>,
    opens: bool,
    at: Timestamp,
    kind: CredentialKind,
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            audiences: vec![AUDIENCE.to_owned()],
            intent: None,
            origin: Origin::Local,
            renewals: None,
            opens: false,
            at: now(),
            kind: CredentialKind::Jwt,
        }
    }
}

fn told(task_type: &str, parameters: &[(&str, &str)]) -> Option<Intent> {
    let parameters: BTreeMap<String, String> =
        parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Intent::new(task_type, parameters).expect("within limits")
}

fn acme(map: &TrustMap) -> &TenantTrust {
    map.tenants.values().next().expect("one tenant")
}

impl Ask {
    fn with<R>(&self, global: &GlobalTrust, run: impl FnOnce(&Asked<'_>, &Facts<'_>) -> R) -> R {
        let asked = Asked {
            workload: &"ci".parse().expect("a name"),
            partner: &"payco".parse().expect("a name"),
            purpose: &"deploy".parse().expect("a name"),
            grant: None,
            kind: self.kind,
            audiences: &self.audiences,
            actions: &["read".to_owned()],
            dns_names: &[],
            ttl_seconds: 0,
            binding: BindingWish::Default,
        };
        let scene = Scene {
            global: Some(global),
            intent: self.intent.as_ref(),
            renewals: self.renewals,
            opens: self.opens,
            owner: None,
        };
        let facts = Facts {
            basis: (1, 2),
            task_deadline: None,
            proof_expires: None,
            issuer_expires: None,
            has_certificate: true,
            attest_by: &|_| None,
            proofs: Vec::new(),
            origin: self.origin,
            approved: &[],
            scene,
        };
        run(&asked, &facts)
    }

    fn decide(&self, map: &TrustMap) -> Result<Decision, Denied> {
        self.with(&map.global, |asked, facts| decide(acme(map), asked, facts, self.at))
    }

    /// The reason, empty when allowed, and the policies that decided.
    fn said(&self, map: &TrustMap) -> (&'static str, Vec<String>) {
        match self.decide(map) {
            Ok(decision) => ("", decision.ruling().map(|ruling| ruling.policies.clone()).unwrap_or_default()),
            Err(why) => (why.reason(), why.policy().map(|said| said.policies.clone()).unwrap_or_default()),
        }
    }

    fn explain(&self, map: &TrustMap) -> String {
        self.with(&map.global, |asked, facts| explain(acme(map), asked, facts, self.at)).join("\n")
    }
}

const PERMIT: &str = "@id(\"all\")\npermit(principal, action, resource);\n";

fn said(folder: &Folder<'_>, ask: &Ask) -> (&'static str, Vec<String>) {
    ask.said(&folder.map())
}

fn ids(list: &[&str]) -> Vec<String> {
    list.iter().map(|id| (*id).to_owned()).collect()
}

#[test]
fn without_policies_nothing_is_asked_and_nothing_is_noted() {
    let map = Folder::default().map();
    let decision = Ask::default().decide(&map).expect("allowed");
    assert_eq!((decision.ruling(), decision.shadow()), (None, [].as_slice()));
    assert!(acme(&map).policy().is_none());
    let with = Folder { own: PERMIT, ..Folder::default() }.map();
    assert_eq!(acme(&with).policy().map(|texts| texts.enforce.len()), Some(1));
    let row = String::from_utf8(acme(&map).to_bytes()).expect("JSON");
    assert!(!row.contains("policy"), "a tenant without policies has the row that it had before there were any: {row}");
    assert!(!String::from_utf8(map.global.to_bytes()).expect("JSON").contains("guardrails"));
}

#[test]
fn a_tenant_with_policies_is_refused_what_none_permits() {
    let own = "@id(\"other\") permit(principal, action == Action::\"OpenTask\", resource);";
    assert_eq!(said(&Folder { own, ..Folder::default() }, &Ask::default()), ("POLICY_REFUSED", vec![]));
    let folder = Folder { own: PERMIT, ..Folder::default() };
    assert_eq!(said(&folder, &Ask::default()), ("", ids(&["all"])));
    let forbids = format!(
        "{PERMIT}@id(\"no\") forbid(principal, action in Action::\"Issue\", resource) when {{ context.kind == \"jwt\" }};"
    );
    let folder = Folder { own: &forbids, ..Folder::default() };
    assert_eq!(said(&folder, &Ask::default()), ("POLICY_REFUSED", ids(&["no"])));
    let ask = Ask { kind: CredentialKind::X509, ..Ask::default() };
    assert_eq!(said(&folder, &ask), ("", ids(&["all"])));
}

#[test]
fn policies_cannot_allow_what_no_grant_does() {
    let map = Folder { own: PERMIT, ..Folder::default() }.map();
    let ask = Ask { audiences: vec!["https://elsewhere.test".into()], ..Ask::default() };
    assert_eq!(ask.said(&map), ("AUDIENCE_NOT_GRANTED", vec![]));
}

#[test]
fn guardrails_hold_for_tenants_with_and_without_policies() {
    let rails = "@id(\"prod\") forbid(principal, action in Action::\"Issue\", resource) when { context.environment == \"prod\" };";
    for own in ["", PERMIT] {
        let folder = Folder { own, rails, ..Folder::default() };
        assert_eq!(said(&folder, &Ask::default()), ("POLICY_REFUSED", ids(&["guardrails/prod"])));
    }
    let rails = "@id(\"lab\") forbid(principal, action, resource) when { context.environment == \"lab\" };";
    assert_eq!(said(&Folder { rails, ..Folder::default() }, &Ask::default()), ("", vec![]));
    assert!(Ask::default().decide(&Folder { rails, ..Folder::default() }.map()).expect("allowed").ruling().is_some());
}

#[test]
fn guardrails_of_the_next_version_hold_at_once() {
    let (mut map, ask) = (Folder { own: PERMIT, ..Folder::default() }.map(), Ask::default());
    assert_eq!(ask.said(&map).0, "");
    let rails = "@id(\"stop\") forbid(principal, action, resource);";
    map.global = Folder { own: PERMIT, rails, ..Folder::default() }.map().global;
    assert_eq!(ask.said(&map), ("POLICY_REFUSED", ids(&["guardrails/stop"])));
    map.global = GlobalTrust::unreadable();
    assert_eq!(ask.said(&map).0, "POLICY_UNREADABLE");
}

#[test]
fn each_audience_of_a_request_must_be_allowed() {
    let own = format!(
        "{PERMIT}@id(\"orders\") forbid(principal, action, resource is Audience) when {{ resource.name like \"*/orders/*\" }};"
    );
    let folder = Folder { own: &own, ..Folder::default() };
    let of = |audiences: &[&str]| Ask { audiences: ids(audiences), ..Ask::default() };
    assert_eq!(said(&folder, &of(&[AUDIENCE])).0, "");
    assert_eq!(said(&folder, &of(&[AUDIENCE, "https://api.test/orders/7"])), ("POLICY_REFUSED", ids(&["orders"])));
}

#[test]
fn what_cannot_be_evaluated_refuses_whether_it_permits_or_forbids() {
    let overflow = "when { context.now * 9223372036854775807 > 0 };";
    for (effect, rails) in [("forbid", false), ("permit", false), ("forbid", true)] {
        let err = format!("@id(\"err\") {effect}(principal, action, resource) {overflow}");
        let own = if rails { PERMIT.to_owned() } else { format!("{PERMIT}{err}") };
        let folder = Folder { own: &own, rails: if rails { &err } else { "" }, ..Folder::default() };
        let (reason, _) = said(&folder, &Ask::default());
        assert_eq!(reason, "POLICY_ERROR", "{effect}");
        let explained = Ask::default().explain(&folder.map());
        assert!(explained.contains("cannot be evaluated") && explained.contains("err"), "{explained}");
    }
}

#[test]
fn stored_policies_that_no_longer_compile_refuse() {
    let map = Folder { own: PERMIT, ..Folder::default() }.map();
    let row = String::from_utf8(acme(&map).to_bytes()).expect("JSON");
    for (from, to) in
        [("permit(principal", "permit(principle"), ("action, resource", "action == Action::\\\"Fly\\\", resource")]
    {
        let changed = TenantTrust::from_bytes(row.replace(from, to).as_bytes()).expect("a row");
        let map = TrustMap { tenants: [("acme".parse().expect("a name"), changed)].into(), ..TrustMap::default() };
        assert_eq!(Ask::default().said(&map).0, "POLICY_UNREADABLE", "{to}");
        assert!(Ask::default().explain(&map).contains("own.cedar:"), "{}", Ask::default().explain(&map));
    }
}

#[test]
fn the_intent_is_looked_at() {
    let own = "@id(\"ticket\") permit(principal in Partner::\"payco\", action in [Action::\"Issue\", Action::\"OpenTask\"], resource)\n\
               when { context.task_type == \"release\" && context.parameters.hasTag(\"ticket\")\n\
               && context.parameters.getTag(\"ticket\") like \"INC-*\" };";
    let folder = Folder { own, ..Folder::default() };
    let of = |intent| Ask { intent, opens: true, ..Ask::default() };
    assert_eq!(said(&folder, &of(None)).0, "POLICY_REFUSED");
    assert_eq!(said(&folder, &of(told("release", &[]))).0, "POLICY_REFUSED");
    assert_eq!(said(&folder, &of(told("release", &[("ticket", "4711")]))).0, "POLICY_REFUSED");
    assert_eq!(said(&folder, &of(told("debug", &[("ticket", "INC-1")]))).0, "POLICY_REFUSED");
    assert_eq!(said(&folder, &of(told("release", &[("ticket", "INC-1")]))), ("", ids(&["ticket"])));
}

#[test]
fn a_renewal_is_a_question_of_its_own() {
    let own = format!(
        "{PERMIT}@id(\"twice\") forbid(principal, action == Action::\"Renew\", resource) when {{ context.renewals > 2 }};"
    );
    let folder = Folder { own: &own, ..Folder::default() };
    let of = |renewals| Ask { renewals, ..Ask::default() };
    assert_eq!(said(&folder, &of(None)).0, "");
    assert_eq!(said(&folder, &of(Some(2))).0, "");
    assert_eq!(said(&folder, &of(Some(3))), ("POLICY_REFUSED", ids(&["twice"])));
}

#[test]
fn a_task_that_is_opened_for_one_credential_is_asked_about_too() {
    let own = "@id(\"issue\") permit(principal, action in Action::\"Issue\", resource);";
    let folder = Folder { own, ..Folder::default() };
    assert_eq!(said(&folder, &Ask::default()).0, "");
    assert_eq!(said(&folder, &Ask { opens: true, ..Ask::default() }).0, "POLICY_REFUSED");
    assert_eq!(opened(&folder.map(), 0, None).expect_err("refused").reason(), "POLICY_REFUSED");
    let permitted = Folder { own: PERMIT, ..Folder::default() }.map();
    let ruling = opened(&permitted, 0, None).expect("allowed").ruling().cloned();
    assert_eq!(ruling.map(|ruling| ruling.policies), Some(ids(&["all"])));
}

/// A task of so many seconds, or as long as may be, below one that ends then.
fn opened(map: &TrustMap, deadline_seconds: u32, parent: Option<Timestamp>) -> Result<TaskDecision, Denied> {
    let asked = TaskAsked {
        workload: &"ci".parse().expect("a name"),
        partner: &"payco".parse().expect("a name"),
        purpose: &"deploy".parse().expect("a name"),
        deadline_seconds,
    };
    decide_task(acme(map), &asked, &opening(map, parent), now())
}

fn opening(map: &TrustMap, parent_deadline: Option<Timestamp>) -> TaskFacts<'_> {
    TaskFacts {
        basis: (1, 2),
        parent_deadline,
        attest_by: &|_| None,
        proofs: Vec::new(),
        origin: Origin::Local,
        approved: &[],
        scene: Scene { global: Some(&map.global), ..Scene::default() },
    }
}

#[test]
fn how_long_a_task_will_live_is_looked_at() {
    let own = "@id(\"short\") permit(principal, action == Action::\"OpenTask\", resource) when { context.deadline_seconds <= 60 };";
    let map = Folder { own, ..Folder::default() }.map();
    assert!(opened(&map, 60, None).is_ok());
    assert_eq!(opened(&map, 61, None).expect_err("refused").reason(), "POLICY_REFUSED");
}

#[test]
fn whether_a_task_is_below_another_is_looked_at() {
    let own = "@id(\"child\") permit(principal, action == Action::\"OpenTask\", resource) when { context.is_child };";
    let map = Folder { own, ..Folder::default() }.map();
    assert!(opened(&map, 0, Some(now().after(Duration::from_secs(60)))).is_ok());
    assert_eq!(opened(&map, 0, None).expect_err("refused").reason(), "POLICY_REFUSED");
}

#[test]
fn how_long_a_credential_will_live_is_looked_at() {
    let own = |seconds: u32| {
        format!(
            "@id(\"short\") permit(principal, action in Action::\"Issue\", resource) when {{ context.ttl_seconds <= {seconds} }};"
        )
    };
    // The grant's default is 300 s.
    for (seconds, reason) in [(300, ""), (299, "POLICY_REFUSED")] {
        assert_eq!(said(&Folder { own: &own(seconds), ..Folder::default() }, &Ask::default()).0, reason, "{seconds}");
    }
}

#[test]
fn an_explanation_of_a_task_names_the_policy_and_until_when_it_is_allowed() {
    let own = "@id(\"a\") permit(principal, action == Action::\"OpenTask\", resource) when { context.is_child };";
    let shadow = "@id(\"b\") forbid(principal, action, resource);";
    let map = Folder { own, shadow, ..Folder::default() }.map();
    let end = now().after(Duration::from_secs(60));
    let explained = |parent| explain_task(acme(&map), &opening(&map, parent), &opened(&map, 0, parent));
    let [by, beside, until] = &explained(Some(end))[..] else { panic!("{:?}", explained(Some(end))) };
    assert!(by.starts_with("policies: permitted by `a` (own.cedar:1); set "), "{by}");
    assert_eq!(beside, "shadow: OpenTask: would be refused instead: `b` (next.cedar:1)");
    assert_eq!(*until, format!("allowed until {end}"));
    let none = "policies: OpenTask: none of the 1 policies of the tenant permits it";
    assert_eq!(explained(None), [none, "refused POLICY_REFUSED: policy does not allow this"]);
}

#[test]
fn address_and_hour_are_looked_at() {
    let own = "@id(\"office\") permit(principal, action, resource) when { context has source_ip\n\
               && context.source_ip.isInRange(ip(\"10.0.0.0/8\")) && context.hour < 6 && context.weekday == 7 };";
    let folder = Folder { own, ..Folder::default() };
    // 2026-11-22 is a Sunday.
    let from = |address: &str, at: &str| Ask {
        origin: Origin::Network(address.parse().expect("an address")),
        at: Timestamp::parse_rfc3339(at).expect("a time"),
        ..Ask::default()
    };
    assert_eq!(said(&folder, &from("10.1.2.3", "2026-11-22T05:59:59Z")).0, "");
    assert_eq!(said(&folder, &from("::ffff:10.1.2.3", "2026-11-22T00:00:00Z")).0, "", "IPv4 through an IPv6 socket");
    assert_eq!(said(&folder, &from("11.1.2.3", "2026-11-22T05:00:00Z")).0, "POLICY_REFUSED");
    assert_eq!(said(&folder, &from("10.1.2.3", "2026-11-22T06:00:00Z")).0, "POLICY_REFUSED");
    assert_eq!(said(&folder, &from("10.1.2.3", "2026-11-23T05:00:00Z")).0, "POLICY_REFUSED");
    assert_eq!(said(&folder, &Ask::default()).0, "POLICY_REFUSED", "a Unix socket has no address");
}

#[test]
fn an_earlier_answer_is_given_to_no_other_question() {
    let looked_at = [
        "context.hour < 12 && context.renewals < 2",
        "Parameters::\"task\".hasTag(\"ticket\")",
        "context has source_ip && context.source_ip.isInRange(ip(\"10.0.0.0/8\"))",
        "Parameters::\"task\".hasTag(\"k\") && Parameters::\"task\".getTag(\"k\") == \"yes\"",
    ];
    let one = |(id, when)| {
        format!("@id(\"p{id}\") permit(principal, action in Action::\"Issue\", resource) when {{ {when} }};\n")
    };
    let own: String = looked_at.into_iter().enumerate().map(one).collect();
    let folder = Folder { own: &own, ..Folder::default() };
    let kept = folder.map();
    let hours = |n: u64| Timestamp::from_seconds(now().seconds() / 86_400 * 86_400 + n * 3_600);
    let asks = [
        Ask { at: hours(13), ..Ask::default() },
        Ask { at: hours(11), ..Ask::default() },
        Ask { at: hours(11), renewals: Some(3), ..Ask::default() },
        Ask { at: hours(13), intent: told("x", &[("ticket", "1")]), ..Ask::default() },
        Ask { at: hours(13), intent: told("x", &[("tick", "1")]), ..Ask::default() },
        Ask { at: hours(13), origin: Origin::Network([10, 1, 1, 1].into()), ..Ask::default() },
        Ask { at: hours(13), origin: Origin::Network([11, 1, 1, 1].into()), ..Ask::default() },
        Ask { at: hours(13), intent: told("x", &[("k", "no")]), ..Ask::default() },
        Ask { at: hours(13), intent: told("x", &[("k", "yes")]), ..Ask::default() },
    ];
    let fresh: Vec<bool> = asks.iter().map(|ask| ask.decide(&folder.map()).is_ok()).collect();
    assert_eq!(fresh, [false, true, false, true, false, true, false, false, true]);
    for _ in 0..2 {
        let again: Vec<bool> = asks.iter().map(|ask| ask.decide(&kept).is_ok()).collect();
        assert_eq!(again, fresh);
    }
}

#[test]
fn every_mistake_is_told_at_once_with_file_and_line() {
    let own = "// first line\n\
               @id(\"typo\")\npermit(principal, action, resource) when { context.purpos == \"x\" };\n\
               permit(principal, action, resource);\n\
               @id(\"a b\") permit(principal, action, resource);\n\
               @id(\"twin\") permit(principal, action, resource);\n\
               @id(\"twin\") permit(principal, action, resource);\n";
    let problems = Folder { own, ..Folder::default() }.read().expect_err("wrong");
    for told in
        ["own.cedar:4: policy: a policy has no id", "own.cedar:5: policy: an id is not", "own.cedar:7: policy: `twin`"]
    {
        assert!(problems.iter().any(|problem| problem.starts_with(told)), "{told}\nin {problems:#?}");
    }
    let own = "@id(\"typo\")\npermit(principal, action in Action::\"Issue\", resource)\nwhen { context.purpos == \"x\" };\n\
               @id(\"never\") permit(principal, action, resource) when { false };\n\
               @id(\"wrong-type\") permit(principal, action in Action::\"Issue\", resource) when { context.ttl_seconds == \"5\" };\n\
               @id(\"no-such\") permit(principal == Robot::\"x\", action, resource);\n\
               @id(\"not-both\") permit(principal, action == Action::\"OpenTask\", resource is Audience);\n";
    let rails = "@id(\"yes\") permit(principal, action, resource);";
    let problems = Folder { own, rails, ..Folder::default() }.read().expect_err("wrong");
    for told in [
        "own.cedar:3: ",
        "own.cedar:4: ",
        "own.cedar:5: ",
        "own.cedar:6: ",
        "own.cedar:7: ",
        "rails.cedar:1: policy: `yes` permits",
    ] {
        assert!(problems.iter().any(|problem| problem.starts_with(told)), "{told}\nin {problems:#?}");
    }
    let own = "@id(\"broken\")\npermit(principal action, resource);\n";
    let problems = Folder { own, ..Folder::default() }.read().expect_err("wrong");
    assert!(problems.iter().any(|problem| problem.starts_with("own.cedar:2: policy: ")), "{problems:#?}");
}

#[test]
fn files_must_be_named_and_names_must_be_files() {
    let read = |toml: &str, files: &[(&str, &str)]| -> Vec<String> {
        let toml = format!("{BASE}{}{toml}", grant("g", ""));
        let mut documents = vec![Document { path: "t/a.toml", text: &toml }];
        documents.extend(files.iter().map(|(path, text)| Document { path, text }));
        let problems = crate::policy::parse(&documents, Extent::Whole, now()).err();
        problems.map(|problems| problems.list().iter().map(ToString::to_string).collect()).unwrap_or_default()
    };
    let rails = "\n[guardrails]\nenforce = [\"x.cedar\"]\n";
    let forbid = "@id(\"x\") forbid(principal, action, resource);";
    assert_eq!(read(rails, &[("t/x.cedar", forbid)]), Vec::<String>::new(), "beside the file that names it");
    let told = |problems: Vec<String>, text: &str| {
        assert!(problems.iter().any(|problem| problem.contains(text)), "{text}\nin {problems:#?}");
    };
    told(read(rails, &[("x.cedar", forbid)]), "`x.cedar` is no policy file of this folder");
    told(read("", &[("t/x.cedar", forbid)]), "t/x.cedar:0: policy: is named by no tenant");
    told(read("\n[guardrails]\n", &[]), "and shadow are missing");
    told(read("\n[guardrails]\nenforced = \"x.cedar\"\n", &[]), "did you mean `enforce`?");
    let template = "@id(\"t\") permit(principal == ?principal, action, resource);";
    told(read(rails, &[("t/x.cedar", template)]), "holds a template");
}

#[test]
fn a_set_holds_at_its_limits_and_not_one_past() {
    let set = |count: usize| -> String {
        (0..count).map(|at| format!("@id(\"p{at}\") permit(principal, action, resource);\n")).collect()
    };
    let file = |text: String| [PolicyFile { path: "p.cedar".into(), text }];
    assert!(compile(&file(set(PolicyTexts::MAX_POLICIES)), Side::Tenant).is_ok());
    let mistakes = compile(&file(set(PolicyTexts::MAX_POLICIES + 1)), Side::Tenant).expect_err("too many");
    assert!(mistakes.iter().any(|mistake| mistake.message.contains("257 policies")), "{mistakes:?}");
    let padded = |bytes: usize| format!("{PERMIT}//{}", " ".repeat(bytes - PERMIT.len() - 2));
    assert!(compile(&file(padded(PolicyTexts::MAX_BYTES)), Side::Tenant).is_ok());
    let mistakes = compile(&file(padded(PolicyTexts::MAX_BYTES + 1)), Side::Tenant).expect_err("too long");
    assert!(mistakes.len() == 1 && mistakes[0].message.contains("262145 bytes"), "{mistakes:?}");
    let id = |bytes: usize| format!("@id(\"{}\") permit(principal, action, resource);", "i".repeat(bytes));
    assert!(compile(&file(id(64)), Side::Tenant).is_ok());
    assert!(compile(&file(id(65)), Side::Tenant).is_err());
}

#[test]
fn what_runs_in_shadow_decides_nothing_and_its_difference_is_told() {
    let shadow = "@id(\"next\") permit(principal, action, resource) when { context.task_type == \"release\" };";
    let ask = |task_type: &str| Ask { intent: told(task_type, &[]), ..Ask::default() };
    for own in ["", PERMIT] {
        let map = Folder { own, shadow, ..Folder::default() }.map();
        let decision = ask("debug").decide(&map).expect("what is in force allows it");
        let [difference] = decision.shadow() else { panic!("one difference: {:?}", decision.shadow()) };
        assert_eq!((difference.enforced.word(), difference.shadow.word()), ("allowed", "refused"));
        assert_eq!(ask("release").decide(&map).expect("allowed").shadow(), []);
    }
    let own = "@id(\"now\") forbid(principal, action, resource);";
    let map = Folder { own, shadow, ..Folder::default() }.map();
    let refused = ask("release").decide(&map).expect_err("refused");
    let [difference] = refused.shadow() else { panic!("one difference") };
    assert_eq!(
        (difference.shadow.word(), difference.shadow.policies.as_slice()),
        ("allowed", ids(&["next"]).as_slice())
    );
    let unlike = ask("debug").explain(&Folder { own: PERMIT, shadow, ..Folder::default() }.map());
    let told = "shadow: IssueToken for `https://api.test`: would be refused instead: no policy permits it";
    assert!(unlike.contains(told), "{unlike}");
    let explained = ask("release").explain(&map);
    assert!(
        explained
            .contains("shadow: IssueToken for `https://api.test`: would be allowed instead: `next` (next.cedar:1)"),
        "{explained}"
    );
}

#[test]
fn an_explanation_names_the_policy_its_file_and_line() {
    let own = format!(
        "{PERMIT}\n@id(\"no-debug\")\nforbid(principal, action, resource)\nwhen {{ context.task_type == \"debug\" }};"
    );
    let map = Folder { own: &own, ..Folder::default() }.map();
    let refused = Ask { intent: told("debug", &[]), ..Ask::default() }.explain(&map);
    assert!(refused.contains("forbidden by `no-debug` (own.cedar:4)"), "{refused}");
    assert!(refused.ends_with("refused POLICY_REFUSED: policy does not allow this"), "{refused}");
    let allowed = Ask::default().explain(&map);
    assert!(allowed.contains("policies: permitted by `all` (own.cedar:1); set "), "{allowed}");
    assert_eq!(Ask::default().explain(&Folder::default().map()).matches("polic").count(), 0);
    // Of one that none permits: how many were asked.
    let own = "@id(\"a\") permit(principal, action == Action::\"OpenTask\", resource);";
    let refused = Ask::default().explain(&Folder { own, ..Folder::default() }.map());
    let told = "IssueToken for `https://api.test`: none of the 1 policies of the tenant permits it";
    assert!(refused.contains(told), "{refused}");
}

#[test]
fn what_the_caller_is_told_names_no_policy() {
    let own = format!("{PERMIT}@id(\"secret-name\") forbid(principal, action, resource);");
    let why = Ask::default().decide(&Folder { own: &own, ..Folder::default() }.map()).expect_err("refused");
    assert_eq!(why.to_string(), "policy does not allow this");
}

#[test]
fn a_change_of_policies_shows_and_ends_nothing() {
    let (old, new) = (Folder { own: PERMIT, ..Folder::default() }.map(), format!("{PERMIT}// why\n"));
    let new = Folder { own: &new, rails: "@id(\"x\") forbid(principal, action, resource);", ..Folder::default() }.map();
    let changes = diff(&old, &new);
    let kinds: Vec<_> = changes.iter().map(|change| (change.kind, change.noun, change.cut_scope())).collect();
    assert_eq!(kinds, [(ChangeKind::Added, Noun::Guardrail, None), (ChangeKind::Edited, Noun::Policy, None)]);
    assert_ne!(acme(&old).hash(), acme(&new).hash());
    let again = TenantTrust::from_bytes(&acme(&new).to_bytes()).expect("a row");
    assert_eq!((&again, again.hash()), (acme(&new), acme(&new).hash()));
}
