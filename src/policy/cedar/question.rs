//! What policies are asked, and the context they see.

use std::net::IpAddr;

use cedar_policy::{Context, EntityUid, RestrictedExpression};

use crate::{
    model::{CredentialKind, GrantName, Intent, PartnerName, Purpose, Timestamp, WorkloadName},
    policy::{
        decide::Origin,
        grant::Grant,
        trust::{Selector, Workload},
    },
};

/// What is asked to be done.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum PolicyAction {
    /// Open a task, also one for a single credential.
    OpenTask,
    /// Issue a token.
    IssueToken,
    /// Issue a certificate.
    IssueCertificate,
    /// Hand a static secret out.
    IssueSecret,
    /// Issue any of them again.
    Renew,
}

impl PolicyAction {
    /// Its name in policies.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::OpenTask => "OpenTask",
            Self::IssueToken => "IssueToken",
            Self::IssueCertificate => "IssueCertificate",
            Self::IssueSecret => "IssueSecret",
            Self::Renew => "Renew",
        }
    }

    pub(in crate::policy) fn of(kind: CredentialKind, renews: bool) -> Self {
        match (kind, renews) {
            (_, true) => Self::Renew,
            (CredentialKind::Jwt | CredentialKind::Opaque, false) => Self::IssueToken,
            (CredentialKind::X509, false) => Self::IssueCertificate,
            (CredentialKind::Secret, false) => Self::IssueSecret,
        }
    }
}

/// One request that the trust map allows.
#[derive(Clone)]
pub(in crate::policy) struct Question<'a> {
    pub(in crate::policy) action: PolicyAction,
    pub(in crate::policy) workload: (&'a WorkloadName, &'a Workload),
    pub(in crate::policy) partner: &'a PartnerName,
    pub(in crate::policy) tenant: &'a str,
    /// None when a task is opened.
    pub(in crate::policy) grant: Option<(&'a GrantName, &'a Grant)>,
    pub(in crate::policy) purpose: &'a Purpose,
    pub(in crate::policy) intent: Option<&'a Intent>,
    pub(in crate::policy) audiences: &'a [String],
    pub(in crate::policy) actions: &'a [String],
    pub(in crate::policy) dns_names: &'a [String],
    pub(in crate::policy) kind: CredentialKind,
    /// Of the credential, or the task.
    pub(in crate::policy) life_seconds: u64,
    pub(in crate::policy) origin: Origin,
    pub(in crate::policy) bound: bool,
    pub(in crate::policy) renewals: u32,
    pub(in crate::policy) owner: String,
    pub(in crate::policy) attest_by: Timestamp,
    pub(in crate::policy) is_child: bool,
    pub(in crate::policy) now: Timestamp,
}

/// The value of one attribute of the context.
enum Value<'a> {
    Text(&'a str),
    Texts(&'a [String]),
    Number(u64),
    Flag(bool),
    Address(IpAddr),
    /// The task's parameters, an entity with tags.
    Parameters,
}

/// How to find one attribute of the context; `None` when it is absent.
type Attribute = for<'a> fn(&'a Question<'_>) -> Option<Value<'a>>;

/// The contexts of the schema. A test holds both together.
const OF_ISSUE: [(&str, Attribute); 20] = [
    ("tenant", |q| Some(Value::Text(q.tenant))),
    ("partner", |q| Some(Value::Text(q.partner.as_str()))),
    ("grant", |q| q.grant.map(|(name, _)| Value::Text(name.as_str()))),
    ("purpose", |q| Some(Value::Text(q.purpose.as_str()))),
    ("task_type", |q| Some(Value::Text(q.intent.map(Intent::task_type).unwrap_or_default()))),
    ("parameters", |_| Some(Value::Parameters)),
    ("actions", |q| Some(Value::Texts(q.actions))),
    ("audiences", |q| Some(Value::Texts(q.audiences))),
    ("dns_names", |q| Some(Value::Texts(q.dns_names))),
    ("kind", |q| Some(Value::Text(q.kind.word()))),
    ("ttl_seconds", |q| Some(Value::Number(q.life_seconds))),
    ("environment", |q| Some(Value::Text(&q.workload.1.environment))),
    ("source_ip", |q| source(q)),
    ("bound", |q| Some(Value::Flag(q.bound))),
    ("renewals", |q| Some(Value::Number(q.renewals.into()))),
    ("owner", |q| Some(Value::Text(&q.owner))),
    ("attest_by", |q| Some(Value::Number(q.attest_by.seconds()))),
    ("now", |q| Some(Value::Number(q.now.seconds()))),
    ("hour", |q| Some(Value::Number(q.now.seconds() / 3_600 % 24))),
    // 1970 began on a Thursday.
    ("weekday", |q| Some(Value::Number((q.now.seconds() / 86_400 + 3) % 7 + 1))),
];

const OF_OPEN: [(&str, Attribute); 12] = [
    ("tenant", |q| Some(Value::Text(q.tenant))),
    ("partner", |q| Some(Value::Text(q.partner.as_str()))),
    ("purpose", |q| Some(Value::Text(q.purpose.as_str()))),
    ("task_type", |q| Some(Value::Text(q.intent.map(Intent::task_type).unwrap_or_default()))),
    ("parameters", |_| Some(Value::Parameters)),
    ("environment", |q| Some(Value::Text(&q.workload.1.environment))),
    ("source_ip", |q| source(q)),
    ("deadline_seconds", |q| Some(Value::Number(q.life_seconds))),
    ("is_child", |q| Some(Value::Flag(q.is_child))),
    ("now", |q| Some(Value::Number(q.now.seconds()))),
    ("hour", |q| Some(Value::Number(q.now.seconds() / 3_600 % 24))),
    ("weekday", |q| Some(Value::Number((q.now.seconds() / 86_400 + 3) % 7 + 1))),
];

fn attributes(action: PolicyAction) -> &'static [(&'static str, Attribute)] {
    match action {
        PolicyAction::OpenTask => &OF_OPEN,
        PolicyAction::IssueToken | PolicyAction::IssueCertificate | PolicyAction::IssueSecret | PolicyAction::Renew => {
            &OF_ISSUE
        }
    }
}

/// Which attributes of the context policies can look at: one bit each. What they cannot is not built, which is most of
/// what asking costs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Needs(u32);

/// The bit of a task's parameters, which a policy can also reach as an entity, without the context.
const PARAMETERS: u32 = 1 << 31;

impl Needs {
    /// What `texts` can look at.
    ///
    /// An attribute can only be reached by its name, after `context`. Where a text could reach it otherwise (an escape in
    /// a name, the context as a whole) everything is needed.
    pub(super) fn of<'t>(action: PolicyAction, texts: impl Iterator<Item = &'t str>) -> Self {
        let mut bits = 0;
        for text in texts {
            if text.contains('\\') || !text.split("context").skip(1).all(reaches_by_name) {
                return Self(u32::MAX);
            }
            for (at, (name, _)) in attributes(action).iter().enumerate() {
                bits |= u32::from(text.contains(name)) << at;
            }
            if text.contains("arameters") {
                bits |= PARAMETERS;
            }
        }
        Self(bits)
    }
}

/// Whether what follows `context` names an attribute.
fn reaches_by_name(rest: &str) -> bool {
    let rest = rest.trim_start();
    rest.starts_with('.') || rest.starts_with('[') || rest.strip_prefix("has").is_some_and(|rest| rest.starts_with(' '))
}

impl Question<'_> {
    /// The context, as far as it is needed.
    pub(super) fn context(&self, needs: Needs, parameters: &EntityUid) -> Result<Context, String> {
        let pairs =
            self.needed(needs).filter_map(|(name, value)| Some((name.to_owned(), value?.expression(parameters))));
        Context::from_pairs(pairs).map_err(|error| error.to_string())
    }

    /// All that policies with these needs can look at and a version does not settle. Two questions with different values
    /// have different bytes.
    pub(super) fn values(&self, needs: Needs) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        for (_, value) in self.needed(needs) {
            match value {
                Some(value) => value.write(&mut bytes),
                None => bytes.push(0),
            }
        }
        if needs.0 & PARAMETERS != 0 {
            let all = self.intent.into_iter().flat_map(Intent::parameters);
            for (name, value) in all {
                Value::Text(name).write(&mut bytes);
                Value::Text(value).write(&mut bytes);
            }
        }
        bytes
    }

    fn needed(&self, needs: Needs) -> impl Iterator<Item = (&'static str, Option<Value<'_>>)> {
        let needed = attributes(self.action).iter().enumerate().filter(move |(at, _)| needs.0 >> at & 1 == 1);
        needed.map(|(_, (name, find))| (*name, find(self)))
    }

    /// How the workload may prove itself.
    pub(super) fn proofs(&self) -> RestrictedExpression {
        let word = |selector: &Selector| match selector {
            Selector::SpiffeId { .. } => "spiffe_id",
            Selector::DnsName { .. } => "dns_name",
            Selector::Unix { .. } => "unix",
            Selector::Federated(_) => "federated",
        };
        let words = self.workload.1.selectors.iter().map(|selector| text(word(selector)));
        RestrictedExpression::new_set(words)
    }
}

impl Value<'_> {
    fn expression(&self, parameters: &EntityUid) -> RestrictedExpression {
        match *self {
            Self::Text(one) => text(one),
            Self::Texts(list) => RestrictedExpression::new_set(list.iter().map(|item| text(item))),
            Self::Number(number) => RestrictedExpression::new_long(i64::try_from(number).unwrap_or(i64::MAX)),
            Self::Flag(flag) => RestrictedExpression::new_bool(flag),
            Self::Address(address) => RestrictedExpression::new_ip(address.to_string()),
            Self::Parameters => RestrictedExpression::new_entity_uid(parameters.clone()),
        }
    }

    /// Its kind, its length where that varies, and itself; a kind is never 0.
    fn write(&self, bytes: &mut Vec<u8>) {
        let mut sized = |kind: u8, value: &[u8]| {
            bytes.push(kind);
            bytes.extend(u64::try_from(value.len()).unwrap_or(u64::MAX).to_be_bytes());
            bytes.extend(value);
        };
        match *self {
            Self::Text(one) => sized(1, one.as_bytes()),
            Self::Texts(list) => {
                sized(2, &u64::try_from(list.len()).unwrap_or(u64::MAX).to_be_bytes());
                list.iter().for_each(|item| sized(1, item.as_bytes()));
            }
            Self::Number(number) => sized(3, &number.to_be_bytes()),
            Self::Flag(flag) => sized(4, &[flag.into()]),
            Self::Address(IpAddr::V4(address)) => sized(5, &address.octets()),
            Self::Address(IpAddr::V6(address)) => sized(6, &address.octets()),
            // What they are is written by itself.
            Self::Parameters => sized(7, &[]),
        }
    }
}

fn source<'a>(question: &'a Question<'_>) -> Option<Value<'a>> {
    match question.origin {
        // An IPv4 address reads as one, whichever socket it came through.
        Origin::Network(address) => Some(Value::Address(address.to_canonical())),
        Origin::Local | Origin::Unknown => None,
    }
}

pub(super) fn text(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_policy_can_reach_is_needed() {
        let of = |text: &str| Needs::of(PolicyAction::IssueToken, std::iter::once(text));
        let bit = |name: &str| {
            let at = OF_ISSUE.iter().position(|(known, _)| *known == name).expect("an attribute");
            Needs(1 << at)
        };
        let parameters = Needs(bit("parameters").0 | PARAMETERS);
        assert_eq!(of("permit(principal, action, resource);"), Needs(0));
        assert_eq!(of("when { context.purpose == \"x\" }"), bit("purpose"));
        assert_eq!(of("when { context[\"purpose\"] == \"x\" }"), bit("purpose"));
        assert_eq!(of("when { context has source_ip }"), bit("source_ip"));
        assert_eq!(of("when { context.parameters.hasTag(\"x\") }"), parameters);
        assert_eq!(of("when { Parameters::\"task\".hasTag(\"x\") }"), Needs(PARAMETERS));
        for whole in ["context[\"p\\u{75}rpose\"]", "context == { x: 1 }", "[context]", "context//c\n.purpose"] {
            assert_eq!(of(whole), Needs(u32::MAX), "{whole}");
        }
    }
}
