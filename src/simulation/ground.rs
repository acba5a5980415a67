//! The ground that every world begins on: a founded broker with two tenants, made once a process.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use super::{
    chance::Chance,
    disk::{Disk, Tables},
    hands::Hands,
};
use crate::{
    broker::{
        Broker, Settings, found,
        hold::Holds,
        introspect::UseLog,
        policies::PolicyLog,
        refusals::RefusalLog,
        registry::Registry,
        rings::Rings,
        ship::Ships,
        time::{Start, Time},
    },
    config::Config,
    identity::{Authority, Caller, CertificateProof, Proof},
    ledger::{LaneLimits, Ledger, OpenError, Opening, Stepper},
    mint::{
        keyring::RingPolicy,
        seal::{Seal, SealKey},
    },
    model::{Clock, Digest, TenantNumber, Timestamp, TrustDomain},
    pb,
};

/// 2027-01-01.
pub const START: Timestamp = Timestamp::from_seconds(1_798_761_600);
/// How long leases and tasks are kept after their end.
pub const ENDED_KEPT: Duration = Duration::from_mins(10);
pub const AUDIT_KEPT: Duration = Duration::from_hours(48);
pub const MAX_JUMP: Duration = Duration::from_secs(300);
pub const MAX_DOWNTIME: Duration = Duration::from_hours(30 * 24);

pub const TENANTS: [&str; 2] = ["acme", "bolt"];
pub const PARTNERS: [&str; 2] = ["north", "south"];
pub const GRANTS: [&str; 2] = ["read", "write"];

/// A founded store and what opens it.
#[derive(Debug)]
pub struct Ground {
    pub tables: Tables,
    pub numbers: [TenantNumber; 2],
    key: SealKey,
}

/// The one ground of this process.
pub fn ground() -> &'static Ground {
    static GROUND: OnceLock<Ground> = OnceLock::new();
    GROUND.get_or_init(Ground::lay)
}

impl Ground {
    fn lay() -> Self {
        let mut ground =
            Self { tables: Tables::new(), numbers: [TenantNumber::BROKER; 2], key: SealKey::random().unwrap() };
        let clock = Arc::new(Hands::new(START));
        let disk = Arc::new(Disk::new(Tables::new(), Chance::new(0, 0), Arc::clone(&clock)));
        let (broker, mut stepper, _) = ground.open(disk.clone(), clock).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let work = async {
            found::ensure(&broker, &found::Founding::default()).await.unwrap();
            let options = pb::ApplyOptions { allow_removals: 10, ..Default::default() };
            broker.apply(&admin(), options, trust(false)).await.unwrap();
        };
        runtime.block_on(async {
            let mut work = std::pin::pin!(work);
            while std::future::poll_fn(|cx| std::task::Poll::Ready(work.as_mut().poll(cx))).await.is_pending() {
                stepper.step();
                tokio::task::yield_now().await;
            }
        });
        ground.numbers = TENANTS.map(|name| broker.registry.number(&name.parse().unwrap()).unwrap());
        ground.tables = disk.image();
        ground
    }

    /// A broker on a disk.
    pub fn open(&self, disk: Arc<Disk>, clock: Arc<Hands>) -> Result<(Arc<Broker>, Stepper, Start), OpenError> {
        let seal = Seal::new(&self.key);
        let (ledger, stepper) = Ledger::open_stepped(Opening {
            engine: disk,
            row_key: seal.row_key(),
            seal_check: seal.check_value(),
            ballast: None,
            anchor: None,
            lanes: LaneLimits::default(),
            now: clock.wall(),
        })?;
        let started = clock.wall();
        let (time, start) = Time::start(clock, ledger.opened_mark, MAX_JUMP, MAX_DOWNTIME);
        let broker = Broker {
            registry: Arc::new(Registry::load(&ledger).unwrap()),
            ledger: Arc::new(ledger),
            issuers: Arc::default(),
            people: Arc::default(),
            rings: Arc::new(Rings::new(seal)),
            time,
            settings: settings(started),
            holds: Holds::new(100),
            ships: Ships::default(),
            ring_steps: tokio::sync::Mutex::default(),
            watchers: Arc::default(),
            refusals: RefusalLog::default(),
            policies: PolicyLog::default(),
            dues: crate::broker::keeper::Dues::default(),
            uses: UseLog::default(),
            backups: Arc::default(),
            csrs: crate::mint::x509::KnownCsrs::default(),
            roots: OnceLock::new(),
            connections: OnceLock::new(),
            spiffe: crate::broker::spiffe::Spiffe::default(),
            notifier: OnceLock::new(),
        };
        crate::broker::lapse::watch(&broker.registry, &broker.ledger);
        Ok((Arc::new(broker), stepper, start))
    }
}

fn settings(started: Timestamp) -> Settings {
    let days = |count: u64| Duration::from_hours(24 * count);
    let ring = |life| RingPolicy::new(Duration::from_mins(15), life, Duration::from_hours(2)).unwrap();
    Settings {
        trust_domain: TrustDomain::default(),
        public_url: Config::dev(std::path::Path::new("."), 0).public_url,
        key_set_max_age: Duration::from_mins(5),
        token_ring: ring(days(14)),
        ca_ring: ring(days(30)),
        hold_grace: Duration::from_secs(10),
        heartbeat: Duration::from_secs(3),
        ended_lease_kept: ENDED_KEPT,
        audit_kept: AUDIT_KEPT,
        started,
    }
}

/// Someone with a certificate of the broker's own CA.
pub fn with_certificate(spiffe_id: &str) -> Caller {
    Caller::for_test(Proof::Certificate(CertificateProof {
        sha256: Digest::of(spiffe_id.as_bytes()),
        key: Digest::of(spiffe_id.as_bytes()),
        authority: Authority::Own,
        spiffe_id: Some(spiffe_id.to_owned()),
        dns_names: vec![],
        serial: vec![0x40; 16],
        not_after: Timestamp::from_millis(u64::MAX / 2),
    }))
}

/// The operator who may do everything.
pub fn admin() -> Caller {
    with_certificate("spiffe://mayfly.internal/operator/admin")
}

/// An operator who sees one tenant.
pub fn auditor(tenant: &str) -> Caller {
    with_certificate(&format!("spiffe://mayfly.internal/operator/{tenant}-audit"))
}

/// The workload of a tenant.
pub fn runner(tenant: &str) -> Caller {
    with_certificate(&format!("spiffe://{tenant}.mayfly.internal/runner"))
}

/// The resource server of a tenant.
pub fn verifier(tenant: &str) -> Caller {
    with_certificate(&format!("spiffe://{tenant}.mayfly.internal/api"))
}

/// The trust map, wide or with one grant narrowed.
pub fn trust(is_narrow: bool) -> Vec<pb::TrustDocument> {
    let mut text = String::new();
    for partner in PARTNERS {
        text += &format!("[[partner]]\nname = \"{partner}\"\ndisplay_name = \"{partner}\"\ncontact = \"x\"\n");
    }
    text += "[[operator]]\nname = \"admin\"\nrole = \"admin\"\ntenants = \"all\"\npartners = \"all\"\n";
    for tenant in TENANTS {
        text += &format!(
            r#"
[[operator]]
name = "{tenant}-audit"
role = "auditor"
tenants = ["{tenant}"]
partners = "all"
[[tenant]]
name = "{tenant}"
max_live_leases = {TENANT_MOST}
[[workload]]
tenant = "{tenant}"
name = "runner"
environment = "test"
selectors = [{{ spiffe_id = "spiffe://{tenant}.mayfly.internal/runner" }}]
[[verifier]]
tenant = "{tenant}"
name = "api"
selectors = [{{ spiffe_id = "spiffe://{tenant}.mayfly.internal/api" }}]
audiences = ["https://api.example/*"]
"#
        );
        for (grant, partner) in GRANTS.into_iter().zip(PARTNERS) {
            let actions = if is_narrow && tenant == "acme" { r#"["a"]"# } else { r#"["a", "b"]"# };
            text += &format!(
                r#"
[[grant]]
tenant = "{tenant}"
name = "{grant}"
partner = "{partner}"
workloads = ["runner"]
purposes = ["tests"]
audiences = ["https://api.example/*"]
actions = {actions}
kinds = ["jwt", "opaque"]
ttl_default = "5m"
ttl_max = "{TTL_MOST}s"
task_max = "1h"
owner = "o@example"
expires = 2027-12-31
attest_by = 2027-12-31
revokers = ["admin"]
environment = "test"
require_binding = false
max_live_leases = {GRANT_MOST}
max_leases_per_task = {TASK_MOST}
"#
            );
        }
    }
    vec![pb::TrustDocument { path: "trust.toml".into(), text }]
}

/// Seconds.
pub const TTL_MOST: u64 = 900;
pub const TENANT_MOST: u32 = 9;
pub const GRANT_MOST: u32 = 6;
pub const TASK_MOST: u32 = 4;
