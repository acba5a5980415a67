//! Tasks and leases.

use crate::{
    broker::{Broker, Refusal, event::unstamp, page, view},
    identity::Caller,
    model::{
        CredentialKind, EndReason, GrantName, Lease, PartnerName, Standing, TaskId, TenantName, Timestamp, WorkloadName,
    },
    pb,
    policy::Role,
};

/// What a list of leases leaves in; unset fields leave all in.
#[derive(Debug)]
struct LeaseFilter {
    partner: Option<PartnerName>,
    grant: Option<GrantName>,
    workload: Option<WorkloadName>,
    kind: Option<CredentialKind>,
    issued_before: Option<Timestamp>,
}

impl LeaseFilter {
    fn of(request: &pb::ListLeasesRequest) -> Result<Self, Refusal> {
        let kind = match u32::try_from(request.kind) {
            Ok(0) => None,
            Ok(code) => CredentialKind::from_code(code).map(Some).ok_or_else(|| no_such("kind"))?,
            Err(_) => return Err(no_such("kind")),
        };
        Ok(Self {
            partner: view::optional_id("partner", &request.partner)?,
            grant: view::optional_id("grant", &request.grant)?,
            workload: view::optional_id("workload", &request.workload)?,
            kind,
            issued_before: request.issued_before.as_ref().map(unstamp),
        })
    }

    fn fits(&self, lease: &Lease) -> bool {
        self.partner.as_ref().is_none_or(|partner| *partner == lease.partner)
            && self.grant.as_ref().is_none_or(|grant| *grant == lease.grant)
            && self.workload.as_ref().is_none_or(|workload| *workload == lease.workload)
            && self.kind.is_none_or(|kind| kind == lease.kind)
            && self.issued_before.is_none_or(|before| lease.issued < before)
    }
}

impl Broker {
    /// Leases, clustered by tenant and task. A page may be short while there is a next one.
    ///
    /// # Errors
    /// When the caller is no operator, a filter is malformed, or the store failed.
    pub async fn list_leases(
        &self,
        caller: &Caller,
        request: pb::ListLeasesRequest,
    ) -> Result<pb::ListLeasesResponse, Refusal> {
        let now = self.now();
        let (operator, ask) = self.looks(caller, request.page.as_ref())?;
        let tenant: Option<TenantName> = view::optional_id("tenant", &request.tenant)?;
        let task: Option<TaskId> = view::optional_id("task_id", &request.task_id)?;
        let (filter, standing) = (LeaseFilter::of(&request)?, standing_filter(request.standing)?);
        let prefixes = match task {
            Some(task) => vec![task.as_bytes().to_vec()],
            None => self.tenant_prefixes(&operator, tenant.as_ref()),
        };
        let keep = |lease: &Lease| {
            let seen = operator.reaches(Some(&lease.tenant), Some(&lease.partner));
            if !seen || tenant.as_ref().is_some_and(|tenant| *tenant != lease.tenant) || !filter.fits(lease) {
                return Ok(None);
            }
            let found = self.ledger.lease_standing(lease, now)?;
            Ok(is_wanted(standing, found).then(|| view::lease_in_full(lease, found)))
        };
        let fetch = |prefix: &[u8], after: &[u8], limit| self.ledger.leases(prefix, after, limit);
        let key = |lease: &Lease| lease.id.as_bytes().to_vec();
        let (leases, next_page_token) = page::scan(&ask, &prefixes, fetch, key, keep).await?;
        Ok(pb::ListLeasesResponse { leases, next_page_token })
    }

    /// Tasks, in key order within a tenant. A page may be short while there is a next one.
    ///
    /// # Errors
    /// As [`Self::list_leases`].
    pub async fn list_tasks(
        &self,
        caller: &Caller,
        request: pb::ListTasksRequest,
    ) -> Result<pb::ListTasksResponse, Refusal> {
        let now = self.now();
        let (operator, ask) = self.looks(caller, request.page.as_ref())?;
        let tenant: Option<TenantName> = view::optional_id("tenant", &request.tenant)?;
        let partner: Option<PartnerName> = view::optional_id("partner", &request.partner)?;
        let workload: Option<WorkloadName> = view::optional_id("workload", &request.workload)?;
        let standing = standing_filter(request.standing)?;
        let prefixes = self.tenant_prefixes(&operator, tenant.as_ref());
        let abandoned = |task: &crate::model::Task| task.ended.is_some_and(|(why, _)| why == EndReason::Abandoned);
        let keep = |task: &crate::model::Task| {
            let fits = (!request.abandoned || abandoned(task))
                && operator.reaches(Some(&task.tenant), Some(&task.partner))
                && partner.as_ref().is_none_or(|partner| *partner == task.partner)
                && workload.as_ref().is_none_or(|workload| *workload == task.workload);
            if !fits {
                return Ok(None);
            }
            let found = self.ledger.task_standing(task, now)?;
            if !is_wanted(standing, found) {
                return Ok(None);
            }
            // Of one whose parents are gone nobody knows any more.
            let delegators = self.above(task).map(|above| above.delegators()).unwrap_or_default();
            Ok(Some(view::task(task, &delegators, found)))
        };
        let fetch = |prefix: &[u8], after: &[u8], limit| self.ledger.tasks(prefix, after, limit);
        let key = |task: &crate::model::Task| task.id.as_bytes().to_vec();
        let (tasks, next_page_token) = page::scan(&ask, &prefixes, fetch, key, keep).await?;
        Ok(pb::ListTasksResponse { tasks, next_page_token })
    }

    /// One task.
    ///
    /// # Errors
    /// When the caller is no operator, there is no such task in its scope, or the store failed.
    pub fn get_task(&self, caller: &Caller, request: &pb::GetTaskRequest) -> Result<pb::GetTaskResponse, Refusal> {
        let operator = self.operator(caller)?;
        operator.require(Role::Auditor)?;
        let unknown = || Refusal::Unknown("task");
        let id: TaskId = request.task_id.parse().map_err(|_| unknown())?;
        let task = self.ledger.task(id)?.ok_or_else(unknown)?;
        if !operator.reaches(Some(&task.tenant), Some(&task.partner)) {
            return Err(unknown());
        }
        let standing = self.ledger.task_standing(&task, self.now())?;
        let delegators = self.above(&task).map(|above| above.delegators()).unwrap_or_default();
        Ok(pb::GetTaskResponse { task: Some(view::task(&task, &delegators, standing)) })
    }
}

fn standing_filter(code: i32) -> Result<pb::Standing, Refusal> {
    pb::Standing::try_from(code).map_err(|_| no_such("standing"))
}

fn is_wanted(filter: pb::Standing, found: Standing) -> bool {
    filter == pb::Standing::Unspecified || i32::from(filter) == view::standing_codes(found).0
}

fn no_such(field: &'static str) -> Refusal {
    Refusal::invalid(field, "is none that this version knows")
}
