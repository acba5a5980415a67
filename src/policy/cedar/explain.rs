//! What policies said, in words, with file and line.

use crate::{
    model::Ruling,
    policy::trust::{GlobalTrust, TenantTrust},
};

use super::{
    compile::{GUARDRAILS, Side},
    sets::{Inner, Loaded},
    verdict::{Difference, PolicyRefusal, RefusedBy, Verdict},
};

/// Where a policy in force stands, as `alpha.cedar:12`; of one that only runs in shadow, there.
fn place(trust: &TenantTrust, global: Option<&GlobalTrust>, id: &str) -> Option<String> {
    let sets = match id.starts_with(GUARDRAILS) {
        true => {
            let global = global?;
            global.sets.of(global.guardrails.as_ref(), Side::Guardrails)
        }
        false => trust.sets.of(trust.policy.as_ref(), Side::Tenant),
    };
    let of = |loaded: &Option<Loaded>| loaded.as_ref().and_then(|loaded| loaded.as_ref().ok()?.place(id));
    of(&sets.enforce).or_else(|| of(&sets.shadow))
}

/// What policies said of a decision, a line each; nothing where there are none.
pub(in crate::policy) fn policies(
    trust: &TenantTrust,
    global: Option<&GlobalTrust>,
    decided: Result<(Option<&Ruling>, &[Difference]), &PolicyRefusal>,
) -> Vec<String> {
    let named = |id: &String| match place(trust, global, id) {
        Some(place) => format!("`{id}` ({place})"),
        None => format!("`{id}`"),
    };
    let (mut lines, shadow) = match decided {
        Ok((ruling, shadow)) => {
            let Some(ruling) = ruling else { return Vec::new() };
            let by: Vec<String> = ruling.policies.iter().map(named).collect();
            let line = match by.is_empty() {
                true => "no guardrail forbids it".to_owned(),
                false => format!("permitted by {}", by.join(", ")),
            };
            (vec![format!("policies: {line}; set {}", ruling.set)], shadow)
        }
        Err(refusal) => (refused(trust, refusal, named), refusal.shadow.as_slice()),
    };
    lines.extend(shadow.iter().map(|difference| shadowed(difference, named)));
    lines
}

fn refused(trust: &TenantTrust, refusal: &PolicyRefusal, named: impl Fn(&String) -> String) -> Vec<String> {
    let what = subject(refusal.action.word(), &refusal.audience);
    match refusal.by {
        RefusedBy::Unreadable => refusal.errors.iter().map(|why| format!("policies: cannot be read: {why}")).collect(),
        RefusedBy::Error => {
            refusal.errors.iter().map(|why| format!("policies: {what}: cannot be evaluated: {why}")).collect()
        }
        RefusedBy::Policy if refusal.policies.is_empty() => {
            let sets = trust.sets.of(trust.policy.as_ref(), Side::Tenant);
            vec![format!("policies: {what}: none of {} permits it", counted(sets))]
        }
        RefusedBy::Policy => {
            refusal.policies.iter().map(|id| format!("policies: {what}: forbidden by {}", named(id))).collect()
        }
    }
}

fn counted(sets: &Inner) -> String {
    let count = sets.enforce.as_ref().and_then(|set| set.as_ref().ok()).map_or(0, |set| set.policies.len());
    format!("the {count} policies of the tenant")
}

fn shadowed(difference: &Difference, named: impl Fn(&String) -> String) -> String {
    let Verdict { policies, errors, .. } = &difference.shadow;
    let by: Vec<String> = policies.iter().map(named).chain(errors.iter().cloned()).collect();
    let by = if by.is_empty() { "no policy permits it".to_owned() } else { by.join(", ") };
    let what = subject(difference.action.word(), &difference.audience);
    format!("shadow: {what}: would be {} instead: {by}", difference.shadow.word())
}

fn subject(action: &str, audience: &str) -> String {
    if audience.is_empty() { action.to_owned() } else { format!("{action} for `{audience}`") }
}
