//! What a changed grant gives and takes.

use crate::{
    model::Timestamp,
    policy::{grant::Grant, sorted::Sorted},
};

use super::compare::Compared;

pub(super) fn compare(old: &Grant, new: &Grant) -> Compared {
    let mut compared = Compared::default();
    compared.moved("partner", &old.partner, &new.partner);
    compared.set("workloads", &old.workloads, &new.workloads);
    compared.set("purposes", &old.purposes, &new.purposes);
    compared.patterns("audiences", &old.audiences, &new.audiences);
    compared.patterns("actions", &old.actions, &new.actions);
    compared.set("kinds", &words(old), &words(new));
    compared.set("dns_names", &old.dns_names, &new.dns_names);
    compared.set("secrets", &old.secrets, &new.secrets);
    compared.edit("ttl_default", &seconds(old.ttl_default), &seconds(new.ttl_default));
    compared.ordered("ttl_max", old.ttl_max, new.ttl_max, seconds);
    compared.ordered("task_max", old.task_max_seconds, new.task_max_seconds, seconds);
    compared.edit("owner", &old.owner, &new.owner);
    compared.ordered("expires", old.expires, new.expires, Timestamp::rfc3339);
    compared.edit_set("revokers", &old.revokers, &new.revokers);
    compared.ordered("attest_by", old.attest_by, new.attest_by, Timestamp::rfc3339);
    compared.moved("environment", &old.environment, &new.environment);
    // Demanding less is more: `false` counts as the greater.
    compared.ordered("require_binding", !old.require_binding, !new.require_binding, |free| (!free).to_string());
    compared.networks("sources", &old.sources, &new.sources);
    compared.quota("max_live_leases", old.max_live_leases, new.max_live_leases);
    compared.quota("max_leases_per_task", old.max_leases_per_task, new.max_leases_per_task);
    compared.quota("max_renewals", Most(old.max_renewals), Most(new.max_renewals));
    let every = |period: Option<u32>| period.map_or("by date".to_owned(), seconds);
    compared.edit("attest_every", &every(old.attest_every), &every(new.attest_every));
    compared.moved("test", &old.test, &new.test);
    compared.ordered("workload_api", old.workload_api, new.workload_api, |served| served.to_string());
    demands(&mut compared, old, new);
    compared
}

/// Approvals that are demanded where they were not, or more of them, take what lives; fewer give. Who approves is no
/// authority over what lives: a request that no longer fits is void by itself.
fn demands(compared: &mut Compared, old: &Grant, new: &Grant) {
    let spell = |grant: &Grant| grant.approvals.as_ref().map_or("none".to_owned(), ToString::to_string);
    compared.edit("approvals", &spell(old), &spell(new));
    for purpose in new.purposes.iter() {
        let needed = |grant: &Grant| std::cmp::Reverse(grant.approvals_for(purpose).map_or(0, |need| need.needed));
        compared.ordered(&format!("approvals for {purpose}"), needed(old), needed(new), |needed| needed.0.to_string());
    }
    for ((field, before), (_, after)) in old.velocity.limits().into_iter().zip(new.velocity.limits()) {
        compared.quota(&format!("velocity.{field}"), Most(before), Most(after));
    }
}

/// A bound that may be absent, which is more than any.
#[derive(Clone, Copy, Eq, PartialEq)]
struct Most(Option<u32>);

impl Ord for Most {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let most = |bound: &Self| bound.0.map_or(u64::MAX, u64::from);
        most(self).cmp(&most(other))
    }
}

impl PartialOrd for Most {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl std::fmt::Display for Most {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(bound) => bound.fmt(f),
            None => f.write_str("no limit"),
        }
    }
}

fn words(grant: &Grant) -> Sorted<&'static str> {
    grant.kinds.iter().map(|kind| kind.word()).collect()
}

fn seconds(seconds: u32) -> String {
    format!("{seconds}s")
}
