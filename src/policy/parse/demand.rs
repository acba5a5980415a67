//! What a grant demands: approvals and a pace.

use crate::{
    model::{OperatorName, Purpose, pace::Velocity},
    policy::{demand::Approvals, grant::Grant, problem::Problem},
};

use super::row::Row;

/// `approvals = { needed = 2, by = ["op-a", "op-b"], valid_seconds = 900, purposes = ["break-glass"] }`; `Some(None)` when
/// it is left out, `None` when it is wrong.
pub(super) fn approvals(row: &Row<'_>, problems: &mut Vec<Problem>) -> Option<Option<Approvals>> {
    if !row.has("approvals") {
        return Some(None);
    }
    let row = row.table("approvals", "write approvals = { needed = 1, by = [\"...\"] }", problems)?;
    row.only(&["needed", "by", "valid_seconds", "purposes"], problems);
    let needed = row.number("needed", 1..=Approvals::MOST.into(), None, problems);
    let by = row.list::<OperatorName>("by", Some("name the operators whose word counts"), problems);
    let valid_seconds = row.seconds("valid_seconds", Approvals::VALID_MOST, Some(VALID), problems);
    let purposes = row.list::<Purpose>("purposes", None, problems);
    Some(Some(Approvals {
        needed: u32::try_from(needed?).ok()?,
        by: by?.into(),
        valid_seconds: valid_seconds?,
        purposes: purposes?.into(),
    }))
}

/// What only the whole grant can get wrong.
pub(super) fn fits(row: &Row<'_>, grant: &Grant, problems: &mut Vec<Problem>) {
    let Some(approvals) = &grant.approvals else { return };
    let (needed, named) = (approvals.needed, approvals.by.len());
    if usize::try_from(needed).is_ok_and(|needed| needed > named) {
        let message = format!("needs {needed} approvals of {named} operator(s)");
        row.wrong("approvals", message, "name more in by, or need fewer", problems);
    }
    for purpose in approvals.purposes.iter().filter(|purpose| !grant.purposes.has(purpose)) {
        let message = format!("names purpose `{purpose}`, which the grant is not for");
        row.wrong("approvals", message, "add it to the grant's purposes, or remove it here", problems);
    }
}

/// `velocity = { derivations_per_minute = 30, derivations = 500, resources_per_minute = 4, resources = 16 }`, each of them
/// without limit where it is left out.
pub(super) fn velocity(row: &Row<'_>, problems: &mut Vec<Problem>) -> Option<Velocity> {
    if !row.has("velocity") {
        return Some(Velocity::default());
    }
    let row = row.table("velocity", "write velocity = { derivations_per_minute = 30 }", problems)?;
    let fields = Velocity::default().limits().map(|(field, _)| field);
    row.only(&fields, problems);
    let mut limit = |field, most: u64| match row.has(field) {
        false => Some(None),
        true => row.number(field, 1..=most, None, problems).map(|number| u32::try_from(number).ok()),
    };
    Some(Velocity {
        derivations_per_minute: limit("derivations_per_minute", 100_000)?,
        derivations: limit("derivations", 1_000_000)?,
        resources_per_minute: limit("resources_per_minute", Velocity::RESOURCES_MOST.into())?,
        resources: limit("resources", Velocity::RESOURCES_MOST.into())?,
    })
}

/// Seconds for which approvals can be used when the grant says nothing.
const VALID: u32 = 900;
