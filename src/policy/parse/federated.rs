//! Tables to bindings, and which of them would fit too much.

use std::{collections::BTreeMap, sync::Arc};

use toml::{Spanned, de::DeValue};

use crate::{
    model::{IssuerKind, IssuerName, IssuerRules},
    policy::{
        claim::{ClaimPattern, ClaimRule},
        federated::Federated,
        problem::Problem,
        trust::TenantTrust,
    },
};

use super::row::Row;

/// A selector with `issuer`.
pub(super) fn binding(row: &Row<'_>, issuers: &[Arc<IssuerRules>], problems: &mut Vec<Problem>) -> Option<Federated> {
    row.only(&["issuer", "claims", "longest_job"], problems);
    let name = row.parsed::<IssuerName>("issuer", "name an [[issuer]] of the server's config", problems);
    let claims = claims(row, problems);
    let name = name?;
    let Some(rules) = issuers.iter().find(|rules| rules.name == name) else {
        let help = "name an [[issuer]] of the server's config; only those are believed";
        row.wrong("issuer", format!("`{name}` is not declared there"), help, problems);
        return None;
    };
    let longest = u32::try_from(rules.longest_job.as_secs()).unwrap_or(u32::MAX);
    let longest_job_seconds =
        if row.has("longest_job") { Some(row.seconds("longest_job", longest, None, problems)?) } else { None };
    let claims = claims?;
    if let Some((wrong, help)) = too_broad(rules.kind, &claims) {
        row.wrong("claims", wrong, help, problems);
        return None;
    }
    Some(Federated { issuer: name, kind: rules.kind, claims, longest_job_seconds })
}

fn claims(row: &Row<'_>, problems: &mut Vec<Problem>) -> Option<BTreeMap<String, ClaimRule>> {
    let help = "say what the token must say: claims = { repository_id = \"...\", ref = \"refs/heads/main\" }";
    let Some(value) = row.value("claims") else {
        row.wrong("claims", "is missing", help, problems);
        return None;
    };
    let Some(table) = value.get_ref().as_table() else {
        row.wrong("claims", format!("is a {}, not a table", value.get_ref().type_str()), help, problems);
        return None;
    };
    if table.is_empty() || table.len() > MAX_CLAIMS {
        row.wrong("claims", format!("has {} claims, where 1 to {MAX_CLAIMS} are allowed", table.len()), help, problems);
        return None;
    }
    let mut rules = BTreeMap::new();
    let mut whole = true;
    for (name, value) in table {
        let name = name.get_ref();
        match rule(row, name, value) {
            Ok(rule) => drop(rules.insert(name.to_string(), rule)),
            Err((wrong, help)) => {
                row.wrong("claims", format!("`{name}` {wrong}"), help, problems);
                whole = false;
            }
        }
    }
    whole.then_some(rules)
}

type Wrong = (String, &'static str);

fn rule(row: &Row<'_>, name: &str, value: &Spanned<DeValue<'_>>) -> Result<ClaimRule, Wrong> {
    if matches!(name, "iss" | "aud" | "exp" | "nbf" | "iat" | "jti") {
        return Err((
            "is checked in any case".to_owned(),
            "leave it out; the issuer's url and audience stand in the config",
        ));
    }
    if name.is_empty() || name.len() > 255 {
        return Err(("is no name of a claim".to_owned(), "write 1 to 255 bytes"));
    }
    let value = value.get_ref();
    if let Some(one) = exact(row, value) {
        return Ok(ClaimRule::OneOf(vec![one?]));
    }
    if let Some(list) = value.as_array() {
        if list.is_empty() || list.len() > TenantTrust::MAX_LIST {
            return Err(("has no entry, or more than 64".to_owned(), "write [\"...\"]"));
        }
        let texts = list.iter().map(|item| exact(row, item.get_ref()).ok_or_else(not_exact).and_then(|text| text));
        let mut texts = texts.collect::<Result<Vec<_>, _>>()?;
        texts.sort_unstable();
        texts.dedup();
        return Ok(ClaimRule::OneOf(texts));
    }
    let pattern = value.as_table().filter(|table| table.len() == 1).and_then(|table| table.get("pattern"));
    let pattern = pattern.and_then(|pattern| pattern.get_ref().as_str()).ok_or_else(not_exact)?;
    let parsed = pattern.parse::<ClaimPattern>();
    parsed.map(ClaimRule::Pattern).map_err(|why| (why.to_string(), "narrow it; it must fit what is meant and no more"))
}

/// A text, whole number or flag, as claims are compared; `None` for what is none of them.
fn exact(row: &Row<'_>, value: &DeValue<'_>) -> Option<Result<String, Wrong>> {
    if let Some(text) = value.as_str() {
        let text = row.fill_text(text);
        let bounded = !text.is_empty() && text.len() <= 1_024;
        return Some(
            bounded.then_some(text).ok_or(("is empty or longer than 1,024 bytes".to_owned(), "write what it says")),
        );
    }
    if let Some(number) = value.as_integer() {
        return Some(Ok(number.as_str().replace('_', "")));
    }
    value.as_bool().map(|flag| Ok(flag.to_string()))
}

fn not_exact() -> Wrong {
    ("is no text, list of texts or { pattern = '...' }".to_owned(), "write it in quotes")
}

/// Whether tokens of strangers could fit, and what is missing.
///
/// What must stand there are ids that nobody can take over: names of owners, repositories and branches can be given up
/// and taken by others, and `sub` is text that the issuer's customers can shape.
fn too_broad(kind: IssuerKind, claims: &BTreeMap<String, ClaimRule>) -> Option<(String, &'static str)> {
    let exact = |name: &str| matches!(claims.get(name), Some(ClaimRule::OneOf(_)));
    let needed: &[&[&str]] = match kind {
        IssuerKind::Github => &[&["repository_id", "repository_owner_id"]],
        IssuerKind::Gitlab => &[&["project_id", "namespace_id"]],
        // The organisation stands in the issuer's URL.
        IssuerKind::Circleci => &[&["oidc.circleci.com/project-id"]],
        // All organisations share one issuer.
        IssuerKind::Buildkite => &[&["organization_id"], &["pipeline_id"]],
        IssuerKind::Kubernetes => &[&["kubernetes.io/namespace"], &["kubernetes.io/serviceaccount/name"]],
        IssuerKind::Spiffe => &[&["sub"]],
        IssuerKind::Generic => &[],
    };
    if let Some(missing) = needed.iter().find(|ways| !ways.iter().any(|name| exact(name))) {
        let wrong = format!("fit too much: {} must be named exactly", missing.join(" or "));
        return Some((wrong, "add it as a text or list of texts; a pattern does not do, names can be taken over"));
    }
    let beside_sub = claims.keys().any(|name| name != "sub" && exact(name));
    match kind {
        IssuerKind::Spiffe => None,
        IssuerKind::Generic if !beside_sub => {
            let help = "name another claim exactly beside it, such as an organisation's or project's id";
            Some(("fit too much: `sub` or patterns alone are not enough".to_owned(), help))
        }
        IssuerKind::Generic
        | IssuerKind::Github
        | IssuerKind::Gitlab
        | IssuerKind::Circleci
        | IssuerKind::Buildkite
        | IssuerKind::Kubernetes => None,
    }
}

/// Claims of one binding.
const MAX_CLAIMS: usize = 16;
