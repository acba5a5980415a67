//! Tables to values: everything but grants.

use std::sync::Arc;

use crate::{
    model::{IssuerRules, OperatorName, PartnerName, Purpose, TenantName, Ttl, WorkloadName},
    policy::{
        accountability::{Accountability, Contact, Party},
        cedar::{PolicyTexts, Sets},
        grant::ResourceClass,
        pattern::Pattern,
        problem::Problem,
        sorted::{Reach, Sorted},
        trust::{GlobalVerifier, Operator, Partner, Role, Selector, TenantTrust, TokenAlgorithm, Verifier, Workload},
    },
};

use super::{
    federated,
    row::Row,
    words::{DnsName, IssuerUrl, Label, Network, SpiffeId, Words},
};

/// A tenant's own fields.
#[derive(Debug, Default)]
pub(super) struct TenantHead {
    pub(super) issuer: Option<String>,
    pub(super) token_algorithm: TokenAlgorithm,
    pub(super) labels: Vec<Label>,
    pub(super) max_live_leases: u64,
    pub(super) dormant_after: Option<u32>,
    /// Environments whose grants are for tests.
    pub(super) test_environments: Vec<Label>,
    /// The longest life in seconds of what they give.
    pub(super) test_ttl_max: u32,
    /// Its policies.
    pub(super) policy: Option<PolicyTexts>,
    /// What was compiled of them.
    pub(super) sets: Sets,
}

/// Seconds.
const DAY: u32 = 86_400;

pub(super) const NAME_HELP: &str = "give it a name of a-z, 0-9 and inner `-`";

pub(super) fn tenant(row: &Row<'_>, problems: &mut Vec<Problem>) -> Option<TenantHead> {
    row.only(&TENANT_FIELDS, problems);
    let issuer = match row.text_if_any("issuer", problems) {
        Some(None) => Some(None),
        Some(Some(url)) => row.parse_text::<IssuerUrl>("issuer", &url, problems).map(|url| Some(url.0)),
        None => None,
    };
    let token_algorithm = match row.text_if_any("token_algorithm", problems)?.as_deref() {
        None | Some("ES256") => Some(TokenAlgorithm::Es256),
        Some("EdDSA") => Some(TokenAlgorithm::EdDsa),
        Some(other) => {
            let message = format!("`{other}` is not known");
            row.wrong("token_algorithm", message, "write \"ES256\" or \"EdDSA\"", problems);
            None
        }
    };
    let labels = row.list("labels", None, problems);
    let max = row.number("max_live_leases", QUOTA, Some(TenantTrust::DEFAULT_MAX_LIVE_LEASES), problems);
    let mut dormant_after = row.seconds_if_any("dormant_after", 400 * DAY, problems);
    if dormant_after.flatten().is_some_and(|seconds| seconds < DAY) {
        let help = "write 1d to 400d: the last use that is known may lag an hour";
        row.wrong("dormant_after", "is below one day", help, problems);
        dormant_after = None;
    }
    let test_environments = row.list("test_environments", None, problems);
    let test_ttl_max = row.seconds("test_ttl_max", 3_600, Some(TEST_TTL_MAX), problems);
    Some(TenantHead {
        issuer: issuer?,
        token_algorithm: token_algorithm?,
        labels: labels?,
        max_live_leases: max?,
        dormant_after: dormant_after?,
        test_environments: test_environments?,
        test_ttl_max: test_ttl_max?,
        policy: None,
        sets: Sets::default(),
    })
}

/// Who answers for a partner's integration. Each duty is missed with a message of its own.
pub(super) fn accountability(row: &Row<'_>, problems: &mut Vec<Problem>) -> Option<Accountability> {
    row.only(&["tenant", "partner", "storage", "scope", "revocation", "escalation", "chain"], problems);
    let mut duty = |field, what: &str| contact(row, field, what, problems);
    let storage = duty("storage", "who keeps what it obtains");
    let scope = duty("scope", "who decides what it reaches");
    let revocation = duty("revocation", "who ends it");
    let escalation = duty("escalation", "whom to call when nobody else answers");
    let mut chain = row.list::<Words>("chain", None, problems);
    if chain.as_ref().is_some_and(|chain| chain.len() > Accountability::CHAIN_MOST) {
        let message = format!("has more than {} entries", Accountability::CHAIN_MOST);
        row.wrong("chain", message, "name who resells to whom, not every office", problems);
        chain = None;
    }
    Some(Accountability {
        storage: storage?,
        scope: scope?,
        revocation: revocation?,
        escalation: escalation?,
        chain: chain?.into_iter().map(|words| words.0).collect(),
    })
}

/// What is worth more than other resources.
pub(super) fn resource_class(row: &Row<'_>, problems: &mut Vec<Problem>) -> Option<ResourceClass> {
    row.only(&["tenant", "name", "audiences", "ttl_max", "require_binding", "purposes"], problems);
    let audiences = row.list::<Pattern>("audiences", Some("name the resources that are in it"), problems);
    let ttl_max = row.seconds("ttl_max", Ttl::MAX.seconds(), None, problems);
    let require_binding = row.flag("require_binding", true, problems);
    let purposes = row.list::<Purpose>("purposes", None, problems);
    Some(ResourceClass {
        audiences: audiences?.into(),
        ttl_max: ttl_max?,
        require_binding: require_binding?,
        purposes: purposes?.into(),
    })
}

fn contact(row: &Row<'_>, field: &'static str, what: &str, problems: &mut Vec<Problem>) -> Option<Contact> {
    let help = format!("say {what}: {{ party = \"customer\", who = \"...\", contact = \"...\" }}");
    let row = row.table(field, &help, problems)?;
    row.only(&["party", "who", "contact"], problems);
    let parties = "write \"customer\", \"vendor\" or \"provider\"";
    let party = match row.text("party", parties, problems).as_deref() {
        None => None,
        Some("customer") => Some(Party::Customer),
        Some("vendor") => Some(Party::Vendor),
        Some("provider") => Some(Party::Provider),
        Some(other) => {
            row.wrong("party", format!("`{other}` is not known"), parties, problems);
            None
        }
    };
    let who = row.prose("who", "name a team or a person", problems);
    let contact = row.prose("contact", "give a mail address or a telephone number", problems);
    Some(Contact { party: party?, who: who?, contact: contact? })
}

pub(super) fn partner(row: &Row<'_>, problems: &mut Vec<Problem>) -> Option<Partner> {
    row.only(&["name", "display_name", "contact", "max_live_leases"], problems);
    let display_name = row.prose("display_name", "say what people call it", problems);
    let contact = row.prose("contact", "say whom to call when its credentials leak", problems);
    let max = row.number("max_live_leases", QUOTA, Some(TenantTrust::DEFAULT_MAX_LIVE_LEASES), problems);
    Some(Partner { display_name: display_name?, contact: contact?, max_live_leases: max? })
}

pub(super) fn operator(row: &Row<'_>, problems: &mut Vec<Problem>) -> Option<Operator> {
    row.only(&["name", "role", "tenants", "partners", "speaks_for"], problems);
    let help = "write \"admin\", \"revoker\" or \"auditor\"";
    let role = match row.text("role", help, problems).as_deref() {
        None => None,
        Some("admin") => Some(Role::Admin),
        Some("revoker") => Some(Role::Revoker),
        Some("auditor") => Some(Role::Auditor),
        Some(other) => {
            row.wrong("role", format!("`{other}` is not known"), help, problems);
            None
        }
    };
    let tenants = reach::<TenantName>(row, "tenants", problems);
    let partners = reach::<PartnerName>(row, "partners", problems);
    let speaks_for = row.list::<Words>("speaks_for", None, problems);
    let speaks_for = speaks_for?.into_iter().map(|words| words.0).collect();
    Some(Operator { role: role?, tenants: tenants?, partners: partners?, speaks_for })
}

pub(super) fn workload(row: &Row<'_>, issuers: &[Arc<IssuerRules>], problems: &mut Vec<Problem>) -> Option<Workload> {
    row.only(&["tenant", "name", "environment", "selectors", "sources"], problems);
    let environment = environment(row, problems);
    let selectors = selectors(row, Some(issuers), problems);
    let sources = row.list::<Network>("sources", None, problems);
    let sources = sources.map(|sources| sources.into_iter().map(|network| network.0).collect());
    Some(Workload { selectors: selectors?, environment: environment?, sources: sources? })
}

pub(super) fn environment(row: &Row<'_>, problems: &mut Vec<Problem>) -> Option<String> {
    row.parsed::<Label>("environment", "say where it runs, such as \"production\"", problems).map(|label| label.0)
}

pub(super) fn verifier(row: &Row<'_>, problems: &mut Vec<Problem>) -> Option<Verifier> {
    row.only(&["tenant", "name", "selectors", "audiences"], problems);
    verifier_fields(row, problems)
}

pub(super) fn global_verifier(row: &Row<'_>, problems: &mut Vec<Problem>) -> Option<GlobalVerifier> {
    row.only(&["tenants", "name", "selectors", "audiences"], problems);
    let tenants = reach::<TenantName>(row, "tenants", problems);
    let verifier = verifier_fields(row, problems);
    Some(GlobalVerifier { tenants: tenants?, verifier: verifier? })
}

fn verifier_fields(row: &Row<'_>, problems: &mut Vec<Problem>) -> Option<Verifier> {
    let selectors = selectors(row, None, problems);
    let audiences = reach::<Pattern>(row, "audiences", problems);
    Some(Verifier { selectors: selectors?, audiences: audiences? })
}

/// `"all"` or a list; never left out, so that a wide right is written, not forgotten.
fn reach<T: Ord + std::str::FromStr<Err: std::fmt::Display>>(
    row: &Row<'_>,
    field: &str,
    problems: &mut Vec<Problem>,
) -> Option<Reach<T>> {
    if row.value(field).is_some_and(|value| value.get_ref().as_str() == Some("all")) {
        return Some(Reach::All);
    }
    let items = row.list(field, Some("write \"all\" or a list of names"), problems)?;
    Some(Reach::Only(items.into()))
}

/// `issuers` are those that workloads may name; verifiers prove themselves otherwise.
fn selectors(
    row: &Row<'_>,
    issuers: Option<&[Arc<IssuerRules>]>,
    problems: &mut Vec<Problem>,
) -> Option<Sorted<Selector>> {
    let help = "say how it proves itself: [{ spiffe_id = \"...\" }] or [{ unix_uid = 1000 }]";
    let rows = row.tables("selectors", help, problems)?;
    let selectors: Vec<Option<Selector>> = rows.iter().map(|row| selector(row, issuers, problems)).collect();
    selectors.into_iter().collect()
}

fn selector(row: &Row<'_>, issuers: Option<&[Arc<IssuerRules>]>, problems: &mut Vec<Problem>) -> Option<Selector> {
    if row.has("issuer") {
        let Some(issuers) = issuers else {
            let help = "use a certificate or the Unix socket; identity tokens are for workloads";
            row.wrong("issuer", "is not for verifiers", help, problems);
            return None;
        };
        return federated::binding(row, issuers, problems).map(Selector::Federated);
    }
    let help = "write one of them, in a table of its own";
    match (row.has("spiffe_id"), row.has("dns_name"), row.has("unix_uid")) {
        (true, false, false) => {
            row.only(&["spiffe_id", "authority"], problems);
            let id = row.parsed::<SpiffeId>("spiffe_id", help, problems);
            let authority = match row.text_if_any("authority", problems)? {
                None => None,
                Some(name) => Some(row.parse_text::<Label>("authority", &name, problems)?.0),
            };
            Some(Selector::SpiffeId { id: id?.0, authority })
        }
        (false, true, false) => {
            row.only(&["dns_name", "authority"], problems);
            let name = row.parsed::<DnsName>("dns_name", help, problems);
            let why = "name the CA of the config that vouches for it; the broker's own vouches for SPIFFE IDs only";
            let authority = row.parsed::<Label>("authority", why, problems);
            Some(Selector::DnsName { name: name?.0, authority: authority?.0 })
        }
        (false, false, true) => {
            row.only(&["unix_uid", "unix_gid"], problems);
            let uid = row.number("unix_uid", ID, None, problems);
            let gid = if row.has("unix_gid") { Some(row.number("unix_gid", ID, None, problems)?) } else { None };
            Some(Selector::Unix { uid: u32::try_from(uid?).ok()?, gid: gid.and_then(|gid| u32::try_from(gid).ok()) })
        }
        (false, false, false) => {
            row.only(&["spiffe_id", "dns_name", "unix_uid", "unix_gid", "authority", "issuer"], problems);
            row.wrong("spiffe_id", "or dns_name, unix_uid or issuer is missing", help, problems);
            None
        }
        (true, true, _) | (true, _, true) | (_, true, true) => {
            row.wrong("spiffe_id", "dns_name and unix_uid exclude each other", help, problems);
            None
        }
    }
}

/// The name of an item; a problem when there is none.
pub(super) fn name<T: std::str::FromStr<Err: std::fmt::Display>>(
    row: &Row<'_>,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    row.parsed("name", NAME_HELP, problems)
}

/// Names that a grant's lists hold.
pub(super) type Workloads = Vec<WorkloadName>;
/// Operators that can revoke a grant.
pub(super) type Revokers = Vec<OperatorName>;

/// What a quota can be.
pub(super) const QUOTA: std::ops::RangeInclusive<u64> = 1..=1_000_000_000;
/// The longest life in seconds of credentials for tests, when the tenant says nothing.
const TEST_TTL_MAX: u32 = 300;
const TENANT_FIELDS: [&str; 9] = [
    "name",
    "issuer",
    "token_algorithm",
    "labels",
    "max_live_leases",
    "dormant_after",
    "test_environments",
    "test_ttl_max",
    "policy",
];
const ID: std::ops::RangeInclusive<u64> = 0..=u32::MAX as u64 - 1;
