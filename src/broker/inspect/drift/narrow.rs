//! The grant that would have been enough: all that was used of one, and nothing that it does not give.

use std::collections::BTreeSet;

use super::Used;
use crate::{
    model::{GrantName, TenantName, static_secret},
    policy::{Approvals, Grant, Pattern, TenantTrust},
};

/// What the grant allows and nobody used, as `field value`.
pub(super) fn unused(grant: &Grant, used: &Used) -> Vec<String> {
    let missing = |field: &str, granted: Vec<String>, is_used: &dyn Fn(&String) -> bool| {
        let unused = granted.into_iter().filter(|value| !is_used(value));
        unused.map(|value| format!("{field} {value}")).collect::<Vec<_>>()
    };
    let unfit = |field: &str, granted: &[Pattern], used: &BTreeSet<String>| {
        let unused = granted.iter().filter(|pattern| !used.iter().any(|one| pattern.fits(one)));
        unused.map(|pattern| format!("{field} {pattern}")).collect::<Vec<_>>()
    };
    let mut all = missing("workload", texts(&grant.workloads), &|value| used.workloads.contains(value));
    all.extend(missing("purpose", texts(&grant.purposes), &|value| used.purposes.contains(value)));
    all.extend(unfit("audience", &grant.audiences, &used.audiences));
    if !used.all_actions {
        all.extend(unfit("action", &grant.actions, &used.actions));
    }
    let secrets = grant.secrets.iter().filter(|secret| !used.audiences.contains(&static_secret::audience(secret)));
    all.extend(secrets.map(|secret| format!("secret {secret}")));
    let kinds = grant.kinds.iter().map(|kind| kind.word().to_owned()).collect();
    all.extend(missing("kind", kinds, &|value| used.kinds.contains(value.as_str())));
    if used.issues > 0 && used.ttl < u64::from(grant.ttl_max) {
        all.push(format!("ttl_max {}s, {}s were enough", grant.ttl_max, used.ttl));
    }
    all
}

/// The grant with no more than was used: every list a part of the old one's, every limit at most the old one's, every
/// demand still made.
pub(super) fn proposal(tenant: &TenantName, name: &GrantName, grant: &Grant, used: &Used) -> String {
    let within = |granted: Vec<String>, used: &BTreeSet<String>| {
        granted.into_iter().filter(|value| used.contains(value)).collect::<Vec<_>>()
    };
    let actions = if used.all_actions { texts(&grant.actions) } else { fitting(&grant.actions, &used.actions) };
    let kinds = grant.kinds.iter().map(|kind| kind.word().to_owned());
    let kinds: Vec<String> = kinds.filter(|kind| used.kinds.contains(kind.as_str())).collect();
    let ttl_max = u64::from(grant.ttl_max).min(used.ttl.max(1));
    let lines = [
        ("tenant", text(tenant.as_str())),
        ("name", text(name.as_str())),
        ("partner", text(grant.partner.as_str())),
        ("workloads", list(&within(texts(&grant.workloads), &used.workloads))),
        ("purposes", list(&within(texts(&grant.purposes), &used.purposes))),
        ("audiences", list(&fitting(&grant.audiences, &used.audiences))),
        ("actions", list(&actions)),
        ("kinds", list(&kinds)),
        ("dns_names", list(&grant.dns_names)),
        ("ttl_default", u64::from(grant.ttl_default).min(ttl_max).to_string()),
        ("ttl_max", ttl_max.to_string()),
        ("task_max", grant.task_max_seconds.to_string()),
        ("owner", text(&grant.owner)),
        ("expires", text(&grant.expires.rfc3339())),
        ("revokers", list(&texts(&grant.revokers))),
        ("attest_by", text(&grant.attest_by.rfc3339())),
        ("environment", text(&grant.environment)),
        ("sources", list(&texts(&grant.sources))),
        ("require_binding", grant.require_binding.to_string()),
        ("max_live_leases", grant.max_live_leases.to_string()),
        ("max_leases_per_task", grant.max_leases_per_task.to_string()),
    ];
    let more = [
        grant.attest_every.map(|seconds| format!("attest_every = {seconds}\n")),
        grant.test.then(|| "test = true\n".to_owned()),
        secrets(grant, used),
        grant.max_renewals.map(|most| format!("max_renewals = {most}\n")),
        grant.workload_api.then(|| "workload_api = true\n".to_owned()),
        grant.approvals.as_ref().and_then(|approvals| approvals_of(approvals, used)),
        velocity(grant),
    ];
    let body: String = lines.into_iter().map(|(field, value)| format!("{field} = {value}\n")).collect();
    format!("[[grant]]\n{body}{}", more.into_iter().flatten().collect::<String>())
}

/// What was used and is granted. More of it than a list in a trust file holds says that what is granted is meant.
fn fitting(granted: &[Pattern], used: &BTreeSet<String>) -> Vec<String> {
    let is_granted = |one: &&String| granted.iter().any(|pattern| pattern.fits(one));
    let exact: Vec<String> = used.iter().filter(is_granted).cloned().collect();
    if exact.len() <= TenantTrust::MAX_LIST {
        return exact;
    }
    let fits = |pattern: &&Pattern| exact.iter().any(|one| pattern.fits(one));
    granted.iter().filter(fits).map(ToString::to_string).collect()
}

/// Static secrets that were handed out.
fn secrets(grant: &Grant, used: &Used) -> Option<String> {
    let used = grant.secrets.iter().filter(|secret| used.audiences.contains(&static_secret::audience(secret)));
    let used: Vec<String> = used.map(ToString::to_string).collect();
    (!used.is_empty()).then(|| format!("secrets = {}\n", list(&used)))
}

/// Who must agree, for what was used. Where it was demanded for other purposes only, there is nothing left to demand it for.
fn approvals_of(approvals: &Approvals, used: &Used) -> Option<String> {
    let purposes: Vec<String> =
        texts(&approvals.purposes).into_iter().filter(|purpose| used.purposes.contains(purpose)).collect();
    if purposes.is_empty() && !approvals.purposes.is_empty() {
        return None;
    }
    let (needed, by, valid) = (approvals.needed, list(&texts(&approvals.by)), approvals.valid_seconds);
    let purposes = if purposes.is_empty() { String::new() } else { format!(", purposes = {}", list(&purposes)) };
    Some(format!("approvals = {{ needed = {needed}, by = {by}, valid_seconds = {valid}{purposes} }}\n"))
}

fn velocity(grant: &Grant) -> Option<String> {
    let limits = grant.velocity.limits().into_iter();
    let limits: Vec<String> = limits.filter_map(|(field, most)| Some(format!("{field} = {}", most?))).collect();
    (!limits.is_empty()).then(|| format!("velocity = {{ {} }}\n", limits.join(", ")))
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

/// A basic string of TOML: what JSON escapes, TOML reads.
fn text(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

fn list(values: &[String]) -> String {
    serde_json::Value::from(values.to_vec()).to_string()
}
