//! What a job needs before it may start: credentials, and the ways in which each is handed over.

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
};

use crate::{
    cli::arg,
    client::{Wanted, Work},
    model::SecretName,
    pb,
};

/// One job, whole: from the command line, from a job file, or from both.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Job {
    /// What its task is opened for.
    pub work: Work,
    /// Its credentials.
    pub needs: Vec<Need>,
    /// Whether its output is masked.
    pub mask: bool,
    /// The workload that will run it; only `job lint` wants to know.
    pub workload: Option<String>,
}

/// One credential and where it goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Need {
    /// What messages, files and the endpoint call it: 1 to 63 bytes of `[a-z0-9-]`.
    pub name: String,
    /// What is asked for.
    pub wanted: Wanted,
    /// At least one.
    pub ways: Vec<Way>,
}

/// A way of handing a credential over.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Way {
    /// An environment variable, or three for a certificate. The weakest: every process below inherits it, others of the
    /// same user can read it, and it cannot be renewed.
    Env(String),
    /// A file, or a folder with three for a certificate; a relative path lies in the private folder. Renewed.
    File(PathBuf),
    /// A file descriptor that only the child and what inherits it can read. Not renewed.
    Fd(i32),
    /// The Unix socket that always has a fresh one.
    Endpoint,
}

impl Need {
    /// Whether it is renewed: what was put into an environment or a descriptor cannot be.
    #[must_use]
    pub fn is_renewed(&self) -> bool {
        self.ways.iter().any(|way| matches!(way, Way::File(_) | Way::Endpoint))
    }

    /// Names of the variables that say where its files are.
    #[must_use]
    pub fn file_variable(&self) -> String {
        format!("MAYFLY_FILE_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    /// From `key=value` pairs with commas between them, as `--credential` takes them.
    ///
    /// # Errors
    /// What is wrong with it, all at once.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut need = Self { name: "credential".into(), wanted: Wanted::default(), ways: Vec::new() };
        let mut wrong: Vec<String> = text.split(',').filter_map(|pair| need.take(pair.trim()).err()).collect();
        wrong.extend(need.problems().into_iter().map(|(field, wrong)| format!("`{field}` {wrong}")));
        if wrong.is_empty() { Ok(need) } else { Err(wrong.join("; ")) }
    }

    fn take(&mut self, pair: &str) -> Result<(), String> {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let wanted = &mut self.wanted;
        match key {
            "name" => self.name = value.to_owned(),
            "kind" => wanted.kind = kind(value)?,
            "secret" => {
                wanted.secret = value.to_owned();
                wanted.kind = if_secret(wanted.kind);
            }
            "grant" => wanted.grant = value.to_owned(),
            "audience" => wanted.audiences.push(value.to_owned()),
            "action" => wanted.actions.push(value.to_owned()),
            "dns-name" => wanted.dns_names.push(value.to_owned()),
            "ttl" => wanted.ttl_seconds = arg::seconds(value).map_err(|wrong| format!("`ttl`: {wrong}"))?,
            "binding" => wanted.binding = binding(value)?,
            "env" => self.ways.push(Way::Env(value.to_owned())),
            "file" => self.ways.push(Way::File(value.into())),
            "fd" => self.ways.push(Way::Fd(value.parse().map_err(|_| "`fd` is no number".to_owned())?)),
            "endpoint" if value.is_empty() || value == "true" => self.ways.push(Way::Endpoint),
            _ => return Err(format!("`{pair}` is not known; known are {KEYS}")),
        }
        Ok(())
    }

    /// What is wrong within: a field and its problem. Names of other credentials are not looked at.
    #[must_use]
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        let named = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !(1..=63).contains(&self.name.len()) || !self.name.bytes().all(named) {
            wrong.push(("name", "is not 1 to 63 bytes of a-z, 0-9 and `-`".to_owned()));
        }
        if self.wanted.kind == pb::CredentialKind::Unspecified {
            wrong.push(("kind", "is missing: `jwt`, `opaque`, `x509` or `secret`".to_owned()));
        }
        wrong.extend(self.secret_problems());
        if self.wanted.audiences.is_empty() && self.wanted.kind != pb::CredentialKind::Secret {
            wrong.push(("audience", "is missing: who is the credential for?".to_owned()));
        }
        if self.ways.is_empty() {
            wrong.push(("file", "or env, fd or endpoint is missing: how shall the job get it?".to_owned()));
        }
        for way in &self.ways {
            wrong.extend(way.problem());
        }
        wrong
    }
}

impl Need {
    /// A static secret is named, and nothing else is said of it.
    fn secret_problems(&self) -> Option<(&'static str, String)> {
        let wanted = &self.wanted;
        if wanted.kind != pb::CredentialKind::Secret {
            return (!wanted.secret.is_empty()).then(|| ("secret", "is for kind `secret` only".to_owned()));
        }
        if wanted.secret.parse::<SecretName>().is_err() {
            return Some((
                "secret",
                "is no name of a static secret: 1 to 63 bytes of a-z, 0-9 and inner `-`".to_owned(),
            ));
        }
        let is_plain = wanted.audiences.is_empty() && wanted.actions.is_empty() && wanted.dns_names.is_empty();
        let is_plain = is_plain && wanted.binding == pb::Binding::Unspecified;
        (!is_plain).then(|| ("secret", "has no audience, action, dns-name and binding; leave them out".to_owned()))
    }
}

impl Way {
    fn problem(&self) -> Option<(&'static str, String)> {
        match self {
            Self::Env(name) => env_problem(name).map(|wrong| ("env", wrong)),
            Self::File(path) => file_problem(path).map(|wrong| ("file", wrong)),
            Self::Fd(number) if (3..=FD_MOST).contains(number) => None,
            Self::Fd(_) => Some(("fd", format!("is not from 3 to {FD_MOST}"))),
            Self::Endpoint => None,
        }
    }
}

/// What two credentials of one job may not share; messages name both.
#[must_use]
pub fn clashes(needs: &[Need]) -> Vec<(usize, &'static str, String)> {
    let (mut seen, mut wrong) = (BTreeSet::new(), Vec::new());
    for (at, need) in needs.iter().enumerate() {
        if !seen.insert(("name", need.name.clone())) {
            wrong.push((at, "name", format!("`{}` is another credential's name too", need.name)));
        }
        for way in &need.ways {
            let (field, taken) = match way {
                Way::Env(name) => ("env", variables(name, need.wanted.kind)),
                Way::File(path) => ("file", vec![path.display().to_string()]),
                Way::Fd(number) => ("fd", vec![number.to_string()]),
                Way::Endpoint => continue,
            };
            for text in taken {
                if !seen.insert((field, text.clone())) {
                    wrong.push((at, field, format!("`{text}` is used twice")));
                }
            }
        }
    }
    wrong
}

/// The variables that one credential sets.
#[must_use]
pub fn variables(name: &str, kind: pb::CredentialKind) -> Vec<String> {
    match kind {
        pb::CredentialKind::X509 => ["CERT", "KEY", "CA"].map(|part| format!("{name}_{part}")).to_vec(),
        pb::CredentialKind::Unspecified
        | pb::CredentialKind::Jwt
        | pb::CredentialKind::Opaque
        | pb::CredentialKind::Secret => vec![name.to_owned()],
    }
}

/// A kind by its word.
///
/// # Errors
/// When it is none.
pub fn kind(text: &str) -> Result<pb::CredentialKind, String> {
    KINDS
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, kind)| *kind)
        .ok_or_else(|| format!("`{text}` is no kind: `jwt`, `opaque`, `x509` or `secret`"))
}

/// A binding by its word.
///
/// # Errors
/// When it is none.
pub fn binding(text: &str) -> Result<pb::Binding, String> {
    BINDINGS
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, binding)| *binding)
        .ok_or_else(|| format!("`{text}` is no binding: `auto`, `certificate` or `none`"))
}

fn env_problem(name: &str) -> Option<String> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if name.is_empty() || !plain || name.starts_with(|first: char| first.is_ascii_digit()) {
        return Some(format!("`{name}` is no name of a variable: letters, digits and `_`"));
    }
    name.starts_with("MAYFLY_").then(|| "begins with MAYFLY_, which is ours".to_owned())
}

fn file_problem(path: &Path) -> Option<String> {
    let plain = path.components().all(|part| matches!(part, Component::Normal(_) | Component::RootDir));
    if path.file_name().is_none() || !plain {
        return Some(format!("`{}` is no path without `.` and `..`", path.display()));
    }
    let ours = path.is_relative() && path.components().any(|part| part.as_os_str().to_string_lossy().starts_with('.'));
    (ours || path == Path::new(super::endpoint::SOCKET)).then(|| format!("`{}` is ours", path.display()))
}

/// The kind of what names a static secret and says no kind.
#[must_use]
pub fn if_secret(kind: pb::CredentialKind) -> pb::CredentialKind {
    if kind == pb::CredentialKind::Unspecified { pb::CredentialKind::Secret } else { kind }
}

/// Kinds by their words.
pub const KINDS: [(&str, pb::CredentialKind); 4] = [
    ("jwt", pb::CredentialKind::Jwt),
    ("opaque", pb::CredentialKind::Opaque),
    ("x509", pb::CredentialKind::X509),
    ("secret", pb::CredentialKind::Secret),
];

/// Bindings by their words.
pub const BINDINGS: [(&str, pb::Binding); 3] =
    [("auto", pb::Binding::Unspecified), ("certificate", pb::Binding::Certificate), ("none", pb::Binding::None)];

const KEYS: &str = "name, kind, secret, audience, action, dns-name, ttl, grant, binding, env, file, fd and endpoint";
/// Any more is a typing error.
pub const FD_MOST: i32 = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_said_in_one_line() {
        let need =
            Need::parse("name=api,kind=jwt,audience=https://a.example,action=read,ttl=5m,env=TOKEN,file=t,endpoint");
        let need = need.expect("well said");
        assert_eq!((need.name.as_str(), need.wanted.ttl_seconds, need.ways.len()), ("api", 300, 3));
        assert!(need.is_renewed() && need.file_variable() == "MAYFLY_FILE_API");
        assert!(!Need::parse("kind=opaque,audience=a,fd=3").expect("well said").is_renewed());
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let wrong = Need::parse("kind=saml,colour=red,ttl=soon,fd=1").expect_err("wrong");
        for part in ["saml", "colour=red", "ttl", "`kind` is missing", "`audience` is missing", "`fd` is not"] {
            assert!(wrong.contains(part), "{part}: {wrong}");
        }
    }

    #[test]
    fn a_static_secret_is_named_and_nothing_else_is_said_of_it() {
        let need = Need::parse("name=stripe,secret=stripe-key,env=STRIPE_KEY").expect("well said");
        assert_eq!((need.wanted.kind, need.wanted.secret.as_str()), (pb::CredentialKind::Secret, "stripe-key"));
        assert!(Need::parse("kind=secret,secret=stripe-key,file=key").is_ok());
        for bad in ["kind=secret,file=k", "secret=A,file=k", "secret=a,audience=x,file=k", "secret=a,action=x,file=k"] {
            assert!(Need::parse(bad).is_err(), "{bad}");
        }
        assert!(Need::parse("kind=jwt,audience=a,secret=a,file=k").is_err());
    }

    #[test]
    fn places_that_are_not_for_secrets_are_refused() {
        for bad in ["env=1X", "env=A B", "env=", "env=MAYFLY_X", "file=../x", "file=", "file=.lock", "fd=2", "fd=256"] {
            assert!(Need::parse(&format!("kind=jwt,audience=a,{bad}")).is_err(), "{bad}");
        }
        for good in ["env=X_1", "file=a/b", "file=/run/x/token", "fd=255", "endpoint=true"] {
            assert!(Need::parse(&format!("kind=jwt,audience=a,{good}")).is_ok(), "{good}");
        }
    }

    #[test]
    fn two_credentials_do_not_share_a_name_or_a_place() {
        let need = |text: &str| Need::parse(&format!("kind=x509,audience=a,{text}")).expect("well said");
        let clash = |one: &str, two: &str| clashes(&[need(one), need(two)]).len();
        assert_eq!(clash("name=a,env=X", "name=b,env=Y"), 0);
        assert_eq!(clash("name=a,endpoint", "name=a,endpoint"), 1);
        assert_eq!(clash("name=a,env=X", "name=b,env=X"), 3);
        assert_eq!(clash("name=a,fd=3", "name=b,fd=3"), 1);
        assert_eq!(clash("name=a,file=x", "name=b,file=x"), 1);
    }
}
