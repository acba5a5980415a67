//! Reads the issuers of identity tokens.

use std::{sync::Arc, time::Duration};

use crate::model::{IssuerKind, IssuerName, IssuerRules, OnReuse, Reuse, SignatureAlgorithm, issuer::LONGEST_JOB};

use super::{
    Issuer, KeySource,
    read::{self, At, FileRule, Section},
};

pub(super) fn issuers(sections: Vec<Section<'_>>) -> Vec<Issuer> {
    let mut issuers: Vec<Issuer> = Vec::new();
    for mut section in sections {
        let name = section.required_text("name", "github");
        let name = name.and_then(|name| {
            section.parse(name, "github", |text| text.parse::<IssuerName>().map_err(|why| why.to_string()))
        });
        let url = section.required_text("url", "https://token.actions.githubusercontent.com");
        let url = url.and_then(|url| section.parse(url, "https://issuer.example.com", issuer_url));
        if let Some(name) = &name
            && issuers.iter().any(|other| other.rules.name == name.value)
        {
            section.note_at(name, format!("`{}` is taken by an issuer above", name.value), "choose another name");
        }
        if let Some(url) = &url
            && issuers.iter().any(|other| other.rules.url == url.value)
        {
            section.note_at(url, "is that of an issuer above", "declare each issuer once");
        }
        if let Some(issuer) = issuer(&mut section, name, url) {
            issuers.push(issuer);
        }
        section.finish();
    }
    issuers
}

fn issuer(section: &mut Section<'_>, name: Option<At<IssuerName>>, url: Option<At<String>>) -> Option<Issuer> {
    let audience = section.required_text("audience", "https://mayfly.example.com");
    let audience = audience.and_then(|text| section.parse(text, "https://mayfly.example.com", audience_text));
    let kind = kind(section, url.as_ref());
    let known = kind.unwrap_or(IssuerKind::Generic);
    let reuse = section.choice("reuse", &Reuse::ALL);
    let on_reuse = section.choice("on_reuse", &ON_REUSE);
    let algorithms = section.choices("algorithms", &SignatureAlgorithm::ALL);
    if let Some(none) = algorithms.as_ref().filter(|listed| listed.value.is_empty()) {
        section.note_at(none, "is empty", "name how its tokens are signed, or leave it out");
    }
    let max_age = section.whole("max_age_seconds", known.default_max_age().as_secs(), 60..=86_400);
    let longest_job = section.whole("longest_job_seconds", LONGEST_JOB.as_secs(), 1..=86_400);
    let refresh = section.whole("refresh_seconds", 600, 30..=86_400);
    let stale = section.whole("stale_seconds", 3_600, 0..=604_800);
    let allow_events = events(section, known);
    let allow_ssh_rerun = section.flag("allow_ssh_rerun", false);
    if allow_ssh_rerun && known != IssuerKind::Circleci {
        section.note("allow_ssh_rerun", "is for kind = \"circleci\"", "leave it out");
    }
    let trust_domain = trust_domain(section, known);
    let keys = keys(section);
    let rules = IssuerRules {
        name: name?.value,
        url: url?.value,
        kind: kind?,
        audience: audience?.value,
        reuse: reuse.map_or_else(|| known.default_reuse(), |at| at.value),
        on_reuse: on_reuse.map_or_else(OnReuse::default, |at| at.value),
        algorithms: algorithms
            .filter(|listed| !listed.value.is_empty())
            .map_or_else(|| known.default_algorithms(), |listed| listed.value.into_iter().map(|at| at.value).collect()),
        max_age: Duration::from_secs(max_age.value),
        longest_job: Duration::from_secs(longest_job.value),
        allow_events,
        allow_ssh_rerun,
        trust_domain,
    };
    let (refresh, stale) = (Duration::from_secs(refresh.value), Duration::from_secs(stale.value));
    Some(Issuer { rules: Arc::new(rules), keys: keys?, refresh, stale })
}

/// The kind; of the public services it follows from the host, and no other is taken for them.
fn kind(section: &mut Section<'_>, url: Option<&At<String>>) -> Option<IssuerKind> {
    let given = section.choice("kind", &IssuerKind::ALL);
    let uri = url.and_then(|url| url.value.parse::<http::Uri>().ok());
    let host = uri.as_ref().and_then(http::Uri::host).and_then(IssuerKind::of_host);
    let kind = match (&given, host) {
        (Some(given), Some(host)) if given.value != host => {
            let wrong = format!("is not what this host issues, which all of its customers share: \"{}\"", host.word());
            section.note_at(given, wrong, "leave it out");
            return None;
        }
        (Some(given), _) => given.value,
        (None, Some(host)) => host,
        (None, None) => {
            section.note(
                "kind",
                "is missing",
                "write one of github, gitlab, kubernetes, circleci, buildkite, spiffe, generic",
            );
            return None;
        }
    };
    if let (IssuerKind::Circleci, Some(url)) = (kind, url)
        && !url.value.contains("/org/")
    {
        section.note_at(url, "names no organisation", "write https://oidc.circleci.com/org/ORGANIZATION_ID");
    }
    Some(kind)
}

fn events(section: &mut Section<'_>, kind: IssuerKind) -> Vec<String> {
    let Some(listed) = section.texts("allow_events", "workflow_run") else { return Vec::new() };
    if kind != IssuerKind::Github {
        section.note_at(&listed, "is for kind = \"github\"", "leave it out");
    }
    for event in &listed.value {
        if !matches!(event.value.as_str(), "pull_request_target" | "workflow_run") {
            let wrong = format!("`{}` is allowed in any case", event.value);
            section.note_at(event, wrong, "name only pull_request_target or workflow_run, which are not");
        }
    }
    listed.value.into_iter().map(|event| event.value).collect()
}

fn trust_domain(section: &mut Section<'_>, kind: IssuerKind) -> Option<String> {
    let given = section.text("trust_domain", "prod.example");
    match (given, kind) {
        (Some(domain), IssuerKind::Spiffe) => {
            if !is_trust_domain(&domain.value) {
                section.note_at(&domain, "is no trust domain", "write it without spiffe:// and path: \"prod.example\"");
            }
            Some(domain.value)
        }
        (Some(domain), _) => {
            section.note_at(&domain, "is for kind = \"spiffe\"", "leave it out");
            None
        }
        (None, IssuerKind::Spiffe) => {
            section.note("trust_domain", "is missing", "say whose SPIFFE IDs this issuer may vouch for");
            None
        }
        (None, _) => None,
    }
}

/// SPIFFE-ID section 2.1.
pub(super) fn is_trust_domain(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
    (1..=255).contains(&text.len()) && text.bytes().all(plain)
}

pub(super) fn keys(section: &mut Section<'_>) -> Option<KeySource> {
    let pinned = section.path("jwks_file", "/etc/mayfly/github-keys.json");
    let ca_file = section.path("ca_file", "/etc/mayfly/issuer-ca.pem");
    let allow_private = section.flag("allow_private", false);
    if let Some(ca_file) = &ca_file {
        section.check_file(ca_file, FileRule::Public);
    }
    match (pinned, ca_file) {
        (Some(pinned), None) => {
            section.check_file(&pinned, FileRule::Public);
            if allow_private {
                section.note(
                    "allow_private",
                    "has no use beside jwks_file, with which nothing is fetched",
                    "leave it out",
                );
            }
            Some(KeySource::Pinned(pinned.value))
        }
        (Some(_), Some(ca_file)) => {
            section.note_at(
                &ca_file,
                "is given beside jwks_file, with which nothing is fetched",
                "leave out one of the two",
            );
            None
        }
        (None, ca_file) => {
            let ca_file = ca_file.map(|at| at.value).or_else(read::system_roots);
            if ca_file.is_none() {
                section.note(
                    "ca_file",
                    "is missing, and the system has no bundle of roots",
                    "name a PEM file of roots",
                );
            }
            Some(KeySource::Fetched { ca_file: ca_file?, allow_private })
        }
    }
}

/// OpenID Connect Discovery 1.0 section 3: https, without query, fragment or user. A path may end with `/`, for `iss` is
/// compared as it stands.
pub(super) fn issuer_url(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/[]".contains(&b);
    let host = text.parse::<http::Uri>().ok().and_then(|url| url.host().map(str::to_owned));
    let good = text.len() <= 255 && text.starts_with("https://") && host.is_some_and(|host| !host.is_empty());
    if good && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Err("is no https URL of at most 255 plain bytes without query, fragment or user".to_owned())
}

pub(super) fn audience_text(text: &str) -> Result<String, String> {
    let good = (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if good { Ok(text.to_owned()) } else { Err("is not of 1 to 255 visible ASCII characters".to_owned()) }
}

const ON_REUSE: [(&str, OnReuse); 2] = [("alarm", OnReuse::Alarm), ("suspend", OnReuse::Suspend)];
