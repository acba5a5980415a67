//! `mayfly attest`: an owner says that a grant is still needed; and which ones wait for that.

use clap::Args;
use prost_types::Timestamp;

use crate::{
    model::{PartnerName, TenantName},
    pb,
};

use super::{
    arg::{self, LimitArgs},
    cell::{Fields, Record},
    failure::{Failure, Outcome},
    inventory,
    issue::text,
    scope::grant_path,
    session::Session,
};

/// Records that a grant is still needed, until a new date; lifts a lapse, a transfer and dormancy.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct AttestArgs {
    /// The grant, as TENANT/GRANT, or its name beside --tenant.
    #[arg(value_name = "GRANT", required_unless_present = "list")]
    grant: Option<String>,
    /// The grant's tenant; with --list only this tenant's grants.
    #[arg(long)]
    tenant: Option<TenantName>,
    /// The next date to attest by; when it is left out, the grant's `attest_every` from now.
    #[arg(long, value_parser = arg::time, value_name = "DATE")]
    until: Option<Timestamp>,
    /// For the audit.
    #[arg(long, required_unless_present = "list")]
    reason: Option<String>,
    /// Instead: list the grants that must be attested soon, or should have been.
    #[arg(long, conflicts_with_all = ["grant", "until", "reason"])]
    list: bool,
    /// With --list: how soon.
    #[arg(long, value_parser = arg::seconds, default_value = "30d", value_name = "TIME")]
    within: u32,
    /// With --list: only this partner's grants.
    #[arg(long)]
    partner: Option<PartnerName>,
    #[command(flatten)]
    limit: LimitArgs,
}

/// A grant that waits for its owner's word.
#[derive(Debug)]
struct Waiting {
    record: pb::InventoryRecord,
    now: i64,
}

impl Record for Waiting {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("TENANT", "tenant"),
        ("GRANT", "grant"),
        ("PARTNER", "partner"),
        ("OWNER", "owner"),
        ("ATTEST BY", "attest_by"),
        ("DAYS LEFT", "days_left"),
        ("SUSPENDED FOR", "suspended_for"),
    ];

    fn fields(&self) -> Fields {
        let grant = self.record.grant.clone().unwrap_or_default();
        let left = grant.attest_by.as_ref().map(|by| (by.seconds - self.now).div_euclid(86_400));
        Fields::new()
            .text("tenant", &grant.tenant)
            .text("grant", &grant.name)
            .text("partner", &grant.partner)
            .text("owner", &grant.owner)
            .time("attest_by", grant.attest_by.as_ref())
            .text("days_left", &left.map(|days| days.to_string()).unwrap_or_default())
            .words("suspended_for", &self.record.suspended_for)
    }
}

impl AttestArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        if self.list {
            return self.waiting(session).await;
        }
        let given = self.grant.unwrap_or_default();
        let path = match (&self.tenant, given.contains('/')) {
            (Some(tenant), false) => format!("{tenant}/{given}"),
            (None, true) => given,
            (Some(_), true) | (None, false) => {
                return Err(Failure::Usage("name the grant as TENANT/GRANT, or as GRANT with --tenant".into()));
            }
        };
        let (tenant, grant) = grant_path(&path)?;
        let reason = self.reason.unwrap_or_default();
        let request = pb::AttestRequest { tenant, grant, attest_by: self.until, reason };
        let reply = session.admin().await?.attest(request).await?.into_inner();
        session.output.one(
            &Fields::new()
                .text("grant", &path)
                .time("attest_by", reply.attest_by.as_ref())
                .words("lifted", &reply.lifted)
                .revision("revision", reply.revision.as_ref()),
        )
    }

    async fn waiting(self, session: &Session) -> Outcome {
        let request = pb::InventoryRequest {
            tenant: text(self.tenant.as_ref()),
            partner: text(self.partner.as_ref()),
            attest_within_seconds: self.within,
            ..Default::default()
        };
        let records = inventory::collect(session, request, self.limit.limit).await?;
        let status = session.admin().await?.get_status(pb::GetStatusRequest {}).await?.into_inner();
        let now = status.now.map_or(0, |now| now.seconds);
        let mut waiting: Vec<_> = records.into_iter().map(|record| Waiting { record, now }).collect();
        let due = |one: &Waiting| one.record.grant.as_ref().and_then(|grant| grant.attest_by).map(|by| by.seconds);
        waiting.sort_by_key(due);
        session.output.list(&waiting)
    }
}

const HELP: &str = "\
The grant's owner attests: an operator of that name, or one that the trust map has speak for it. Where it names none, an
admin does. What nobody attests in time is suspended until somebody does.

Examples:
  mayfly attest ci-deploy --tenant acme --reason 'still deploys nightly'
  mayfly attest acme/ci-deploy --until 2027-01-31 --reason 'until the migration is over'
  mayfly attest --list --within 14d";
