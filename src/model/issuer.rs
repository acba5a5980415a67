//! Issuers of identity tokens, as the config declares them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::id::IssuerName;

/// What the broker believes of one issuer, and how its tokens may be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IssuerRules {
    /// Names it in bindings, scopes and events.
    pub name: IssuerName,
    /// `iss` of its tokens, exactly.
    pub url: String,
    /// Whose claims they are.
    pub kind: IssuerKind,
    /// The one `aud` of tokens for this broker.
    pub audience: String,
    /// How often a token may be used.
    pub reuse: Reuse,
    /// What happens when a spent token comes with another key.
    pub on_reuse: OnReuse,
    /// How its tokens may be signed; at least one.
    pub algorithms: Vec<SignatureAlgorithm>,
    /// For how long after its `iat` a token is taken.
    pub max_age: Duration,
    /// For how long a task's key goes on after the task was opened.
    pub longest_job: Duration,
    /// GitHub events that run code of strangers and are meant all the same.
    pub allow_events: Vec<String>,
    /// Whether CircleCI jobs that were rerun with SSH count.
    pub allow_ssh_rerun: bool,
    /// The trust domain that SPIFFE IDs must be in; SPIFFE only.
    pub trust_domain: Option<String>,
}

#[cfg(test)]
impl IssuerRules {
    /// What is believed of an issuer of this kind when the config says nothing else; named like its kind.
    pub fn of_kind(kind: IssuerKind, url: &str, audience: &str) -> Self {
        Self {
            name: kind.word().parse().expect("a name"),
            url: url.to_owned(),
            kind,
            audience: audience.to_owned(),
            reuse: kind.default_reuse(),
            on_reuse: OnReuse::Alarm,
            algorithms: kind.default_algorithms(),
            max_age: kind.default_max_age(),
            longest_job: LONGEST_JOB,
            allow_events: Vec::new(),
            allow_ssh_rerun: false,
            trust_domain: (kind == IssuerKind::Spiffe).then(|| "prod.example".to_owned()),
        }
    }
}

/// Whose claims an issuer's tokens have.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IssuerKind {
    /// Buildkite.
    Buildkite,
    /// CircleCI.
    Circleci,
    /// Any issuer with discovery and a key set.
    Generic,
    /// GitHub Actions.
    Github,
    /// GitLab CI.
    Gitlab,
    /// Service accounts of a Kubernetes cluster.
    Kubernetes,
    /// JWT-SVIDs of a SPIFFE trust domain.
    Spiffe,
}

/// How often an identity token may be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reuse {
    /// Once: every token is fresh.
    Single,
    /// By several keys, each for one task: the issuer gives a job one token for its whole life.
    OncePerTaskKey,
    /// Until it expires, by whoever has it: the platform keeps it in a file.
    UntilExpiry,
}

/// What happens when a spent token comes with another key.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnReuse {
    /// It is refused and told.
    #[default]
    Alarm,
    /// And what was obtained through it is suspended.
    Suspend,
}

/// How identity tokens may be signed (RFC 7518 section 3.1, RFC 8037 section 3.1). Symmetric ones are not known here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SignatureAlgorithm {
    /// RSA PKCS #1 v1.5 with SHA-256.
    Rs256,
    /// RSA-PSS with SHA-256.
    Ps256,
    /// ECDSA over P-256 with SHA-256.
    Es256,
    /// ECDSA over P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl IssuerKind {
    /// Every kind, by its word.
    pub const ALL: [(&'static str, Self); 7] = [
        ("github", Self::Github),
        ("gitlab", Self::Gitlab),
        ("kubernetes", Self::Kubernetes),
        ("circleci", Self::Circleci),
        ("buildkite", Self::Buildkite),
        ("spiffe", Self::Spiffe),
        ("generic", Self::Generic),
    ];

    /// The word in the config.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("generic", |(word, _)| word)
    }

    /// How its platform really hands out tokens.
    #[must_use]
    pub fn default_reuse(self) -> Reuse {
        match self {
            Self::Buildkite | Self::Generic | Self::Github => Reuse::Single,
            // One token for the whole job, or one that an agent keeps for all who ask.
            Self::Circleci | Self::Gitlab | Self::Spiffe => Reuse::OncePerTaskKey,
            Self::Kubernetes => Reuse::UntilExpiry,
        }
    }

    /// How its platform really signs.
    #[must_use]
    pub fn default_algorithms(self) -> Vec<SignatureAlgorithm> {
        use SignatureAlgorithm::{Es256, Es384, Ps256, Rs256};
        match self {
            Self::Buildkite | Self::Circleci | Self::Github | Self::Gitlab => vec![Rs256],
            Self::Generic | Self::Kubernetes => vec![Rs256, Es256],
            // JWT-SVID section 2.1, without those that ring or nobody has.
            Self::Spiffe => vec![Rs256, Ps256, Es256, Es384],
        }
    }

    /// For how long after its `iat` a token is taken when the config does not say.
    #[must_use]
    pub fn default_max_age(self) -> Duration {
        Duration::from_secs(match self {
            Self::Buildkite | Self::Github => 900,
            Self::Circleci | Self::Generic | Self::Gitlab | Self::Spiffe => 3_600,
            Self::Kubernetes => 86_400,
        })
    }

    /// The kind whose public service has this host, which every customer of it shares.
    #[must_use]
    pub fn of_host(host: &str) -> Option<Self> {
        match host {
            "token.actions.githubusercontent.com" => Some(Self::Github),
            "gitlab.com" => Some(Self::Gitlab),
            "oidc.circleci.com" => Some(Self::Circleci),
            "agent.buildkite.com" => Some(Self::Buildkite),
            _ => None,
        }
    }
}

impl Reuse {
    /// Every way, by its word.
    pub const ALL: [(&'static str, Self); 3] =
        [("single", Self::Single), ("once-per-task-key", Self::OncePerTaskKey), ("until-expiry", Self::UntilExpiry)];

    /// The word in the config.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, reuse)| *reuse == self).map_or("single", |(word, _)| word)
    }

    /// Whether a token must come over a key of the client's own.
    #[must_use]
    pub fn needs_key(self) -> bool {
        match self {
            Self::Single | Self::OncePerTaskKey => true,
            Self::UntilExpiry => false,
        }
    }

    /// How many keys may each open a task with one token.
    #[must_use]
    pub fn keys(self) -> usize {
        match self {
            Self::Single => 1,
            Self::OncePerTaskKey => KEYS_OF_ONE_TOKEN,
            Self::UntilExpiry => usize::MAX,
        }
    }
}

impl SignatureAlgorithm {
    /// Every one, by its word in headers.
    pub const ALL: [(&'static str, Self); 5] = [
        ("RS256", Self::Rs256),
        ("PS256", Self::Ps256),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("EdDSA", Self::EdDsa),
    ];

    /// From a header's `alg`, which is case-sensitive.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == word).map(|(_, algorithm)| *algorithm)
    }
}

/// For how long a task's key goes on when neither config nor binding says: GitHub's longest job.
pub const LONGEST_JOB: Duration = Duration::from_secs(21_600);

/// Programs of one job that may each open a task with the job's one token.
const KEYS_OF_ONE_TOKEN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_token_that_may_be_used_at_will_comes_without_a_key() {
        let known = Reuse::ALL.map(|(word, reuse)| (word, reuse.needs_key(), reuse.keys()));
        let wanted = [("single", true, 1), ("once-per-task-key", true, 32), ("until-expiry", false, usize::MAX)];
        assert_eq!(known, wanted);
        assert_eq!(Reuse::ALL.map(|(_, reuse)| reuse.word()), Reuse::ALL.map(|(word, _)| word));
    }

    #[test]
    fn a_public_service_is_known_by_its_whole_host_and_no_other_is_taken_for_it() {
        for (host, kind) in [
            ("token.actions.githubusercontent.com", Some(IssuerKind::Github)),
            ("gitlab.com", Some(IssuerKind::Gitlab)),
            ("oidc.circleci.com", Some(IssuerKind::Circleci)),
            ("agent.buildkite.com", Some(IssuerKind::Buildkite)),
            ("gitlab.com.evil.example", None),
            ("evil-gitlab.com", None),
            ("", None),
        ] {
            assert_eq!(IssuerKind::of_host(host), kind, "{host}");
        }
    }
}
