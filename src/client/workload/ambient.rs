//! Where this process runs, and what identity that place gives it: a look at the environment, nothing is fetched.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

/// A place that gives identity tokens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Platform {
    /// Whoever set `MAYFLY_ID_TOKEN`, outside of the others.
    Given,
    /// GitHub Actions.
    GitHub,
    /// GitLab CI.
    GitLab,
    /// CircleCI.
    CircleCi,
    /// Buildkite.
    Buildkite,
    /// A Kubernetes pod with a projected service account token.
    Kubernetes,
}

/// How to get the token.
#[derive(Clone)]
pub enum Source {
    /// It is there already.
    Variable(Zeroizing<String>),
    /// A file, renewed by the platform.
    File(PathBuf),
    /// A request to a service of the job's runner, authorized by a token that is not the identity token.
    Request {
        /// Where; the audience is added as a query parameter.
        url: String,
        /// RFC 6750 bearer.
        bearer: Zeroizing<String>,
    },
    /// What `buildkite-agent oidc request-token` prints.
    Agent,
}

/// A platform that was recognized, and how to get a token there, or what is missing for that.
#[derive(Clone, Debug)]
pub struct Ambient {
    /// Where we are.
    pub platform: Platform,
    /// How, or why not.
    pub source: Result<Source, &'static str>,
}

impl Platform {
    /// Its name for people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Given => "MAYFLY_ID_TOKEN",
            Self::GitHub => "GitHub Actions",
            Self::GitLab => "GitLab CI",
            Self::CircleCi => "CircleCI",
            Self::Buildkite => "Buildkite",
            Self::Kubernetes => "Kubernetes",
        }
    }
}

/// Where people see the job that this process runs in, as its platform says: a link for whoever is told of what the job left
/// behind. Empty when there is none, or it is no plain URL. `MAYFLY_JOB_URL` says it where no platform does.
#[must_use]
pub fn ambient_job_url(variable: impl Fn(&str) -> Option<String>) -> String {
    let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
    let github = || {
        let (server, repository) = (set("GITHUB_SERVER_URL")?, set("GITHUB_REPOSITORY")?);
        Some(format!("{server}/{repository}/actions/runs/{}", set("GITHUB_RUN_ID")?))
    };
    let buildkite = || Some(format!("{}#{}", set("BUILDKITE_BUILD_URL")?, set("BUILDKITE_JOB_ID")?));
    let found = set("MAYFLY_JOB_URL")
        .or_else(github)
        .or_else(|| set("CI_JOB_URL"))
        .or_else(|| set("CIRCLE_BUILD_URL"))
        .or_else(buildkite)
        .or_else(|| set("BUILD_URL"))
        .unwrap_or_default();
    // As the broker takes it: a job is not to fail for its link.
    let plain = |b: u8| b.is_ascii_graphic() && !b"\"'<>@`\\^{|}".contains(&b);
    let good = found.len() <= 512 && (found.starts_with("https://") || found.starts_with("http://"));
    if good && found.bytes().all(plain) { found } else { String::new() }
}

/// Looks for every platform that is known, the one to use first: the first with a source.
#[must_use]
pub fn ambient(variable: impl Fn(&str) -> Option<String>, is_file: impl Fn(&Path) -> bool) -> Vec<Ambient> {
    let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
    let is = |name: &str| set(name).is_some_and(|value| matches!(value.as_str(), "true" | "1"));
    let given = set(TOKEN).map(|token| Source::Variable(Zeroizing::new(token)));
    let mut found = Vec::new();
    let mut add = |platform, source: Option<Source>, missing| {
        found.push(Ambient { platform, source: source.ok_or(missing) });
    };
    if is("GITLAB_CI") {
        add(Platform::GitLab, given, "add `id_tokens: MAYFLY_ID_TOKEN: aud: AUDIENCE` to the job");
    } else if given.is_some() {
        add(Platform::Given, given, "");
    }
    if is("GITHUB_ACTIONS") {
        let source = set(GITHUB_URL).zip(set(GITHUB_BEARER));
        let source = source.map(|(url, bearer)| Source::Request { url, bearer: Zeroizing::new(bearer) });
        add(Platform::GitHub, source, "add `permissions: id-token: write` to the job");
    }
    if is("CIRCLECI") {
        let source = set(CIRCLE).map(|token| Source::Variable(Zeroizing::new(token)));
        add(Platform::CircleCi, source, "CIRCLE_OIDC_TOKEN_V2 is not set: the job needs at least one context");
    }
    if is("BUILDKITE") {
        add(Platform::Buildkite, Some(Source::Agent), "");
    }
    if set("KUBERNETES_SERVICE_HOST").is_some() {
        let path = PathBuf::from(KUBERNETES_FILE);
        let source = is_file(&path).then_some(Source::File(path));
        add(
            Platform::Kubernetes,
            source,
            "project a service account token with our audience to /var/run/secrets/mayfly/token",
        );
    }
    found
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(_) => f.write_str("Variable(..)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            // Its query may hold what is not for logs.
            Self::Request { .. } => f.write_str("Request(..)"),
            Self::Agent => f.write_str("Agent"),
        }
    }
}

/// The variable that holds an identity token for us.
pub const TOKEN: &str = "MAYFLY_ID_TOKEN";
const GITHUB_URL: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";
const GITHUB_BEARER: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";
const CIRCLE: &str = "CIRCLE_OIDC_TOKEN_V2";
/// Variables with which another process could take on an identity of this place, whichever is used here. A job's own
/// agent commands need what Buildkite gives them.
pub const TOKEN_VARIABLES: [&str; 5] = [TOKEN, GITHUB_URL, GITHUB_BEARER, "CIRCLE_OIDC_TOKEN", CIRCLE];
/// Where our examples project the token.
const KUBERNETES_FILE: &str = "/var/run/secrets/mayfly/token";

#[cfg(test)]
mod tests {
    use super::*;

    fn look(variables: &[(&str, &str)], file: bool) -> Vec<(Platform, bool)> {
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        ambient(variable, |_| file).into_iter().map(|found| (found.platform, found.source.is_ok())).collect()
    }

    #[test]
    fn the_job_is_linked_as_its_platform_says_and_nothing_else_is_a_link() {
        let link = |variables: &[(&str, &str)]| {
            let found =
                |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            ambient_job_url(found)
        };
        let github = [
            ("GITHUB_SERVER_URL", "https://github.com"),
            ("GITHUB_REPOSITORY", "octo-org/octo-repo"),
            ("GITHUB_RUN_ID", "99"),
        ];
        assert_eq!(link(&github), "https://github.com/octo-org/octo-repo/actions/runs/99");
        assert_eq!(link(&github[..2]), "");
        assert_eq!(link(&[("CI_JOB_URL", "https://gitlab.com/g/a/-/jobs/3")]), "https://gitlab.com/g/a/-/jobs/3");
        assert_eq!(link(&[("MAYFLY_JOB_URL", "http://ci/7"), ("BUILD_URL", "http://ci/8")]), "http://ci/7");
        for odd in ["javascript:alert(1)", "https://u@ci/", "https://ci/a b", "https://ci/\r\nBcc: x"] {
            assert_eq!(link(&[("BUILD_URL", odd)]), "", "{odd}");
        }
    }

    #[test]
    fn each_platform_is_recognized_with_and_without_what_it_needs() {
        let github = [("GITHUB_ACTIONS", "true"), (GITHUB_URL, "https://x?a=b"), (GITHUB_BEARER, "t")];
        assert_eq!(look(&github, false), [(Platform::GitHub, true)]);
        assert_eq!(look(&github[..2], false), [(Platform::GitHub, false)]);
        assert_eq!(look(&[("GITLAB_CI", "true"), (TOKEN, "t")], false), [(Platform::GitLab, true)]);
        assert_eq!(look(&[("GITLAB_CI", "true")], false), [(Platform::GitLab, false)]);
        assert_eq!(look(&[("CIRCLECI", "true"), (CIRCLE, "t")], false), [(Platform::CircleCi, true)]);
        assert_eq!(look(&[("CIRCLECI", "true")], false), [(Platform::CircleCi, false)]);
        assert_eq!(look(&[("BUILDKITE", "true")], false), [(Platform::Buildkite, true)]);
        assert_eq!(look(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")], true), [(Platform::Kubernetes, true)]);
        assert_eq!(look(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")], false), [(Platform::Kubernetes, false)]);
        assert_eq!(look(&[(TOKEN, "t")], false), [(Platform::Given, true)]);
        assert_eq!(look(&[(TOKEN, " "), ("GITHUB_ACTIONS", "false")], false), []);
    }

    #[test]
    fn a_runner_in_a_cluster_is_its_platform_first() {
        let both =
            [("GITHUB_ACTIONS", "true"), (GITHUB_URL, "u"), (GITHUB_BEARER, "b"), ("KUBERNETES_SERVICE_HOST", "h")];
        assert_eq!(look(&both, true), [(Platform::GitHub, true), (Platform::Kubernetes, true)]);
    }

    #[test]
    fn no_token_is_shown() {
        let shown = format!("{:?}", ambient(|name| Some(format!("hunter2-{name}")), |_| true));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
