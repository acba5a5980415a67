//! Everything about one (action, partner, workload, grant, audience) that does not change within a version: who and what
//! they are to Cedar, and the few policies that can concern them.

use std::{
    str::FromStr,
    sync::{Arc, LazyLock, PoisonError},
};

use cedar_policy::{
    ActionConstraint, Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicySet, PrincipalConstraint,
    ResourceConstraint,
};

use crate::model::{Digest, GrantName, PartnerName, WorkloadName};

use super::{
    compile::{Compiled, Entry, VOCABULARY},
    memo::Memo,
    question::{Needs, PolicyAction, Question, text},
    sets::{Inner, Loaded},
};

/// What a cell is of.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Key {
    action: PolicyAction,
    partner: PartnerName,
    workload: WorkloadName,
    grant: Option<GrantName>,
    audience: String,
}

/// What asking needs and a version does not change.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) principal: EntityUid,
    pub(super) action: EntityUid,
    pub(super) resource: EntityUid,
    pub(super) parameters: EntityUid,
    pub(super) entities: Entities,
    pub(super) enforce: Bench,
    /// Only where something runs in shadow.
    pub(super) shadow: Option<Bench>,
    /// Over the sets in force.
    pub(super) set: Digest,
    /// The guardrails it was made with.
    rails: (Option<Digest>, Option<Digest>),
}

/// The policies to ask.
#[derive(Debug)]
pub(super) struct Bench {
    /// The tenant's own that can concern it; `None` where it has none, which permits.
    pub(super) own: Option<PolicySet>,
    /// The guardrails that can concern it; `None` for none.
    pub(super) rails: Option<PolicySet>,
    pub(super) needs: Needs,
    pub(super) memo: Memo,
}

/// Cells of one tenant at most; then they are made anew.
const CELLS_MOST: usize = 256;

/// The cell of a question.
///
/// # Errors
/// What cannot be read or built: then nothing is allowed.
pub(super) fn cell(
    own: &Inner,
    rails: Option<&Inner>,
    question: &Question<'_>,
    audience: &str,
) -> Result<Arc<Cell>, String> {
    let key = Key {
        action: question.action,
        partner: question.partner.clone(),
        workload: question.workload.0.clone(),
        grant: question.grant.map(|(name, _)| name.clone()),
        audience: audience.to_owned(),
    };
    let of = |loaded: Option<&Loaded>| loaded.and_then(|loaded| loaded.as_ref().ok()).map(|set| set.hash);
    let made_with =
        (of(rails.and_then(|rails| rails.enforce.as_ref())), of(rails.and_then(|rails| rails.shadow.as_ref())));
    let known = own.cells.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
    if let Some(cell) = known.filter(|cell| cell.rails == made_with) {
        return Ok(cell);
    }
    let cell = Arc::new(make(own, rails, question, audience, made_with)?);
    let mut cells = own.cells.write().unwrap_or_else(PoisonError::into_inner);
    if cells.len() >= CELLS_MOST {
        cells.clear();
    }
    cells.insert(key, Arc::clone(&cell));
    Ok(cell)
}

fn make(
    own: &Inner,
    rails: Option<&Inner>,
    question: &Question<'_>,
    audience: &str,
    made_with: (Option<Digest>, Option<Digest>),
) -> Result<Cell, String> {
    let uids = Uids::of(question, audience);
    let enforced = read(own.enforce.as_ref())?;
    let enforced_rails = read(rails.and_then(|rails| rails.enforce.as_ref()))?;
    // What does not compile runs nowhere: a tenant's shadow is told as one that refuses, by an empty set.
    let shadow = own.shadow.as_ref().or(rails.and_then(|rails| rails.shadow.as_ref())).map(|_| {
        let own = own.shadow.as_ref().map_or(Ok(enforced), |set| read(Some(set)))?;
        let rails = rails.and_then(|rails| rails.shadow.as_ref()).map_or(Ok(enforced_rails), |set| read(Some(set)))?;
        Ok::<_, String>(Bench::of(own, rails, question.action, &uids))
    });
    let digests = [enforced.map(|set| set.hash), enforced_rails.map(|set| set.hash)].map(Option::unwrap_or_default);
    let [own_hash, rails_hash] = digests;
    Ok(Cell {
        entities: uids.entities(question, audience)?,
        enforce: Bench::of(enforced, enforced_rails, question.action, &uids),
        shadow: shadow.transpose().unwrap_or_else(|_| {
            Some(Bench { own: Some(PolicySet::new()), rails: None, needs: Needs::default(), memo: Memo::default() })
        }),
        set: Digest::of_parts(&[&own_hash.0, &rails_hash.0]),
        rails: made_with,
        principal: uids.principal,
        action: uids.action,
        resource: uids.resource,
        parameters: uids.parameters,
    })
}

fn read(set: Option<&Loaded>) -> Result<Option<&Compiled>, String> {
    set.map(|set| set.as_deref().map_err(Clone::clone)).transpose()
}

impl Bench {
    fn of(own: Option<&Compiled>, rails: Option<&Compiled>, action: PolicyAction, uids: &Uids) -> Self {
        let narrowed = |set: &Compiled| {
            let concern = set.policies.iter().filter(|entry| concerns(entry, action, uids));
            // Ids are unique since it was compiled, so none is lost.
            PolicySet::from_policies(concern.map(|entry| entry.policy.clone())).unwrap_or_default()
        };
        let texts = own.into_iter().chain(rails).map(|set| set.text.as_str());
        Self {
            own: own.map(narrowed),
            rails: rails.map(narrowed).filter(|set| !set.is_empty()),
            needs: Needs::of(action, texts),
            memo: Memo::default(),
        }
    }
}

/// Whether a policy's scope can fit. Its conditions are Cedar's to look at.
fn concerns(entry: &Entry, action: PolicyAction, uids: &Uids) -> bool {
    let acts =
        |uid: &EntityUid| *uid == uids.action || (action != PolicyAction::OpenTask && *uid == NAMES.action("Issue"));
    let by_action = match entry.policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::In(list) => list.iter().any(acts),
        ActionConstraint::Eq(uid) => acts(&uid),
    };
    let is_principal = |uid: &EntityUid| *uid == uids.principal || *uid == uids.partner || *uid == uids.tenant;
    let by_principal = match entry.policy.principal_constraint() {
        PrincipalConstraint::Any | PrincipalConstraint::Is(_) => true,
        PrincipalConstraint::In(uid) | PrincipalConstraint::Eq(uid) | PrincipalConstraint::IsIn(_, uid) => {
            is_principal(&uid)
        }
    };
    let is_resource = |uid: &EntityUid| {
        *uid == uids.resource || *uid == uids.partner || *uid == uids.tenant || uids.grant.as_ref() == Some(uid)
    };
    let by_resource = match entry.policy.resource_constraint() {
        ResourceConstraint::Any | ResourceConstraint::Is(_) => true,
        ResourceConstraint::In(uid) | ResourceConstraint::Eq(uid) | ResourceConstraint::IsIn(_, uid) => {
            is_resource(&uid)
        }
    };
    by_action && by_principal && by_resource
}

/// Whom and what a question is about, to Cedar.
struct Uids {
    principal: EntityUid,
    action: EntityUid,
    resource: EntityUid,
    partner: EntityUid,
    tenant: EntityUid,
    grant: Option<EntityUid>,
    parameters: EntityUid,
}

impl Uids {
    fn of(question: &Question<'_>, audience: &str) -> Self {
        let tenant = uid(&NAMES.tenant, question.tenant);
        let resource = match question.action {
            PolicyAction::OpenTask => tenant.clone(),
            PolicyAction::IssueToken
            | PolicyAction::IssueCertificate
            | PolicyAction::IssueSecret
            | PolicyAction::Renew => uid(&NAMES.audience, audience),
        };
        Self {
            principal: uid(&NAMES.workload, question.workload.0.as_str()),
            action: NAMES.action(question.action.word()),
            resource,
            partner: uid(&NAMES.partner, question.partner.as_str()),
            tenant,
            grant: question.grant.map(|(name, _)| uid(&NAMES.grant, name.as_str())),
            parameters: uid(&NAMES.parameters, "task"),
        }
    }

    fn entities(&self, question: &Question<'_>, audience: &str) -> Result<Entities, String> {
        let failed = |error: &dyn std::fmt::Display| error.to_string();
        let attributes = [
            ("environment".to_owned(), text(&question.workload.1.environment)),
            ("proofs".to_owned(), question.proofs()),
        ];
        let above = || [self.partner.clone(), self.tenant.clone()].into_iter();
        let workload = Entity::new(self.principal.clone(), attributes.into(), above().collect());
        let mut list = vec![
            Entity::new_no_attrs(self.tenant.clone(), Default::default()),
            Entity::new_no_attrs(self.partner.clone(), [self.tenant.clone()].into()),
            workload.map_err(|error| failed(&error))?,
        ];
        if let Some(grant) = &self.grant {
            list.push(Entity::new_no_attrs(grant.clone(), above().collect()));
            let name = [("name".to_owned(), text(audience))];
            let parents = above().chain([grant.clone()]).collect();
            list.push(Entity::new(self.resource.clone(), name.into(), parents).map_err(|error| failed(&error))?);
        }
        // With the schema, so that actions have their group and a slip of ours shows.
        let schema = VOCABULARY.as_ref().ok_or("the vocabulary cannot be read")?;
        Entities::from_entities(list, Some(schema)).map_err(|error| failed(&error))
    }
}

/// A task's parameters, as tags.
pub(super) fn parameters(cell: &Cell, question: &Question<'_>) -> Result<Option<Entities>, String> {
    let Some(intent) = question.intent.filter(|intent| !intent.parameters().is_empty()) else { return Ok(None) };
    let tags = intent.parameters().iter().map(|(name, value)| (name.clone(), text(value)));
    let entity = Entity::new_with_tags(cell.parameters.clone(), [], [], tags).map_err(|error| error.to_string())?;
    cell.entities.clone().upsert_entities([entity], None).map(Some).map_err(|error| error.to_string())
}

/// Names of the schema, parsed once.
struct Names {
    tenant: EntityTypeName,
    partner: EntityTypeName,
    grant: EntityTypeName,
    workload: EntityTypeName,
    audience: EntityTypeName,
    parameters: EntityTypeName,
    action: EntityTypeName,
}

impl Names {
    fn action(&self, word: &str) -> EntityUid {
        uid(&self.action, word)
    }
}

fn uid(of: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(of.clone(), EntityId::new(id))
}

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "each is a plain identifier, as the tests of this file see")]
    let name = |text: &str| EntityTypeName::from_str(text).expect("a name");
    Names {
        tenant: name("Tenant"),
        partner: name("Partner"),
        grant: name("Grant"),
        workload: name("Workload"),
        audience: name("Audience"),
        parameters: name("Parameters"),
        action: name("Action"),
    }
});
