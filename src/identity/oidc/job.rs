//! Where people see the job that an identity token was made for, as far as its claims say so.

use super::{Claims, FederatedProof};
use crate::model::IssuerKind;

impl FederatedProof {
    /// A URL of the job's page on its platform. Only claims that the issuer signed go in, and only plain parts of them.
    ///
    /// GitHub: the run and its attempt. GitLab: the job. Buildkite: the job within its build. Others do not say enough.
    #[must_use]
    pub fn job_url(&self) -> Option<String> {
        let claims = &self.claims;
        match self.issuer.kind {
            IssuerKind::Github => {
                let server = github_server(&self.issuer.url)?;
                let (repository, run) = (path(claims, "repository")?, number(claims, "run_id")?);
                let attempt = number(claims, "run_attempt").map(|attempt| format!("/attempts/{attempt}"));
                Some(format!("{server}/{repository}/actions/runs/{run}{}", attempt.unwrap_or_default()))
            }
            IssuerKind::Gitlab => {
                let (project, job) = (path(claims, "project_path")?, number(claims, "job_id")?);
                Some(format!("{}/{project}/-/jobs/{job}", self.issuer.url.trim_end_matches('/')))
            }
            IssuerKind::Buildkite => {
                let (organization, pipeline) = (path(claims, "organization_slug")?, path(claims, "pipeline_slug")?);
                let (build, job) = (number(claims, "build_number")?, path(claims, "job_id")?);
                Some(format!("https://buildkite.com/{organization}/{pipeline}/builds/{build}#{job}"))
            }
            IssuerKind::Circleci | IssuerKind::Generic | IssuerKind::Kubernetes | IssuerKind::Spiffe => None,
        }
    }
}

/// The web server beside an issuer of GitHub Actions: github.com, a tenant of ghe.com, or an enterprise server.
fn github_server(issuer: &str) -> Option<String> {
    let host = issuer.strip_prefix("https://")?;
    if host == "token.actions.githubusercontent.com" {
        return Some("https://github.com".to_owned());
    }
    if let Some(own) = host.strip_suffix("/_services/token") {
        return Some(format!("https://{own}"));
    }
    let own = host.strip_prefix("token.actions.")?;
    own.ends_with(".ghe.com").then(|| format!("https://{own}"))
}

fn path<'a>(claims: &'a Claims, name: &str) -> Option<&'a str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
    let text = claims.one(name)?;
    let good = (1..=255).contains(&text.len()) && text.bytes().all(plain) && !text.split('/').any(|part| part == "..");
    good.then_some(text)
}

fn number<'a>(claims: &'a Claims, name: &str) -> Option<&'a str> {
    let text = claims.one(name)?;
    ((1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())).then_some(text)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        identity::oidc::{
            KeySet, UnverifiedToken,
            testing::{self, Signer},
        },
        model::{IssuerRules, Timestamp},
    };

    fn url(kind: IssuerKind, issuer: &str, mut claims: Value, more: Value) -> Option<String> {
        let signer = Signer::new();
        claims["iss"] = issuer.into();
        claims.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let keys = KeySet::parse(signer.key_set().to_string().as_bytes()).expect("keys");
        let rules = std::sync::Arc::new(IssuerRules::of_kind(kind, issuer, testing::AUDIENCE));
        let token = UnverifiedToken::parse(&signer.rs256(&claims)).expect("a token");
        token.verify(&rules, &keys, None, Timestamp::from_seconds(NOW)).expect("proven").job_url()
    }

    const NOW: u64 = 1_750_000_000;

    #[test]
    fn each_platforms_claims_lead_to_the_job() {
        let (github, gitlab) = (testing::github(NOW), testing::gitlab(NOW));
        let run = "octo-org/octo-repo/actions/runs/99/attempts/2";
        for (issuer, server) in [
            (testing::GITHUB, "https://github.com"),
            ("https://ghes.acme.example/_services/token", "https://ghes.acme.example"),
            ("https://token.actions.acme.ghe.com", "https://acme.ghe.com"),
        ] {
            let found = url(IssuerKind::Github, issuer, github.clone(), json!({}));
            assert_eq!(found, Some(format!("{server}/{run}")), "{issuer}");
        }
        let found = url(IssuerKind::Gitlab, testing::GITLAB, gitlab, json!({}));
        assert_eq!(found.as_deref(), Some("https://gitlab.com/group/app/-/jobs/302"));
    }

    #[test]
    fn claims_that_are_not_plain_lead_nowhere() {
        for more in [
            json!({ "repository": "octo-org/../admin" }),
            json!({ "repository": "octo org" }),
            json!({ "repository": "a/b\r\nBcc: x" }),
            json!({ "run_id": "99?x" }),
            json!({ "run_id": null }),
        ] {
            assert_eq!(url(IssuerKind::Github, testing::GITHUB, testing::github(NOW), more.clone()), None, "{more}");
        }
    }
}
