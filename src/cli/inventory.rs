//! `mayfly inventory`, `trust map` and `who-can-revoke`: questions that the trust map answers.

use std::collections::BTreeSet;

use clap::{Args, Subcommand, ValueEnum};

use crate::{
    model::{PartnerName, TenantName},
    pb,
};

use super::{
    arg::{self, LimitArgs},
    cell::Record,
    failure::{Failure, Outcome},
    issue::text,
    output::Format,
    page,
    scope::{ScopeArgs, grant_path},
    session::Session,
    unmanaged,
};

/// Lists every grant with who answers for it, until when, since when unused, and why it is suspended.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct InventoryArgs {
    /// Only this tenant's.
    #[arg(long)]
    tenant: Option<TenantName>,
    /// Only this partner's.
    #[arg(long)]
    partner: Option<PartnerName>,
    /// Only what this owner answers for.
    #[arg(long, default_value = "", hide_default_value = true)]
    owner: String,
    /// Only grants in this state, such as `usable` or `attestation overdue`.
    #[arg(long, default_value = "", hide_default_value = true)]
    state: String,
    /// Only grants that were not used for so long.
    #[arg(long, value_parser = arg::seconds, value_name = "TIME")]
    unused_for: Option<u32>,
    /// As comma-separated values, with a line of headings.
    #[arg(long)]
    csv: bool,
    /// Instead: what one grant allows and nobody used, with a narrower grant proposed.
    #[arg(long, value_name = "TENANT/GRANT", conflicts_with_all = ["csv", "tenant", "partner", "owner", "state"])]
    drift: Option<String>,
    /// With --drift: how many days of the audit are read.
    #[arg(long, default_value_t = 30)]
    days: u32,
    #[command(flatten)]
    limit: LimitArgs,
}

impl InventoryArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        if let Some(grant) = &self.drift {
            return drift(session, grant, self.days).await;
        }
        let owner = self.owner;
        let request = pb::InventoryRequest {
            tenant: text(self.tenant.as_ref()),
            partner: text(self.partner.as_ref()),
            owner: owner.clone(),
            state: self.state.clone(),
            unused_for_seconds: self.unused_for.unwrap_or(0),
            ..Default::default()
        };
        let records = collect(session, request, self.limit.limit).await?;
        if self.csv {
            return csv(session, &records);
        }
        session.output.list(&records)?;
        // What nobody manages has no state and no use that is known.
        if !self.state.is_empty() || self.unused_for.is_some() {
            return Ok(());
        }
        let request = pb::ListUnmanagedRequest {
            tenant: text(self.tenant.as_ref()),
            partner: text(self.partner.as_ref()),
            owner: owner.clone(),
            ..Default::default()
        };
        let unmanaged = unmanaged::collect(session, request, self.limit.limit).await?;
        if unmanaged.is_empty() {
            return Ok(());
        }
        if session.output.format() == Format::Table {
            session.output.line("")?;
        }
        session.output.list(&unmanaged)
    }
}

/// The inventory, page by page.
///
/// # Errors
/// When the broker refuses.
pub async fn collect(
    session: &Session,
    request: pb::InventoryRequest,
    limit: u32,
) -> Outcome<Vec<pb::InventoryRecord>> {
    let client = session.admin().await?;
    let records = page::collect(session, limit, |page| {
        let (mut client, request) = (client.clone(), pb::InventoryRequest { page: Some(page), ..request.clone() });
        async move {
            let reply = client.inventory(request).await?.into_inner();
            Ok((reply.records, reply.next_page_token))
        }
    });
    records.await
}

/// RFC 4180: every field quoted, quotes doubled. A field that a spreadsheet would run as a formula begins with `'`.
fn csv(session: &Session, records: &[pb::InventoryRecord]) -> Outcome {
    let quoted = |cell: String| {
        let guard = if cell.starts_with(['=', '+', '-', '@']) && cell != "-" { "'" } else { "" };
        format!("\"{guard}{}\"", cell.replace('"', "\"\""))
    };
    let headings: Vec<_> = CSV.iter().map(|name| quoted((*name).to_owned())).collect();
    session.output.line(&headings.join(","))?;
    records.iter().try_for_each(|record| {
        let fields = record.fields();
        let cells: Vec<_> = CSV.iter().map(|name| quoted(fields.cell(name))).collect();
        session.output.line(&cells.join(","))
    })
}

async fn drift(session: &Session, grant: &str, days: u32) -> Outcome {
    let (tenant, name) = grant_path(grant)?;
    let request = pb::GetDriftRequest { tenant, grant: name, days };
    let reply = session.admin().await?.get_drift(request).await?.into_inner();
    if session.output.format() == Format::Json {
        return session.output.one(&reply.fields());
    }
    let cut = if reply.truncated { ", of which only a part was read" } else { "" };
    session.output.line(&format!("{} issues and renewals in {days} days{cut}", reply.issues))?;
    if reply.issues == 0 {
        return session.output.line("it was not used: retire it");
    }
    let lines = reply.unused.iter().map(|line| format!("not used: {}", super::cell::printable(line)));
    lines.into_iter().try_for_each(|line| session.output.line(&line))?;
    let proposal = reply.proposal.lines().map(super::cell::printable).collect::<Vec<_>>().join("\n");
    session.output.line(&format!("\n{proposal}"))
}

/// Pictures of the trust map.
#[derive(Clone, Debug, Subcommand)]
pub enum TrustCommand {
    /// Shows who can reach what, through which grant.
    #[command(after_help = "Example:\n  mayfly trust map --tenant acme --format dot | dot -Tsvg")]
    Map {
        /// Only this tenant.
        #[arg(long)]
        tenant: Option<TenantName>,
        /// Only this partner.
        #[arg(long)]
        partner: Option<PartnerName>,
        /// How it is written.
        #[arg(long, value_enum, default_value_t = MapFormat::Json)]
        format: MapFormat,
    },
}

/// How a trust map is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum MapFormat {
    /// One edge a line.
    Json,
    /// A graph for Graphviz.
    Dot,
}

impl TrustCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        let Self::Map { tenant, partner, format } = self;
        let client = session.admin().await?;
        let (tenant, partner) = (text(tenant.as_ref()), text(partner.as_ref()));
        let mut token = String::new();
        let mut edges = Vec::new();
        loop {
            let page = Some(pb::Page { size: 500, token: token.clone() });
            let request = pb::ListTrustEdgesRequest { page, tenant: tenant.clone(), partner: partner.clone() };
            let reply = client.clone().list_trust_edges(request).await?.into_inner();
            edges.extend(reply.edges);
            if reply.next_page_token.is_empty() {
                break;
            }
            if reply.next_page_token == token {
                return Err(Failure::Internal("the broker repeats a page token".into()));
            }
            token = reply.next_page_token;
        }
        match format {
            MapFormat::Json => edges.iter().try_for_each(|edge| session.output.line(&edge.fields().json())),
            MapFormat::Dot => session.output.line(&dot(&edges)),
        }
    }
}

/// A graph from partners over workloads and grants to audiences; what is not usable is dashed.
fn dot(edges: &[pb::TrustEdge]) -> String {
    let mut lines = BTreeSet::new();
    for edge in edges {
        let style = if edge.state == "usable" { "solid" } else { "dashed" };
        let partner = quoted(&format!("partner {}", edge.partner));
        let workload = quoted(&format!("workload {}/{}", edge.tenant, edge.workload));
        let grant = quoted(&format!("grant {}/{}", edge.tenant, edge.grant));
        let audience = quoted(&edge.audience);
        let label = quoted(&format!("{}, {}", edge.owner, edge.state));
        lines.insert(format!("  {grant} [shape=box, style={style}, tooltip={label}];"));
        lines.insert(format!("  {partner} [shape=house];"));
        lines.insert(format!("  {partner} -> {grant} [style={style}, dir=none];"));
        lines.insert(format!("  {workload} -> {grant} [style={style}];"));
        lines.insert(format!("  {grant} -> {audience} [style={style}];"));
    }
    let body: Vec<_> = lines.into_iter().collect();
    format!("digraph trust {{\n  rankdir=LR;\n{}\n}}", body.join("\n"))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", super::cell::printable(text).replace('\\', "\\\\").replace('"', "\\\""))
}

/// Shows who can end a scope now, and whom to call.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  mayfly who-can-revoke grant acme/ci-deploy\n  \
                        mayfly who-can-revoke partner acme/globex")]
pub struct WhoCanRevokeArgs {
    #[command(flatten)]
    scope: ScopeArgs,
}

impl WhoCanRevokeArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        let scope = Some(self.scope.required()?);
        let reply = session.admin().await?.who_can_revoke(pb::WhoCanRevokeRequest { scope }).await?.into_inner();
        session.output.one(&reply.fields())
    }
}

/// The fields of an inventory in CSV.
const CSV: [&str; 21] = [
    "tenant",
    "name",
    "partner",
    "owner",
    "purposes",
    "workloads",
    "audiences",
    "actions",
    "kinds",
    "environment",
    "test",
    "ttl_max_seconds",
    "expires",
    "attest_by",
    "attested",
    "revokers",
    "last_used",
    "dormant_at",
    "live_leases",
    "state",
    "suspended_for",
];

const HELP: &str = "\
Examples:
  mayfly inventory --state 'attestation overdue'
  mayfly inventory --unused-for 90d --csv > unused.csv
  mayfly inventory --drift acme/ci-deploy --days 90";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_has_an_edge_for_each_record_and_names_cannot_leave_their_quotes() {
        let edge = pb::TrustEdge {
            tenant: "acme".into(),
            partner: "globex".into(),
            workload: "ci".into(),
            grant: "g".into(),
            audience: "https://x.example/\"a".into(),
            state: "usable".into(),
            owner: "team".into(),
            ..Default::default()
        };
        let closed = pb::TrustEdge { grant: "h".into(), state: "barred".into(), ..edge.clone() };
        let graph = dot(&[edge, closed]);
        assert!(graph.contains(r#""workload acme/ci" -> "grant acme/g" [style=solid];"#), "{graph}");
        assert!(graph.contains(r#""grant acme/h" -> "https://x.example/\"a" [style=dashed];"#), "{graph}");
    }
}
