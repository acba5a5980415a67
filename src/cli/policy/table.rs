//! Tables of cases: who asks what, and what shall come of it.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Deserializer, de::Error};

use crate::{
    cli::arg,
    model::{CredentialKind, GrantName, PartnerName, Purpose, TenantName, Timestamp, WorkloadName},
};

/// One request and what shall come of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// For people.
    pub name: String,
    pub tenant: TenantName,
    pub workload: WorkloadName,
    pub partner: PartnerName,
    pub purpose: Purpose,
    /// What is done; issuing when nothing is said.
    #[serde(default, rename = "do")]
    pub act: Act,
    #[serde(default)]
    pub grant: Option<GrantName>,
    #[serde(default = "jwt", deserialize_with = "kind")]
    pub kind: CredentialKind,
    /// One or several.
    #[serde(default, deserialize_with = "one_or_more")]
    pub audience: Vec<String>,
    #[serde(default)]
    pub actions: Vec<String>,
    #[serde(default)]
    pub dns_names: Vec<String>,
    /// Seconds; of the credential, or of a task that is opened.
    #[serde(default, deserialize_with = "seconds")]
    pub ttl: u32,
    #[serde(default)]
    pub task_type: String,
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// The address that it comes from.
    #[serde(default)]
    pub source_ip: Option<IpAddr>,
    /// Whether it comes by a Unix socket. Where neither is said, of a workload that has no other way it does, and others
    /// come from an address that is in no network that anything names.
    #[serde(default)]
    pub local: Option<bool>,
    /// Whether it comes with a client certificate, to which a token is bound.
    #[serde(default = "yes")]
    pub certificate: bool,
    /// When; now when nothing is said.
    #[serde(default, deserialize_with = "time")]
    pub at: Option<Timestamp>,
    pub expect: Expect,
    /// A policy that must be among those that decide.
    #[serde(default)]
    pub policy: Option<String>,
    /// The reason code of a refusal.
    #[serde(default)]
    pub reason: Option<String>,
}

/// What is done.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Act {
    /// A credential is issued, in a task that is opened for it.
    #[default]
    Issue,
    /// A lease is renewed, for the first time.
    Renew,
    /// A task is opened.
    Open,
}

/// What shall come of it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    Allowed,
    Refused,
}

impl Expect {
    /// As it is written.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    case: Vec<Case>,
}

/// The cases of a table.
///
/// # Errors
/// What is wrong with it, with line and column.
pub fn parse(text: &str) -> Result<Vec<Case>, String> {
    let table = toml::from_str::<Table>(text).map_err(|error| error.to_string())?;
    match table.case.iter().find(|case| case.local == Some(true) && case.source_ip.is_some()) {
        Some(case) => {
            Err(format!("case `{}`: has local = true and a source_ip; a Unix socket has no address", case.name))
        }
        None => Ok(table.case),
    }
}

fn jwt() -> CredentialKind {
    CredentialKind::Jwt
}

fn yes() -> bool {
    true
}

fn kind<'de, D: Deserializer<'de>>(from: D) -> Result<CredentialKind, D::Error> {
    let word = String::deserialize(from)?;
    CredentialKind::from_word(&word).ok_or_else(|| D::Error::custom("a kind is `jwt`, `opaque`, `x509` or `secret`"))
}

fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let text = String::deserialize(from)?;
    arg::seconds(&text).map_err(D::Error::custom)
}

fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
    let text = String::deserialize(from)?;
    let at = Timestamp::parse_rfc3339(&text);
    at.map(Some).ok_or_else(|| D::Error::custom("expected a time such as \"2026-11-22T10:00:00Z\", in quotes"))
}

fn one_or_more<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Texts {
        One(String),
        More(Vec<String>),
    }
    Ok(match Texts::deserialize(from)? {
        Texts::One(text) => vec![text],
        Texts::More(texts) => texts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASE: &str = "[[case]]\nname = \"n\"\ntenant = \"acme\"\nworkload = \"ci\"\npartner = \"payco\"\n\
                        purpose = \"deploy\"\nexpect = \"allowed\"\n";

    #[test]
    fn a_case_says_who_what_and_what_shall_come_of_it() {
        let text = format!("{CASE}audience = \"a\"\nttl = \"5m\"\nsource_ip = \"10.0.0.7\"\ndo = \"renew\"\n");
        let cases = parse(&text).expect("well said");
        let [case] = cases.as_slice() else { panic!("one case") };
        assert_eq!((case.audience.as_slice(), case.ttl, case.act), (["a".to_owned()].as_slice(), 300, Act::Renew));
        assert_eq!((case.kind, case.certificate, case.at), (CredentialKind::Jwt, true, None));
    }

    #[test]
    fn what_a_case_cannot_say_is_told_with_its_line() {
        for (more, told) in [("colour = 1", "colour"), ("kind = \"saml\"", "kind"), ("at = \"noon\"", "time")] {
            let why = parse(&format!("{CASE}{more}\n")).expect_err("wrong");
            assert!(why.contains("line 8") && why.contains(told), "{why}");
        }
        assert!(parse("[[case]]\nname = \"n\"\n").is_err());
        let both = parse(&format!("{CASE}local = true\nsource_ip = \"10.0.0.7\"\n")).expect_err("one or the other");
        assert!(both.contains("case `n`") && both.contains("source_ip"), "{both}");
        assert_eq!(parse(&format!("{CASE}local = true\n")).expect("well said")[0].local, Some(true));
    }
}
