//! Reads how people sign in, and who tells that they left.

use std::{sync::Arc, time::Duration};

use crate::model::{
    IssuerKind, IssuerRules, OnReuse, OperatorName, Reuse, SignInRule, SignInRules, SignatureAlgorithm,
    issuer::LONGEST_JOB,
};

use super::{
    Issuer, Listener, Scim, Service, SharedSignals, SignIn, SubjectFormat, issuers,
    read::{FileRule, Section},
};

/// `[operators.sign_in]`.
pub(super) fn sign_in(operators: &mut Section<'_>, workloads: &[Issuer], has_directory: bool) -> Option<SignIn> {
    if !operators.has("sign_in") {
        // Named, so that it is known here.
        operators.section("sign_in").finish();
        return None;
    }
    let mut section = operators.section("sign_in");
    let issuer = provider(&mut section, "client_id", "mayfly-cli", "sign-in", (600, 3_600));
    refuse_shared(&section, issuer.as_ref(), workloads);
    let scopes = section.texts("scopes", "openid");
    if let Some(listed) = scopes.as_ref().filter(|listed| !listed.value.iter().any(|one| one.value == "openid")) {
        section.note_at(listed, "does not hold `openid`, without which there is no ID token", "add \"openid\"");
    }
    let scopes = scopes.map_or_else(
        || vec!["openid".to_owned(), "email".to_owned()],
        |listed| listed.value.into_iter().map(|at| at.value).collect(),
    );
    let audiences = section.texts("audiences", "another-client").map(|listed| listed.value).unwrap_or_default();
    let audiences = audiences.into_iter().map(|at| at.value).collect();
    let require_nonce = section.flag("require_nonce", false);
    let directory_claim = section.text("directory_claim", "oid");
    if let Some(claim) = directory_claim.as_ref().filter(|claim| CHANGES.contains(&claim.value.as_str())) {
        let wrong = format!("`{}` may change, or be another's one day", claim.value);
        section.note_at(claim, wrong, "name the claim with the directory's immutable id, such as \"oid\" or \"sub\"");
    }
    let require_provisioned = section.flag("require_provisioned", false);
    if require_provisioned && !has_directory {
        section.note("require_provisioned", "is set, and no directory tells who there is", "add [scim], or remove it");
    }
    let life = section.whole("certificate_seconds", 28_800, 300..=43_200);
    let rules = rules(&mut section);
    section.finish();
    let issuer = issuer?;
    let (shared, life) = (Arc::clone(&issuer.rules), Duration::from_secs(life.value));
    let directory_claim = directory_claim.map(|claim| claim.value);
    let rules = SignInRules {
        issuer: shared,
        scopes,
        audiences,
        require_nonce,
        directory_claim,
        require_provisioned,
        life,
        rules,
    };
    Some(SignIn { rules: Arc::new(rules), issuer })
}

/// `[scim]`.
pub(super) fn scim(mut section: Section<'_>, is_there: bool) -> Option<Scim> {
    let token_hashes_file = section.path("token_hashes_file", "/etc/mayfly/scim.sha256");
    match (&token_hashes_file, is_there) {
        (Some(file), _) => section.check_file(file, FileRule::Private),
        (None, true) => section.note(
            "token_hashes_file",
            "is missing",
            "name a file with the hex SHA-256 of the directory's bearer token",
        ),
        (None, false) => {}
    }
    section.finish();
    token_hashes_file.map(|at| Scim { token_hashes_file: at.value })
}

/// `[shared_signals]`.
pub(super) fn shared_signals(mut section: Section<'_>, is_there: bool, workloads: &[Issuer]) -> Option<SharedSignals> {
    if !is_there {
        section.finish();
        return None;
    }
    let issuer =
        provider(&mut section, "audience", "https://mayfly.example.com/ssf", "shared-signals", (604_800, 2_592_000));
    refuse_shared(&section, issuer.as_ref(), workloads);
    let subjects = section.choices("subjects", &SubjectFormat::ALL);
    let subjects = subjects.map_or_else(
        || vec![SubjectFormat::IssuerAndSubject, SubjectFormat::Email],
        |listed| listed.value.into_iter().map(|at| at.value).collect(),
    );
    let session_revoked_leaves = section.flag("session_revoked_leaves", false);
    section.finish();
    Some(SharedSignals { issuer: issuer?, subjects, session_revoked_leaves })
}

/// What is declared must be offered, and what is offered declared: else people wait for what never comes.
pub(super) fn check_offered(root: &Section<'_>, listeners: &[Listener], declared: &[(Service, &'static str, bool)]) {
    for (service, section, is_declared) in declared {
        let offered = listeners.iter().any(|listener| listener.services.contains(service));
        let word = service.word();
        match (offered, is_declared) {
            (true, false) => root.note(section, format!("is missing, and a listener offers \"{word}\""), "add it"),
            (false, true) => {
                let mend = format!("add \"{word}\" to the services of a listener");
                root.note(section, "is offered by no listener", mend);
            }
            (true, true) | (false, false) => {}
        }
    }
}

/// An issuer whose tokens are no workload's; their age when the config does not say, and at most.
fn provider(
    section: &mut Section<'_>,
    audience_field: &'static str,
    audience_example: &str,
    name: &str,
    (max_age, oldest): (u64, u64),
) -> Option<Issuer> {
    let url = section.required_text("issuer", "https://login.example.com");
    let url = url.and_then(|url| section.parse(url, "https://login.example.com", issuers::issuer_url));
    let audience = section.required_text(audience_field, audience_example);
    let audience = audience.and_then(|text| section.parse(text, audience_example, issuers::audience_text));
    let algorithms = section.choices("algorithms", &SignatureAlgorithm::ALL);
    let algorithms = algorithms.map_or_else(
        || IssuerKind::Generic.default_algorithms(),
        |listed| listed.value.into_iter().map(|at| at.value).collect(),
    );
    if algorithms.is_empty() {
        section.note("algorithms", "is empty", "name how its tokens are signed, or leave it out");
    }
    let max_age = section.whole("max_age_seconds", max_age, 60..=oldest);
    let refresh = section.whole("refresh_seconds", 600, 30..=86_400);
    let stale = section.whole("stale_seconds", 3_600, 0..=604_800);
    let keys = issuers::keys(section);
    let rules = IssuerRules {
        name: name.parse().ok()?,
        url: url?.value,
        kind: IssuerKind::Generic,
        audience: audience?.value,
        reuse: Reuse::Single,
        on_reuse: OnReuse::Alarm,
        algorithms,
        max_age: Duration::from_secs(max_age.value),
        longest_job: LONGEST_JOB,
        allow_events: Vec::new(),
        allow_ssh_rerun: false,
        trust_domain: None,
    };
    let (refresh, stale) = (Duration::from_secs(refresh.value), Duration::from_secs(stale.value));
    Some(Issuer { rules: Arc::new(rules), keys: keys?, refresh, stale })
}

/// People are no workloads: who vouches for the one never does for the other.
fn refuse_shared(section: &Section<'_>, issuer: Option<&Issuer>, workloads: &[Issuer]) {
    let url = issuer.map(|issuer| issuer.rules.url.trim_end_matches('/'));
    if workloads.iter().any(|other| Some(other.rules.url.trim_end_matches('/')) == url) {
        let mend = "give people and workloads issuers of their own";
        section.note("issuer", "is that of an [[issuer]], whose tokens are of workloads", mend);
    }
}

fn rules(section: &mut Section<'_>) -> Vec<SignInRule> {
    let mut rules = Vec::new();
    let tables = section.sections("rule");
    if tables.is_empty() {
        section.note("rule", "is missing, so nobody could sign in", "add [[operators.sign_in.rule]]");
    }
    for mut table in tables {
        let operator = table.required_text("operator", "oncall");
        let operator = operator.and_then(|text| {
            table.parse(text, "oncall", |text| text.parse::<OperatorName>().map_err(|why| why.to_string()))
        });
        let claims = table.texts_by_name("claims", "groups = [\"oncall\"]");
        match &claims {
            None => table.note("claims", "is missing or empty", "say who it is: claims = { groups = \"oncall\" }"),
            Some(claims) => {
                for claim in claims.value.keys().filter(|claim| SAYS_NOT_WHO.contains(&claim.as_str())) {
                    let wrong = format!("`{claim}` does not say who somebody is, or is checked in any case");
                    table.note_at(claims, wrong, "name a group, a role, a mail address or a subject");
                }
            }
        }
        table.finish();
        if let (Some(operator), Some(claims)) = (operator, claims) {
            rules.push(SignInRule { operator: operator.value, claims: claims.value });
        }
    }
    rules
}

impl SubjectFormat {
    /// Every format, by its word (RFC 9493 section 3.2).
    pub const ALL: [(&'static str, Self); 3] =
        [("iss_sub", Self::IssuerAndSubject), ("email", Self::Email), ("opaque", Self::Opaque)];
}

/// Claims of which somebody else may have the same value tomorrow.
const CHANGES: [&str; 6] = ["email", "preferred_username", "upn", "unique_name", "name", "nickname"];
const SAYS_NOT_WHO: [&str; 10] =
    ["iss", "aud", "azp", "exp", "iat", "nbf", "nonce", "email_verified", "auth_time", "jti"];
