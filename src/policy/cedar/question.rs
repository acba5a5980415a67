//! What policies are asked, and the context they see.

use std::net::IpAddr;

use cedar_policy::{Context, EntityUid, RestrictedExpression};

use crate::{
    model::{CredentialKind, GrantName, Intent, PartnerName, Purpose, Timestamp, WorkloadName},
    policy::{
        decide::Origin,
        trust::{Grant, Selector, Workload},
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

/// How to find one attribute of the context; `None` when it is absent.
type Attribute = fn(&Question<'_>, &EntityUid) -> Option<RestrictedExpression>;

/// The contexts of the schema. A test holds both together.
const OF_ISSUE: [(&str, Attribute); 20] = [
    ("tenant", |q, _| Some(text(q.tenant))),
    ("partner", |q, _| Some(text(q.partner.as_str()))),
    ("grant", |q, _| q.grant.map(|(name, _)| text(name.as_str()))),
    ("purpose", |q, _| Some(text(q.purpose.as_str()))),
    ("task_type", |q, _| Some(text(q.intent.map(Intent::task_type).unwrap_or_default()))),
    ("parameters", |_, parameters| Some(RestrictedExpression::new_entity_uid(parameters.clone()))),
    ("actions", |q, _| Some(texts(q.actions))),
    ("audiences", |q, _| Some(texts(q.audiences))),
    ("dns_names", |q, _| Some(texts(q.dns_names))),
    ("kind", |q, _| Some(text(q.kind.word()))),
    ("ttl_seconds", |q, _| Some(number(q.life_seconds))),
    ("environment", |q, _| Some(text(&q.workload.1.environment))),
    ("source_ip", |q, _| source(q)),
    ("bound", |q, _| Some(RestrictedExpression::new_bool(q.bound))),
    ("renewals", |q, _| Some(number(q.renewals.into()))),
    ("owner", |q, _| Some(text(&q.owner))),
    ("attest_by", |q, _| Some(number(q.attest_by.seconds()))),
    ("now", |q, _| Some(number(q.now.seconds()))),
    ("hour", |q, _| Some(number(q.now.seconds() / 3_600 % 24))),
    // 1970 began on a Thursday.
    ("weekday", |q, _| Some(number((q.now.seconds() / 86_400 + 3) % 7 + 1))),
];

const OF_OPEN: [(&str, Attribute); 12] = [
    ("tenant", |q, _| Some(text(q.tenant))),
    ("partner", |q, _| Some(text(q.partner.as_str()))),
    ("purpose", |q, _| Some(text(q.purpose.as_str()))),
    ("task_type", |q, _| Some(text(q.intent.map(Intent::task_type).unwrap_or_default()))),
    ("parameters", |_, parameters| Some(RestrictedExpression::new_entity_uid(parameters.clone()))),
    ("environment", |q, _| Some(text(&q.workload.1.environment))),
    ("source_ip", |q, _| source(q)),
    ("deadline_seconds", |q, _| Some(number(q.life_seconds))),
    ("is_child", |q, _| Some(RestrictedExpression::new_bool(q.is_child))),
    ("now", |q, _| Some(number(q.now.seconds()))),
    ("hour", |q, _| Some(number(q.now.seconds() / 3_600 % 24))),
    ("weekday", |q, _| Some(number((q.now.seconds() / 86_400 + 3) % 7 + 1))),
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
        let needed = attributes(self.action).iter().enumerate().filter(|(at, _)| needs.0 >> at & 1 == 1);
        let pairs = needed.filter_map(|(_, (name, find))| Some(((*name).to_owned(), find(self, parameters)?)));
        Context::from_pairs(pairs).map_err(|error| error.to_string())
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

fn source(question: &Question<'_>) -> Option<RestrictedExpression> {
    match question.origin {
        // An IPv4 address reads as one, whichever socket it came through.
        Origin::Network(address) => Some(RestrictedExpression::new_ip(plain(address).to_string())),
        Origin::Local | Origin::Unknown => None,
    }
}

fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

pub(super) fn text(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

fn texts(list: &[String]) -> RestrictedExpression {
    RestrictedExpression::new_set(list.iter().map(|item| text(item)))
}

fn number(number: u64) -> RestrictedExpression {
    RestrictedExpression::new_long(i64::try_from(number).unwrap_or(i64::MAX))
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
        assert_eq!(of("permit(principal, action, resource);"), Needs(0));
        assert_eq!(of("when { context.purpose == \"x\" }"), bit("purpose"));
        assert_eq!(of("when { context[\"purpose\"] == \"x\" }"), bit("purpose"));
        assert_eq!(of("when { context has source_ip }"), bit("source_ip"));
        for whole in ["context[\"p\\u{75}rpose\"]", "context == { x: 1 }", "[context]", "context//c\n.purpose"] {
            assert_eq!(of(whole), Needs(u32::MAX), "{whole}");
        }
    }
}
