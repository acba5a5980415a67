//! What Cedar is told, and which policies are asked.

use cedar_policy::Request;

use super::{
    super::{
        cell::{self, cell},
        compile::VOCABULARY,
        judge::Said,
        question::Needs,
    },
    *,
};

/// A question as [`decide`] asks it.
fn question<'a>(
    map: &'a TrustMap,
    action: PolicyAction,
    intent: Option<&'a Intent>,
    audiences: &'a [String],
) -> Question<'a> {
    let trust = acme(map);
    let (name, value) = trust.grants.iter().next().expect("a grant");
    let (workload, purpose) = (trust.workloads.iter().next().expect("a workload"), value.purposes.iter().next());
    Question {
        action,
        workload,
        partner: &value.partner,
        tenant: "acme",
        grant: (action != PolicyAction::OpenTask).then_some((name, value)),
        purpose: purpose.expect("a purpose"),
        intent,
        audiences,
        actions: &[],
        dns_names: &[],
        kind: CredentialKind::Jwt,
        life_seconds: 300,
        origin: Origin::Network([10, 0, 0, 7].into()),
        bound: true,
        renewals: 1,
        owner: "team".into(),
        attest_by: now(),
        is_child: false,
        now: now(),
    }
}

const ACTIONS: [PolicyAction; 5] = [
    PolicyAction::OpenTask,
    PolicyAction::IssueToken,
    PolicyAction::IssueCertificate,
    PolicyAction::IssueSecret,
    PolicyAction::Renew,
];

#[test]
fn what_is_asked_fits_the_schema() {
    let map = Folder { own: PERMIT, ..Folder::default() }.map();
    let own = acme(&map).sets.of(acme(&map).policy.as_ref(), Side::Tenant);
    let (intent, audiences) = (told("release", &[("ticket", "INC-1")]), ids(&[AUDIENCE]));
    for action in ACTIONS {
        let question = question(&map, action, intent.as_ref(), &audiences);
        let cell = cell(own, None, &question, AUDIENCE).expect("a cell");
        let all = Needs::of(action, std::iter::once("[context]"));
        let context = question.context(all, &cell.parameters).expect("a context");
        let (principal, uid, resource) = (cell.principal.clone(), cell.action.clone(), cell.resource.clone());
        if let Err(why) = Request::new(principal, uid, resource, context, VOCABULARY.as_ref()) {
            panic!("{action:?}: {why}");
        }
        assert!(cell::parameters(&cell, &question).expect("parameters").is_some());
    }
}

#[test]
fn asking_only_the_policies_that_can_concern_it_changes_no_answer() {
    let scopes = [
        "principal, action, resource",
        "principal == Workload::\"ci\", action, resource",
        "principal == Workload::\"lab\", action, resource",
        "principal in Partner::\"payco\", action, resource",
        "principal in Partner::\"other\", action, resource",
        "principal in Tenant::\"acme\", action, resource",
        "principal is Workload in Partner::\"payco\", action, resource",
        "principal is Workload, action, resource",
        "principal, action == Action::\"Renew\", resource",
        "principal, action in Action::\"Issue\", resource",
        "principal, action in [Action::\"OpenTask\", Action::\"IssueToken\"], resource",
        "principal, action in Action::\"Issue\", resource == Audience::\"https://api.test\"",
        "principal, action in Action::\"Issue\", resource == Audience::\"https://other.test\"",
        "principal, action in Action::\"Issue\", resource in Grant::\"g\"",
        "principal, action in Action::\"Issue\", resource in Grant::\"h\"",
        "principal, action in Action::\"Issue\", resource in Partner::\"payco\"",
        "principal, action, resource in Tenant::\"acme\"",
        "principal, action == Action::\"OpenTask\", resource == Tenant::\"acme\"",
        "principal, action in Action::\"Issue\", resource is Audience in Grant::\"g\"",
    ];
    let audiences = ids(&[AUDIENCE]);
    for scope in scopes {
        for (effect, rest) in [("permit", ""), ("forbid", PERMIT)] {
            let own = format!("@id(\"p\") {effect}({scope});\n{rest}");
            let map = Folder { own: &own, ..Folder::default() }.map();
            let sets = acme(&map).sets.of(acme(&map).policy.as_ref(), Side::Tenant);
            let all = sets.enforce.as_ref().expect("a set").as_ref().expect("compiled");
            let all = cedar_policy::PolicySet::from_policies(all.policies.iter().map(|entry| entry.policy.clone()));
            for action in ACTIONS {
                let question = question(&map, action, None, &audiences);
                let cell = cell(sets, None, &question, AUDIENCE).expect("a cell");
                let context = question.context(cell.enforce.needs, &cell.parameters).expect("a context");
                let (principal, uid, resource) = (cell.principal.clone(), cell.action.clone(), cell.resource.clone());
                let request = Request::new(principal, uid, resource, context, None).expect("a request");
                let narrowed = Said::of(&request, cell.enforce.own.as_ref().expect("a set"), &cell.entities);
                let whole = Said::of(&request, all.as_ref().expect("unique ids"), &cell.entities);
                assert_eq!(narrowed, whole, "{action:?}: {own}");
            }
        }
    }
}

#[test]
fn whose_a_grant_is_can_be_asked() {
    for (when, allowed) in [
        ("Grant::\"g\" in Partner::\"payco\" && Grant::\"g\" in Tenant::\"acme\"", true),
        ("Grant::\"g\" in Partner::\"other\"", false),
        ("Grant::\"h\" in Tenant::\"acme\"", false),
    ] {
        let own = format!("@id(\"of\") permit(principal, action in Action::\"Issue\", resource) when {{ {when} }};");
        let folder = Folder { own: &own, ..Folder::default() };
        assert_eq!(said(&folder, &Ask::default()).0, if allowed { "" } else { "POLICY_REFUSED" }, "{when}");
    }
}

#[test]
fn a_certificate_is_bound_and_a_token_where_it_is() {
    let own = "@id(\"bound\") permit(principal, action in Action::\"Issue\", resource) when { context.bound };";
    let map = Folder { own, ..Folder::default() }.map();
    for kind in [CredentialKind::Jwt, CredentialKind::X509] {
        assert_eq!(Ask { kind, ..Ask::default() }.said(&map).0, "", "{kind:?}");
    }
}

#[test]
fn what_was_compiled_is_taken_for_the_very_same_trust_map_and_no_other() {
    let rails = "@id(\"x\") forbid(principal, action, resource) when { context.task_type == \"x\" };";
    let map = Folder { own: PERMIT, rails, ..Folder::default() }.map();
    let stored = |trust: &TenantTrust| TenantTrust::from_bytes(&trust.to_bytes()).expect("a row");
    let (compiled, mut again) = (acme(&map), stored(acme(&map)));
    assert!(compiled.is_compiled() && !again.is_compiled());
    assert!(stored(acme(&Folder::default().map())).is_compiled(), "there is nothing to compile");
    again.adopt(&stored(acme(&map)).compiled());
    assert!(!again.is_compiled(), "nothing was compiled there");
    let other = format!("{PERMIT}// another\n");
    again.adopt(&acme(&Folder { own: &other, ..Folder::default() }.map()).compiled());
    assert!(!again.is_compiled(), "that was another one");
    again.adopt(&compiled.compiled());
    assert!(again.is_compiled());
    let fresh = stored(compiled);
    fresh.compile();
    assert!(fresh.is_compiled());
    // And so of what is global.
    let stored = |global: &GlobalTrust| GlobalTrust::from_bytes(&global.to_bytes()).expect("a row");
    let (mut again, fresh) = (stored(&map.global), stored(&map.global));
    assert!(map.global.is_compiled() && !again.is_compiled());
    assert!(stored(&Folder::default().map().global).is_compiled());
    again.adopt(&map.global.compiled());
    fresh.compile();
    assert!(again.is_compiled() && fresh.is_compiled());
}

#[test]
fn a_refusal_names_all_that_forbid_in_order_and_each_stands_where_its_file_has_it() {
    let line = |id: u32| format!("@id(\"p{id:02}\") forbid(principal, action, resource);\n");
    let own: String = (0..16).map(line).collect();
    let names: Vec<String> = (0..16).map(|id| format!("p{id:02}")).collect();
    let map = Folder { own: &own, ..Folder::default() }.map();
    assert_eq!(Ask::default().said(&map), ("POLICY_REFUSED", names.clone()));
    let sets = acme(&map).sets.of(acme(&map).policy.as_ref(), Side::Tenant);
    let compiled = sets.enforce.as_ref().expect("a set").as_ref().expect("compiled");
    for (at, name) in names.iter().enumerate() {
        assert_eq!(compiled.place(name), Some(format!("own.cedar:{}", at + 1)));
    }
}

/// An answer is remembered by these bytes: were those of two questions the same, one would get the other's answer.
#[test]
fn questions_that_differ_in_anything_that_is_looked_at_differ_in_their_bytes() {
    let map = Folder { own: PERMIT, ..Folder::default() }.map();
    let all = Needs::of(PolicyAction::IssueToken, std::iter::once("[context]"));
    let audiences = ids(&[AUDIENCE]);
    let base = question(&map, PolicyAction::IssueToken, None, &audiences);
    let lists: [&[&str]; 10] = [
        &[],
        &["a"],
        &["b"],
        &["a", "b"],
        &["ab"],
        &["a", ""],
        &["", "a"],
        &["", ""],
        // A text is not told from the next by a byte that it could have itself.
        &["a\u{1}b", "c"],
        &["a", "b\u{1}c"],
    ];
    let lists = lists.map(ids);
    let intents: Vec<Intent> = [("x", "1", "2"), ("x", "2", "1"), ("x", "12", ""), ("x", "", "12"), ("y", "1", "2")]
        .into_iter()
        .filter_map(|(task_type, one, two)| told(task_type, &[("a", one), ("b", two)]))
        .collect();
    assert_eq!(intents.len(), 5);
    let mut seen = Vec::new();
    for (actions, dns_names) in lists.iter().flat_map(|one| lists.iter().map(move |other| (one, other))) {
        seen.push(Question { actions, dns_names, ..base.clone() }.values(all));
    }
    seen.extend(intents.iter().map(|intent| Question { intent: Some(intent), ..base.clone() }.values(all)));
    seen.push(Question { origin: Origin::Local, ..base.clone() }.values(all));
    seen.push(Question { bound: false, ..base.clone() }.values(all));
    // Nor is one list from the next.
    for (actions, audiences) in [(&["a"][..], &["b"][..]), (&[][..], &["a", "b"][..]), (&["a", "b"][..], &[][..])] {
        seen.push(Question { actions: &ids(actions), audiences: &ids(audiences), ..base.clone() }.values(all));
    }
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!((count, seen.len()), (110, 110));
}
