//! Why a request would be allowed or refused.

use crate::model::Timestamp;

use super::{
    case::{CHECKS, Case},
    cedar,
    decide::{Asked, Facts, TaskFacts, candidates, decide},
    decision::TaskDecision,
    denied::Denied,
    trust::TenantTrust,
};

/// One line a check, in the order of [`decide`], for each grant looked at; the last line is the result.
#[must_use]
pub fn explain(trust: &TenantTrust, asked: &Asked<'_>, facts: &Facts<'_>, now: Timestamp) -> Vec<String> {
    let mut steps = Vec::new();
    match trust.workloads.get(asked.workload) {
        None => steps.push(format!("workload `{}`: not in the trust map", asked.workload)),
        Some(workload) => {
            steps.push(format!("workload `{}`: known, environment `{}`", asked.workload, workload.environment));
            match candidates(trust, asked.partner, asked.purpose, asked.grant) {
                Err(why) => steps.push(format!("grants: refused: {why}")),
                Ok(grants) => {
                    for (name, grant) in grants {
                        explain_grant(&Case { asked, facts, trust, workload, name, grant, now }, &mut steps);
                    }
                }
            }
        }
    }
    let decided = decide(trust, asked, facts, now);
    steps.extend(match &decided {
        Ok(decision) => cedar::policies(trust, facts.scene.global, Ok((decision.ruling.as_ref(), &decision.shadow))),
        Err(why) => why.policy().map_or_else(Vec::new, |said| cedar::policies(trust, facts.scene.global, Err(said))),
    });
    steps.push(match decided {
        Ok(decision) => {
            let seconds = decision.expires.seconds().saturating_sub(now.seconds());
            let why = decision.bound_by.explanation();
            format!("allowed by grant `{}` until {} ({seconds} s): {why}", decision.grant, decision.expires)
        }
        Err(why) => format!("refused {}: {why}", why.reason()),
    });
    steps
}

/// What policies said of a task that was asked for, and the result; a line each.
#[must_use]
pub fn explain_task(trust: &TenantTrust, facts: &TaskFacts<'_>, decided: &Result<TaskDecision, Denied>) -> Vec<String> {
    let global = facts.scene.global;
    match decided {
        Ok(decision) => {
            let mut steps = cedar::policies(trust, global, Ok((decision.ruling.as_ref(), &decision.shadow)));
            steps.push(format!("allowed until {}", decision.deadline));
            steps
        }
        Err(why) => {
            let mut steps = why.policy().map_or_else(Vec::new, |said| cedar::policies(trust, global, Err(said)));
            steps.push(format!("refused {}: {why}", why.reason()));
            steps
        }
    }
}

/// Checks after the first failure are shown too: all that has to be mended.
fn explain_grant(case: &Case<'_>, steps: &mut Vec<String>) {
    steps.extend(CHECKS.iter().map(|(noun, check)| match check(case) {
        Ok(()) => format!("grant `{}`: {noun}: ok", case.name),
        Err(why) => format!("grant `{}`: {noun}: refused {}: {why}", case.name, why.reason()),
    }));
}
