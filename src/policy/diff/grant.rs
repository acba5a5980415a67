//! What a changed grant gives and takes.

use crate::{
    model::Timestamp,
    policy::{sorted::Sorted, trust::Grant},
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
    compared
}

fn words(grant: &Grant) -> Sorted<&'static str> {
    grant.kinds.iter().map(|kind| kind.word()).collect()
}

fn seconds(seconds: u32) -> String {
    format!("{seconds}s")
}
