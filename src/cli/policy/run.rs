//! One case against a trust map: the same parsing and deciding as a broker's, without one.

use crate::{
    broker::time::SystemClock,
    cli::cell::{Fields, Record},
    model::{Clock, Intent, Ruling, Timestamp},
    policy::{self, Asked, BindingWish, Denied, Facts, Origin, Scene, TaskAsked, TaskFacts, TenantTrust, TrustMap},
};

use super::table::{Act, Case, Expect};

/// How a case turned out.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub file: String,
    pub case: String,
    pub passed: bool,
    pub expected: String,
    pub got: String,
    pub reason: String,
    pub policies: Vec<String>,
    /// Why, a line each; of what turned out otherwise.
    pub steps: Vec<String>,
}

impl Record for Outcome {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("FILE", "file"),
        ("CASE", "case"),
        ("PASSED", "passed"),
        ("EXPECTED", "expected"),
        ("GOT", "got"),
        ("REASON", "reason"),
        ("POLICIES", "policies"),
        ("WHY", "steps"),
    ];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("file", &self.file)
            .text("case", &self.case)
            .flag("passed", self.passed)
            .text("expected", &self.expected)
            .text("got", &self.got)
            .text("reason", &self.reason)
            .words("policies", &self.policies)
            .words("steps", &self.steps)
    }
}

/// The time of this machine.
pub fn now() -> Timestamp {
    SystemClock.wall()
}

/// Decides about a case.
pub fn run(map: &TrustMap, file: &str, case: &Case) -> Outcome {
    let mut outcome =
        Outcome { file: file.to_owned(), case: case.name.clone(), expected: expected(case), ..Outcome::default() };
    let Some(trust) = map.tenants.get(&case.tenant) else {
        outcome.got = format!("there is no tenant `{}`", case.tenant);
        return outcome;
    };
    let intent = match Intent::new(&case.task_type, case.parameters.clone()) {
        Ok(intent) => intent,
        Err(why) => {
            outcome.got = format!("`{}` {why}", why.field());
            return outcome;
        }
    };
    let decided = decide(map, trust, case, intent.as_ref(), &mut outcome.steps);
    let got = match &decided {
        Ok(ruling) => {
            outcome.policies = ruling.as_ref().map(|ruling| ruling.policies.clone()).unwrap_or_default();
            Expect::Allowed
        }
        Err(denied) => {
            denied.reason().clone_into(&mut outcome.reason);
            outcome.policies = denied.policy().map(|said| said.policies.clone()).unwrap_or_default();
            Expect::Refused
        }
    };
    got.word().clone_into(&mut outcome.got);
    outcome.passed = got == case.expect
        && case.reason.as_ref().is_none_or(|reason| *reason == outcome.reason)
        && case.policy.as_ref().is_none_or(|policy| outcome.policies.contains(policy));
    if outcome.passed {
        outcome.steps.clear();
    }
    outcome
}

fn expected(case: &Case) -> String {
    let more = [&case.reason, &case.policy].into_iter().flatten().map(String::as_str);
    std::iter::once(case.expect.word()).chain(more).collect::<Vec<_>>().join(" ")
}

fn decide(
    map: &TrustMap,
    trust: &TenantTrust,
    case: &Case,
    intent: Option<&Intent>,
    steps: &mut Vec<String>,
) -> Result<Option<Ruling>, Denied> {
    let at = case.at.unwrap_or_else(now);
    let origin = case.source_ip.map_or(Origin::Local, Origin::Network);
    let scene = Scene {
        global: Some(&map.global),
        intent,
        renewals: (case.act == Act::Renew).then_some(1),
        opens: case.act == Act::Issue,
        owner: None,
    };
    if case.act == Act::Open {
        let asked = TaskAsked {
            workload: &case.workload,
            partner: &case.partner,
            purpose: &case.purpose,
            deadline_seconds: case.ttl,
        };
        let facts = TaskFacts {
            basis: (0, 0),
            parent_deadline: None,
            attest_by: &|_| None,
            proofs: Vec::new(),
            origin,
            approved: &[],
            scene,
        };
        let decided = policy::decide_task(trust, &asked, &facts, at);
        steps.extend(policy::explain_task(trust, &facts, &decided));
        return decided.map(|decision| decision.ruling().cloned());
    }
    let asked = Asked {
        workload: &case.workload,
        partner: &case.partner,
        purpose: &case.purpose,
        grant: case.grant.as_ref(),
        kind: case.kind,
        audiences: &case.audience,
        actions: &case.actions,
        dns_names: &case.dns_names,
        ttl_seconds: case.ttl,
        binding: BindingWish::Default,
    };
    let facts = Facts {
        basis: (0, 0),
        task_deadline: None,
        proof_expires: None,
        issuer_expires: None,
        has_certificate: case.certificate,
        attest_by: &|_| None,
        proofs: Vec::new(),
        origin,
        approved: &[],
        scene,
    };
    steps.extend(policy::explain(trust, &asked, &facts, at));
    policy::decide(trust, &asked, &facts, at).map(|decision| decision.ruling().cloned())
}
