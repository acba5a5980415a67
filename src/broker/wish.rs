//! What is asked of Issue and Renew, parsed and within bounds.

use std::{sync::Arc, time::Duration};

use super::{federate::spend, refusal::Refusal, rings::Ring, view, who::Workload};
use crate::{
    identity::Caller,
    ledger::{Retry, Spend},
    mint::x509::{Csr, KnownCsrs},
    model::{
        ApprovalId, CredentialKind, Digest, Intent, Lease, LeaseId, ScopeId, SecretName, Task, TaskId, Timestamp,
        WorkloadName, static_secret,
    },
    pb,
    policy::{BindingWish, Decision, TaskDecision},
};

/// What is asked, parsed, whether by Issue or by Renew.
pub(super) struct Wish {
    pub(super) task: Option<Task>,
    pub(super) partner: crate::model::PartnerName,
    pub(super) purpose: crate::model::Purpose,
    pub(super) grant: Option<crate::model::GrantName>,
    pub(super) kind: CredentialKind,
    pub(super) audiences: Vec<String>,
    pub(super) actions: Vec<String>,
    pub(super) dns_names: Vec<String>,
    pub(super) ttl_seconds: u32,
    pub(super) binding: BindingWish,
    pub(super) csr: Option<Arc<Csr>>,
    pub(super) task_deadline_seconds: u32,
    pub(super) retry: Option<Retry>,
    /// The identity token that it is obtained with.
    pub(super) spend: Option<Spend>,
    /// The approval that the request names.
    pub(super) approval: Option<ApprovalId>,
    /// The lease to take the place of.
    pub(super) renews: Option<Lease>,
    /// What the task is about: its own words when it is open, else those of the request.
    pub(super) intent: Option<Box<Intent>>,
    /// Whether it is an SVID for the Workload API.
    pub(super) svid: bool,
    /// How it shall wait to be picked up.
    pub(super) pickup: Option<PickupWish>,
}

/// How a credential shall wait to be picked up.
#[derive(Clone, Debug)]
pub(super) struct PickupWish {
    /// For how long.
    pub(super) ttl: Duration,
    /// The one workload that may; any of the tenant when `None`.
    pub(super) by: Option<WorkloadName>,
}

/// What a request tells of a task's intent.
pub(super) fn intent(
    task_type: &str,
    parameters: &std::collections::BTreeMap<String, String>,
) -> Result<Option<Box<Intent>>, Refusal> {
    let told = Intent::new(task_type, parameters.clone());
    told.map(|told| told.map(Box::new)).map_err(|why| Refusal::invalid(why.field(), why.to_string()))
}

/// The intent of what is done under a task: the task's, which cannot be told anew.
pub(super) fn intent_of(task: &Task, told: Option<Box<Intent>>) -> Result<Option<Box<Intent>>, Refusal> {
    if told.is_some() && told != task.intent {
        return Err(Refusal::invalid(
            "task_type",
            "or parameters are not the task's; leave them out or open another task",
        ));
    }
    Ok(task.intent.clone())
}

/// Refuses what lies outside the task that a certificate of ours confines its holder to.
pub(super) fn within(workload: &Workload, task: TaskId, what: &'static str) -> Result<(), Refusal> {
    match workload.confined_to() {
        Some(own) if own != task => Err(Refusal::Unknown(what)),
        Some(_) | None => Ok(()),
    }
}

/// An idempotency key, bound to who used it and for what: tenant, workload, task and the key of the client's certificate,
/// which outlives the certificate. A client that changes its key has forgotten its idempotency keys.
pub(super) fn retry(
    key: &str,
    request: Digest,
    workload: &Workload,
    task: Option<TaskId>,
    caller: &Caller,
) -> Option<Retry> {
    if key.is_empty() {
        return None;
    }
    let client = caller.key_text();
    let task = task.map(|id| id.as_bytes().to_vec()).unwrap_or_default();
    let parts: [&[u8]; 5] = [
        workload.tenant.trust.name().as_str().as_bytes(),
        workload.name.as_str().as_bytes(),
        &task,
        client.as_bytes(),
        key.as_bytes(),
    ];
    // Each part ends in a byte that none of them can hold.
    let framed: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied().chain([0xff])).collect();
    let mut hash = [0; 16];
    hash.iter_mut().zip(Digest::of(&framed).0).for_each(|(to, from)| *to = from);
    Some(Retry { key: hash, request })
}

pub(super) fn check_idempotency_key(key: &str) -> Result<(), Refusal> {
    if key.len() > IDEMPOTENCY_KEY_MAX {
        return Err(Refusal::invalid(
            "idempotency_key",
            format!("has {} bytes of at most {IDEMPOTENCY_KEY_MAX}", key.len()),
        ));
    }
    Ok(())
}

/// A task's first state.
pub(super) fn new_task(
    workload: &Workload,
    opening: &TaskDecision,
    parent: Option<&Task>,
    held: bool,
    intent: Option<Box<Intent>>,
    job_url: Option<Box<str>>,
) -> Result<Task, Refusal> {
    Ok(Task {
        id: TaskId::fresh(workload.tenant.number)?,
        tenant: opening.tenant().clone(),
        partner: opening.partner().clone(),
        workload: opening.workload().clone(),
        purpose: opening.purpose().clone(),
        parent: parent.map(|task| task.id),
        opened: opening.opened(),
        deadline: opening.deadline(),
        ended: None,
        held,
        leases_issued: 0,
        live: Vec::new(),
        basis: opening.basis(),
        proofs: opening.proofs().to_vec(),
        parent_lease: workload.lease.as_ref().map(|lease| lease.id),
        client_key: parent.and_then(|task| task.client_key).or(workload.client_key),
        opened_with: match parent {
            Some(parent) => parent.opened_with.clone(),
            None => workload.opened_with.clone(),
        },
        job_url: job_url.or_else(|| parent.and_then(|task| task.job_url.clone())),
        intent,
        approvals: Vec::new(),
        pace: None,
        limits: parent.and_then(|task| task.limits.clone()),
        secrets: Vec::new(),
        secrets_overflow: false,
    })
}

pub(super) fn lease_of(
    id: LeaseId,
    decision: &Decision,
    workload: &Workload,
    wish: &Wish,
    caller: &Caller,
    ring: &Ring,
) -> Lease {
    let certificate = caller.shown_certificate();
    // Who alone may pick it up can be cut and barred like who asked for it.
    let taker = wish.pickup.as_ref().and_then(|wished| wished.by.as_ref()).filter(|by| *by != decision.workload());
    let taker = taker.map(|by| ScopeId::workload(decision.tenant(), by));
    Lease {
        id,
        tenant: decision.tenant().clone(),
        partner: decision.partner().clone(),
        grant: decision.grant().clone(),
        workload: decision.workload().clone(),
        purpose: decision.purpose().clone(),
        kind: decision.kind(),
        audiences: decision.audiences().to_vec(),
        actions: decision.actions().to_vec(),
        dns_names: decision.dns_names().to_vec(),
        issued: decision.issued(),
        expires: decision.expires(),
        basis: decision.basis(),
        credential: Digest::default(),
        key_id: match decision.kind() {
            CredentialKind::Jwt => ring.token.as_ref().map(|key| key.key_id().to_owned()).unwrap_or_default(),
            CredentialKind::X509 => ring.ca_key_id.clone(),
            CredentialKind::Opaque | CredentialKind::Secret => String::new(),
        },
        bound: certificate.filter(|_| decision.bind()),
        spki: None,
        parent: workload.lease.as_ref().map(|lease| lease.id),
        proofs: decision.proofs().iter().copied().chain(taker).collect(),
        renewals: wish.renews.as_ref().map_or(0, |old| old.renewals.saturating_add(1)),
        broker_made_key: decision.kind() == CredentialKind::X509 && wish.csr.is_none(),
        delegated: Vec::new(),
        ended: None,
        ruling: decision.ruling().cloned().map(Box::new),
        secret: None,
        pickup_until: None,
        svid: wish.svid,
    }
}

pub(super) fn wish(
    request: &pb::IssueRequest,
    task: Option<Task>,
    workload: &Workload,
    caller: &Caller,
    known: &KnownCsrs,
) -> Result<Wish, Refusal> {
    let kind = u32::try_from(request.kind).ok().and_then(CredentialKind::from_code);
    let kind = kind.ok_or_else(|| Refusal::invalid("kind", "is not one of JWT, OPAQUE, X509, SECRET"))?;
    let (partner, purpose) = match &task {
        Some(task) => {
            let fits = |asked: &str, is: &str| asked.is_empty() || asked == is;
            if !fits(&request.partner, task.partner.as_str()) {
                return Err(Refusal::invalid("partner", "is not the task's; leave it empty or open another task"));
            }
            if !fits(&request.purpose, task.purpose.as_str()) {
                return Err(Refusal::invalid("purpose", "is not the task's; leave it empty or open another task"));
            }
            (task.partner.clone(), task.purpose.clone())
        }
        None => (view::id("partner", &request.partner)?, view::id("purpose", &request.purpose)?),
    };
    let csr = check_key_source(request, kind, known)?;
    let pickup = request.pickup.as_ref().map(|wished| pickup(wished, workload)).transpose()?;
    let told = intent(&request.task_type, &request.parameters)?;
    let intent = task.as_ref().map_or(Ok(told.clone()), |task| intent_of(task, told))?;
    Ok(Wish {
        intent,
        partner,
        purpose,
        grant: if request.grant.is_empty() { None } else { Some(view::id("grant", &request.grant)?) },
        kind,
        audiences: audiences(kind, request)?,
        actions: request.actions.clone(),
        dns_names: request.dns_names.clone(),
        ttl_seconds: request.ttl_seconds,
        binding: match request.binding() {
            // Bound to who asks it would be of no use to who picks it up.
            pb::Binding::Unspecified if pickup.is_some() && is_token(kind) => BindingWish::None,
            pb::Binding::Unspecified => BindingWish::Default,
            pb::Binding::Certificate => BindingWish::Certificate,
            pb::Binding::None => BindingWish::None,
        },
        csr,
        task_deadline_seconds: if task.is_some() { 0 } else { request.task_deadline_seconds },
        retry: idempotency(request, workload, task.as_ref(), caller),
        spend: spend(caller, || task.is_none().then(|| request_hash(request))),
        task,
        approval: view::optional_id("approval_id", &request.approval_id)?,
        renews: None,
        pickup,
        svid: false,
    })
}

fn is_token(kind: CredentialKind) -> bool {
    matches!(kind, CredentialKind::Jwt | CredentialKind::Opaque)
}

/// Whom the credential is for; a static secret names itself.
pub(super) fn audiences(kind: CredentialKind, request: &pb::IssueRequest) -> Result<Vec<String>, Refusal> {
    if kind != CredentialKind::Secret {
        if !request.secret.is_empty() {
            return Err(Refusal::invalid("secret", "is for kind SECRET only; leave it empty"));
        }
        return Ok(request.audiences.clone());
    }
    if !request.audiences.is_empty() {
        return Err(Refusal::invalid("audiences", "is not for static secrets; leave it empty"));
    }
    if !request.actions.is_empty() {
        return Err(Refusal::invalid("actions", "is not for static secrets; leave it empty"));
    }
    if request.secret.is_empty() {
        return Err(Refusal::invalid("secret", "is missing; name the static secret"));
    }
    let name: SecretName = view::id("secret", &request.secret)?;
    Ok(vec![static_secret::audience(&name)])
}

fn pickup(wished: &pb::PickupWish, workload: &Workload) -> Result<PickupWish, Refusal> {
    let seconds = match wished.ttl_seconds {
        0 => PICKUP_SECONDS,
        seconds if seconds <= PICKUP_MAX_SECONDS => seconds,
        _ => return Err(Refusal::invalid("pickup.ttl_seconds", format!("is more than {PICKUP_MAX_SECONDS}"))),
    };
    let by: Option<WorkloadName> = view::optional_id("pickup.workload", &wished.workload)?;
    if by.as_ref().is_some_and(|by| !workload.tenant.trust.workloads().contains_key(by)) {
        return Err(Refusal::invalid("pickup.workload", "is no workload of this tenant"));
    }
    Ok(PickupWish { ttl: Duration::from_secs(seconds.into()), by })
}

/// The idempotency key of a request, with the hash of all else that the request says.
fn idempotency(request: &pb::IssueRequest, workload: &Workload, task: Option<&Task>, caller: &Caller) -> Option<Retry> {
    if request.idempotency_key.is_empty() {
        return None;
    }
    retry(&request.idempotency_key, request_hash(request), workload, task.map(|task| task.id), caller)
}

fn request_hash(request: &pb::IssueRequest) -> Digest {
    let hashed = pb::IssueRequest { idempotency_key: String::new(), ..request.clone() };
    Digest::of(&prost::Message::encode_to_vec(&hashed))
}

fn check_key_source(
    request: &pb::IssueRequest,
    kind: CredentialKind,
    known: &KnownCsrs,
) -> Result<Option<Arc<Csr>>, Refusal> {
    match (kind, request.csr_der.is_empty(), request.generate_key) {
        (CredentialKind::X509, false, false) => parse_csr(&request.csr_der, known),
        (CredentialKind::X509, true, false) => {
            Err(Refusal::invalid("csr_der", "is missing; give a request, or set generate_key"))
        }
        (CredentialKind::X509, false, true) => {
            Err(Refusal::invalid("generate_key", "is set beside csr_der; give one of the two"))
        }
        (CredentialKind::X509, true, true)
        | (CredentialKind::Jwt | CredentialKind::Opaque | CredentialKind::Secret, true, false) => Ok(None),
        (CredentialKind::Jwt | CredentialKind::Opaque | CredentialKind::Secret, false, _) => {
            Err(Refusal::invalid("csr_der", "is for certificates only; leave it empty"))
        }
        (CredentialKind::Jwt | CredentialKind::Opaque | CredentialKind::Secret, true, true) => {
            Err(Refusal::invalid("generate_key", "is for certificates only; leave it unset"))
        }
    }
}

pub(super) fn parse_csr(der: &[u8], known: &KnownCsrs) -> Result<Option<Arc<Csr>>, Refusal> {
    if der.is_empty() {
        return Ok(None);
    }
    known.parse(der).map(Some).map_err(|e| Refusal::invalid("csr_der", e.to_string()))
}

pub(super) fn check_fields(request: &pb::IssueRequest) -> Result<(), Refusal> {
    check_list("audiences", &request.audiences, AUDIENCES_MAX, 255)?;
    check_list("actions", &request.actions, ACTIONS_MAX, 128)?;
    check_list("dns_names", &request.dns_names, DNS_NAMES_MAX, 253)?;
    if request.audiences.is_empty() && request.kind() != pb::CredentialKind::Secret {
        return Err(Refusal::invalid("audiences", "is empty; say who the credential is for"));
    }
    if request.task_deadline_seconds > TASK_MAX_SECONDS {
        return Err(Refusal::invalid("task_deadline_seconds", format!("is more than {TASK_MAX_SECONDS}")));
    }
    check_idempotency_key(&request.idempotency_key)
}

fn check_list(field: &'static str, list: &[String], most: usize, longest: usize) -> Result<(), Refusal> {
    if list.len() > most {
        return Err(Refusal::invalid(field, format!("has {} entries of at most {most}", list.len())));
    }
    let bad = |text: &String| text.is_empty() || text.len() > longest || !text.bytes().all(|b| b.is_ascii_graphic());
    match list.iter().position(bad) {
        Some(at) => Err(Refusal::invalid(
            field,
            format!("has an entry (number {at}) that is not 1 to {longest} visible ASCII characters"),
        )),
        None => Ok(()),
    }
}

pub(super) fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}

/// Entries of `audiences`.
const AUDIENCES_MAX: usize = 8;
/// Entries of `actions`.
const ACTIONS_MAX: usize = 32;
/// Entries of `dns_names`.
const DNS_NAMES_MAX: usize = 8;
/// Bytes of an idempotency key.
const IDEMPOTENCY_KEY_MAX: usize = 64;
/// Seconds for which a credential waits to be picked up.
const PICKUP_SECONDS: u32 = 60;
const PICKUP_MAX_SECONDS: u32 = 600;
/// Longest task: one day.
pub(super) const TASK_MAX_SECONDS: u32 = 86_400;
