//! Tables to grants.

use std::time::Duration;

use crate::{
    model::{CredentialKind, PartnerName, Purpose, SecretName, Timestamp, Ttl},
    policy::{grant::Grant, pattern::Pattern, problem::Problem},
};

use super::{
    demand,
    item::{QUOTA, Revokers, Workloads, environment},
    row::Row,
    words::{Action, DnsName, Kind, Network},
};

/// A grant. Each of what makes it answerable - owner, purpose, expiry, revokers - is missed with a message of its own.
pub(super) fn grant(row: &Row<'_>, now: Timestamp, problems: &mut Vec<Problem>) -> Option<Grant> {
    row.only(&FIELDS, problems);
    let owner = row.prose("owner", "say who answers for it: a mail address or a team", problems);
    let purposes = row.list::<Purpose>("purposes", Some("say what it is for: purposes = [\"...\"]"), problems);
    let expires = row.time("expires", "say when it ends, at most 400 days from now", problems);
    let revokers = row.list("revokers", Some("name the operators who can end it"), problems);
    let attest_by = row.time("attest_by", "say when its owner must have confirmed it", problems);
    let partner = row.parsed::<PartnerName>("partner", "say which partner it is for", problems);
    let workloads = row.list("workloads", Some("name the workloads that may use it"), problems);
    let actions = row.list::<Action>("actions", None, problems);
    let kinds = row.list::<Kind>("kinds", Some("write some of \"jwt\", \"opaque\", \"x509\", \"secret\""), problems);
    let secrets = secrets(row, kinds.as_deref(), problems);
    let is_for_secrets = kinds.iter().flatten().all(|kind| kind.0 == CredentialKind::Secret) && kinds.is_some();
    let help = (!is_for_secrets).then_some("name the resources it is for");
    let audiences = row.list::<Pattern>("audiences", help, problems);
    let dns_names = row.list::<DnsName>("dns_names", None, problems);
    let times = times(row, problems);
    let environment = environment(row, problems);
    let sources = row.list::<Network>("sources", None, problems);
    let require_binding = row.flag("require_binding", true, problems);
    let max_live_leases = row.number("max_live_leases", QUOTA, Some(10_000), problems);
    let attest_every = row.seconds_if_any("attest_every", DAYS_400, problems);
    let test = row.flag("test", false, problems);
    let approvals = demand::approvals(row, problems);
    let velocity = demand::velocity(row, problems);
    let workload_api = row.flag("workload_api", false, problems);
    let max_leases_per_task = row.number("max_leases_per_task", 1..=10_000, Some(64), problems);
    let max_renewals = max_renewals(row, problems);
    let (expires, attest_by) = (expires?, attest_by?);
    dates(row, expires, attest_by, now, problems);
    let (ttl_default, ttl_max, task_max_seconds) = times?;
    let revokers: Revokers = revokers?;
    let workloads: Workloads = workloads?;
    let grant = Grant {
        partner: partner?,
        workloads: workloads.into(),
        purposes: purposes?.into(),
        audiences: audiences?.into(),
        actions: actions?.into_iter().map(|action| action.0).collect(),
        kinds: kinds?.into_iter().map(|kind| kind.0).collect(),
        dns_names: dns_names?.into_iter().map(|name| name.0).collect(),
        ttl_default,
        ttl_max,
        task_max_seconds,
        owner: owner?,
        expires,
        revokers: revokers.into(),
        attest_by,
        environment: environment?,
        require_binding: require_binding?,
        sources: sources?.into_iter().map(|network| network.0).collect(),
        max_live_leases: max_live_leases?,
        max_leases_per_task: u32::try_from(max_leases_per_task?).ok()?,
        attest_every: attest_every?,
        test: test?,
        approvals: approvals?,
        velocity: velocity?,
        secrets: secrets?.into(),
        workload_api: workload_api?,
        max_renewals: max_renewals?,
    };
    demand::fits(row, &grant, problems);
    serves(row, &grant, problems);
    Some(grant)
}

/// What the Workload API cannot ask its callers for must follow from the grant alone.
fn serves(row: &Row<'_>, grant: &Grant, problems: &mut Vec<Problem>) {
    if !grant.workload_api {
        return;
    }
    let kind = |kind: CredentialKind| grant.kinds.has(&kind);
    if grant.purposes.len() != 1 {
        let wrong = format!("names {}, and callers of the Workload API cannot choose", grant.purposes.len());
        row.wrong("purposes", wrong, "name one purpose, and write another grant for the others", problems);
    }
    if !kind(CredentialKind::X509) && !kind(CredentialKind::Jwt) {
        row.wrong("kinds", "has neither \"x509\" nor \"jwt\", which the Workload API serves", "add one", problems);
    }
    if kind(CredentialKind::Jwt) && grant.require_binding {
        let wrong = "is on, and JWT-SVIDs are not bound to a certificate";
        row.wrong("require_binding", wrong, "write require_binding = false, or leave \"jwt\" out of kinds", problems);
    }
    if grant.approvals.is_some() {
        row.wrong("approvals", "cannot be asked for over the Workload API", "leave out one of the two", problems);
    }
    if !grant.sources.is_empty() {
        row.wrong("sources", "names networks, and a Unix socket is in none", "leave out one of the two", problems);
    }
}

/// `secrets = ["stripe-key"]`: there with the kind `secret`, and not without it.
fn secrets(row: &Row<'_>, kinds: Option<&[Kind]>, problems: &mut Vec<Problem>) -> Option<Vec<SecretName>> {
    let Some(kinds) = kinds else { return Some(Vec::new()) };
    let hands_out = kinds.iter().any(|kind| kind.0 == CredentialKind::Secret);
    if !hands_out && row.has("secrets") {
        let help = "add \"secret\" to kinds, or remove secrets";
        row.wrong("secrets", "is there without the kind that hands them out", help, problems);
        return None;
    }
    row.list("secrets", hands_out.then_some("name the static secrets that it may hand out"), problems)
}

/// `Some(None)` when it is left out.
fn max_renewals(row: &Row<'_>, problems: &mut Vec<Problem>) -> Option<Option<u32>> {
    if !row.has("max_renewals") {
        return Some(None);
    }
    let most = row.number("max_renewals", 0..=Grant::RENEWALS_MOST.into(), None, problems)?;
    u32::try_from(most).ok().map(Some)
}

/// Default life, longest life, longest task.
fn times(row: &Row<'_>, problems: &mut Vec<Problem>) -> Option<(u32, u32, u32)> {
    let max = row.seconds("ttl_max", Ttl::MAX.seconds(), None, problems);
    let default = row.seconds("ttl_default", Ttl::MAX.seconds(), Some(max.unwrap_or(300).min(300)), problems);
    let task = row.seconds("task_max", 86_400, Some(3_600), problems);
    let (max, default, task) = (max?, default?, task?);
    if default > max {
        row.wrong("ttl_default", format!("{default} s exceed ttl_max, {max} s"), "lower it", problems);
        return None;
    }
    if max > task {
        row.wrong("ttl_max", format!("{max} s exceed task_max, {task} s"), "lower it, or raise task_max", problems);
        return None;
    }
    Some((default, max, task))
}

fn dates(row: &Row<'_>, expires: Timestamp, attest_by: Timestamp, now: Timestamp, problems: &mut Vec<Problem>) {
    let latest = now.after(LONGEST);
    if expires > latest {
        let help = format!("write {} at the latest", latest.rfc3339());
        row.wrong("expires", "is more than 400 days ahead", help, problems);
    }
    if attest_by > expires {
        row.wrong("attest_by", "is after expires", "write an earlier date", problems);
    }
}

/// How far ahead a grant can end.
const LONGEST: Duration = Duration::from_secs(DAYS_400 as u64);
const DAYS_400: u32 = 400 * 86_400;

const FIELDS: [&str; 28] = [
    "tenant",
    "name",
    "partner",
    "workloads",
    "purposes",
    "audiences",
    "actions",
    "kinds",
    "dns_names",
    "ttl_default",
    "ttl_max",
    "task_max",
    "owner",
    "expires",
    "revokers",
    "attest_by",
    "environment",
    "require_binding",
    "sources",
    "max_live_leases",
    "max_leases_per_task",
    "attest_every",
    "test",
    "approvals",
    "velocity",
    "secrets",
    "workload_api",
    "max_renewals",
];
