//! Workloads that prove themselves with identity tokens: bindings of claims.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    identity::{
        FederatedProof,
        oidc::{ClaimValue, runs_strangers_code},
    },
    model::{IssuerKind, IssuerName, WorkloadName},
};

use super::{
    claim::{Asked, ClaimRule},
    index::Index,
    trust::TenantTrust,
};

/// A binding: an issuer, and what its tokens must say.
///
/// Invariant: at least one claim; narrow enough for the kind of issuer, as the parser of trust files checked.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Federated {
    /// The issuer.
    pub issuer: IssuerName,
    /// What kind it was when the binding was checked; a token of an issuer that has become another kind does not fit.
    pub kind: IssuerKind,
    /// What each claim must say.
    pub claims: BTreeMap<String, ClaimRule>,
    /// For how many seconds a task's key goes on; as long as the issuer's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_job_seconds: Option<u32>,
}

impl Federated {
    /// The same without what does not decide whom it selects.
    pub(super) fn without_times(&self) -> Self {
        Self { longest_job_seconds: None, ..self.clone() }
    }
}

impl fmt::Display for Federated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "issuer = \"{}\", claims = {{ ", self.issuer)?;
        for (at, (name, rule)) in self.claims.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}\"{name}\" = {rule}")?;
        }
        f.write_str(" }")?;
        match self.longest_job_seconds {
            Some(seconds) => write!(f, ", longest_job = \"{seconds}s\""),
            None => Ok(()),
        }
    }
}

/// A binding, ready to be asked.
#[derive(Clone, Debug)]
pub(super) struct Binding {
    kind: IssuerKind,
    claims: Vec<(String, Asked)>,
    /// Events that it names.
    events: Vec<String>,
    longest_job: Option<Duration>,
    workload: WorkloadName,
}

/// One binding as seen from a token: what fits and what does not.
#[derive(Clone, Debug)]
pub struct Examined {
    /// Whom it selects.
    pub workload: WorkloadName,
    /// Claim by claim.
    pub claims: Vec<ExaminedClaim>,
    /// What else stands in the way.
    pub obstacle: Option<&'static str>,
}

/// One claim as asked, and as found.
#[derive(Clone, Debug)]
pub struct ExaminedClaim {
    /// Its name.
    pub name: String,
    /// What the binding asks.
    pub asked: String,
    /// What the token says.
    pub found: Option<String>,
    /// Whether that fits.
    pub fits: bool,
}

impl Examined {
    /// Whether the token fits the binding.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.obstacle.is_none() && self.claims.iter().all(|claim| claim.fits)
    }
}

impl Binding {
    pub(super) fn of(federated: &Federated, workload: &WorkloadName) -> Self {
        let events = match federated.claims.get(EVENT_NAME) {
            Some(ClaimRule::OneOf(events)) => events.clone(),
            Some(ClaimRule::Pattern(_)) | None => Vec::new(),
        };
        Self {
            kind: federated.kind,
            claims: federated.claims.iter().map(|(name, rule)| (name.clone(), Asked::of(rule))).collect(),
            events,
            longest_job: federated.longest_job_seconds.map(|seconds| Duration::from_secs(seconds.into())),
            workload: workload.clone(),
        }
    }

    fn fits(&self, token: &FederatedProof) -> bool {
        self.obstacle(token).is_none()
            && !self.claims.is_empty()
            && self.claims.iter().all(|(name, asked)| token.claims.value(name).is_some_and(|value| asked.fits(value)))
    }

    fn obstacle(&self, token: &FederatedProof) -> Option<&'static str> {
        if self.kind != token.issuer.kind {
            return Some("the issuer has become another kind since this was applied; apply it again");
        }
        let event = token
            .claims
            .one(EVENT_NAME)
            .filter(|event| token.issuer.kind == IssuerKind::Github && runs_strangers_code(event));
        match event {
            Some(event) if !self.events.iter().any(|named| named == event) => {
                Some("the event runs code of strangers, and the binding does not name it in event_name")
            }
            Some(_) | None => None,
        }
    }
}

impl Index {
    /// Every workload with a binding that the token fits.
    pub(super) fn federated<'a>(&'a self, token: &FederatedProof) -> Vec<&'a WorkloadName> {
        self.fitting(token).map(|binding| &binding.workload).collect()
    }

    fn fitting<'a, 't>(&'a self, token: &'t FederatedProof) -> impl Iterator<Item = &'a Binding> + use<'a, 't> {
        self.by_issuer.get(&token.issuer.name).into_iter().flatten().filter(|binding| binding.fits(token))
    }
}

impl TenantTrust {
    /// For how long the key of a task that this token opens goes on: the shortest of the bindings that it fits, and
    /// never longer than the issuer's.
    #[must_use]
    pub fn longest_job(&self, token: &FederatedProof, workload: &WorkloadName) -> Duration {
        let fitting = self.index().fitting(token).filter(|binding| binding.workload == *workload);
        fitting.filter_map(|binding| binding.longest_job).fold(token.issuer.longest_job, Duration::min)
    }

    /// Every binding of the token's issuer, with what fits and what does not; for operators.
    #[must_use]
    pub fn examine(&self, token: &FederatedProof) -> Vec<Examined> {
        let mut examined = Vec::new();
        for (name, workload) in &self.workloads {
            for selector in workload.selectors.iter() {
                let super::trust::Selector::Federated(federated) = selector else { continue };
                if federated.issuer == token.issuer.name {
                    examined.push(examine(federated, name, token));
                }
            }
        }
        examined
    }
}

fn examine(federated: &Federated, workload: &WorkloadName, token: &FederatedProof) -> Examined {
    let claim = |(name, rule): (&String, &ClaimRule)| {
        let value = token.claims.value(name);
        ExaminedClaim {
            name: name.clone(),
            asked: rule.to_string(),
            found: value.map(ClaimValue::to_string),
            fits: value.is_some_and(|value| Asked::of(rule).fits(value)),
        }
    };
    Examined {
        workload: workload.clone(),
        claims: federated.claims.iter().map(claim).collect(),
        obstacle: Binding::of(federated, workload).obstacle(token),
    }
}

pub(super) const EVENT_NAME: &str = "event_name";
