//! One case against a trust map: the same parsing and deciding as a broker's, without one.

use crate::{
    broker::time::SystemClock,
    cli::cell::{Fields, Record},
    model::{Clock, Intent, Ruling, Timestamp},
    policy::{
        self, Asked, BindingWish, Denied, Facts, Origin, Scene, TaskAsked, TaskFacts, TenantTrust, TrustMap, Workload,
    },
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
    let origin = origin_of(trust, case);
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

/// Where a case comes from. What is not said gives nothing: it is in no network, and a Unix socket only where the workload
/// has no other way.
fn origin_of(trust: &TenantTrust, case: &Case) -> Origin {
    let has_no_other_way = || trust.workloads().get(&case.workload).is_some_and(Workload::is_local);
    match case.source_ip {
        Some(address) => Origin::Network(address),
        None if case.local.unwrap_or_else(has_no_other_way) => Origin::Local,
        None => Origin::Elsewhere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Document, Extent};

    /// `job` comes by a socket alone and `agent` also with a certificate; both may have `stripe`, whose class asks for a key,
    /// and `free`, which asks for none but is for one network.
    const TRUST: &str = r#"
        [[operator]]
        name = "admin"
        role = "admin"
        tenants = "all"
        partners = "all"
        [[partner]]
        name = "payco"
        display_name = "Payco"
        contact = "ops@payco.example"
        [[tenant]]
        name = "acme"
        [[workload]]
        tenant = "acme"
        name = "job"
        environment = "prod"
        selectors = [{ unix_uid = 1000 }]
        [[workload]]
        tenant = "acme"
        name = "agent"
        environment = "prod"
        selectors = [
            { unix_uid = 1001 },
            { spiffe_id = "spiffe://platform.example/agent", authority = "platform" },
        ]
        [[resource_class]]
        tenant = "acme"
        name = "financial"
        audiences = ["secret:stripe"]
        ttl_max = "5m"
        [[grant]]
        tenant = "acme"
        name = "pay"
        partner = "payco"
        workloads = ["job", "agent"]
        purposes = ["pay"]
        kinds = ["secret"]
        secrets = ["stripe"]
        ttl_max = "5m"
        task_max = "1h"
        owner = "ann@acme.example"
        expires = 2027-12-01
        attest_by = 2027-09-01
        revokers = ["admin"]
        environment = "prod"
        [[grant]]
        tenant = "acme"
        name = "near"
        partner = "payco"
        workloads = ["job", "agent"]
        purposes = ["read"]
        audiences = ["https://api.acme.example"]
        actions = ["read"]
        kinds = ["jwt"]
        sources = ["10.0.0.0/8"]
        require_binding = false
        ttl_max = "5m"
        task_max = "1h"
        owner = "ann@acme.example"
        expires = 2027-12-01
        attest_by = 2027-09-01
        revokers = ["admin"]
        environment = "prod"
    "#;

    fn reason(more: &str) -> String {
        let at = Timestamp::parse_rfc3339("2027-01-01T00:00:00Z").expect("a time");
        let document = Document { path: "trust.toml", text: TRUST };
        let map = policy::parse_with(&[document], Extent::Whole, &[], at).expect("a trust map");
        let text = format!(
            "[[case]]\nname = \"n\"\ntenant = \"acme\"\npartner = \"payco\"\nat = \"2027-01-01T00:00:00Z\"\n\
             certificate = false\nexpect = \"allowed\"\n{more}\n"
        );
        let cases = super::super::table::parse(&text).expect("a table");
        run(&map, "cases.test.toml", &cases[0]).reason
    }

    #[test]
    fn a_source_that_is_not_said_is_no_unix_socket_but_of_who_has_no_other_way() {
        let stripe =
            |more: &str| reason(&format!("purpose = \"pay\"\nkind = \"secret\"\naudience = \"secret:stripe\"\n{more}"));
        assert_eq!(stripe("workload = \"job\""), "");
        assert_eq!(stripe("workload = \"job\"\nlocal = false"), "BINDING_REQUIRED");
        assert_eq!(stripe("workload = \"agent\""), "BINDING_REQUIRED");
        assert_eq!(stripe("workload = \"agent\"\nlocal = true"), "");
        assert_eq!(stripe("workload = \"agent\"\nsource_ip = \"10.0.0.7\""), "BINDING_REQUIRED");
        // A grant for one network is for nobody of whom nothing is said.
        let near = |more: &str| reason(&format!("purpose = \"read\"\naudience = \"https://api.acme.example\"\n{more}"));
        assert_eq!(near("workload = \"agent\"\nsource_ip = \"10.0.0.7\""), "");
        for said in ["", "local = true", "source_ip = \"192.0.2.7\""] {
            assert_ne!(near(&format!("workload = \"agent\"\n{said}")), "", "{said}");
        }
    }
}
