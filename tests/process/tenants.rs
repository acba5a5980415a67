//! Nobody learns anything about another tenant: what is foreign and what does not exist get the same answer.

use std::{collections::BTreeMap, fmt::Debug};

use mayfly::pb::{self, CredentialKind, introspect_request::Credential as Presented};
use tonic::{Response, Status};

use super::{
    rig::{refused, told},
    world::{KINDS, TENANTS, World, audience, holder, introspect, is_active, issue, lease_of, presented, request},
};

/// What a caller of one tenant can name of another.
#[derive(Clone)]
struct Names {
    tenant: String,
    grant: String,
    workload: String,
    task: String,
    lease: String,
    /// One that waits, against the suspension of a secret.
    appeal: String,
    credential: Presented,
}

impl Names {
    /// Names of the same shape that nothing has.
    fn of_nothing(&self) -> Self {
        let turned = |id: &str| {
            let (head, tail) = id.split_at(id.len() - 12);
            head.to_owned() + &tail.chars().map(|c| if c == '0' { '1' } else { '0' }).collect::<String>()
        };
        let credential = match &self.credential {
            Presented::Token(token) => Presented::Token(token.chars().rev().collect()),
            Presented::CertificateDer(der) => Presented::CertificateDer(der.iter().rev().copied().collect()),
        };
        Self {
            tenant: "nowhere".into(),
            grant: "nothing".into(),
            workload: "nobody".into(),
            task: turned(&self.task),
            lease: turned(&self.lease),
            appeal: turned(&self.appeal),
            credential,
        }
    }

    /// A handle for its lease that nobody gave out.
    fn handle(&self) -> String {
        let id = self.lease.parse().expect("a lease id");
        mayfly::mint::handle::Handle::fresh(id).expect("entropy").text().expose().to_owned()
    }

    /// An answer without the names that were asked for.
    fn hide(&self, answer: &str) -> String {
        [&self.lease, &self.task, &self.appeal, &self.tenant, &self.grant, &self.workload]
            .into_iter()
            .fold(answer.to_owned(), |text, name| text.replace(name.as_str(), "NAME"))
    }
}

fn said<T: Debug>(result: Result<Response<T>, Status>) -> String {
    match result {
        Ok(reply) => format!("{:?}", reply.into_inner()),
        Err(status) => format!("{:?}", told(&status)),
    }
}

/// An answer that holds a credential, which has no `Debug`.
fn issued(result: Result<Response<pb::IssueResponse>, Status>) -> String {
    said(result.map(|reply| Response::new(reply.into_inner().lease)))
}

/// The first message of a stream, or how it ended.
async fn first<T: Debug>(result: Result<Response<tonic::Streaming<T>>, Status>) -> String {
    match result {
        Ok(reply) => match reply.into_inner().message().await {
            Ok(message) => format!("{message:?}"),
            Err(status) => format!("{:?}", told(&status)),
        },
        Err(status) => format!("{:?}", told(&status)),
    }
}

async fn ask_broker(world: &World, own: &str, names: &Names, kind: CredentialKind) -> Vec<(&'static str, String)> {
    let mut broker = world.broker(own).await;
    let renew = pb::RenewRequest { lease_id: names.lease.clone(), ..Default::default() };
    let open = |tenant: &str, parent: &str| pb::OpenTaskRequest {
        tenant: tenant.into(),
        partner: "courier".into(),
        purpose: "report".into(),
        parent_task_id: parent.into(),
        ..Default::default()
    };
    let under =
        |tenant: &str| pb::IssueRequest { task_id: names.task.clone(), tenant: tenant.into(), ..request(own, kind) };
    let ask = pb::RequestApprovalRequest {
        tenant: names.tenant.clone(),
        grant: names.grant.clone(),
        purpose: "report".into(),
        task_id: String::new(),
        reason: "test".into(),
    };
    let of_task = pb::AppealRequest { task_id: names.task.clone(), reason: "test".into(), ..Default::default() };
    let of_grant = pb::AppealRequest {
        tenant: names.tenant.clone(),
        grant: names.grant.clone(),
        reason: "test".into(),
        ..Default::default()
    };
    let approved = pb::IssueRequest { approval_id: names.task.clone(), ..request(own, kind) };
    let secret = pb::IssueRequest {
        tenant: names.tenant.clone(),
        kind: CredentialKind::Secret.into(),
        secret: "vendor".into(),
        audiences: Vec::new(),
        actions: Vec::new(),
        generate_key: false,
        binding: 0,
        ..request(own, kind)
    };
    let hold = tokio_stream::iter([pb::HoldTaskRequest { task_id: names.task.clone() }]);
    vec![
        ("Issue/tenant", issued(broker.issue(request(&names.tenant, kind)).await)),
        ("Issue/task", issued(broker.issue(under("")).await)),
        ("Issue/task of own tenant", issued(broker.issue(under(own)).await)),
        ("OpenTask/tenant", said(broker.open_task(open(&names.tenant, "")).await)),
        ("OpenTask/parent", said(broker.open_task(open(own, &names.task)).await)),
        ("RequestApproval", said(broker.request_approval(ask).await)),
        ("Appeal/task", said(broker.appeal(of_task).await)),
        ("Appeal/grant", said(broker.appeal(of_grant).await)),
        ("Issue/approval", issued(broker.issue(approved).await)),
        (
            "CheckApproval",
            said(broker.check_approval(pb::CheckApprovalRequest { approval_id: names.task.clone() }).await),
        ),
        ("Renew", issued(broker.renew(renew).await)),
        ("Release", said(broker.release(pb::ReleaseRequest { lease_id: names.lease.clone() }).await)),
        ("CompleteTask", said(broker.complete_task(pb::CompleteTaskRequest { task_id: names.task.clone() }).await)),
        ("HoldTask", first(broker.hold_task(hold).await).await),
        ("Issue/secret", issued(broker.issue(secret).await)),
        ("Pickup", issued(broker.pickup(pb::PickupRequest { handle: names.handle() }).await)),
    ]
}

async fn ask_verifier(world: &World, own: &str, names: &Names) -> Vec<(&'static str, String)> {
    let mut verifier = world.verifier(own).await;
    let answer = introspect(&mut verifier, names.credential.clone()).await;
    let answer = pb::IntrospectResponse { revision: None, ..answer };
    let watch = pb::WatchRevocationsRequest { tenant: names.tenant.clone(), after: None };
    // A resource server of one tenant may watch; which heads it gets is the same, whatever tenant it names.
    let watch = match verifier.watch_revocations(watch).await {
        Ok(_) => "a stream".to_owned(),
        Err(status) => format!("{:?}", told(&status)),
    };
    // GetTrustBundle is not asked: public keys and roots are public data, served to anyone over HTTP as well.
    vec![("Introspect", format!("{answer:?}")), ("WatchRevocations", watch)]
}

/// The scopes that an operator of one tenant can name of another.
fn scopes(names: &Names) -> Vec<(&'static str, pb::Scope)> {
    let scope = |kind: pb::ScopeKind| pb::Scope { kind: kind.into(), ..Default::default() };
    let of_tenant = |kind| pb::Scope { tenant: names.tenant.clone(), ..scope(kind) };
    vec![
        ("lease", pb::Scope { lease_id: names.lease.clone(), ..scope(pb::ScopeKind::Lease) }),
        ("task", pb::Scope { task_id: names.task.clone(), ..scope(pb::ScopeKind::Task) }),
        ("grant", pb::Scope { grant: names.grant.clone(), ..of_tenant(pb::ScopeKind::Grant) }),
        ("workload", pb::Scope { workload: names.workload.clone(), ..of_tenant(pb::ScopeKind::Workload) }),
        ("partner", pb::Scope { partner: "courier".into(), ..of_tenant(pb::ScopeKind::PartnerInTenant) }),
        ("tenant", of_tenant(pb::ScopeKind::Tenant)),
        ("secret", pb::Scope { secret: "vendor".into(), ..of_tenant(pb::ScopeKind::Secret) }),
    ]
}

async fn ask_admin(world: &World, own: &str, names: &Names, kind: CredentialKind) -> Vec<(String, String)> {
    let mut admin = world.operator(&format!("op-{own}")).await;
    let mut answers = Vec::new();
    let mut note = |what: String, answer: String| answers.push((what, answer));
    for (what, scope) in scopes(names) {
        for dry_run in [true, false] {
            let reason = "test".to_owned();
            let revoke = pb::RevokeRequest { scope: Some(scope.clone()), dry_run, reason, ..Default::default() };
            note(format!("Revoke/{what}/dry={dry_run}"), said(admin.revoke(revoke).await));
        }
        let bar = pb::BarRequest { scope: Some(scope.clone()), suspend: false, reason: "test".into() };
        note(format!("Bar/{what}"), said(admin.bar(bar).await));
        let again = scope.clone();
        for dry_run in [true, false] {
            let end = pb::DecommissionRequest { scope: Some(again.clone()), dry_run, reason: "test".into() };
            note(format!("Decommission/{what}/dry={dry_run}"), said(admin.decommission(end).await));
        }
        let closed = pb::QuarantineRequest {
            scope: Some(again.clone()),
            duration_seconds: 60,
            auto_lift: false,
            reason: "test".into(),
        };
        note(format!("Quarantine/{what}"), said(admin.quarantine(closed).await));
        let appeal = pb::FileAppealRequest { scope: Some(again.clone()), cause: String::new(), reason: "test".into() };
        note(format!("FileAppeal/{what}"), said(admin.file_appeal(appeal).await));
        let who = pb::WhoCanRevokeRequest { scope: Some(again) };
        note(format!("WhoCanRevoke/{what}"), said(admin.who_can_revoke(who).await));
        let lift = pb::LiftRequest { scope: Some(scope), reason: "test".into(), ..Default::default() };
        note(format!("Lift/{what}"), said(admin.lift(lift).await));
    }
    let tenant = || names.tenant.clone();
    let found = match &names.credential {
        Presented::Token(token) => token.clone(),
        Presented::CertificateDer(_) => names.lease.clone(),
    };
    let revoke = pb::RevokeRequest { credential: found.clone(), dry_run: true, ..Default::default() };
    note("Revoke/credential".into(), said(admin.revoke(revoke).await));
    let identified = admin.identify(pb::IdentifyRequest { found: names.lease.clone() }).await;
    note("Identify/lease".into(), said(identified));
    let leases = pb::ListLeasesRequest { tenant: tenant(), ..Default::default() };
    note("ListLeases/tenant".into(), said(admin.list_leases(leases).await));
    let leases = pb::ListLeasesRequest { task_id: names.task.clone(), ..Default::default() };
    note("ListLeases/task".into(), said(admin.list_leases(leases).await));
    let tasks = pb::ListTasksRequest { tenant: tenant(), ..Default::default() };
    note("ListTasks".into(), said(admin.list_tasks(tasks).await));
    let task = pb::GetTaskRequest { task_id: names.task.clone() };
    note("GetTask".into(), said(admin.get_task(task).await));
    let grants = pb::ListGrantsRequest { tenant: tenant(), ..Default::default() };
    note("ListGrants".into(), said(admin.list_grants(grants).await));
    let workloads = pb::ListWorkloadsRequest { tenant: tenant(), ..Default::default() };
    note("ListWorkloads".into(), said(admin.list_workloads(workloads).await));
    let partners = pb::ListPartnersRequest { tenant: tenant(), ..Default::default() };
    note("ListPartners".into(), said(admin.list_partners(partners).await));
    for (what, events) in [
        ("tenant", pb::ListEventsRequest { tenant: tenant(), ..Default::default() }),
        ("task", pb::ListEventsRequest { task_id: names.task.clone(), ..Default::default() }),
        ("lease", pb::ListEventsRequest { lease_id: names.lease.clone(), ..Default::default() }),
    ] {
        note(format!("ListEvents/{what}"), said(admin.list_events(events).await));
    }
    let export = pb::ExportEventsRequest { tenant: tenant(), ..Default::default() };
    note("ExportEvents".into(), first(admin.export_events(export).await).await);
    let verify = pb::VerifyEventsRequest { tenant: tenant(), ..Default::default() };
    note("VerifyEvents".into(), said(admin.verify_events(verify).await));
    let keys = pb::ListKeysRequest { tenant: tenant() };
    note("ListKeys".into(), said(admin.list_keys(keys).await));
    let step = pb::rotate_keys_request::Step::Prepare.into();
    let rotate = pb::RotateKeysRequest { tenant: tenant(), r#use: "token".into(), step };
    note("RotateKeys".into(), said(admin.rotate_keys(rotate).await));
    let attest = pb::AttestRequest {
        tenant: tenant(),
        grant: names.grant.clone(),
        attest_by: Some(in_days(30)),
        reason: "test".into(),
    };
    note("Attest".into(), said(admin.attest(attest).await));
    for dry_run in [true, false] {
        let transfer = pb::TransferGrantRequest {
            tenant: tenant(),
            grant: names.grant.clone(),
            owner: "thief@example.com".into(),
            dry_run,
            reason: "test".into(),
        };
        note(format!("TransferGrant/dry={dry_run}"), said(admin.transfer_grant(transfer).await));
    }
    let (name, reason) = (|| "vendor".to_owned(), || "test".to_owned());
    let put = pb::PutSecretRequest {
        tenant: tenant(),
        name: name(),
        partner: "courier".into(),
        owner: "o".into(),
        purpose: "p".into(),
        value: b"x".to_vec(),
        reason: reason(),
    };
    note("PutSecret".into(), said(admin.put_secret(put).await));
    let value = b"y".to_vec();
    let rotate = pb::RotateSecretRequest { tenant: tenant(), name: name(), value, revoke_old: true, reason: reason() };
    note("RotateSecret".into(), said(admin.rotate_secret(rotate).await));
    let (owner, purpose) = ("o".to_owned(), String::new());
    let edit = pb::EditSecretRequest { tenant: tenant(), name: name(), owner, purpose, reason: reason() };
    note("EditSecret".into(), said(admin.edit_secret(edit).await));
    let retire = pb::RetireSecretRequest { tenant: tenant(), name: name(), reason: reason() };
    note("RetireSecret".into(), said(admin.retire_secret(retire).await));
    let secrets = pb::ListSecretsRequest { tenant: tenant(), ..Default::default() };
    note("ListSecrets".into(), said(admin.list_secrets(secrets).await));
    let holders = pb::ListSecretHoldersRequest { tenant: tenant(), name: name(), ..Default::default() };
    note("ListSecretHolders".into(), said(admin.list_secret_holders(holders).await));
    let approvals = pb::ListApprovalsRequest { tenant: tenant(), ..Default::default() };
    note("ListApprovals".into(), said(admin.list_approvals(approvals).await));
    // Approvals have ids as tasks do; that of nobody's and that of another tenant's task are none.
    let approval = || names.task.clone();
    note("GetApproval".into(), said(admin.get_approval(pb::GetApprovalRequest { approval_id: approval() }).await));
    for approve in [true, false] {
        let decide = pb::DecideApprovalRequest { approval_id: approval(), approve, reason: "test".into() };
        note(format!("DecideApproval/{approve}"), said(admin.decide_approval(decide).await));
    }
    let retract = pb::RetractApprovalRequest { approval_id: approval(), reason: "test".into() };
    note("RetractApproval".into(), said(admin.retract_approval(retract).await));
    let ask = pb::RequestApprovalForRequest {
        tenant: tenant(),
        grant: names.grant.clone(),
        purpose: "report".into(),
        workload: names.workload.clone(),
        task_id: String::new(),
        reason: "test".into(),
    };
    note("RequestApprovalFor".into(), said(admin.request_approval_for(ask).await));
    let appeals = pb::ListAppealsRequest { tenant: tenant(), ..Default::default() };
    note("ListAppeals".into(), said(admin.list_appeals(appeals).await));
    for granted in [true, false] {
        let answer = pb::AnswerAppealRequest { appeal_id: names.appeal.clone(), granted, reason: "test".into() };
        note(format!("AnswerAppeal/{granted}"), said(admin.answer_appeal(answer).await));
    }
    let inventory = pb::InventoryRequest { tenant: tenant(), ..Default::default() };
    note("Inventory".into(), said(admin.inventory(inventory).await));
    let edges = pb::ListTrustEdgesRequest { tenant: tenant(), ..Default::default() };
    note("ListTrustEdges".into(), said(admin.list_trust_edges(edges).await));
    let drift = pb::GetDriftRequest { tenant: tenant(), grant: names.grant.clone(), days: 0 };
    note("GetDrift".into(), said(admin.get_drift(drift).await));
    let explain = pb::ExplainRequest {
        tenant: tenant(),
        partner: "courier".into(),
        workload: names.workload.clone(),
        request: Some(pb::IssueRequest { tenant: tenant(), ..request(own, kind) }),
    };
    note("Explain".into(), said(admin.explain(explain).await));
    answers
}

pub fn in_days(days: i64) -> prost_types::Timestamp {
    let at = time::OffsetDateTime::now_utc() + time::Duration::days(days);
    prost_types::Timestamp { seconds: at.unix_timestamp(), nanos: 0 }
}

/// An appeal of a tenant's operator against the quarantine of the tenant's secret: its id.
async fn appealed(world: &World, tenant: &str) -> String {
    let kind = pb::ScopeKind::Secret.into();
    let scope = pb::Scope { kind, tenant: tenant.into(), secret: "vendor".into(), ..Default::default() };
    let quarantine = pb::QuarantineRequest {
        scope: Some(scope.clone()),
        duration_seconds: 86_400,
        auto_lift: false,
        reason: "test".into(),
    };
    world.admin().await.quarantine(quarantine).await.expect("in quarantine");
    let filing = pb::FileAppealRequest { scope: Some(scope), cause: String::new(), reason: "test".into() };
    let filed = world.operator(&format!("op-{tenant}")).await.file_appeal(filing).await.expect("filed").into_inner();
    filed.appeal.expect("an appeal").appeal_id
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_of_another_tenant_and_what_does_not_exist_get_the_same_answer() {
    let world = World::new().await;
    for tenant in TENANTS {
        let put = pb::PutSecretRequest {
            tenant: tenant.into(),
            name: "vendor".into(),
            partner: "courier".into(),
            owner: "o".into(),
            purpose: "p".into(),
            value: b"value".to_vec(),
            reason: "test".into(),
        };
        world.admin().await.put_secret(put).await.expect("put");
    }
    let mut appeals = BTreeMap::new();
    for tenant in TENANTS {
        appeals.insert(tenant, appealed(&world, tenant).await);
    }
    let mut differ = Vec::new();
    for other in TENANTS {
        for kind in KINDS {
            let reply = issue(&mut world.broker(other).await, request(other, kind)).await.expect("issued");
            let lease = lease_of(&reply);
            let names = Names {
                tenant: other.into(),
                grant: "report".into(),
                workload: "worker".into(),
                task: lease.task_id,
                lease: lease.lease_id,
                appeal: appeals[other].clone(),
                credential: presented(&reply),
            };
            let nothing = names.of_nothing();
            for own in TENANTS.into_iter().filter(|own| *own != other) {
                let mut foreign = Vec::new();
                let mut random = Vec::new();
                for (names, answers) in [(&names, &mut foreign), (&nothing, &mut random)] {
                    let owned = |(what, answer): (&'static str, String)| (what.to_owned(), answer);
                    answers.extend(ask_broker(&world, own, names, kind).await.into_iter().map(owned));
                    answers.extend(ask_verifier(&world, own, names).await.into_iter().map(owned));
                    answers.extend(ask_admin(&world, own, names, kind).await);
                }
                for ((what, foreign), (_, random)) in foreign.into_iter().zip(random) {
                    let (foreign, random) = (names.hide(&foreign), nothing.hide(&random));
                    // A reference token spelled backwards is malformed, which anyone can see without the broker.
                    let malformed = what == "Revoke/credential" && kind == CredentialKind::Opaque;
                    if foreign != random && !malformed {
                        differ.push(format!("{what} ({kind:?}, {own} of {other}): {foreign} | {random}"));
                    }
                }
            }
            assert!(is_active(&mut world.verifier(other).await, &reply).await, "{kind:?} of {other} was ended");
        }
    }
    // Each was met by everybody, is its own tenant's as ever, and waits.
    for tenant in TENANTS {
        let mut own = world.operator(&format!("op-{tenant}")).await;
        let open = pb::ListAppealsRequest { only_open: true, ..Default::default() };
        let listed = own.list_appeals(open).await.expect("lists").into_inner().appeals;
        let ids: Vec<_> = listed.into_iter().map(|appeal| appeal.appeal_id).collect();
        assert_eq!(ids, [appeals[tenant].clone()]);
    }
    differ.sort();
    differ.dedup_by_key(|line| line.split(" (").next().map(str::to_owned));
    assert!(differ.is_empty(), "{} differ:\n{}", differ.len(), differ.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_the_broker_is_good_in_its_own_tenant_and_task_only() {
    let world = World::new().await;
    let parent = issue(&mut world.broker("alpha").await, request("alpha", CredentialKind::X509)).await.expect("issued");
    let foreign = issue(&mut world.broker("beta").await, request("beta", CredentialKind::Jwt)).await.expect("issued");
    let sibling = issue(&mut world.broker("alpha").await, request("alpha", CredentialKind::Jwt)).await.expect("issued");
    let mut thief = world.broker_as(&holder(&parent)).await;

    let offspring = issue(&mut thief, request("alpha", CredentialKind::Opaque)).await.expect("within its task");
    assert_eq!(lease_of(&offspring).task_id, lease_of(&parent).task_id);
    assert_eq!(lease_of(&offspring).parent_lease_id, lease_of(&parent).lease_id);

    refused(issue(&mut thief, request("beta", CredentialKind::Jwt)).await, "another tenant");
    for other in [&foreign, &sibling] {
        let task_id = lease_of(other).task_id;
        let under = pb::IssueRequest { task_id: task_id.clone(), ..request("alpha", CredentialKind::Jwt) };
        refused(issue(&mut thief, under).await, "another task");
        thief.complete_task(pb::CompleteTaskRequest { task_id }).await.expect_err("another task");
        let lease_id = lease_of(other).lease_id;
        thief.release(pb::ReleaseRequest { lease_id }).await.expect_err("another task's lease");
    }
    let _ = audience("alpha");
}
