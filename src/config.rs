//! The server's configuration: one TOML file, read once, with every problem reported at once.
//!
//! Unknown fields are refused; defaults stand at each field and in [`SAMPLE`]. Relative paths count from the file's
//! folder.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

mod issuers;
mod notify;
mod parse;
mod sign_in;
mod sinks;
mod values;

pub use notify::{Notify, Route, Smtp, SmtpTls, Webhook};
pub use values::PublicUrl;

use crate::{
    model::{IssuerRules, SignInRules, TenantName, TrustDomain},
    settings::{Problems, problem, read},
};

/// A commented configuration with every field, as `mayfly init` writes it.
pub const SAMPLE: &str = include_str!("config/sample.toml");

/// How one server runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// Folder of the ledger.
    pub data_dir: PathBuf,
    /// Base of the tenants' SPIFFE trust domains. Default `mayfly.internal`.
    pub trust_domain: TrustDomain,
    /// Where others reach the HTTP surface.
    pub public_url: PublicUrl,
    /// The store engine. Default fjall.
    pub engine: Engine,
    /// The file that notes the newest state of the store, outside of the data folder. Default: beside the seal key (or the
    /// data folder, when the key is a systemd credential), named after the data folder with `.anchor` behind it.
    pub anchor: PathBuf,
    /// Where the sealing key comes from.
    pub seal: SealSource,
    /// Where requests come in. Default: TLS on 127.0.0.1:7443 with all services.
    pub listeners: Vec<Listener>,
    /// The server's own certificate.
    pub server_certificate: ServerCertificate,
    /// Foreign CAs whose client certificates count.
    pub client_cas: Vec<ClientCa>,
    /// Issuers whose identity tokens count; all others are refused.
    pub issuers: Vec<Issuer>,
    /// How people sign in as operators. Default: they do not.
    pub sign_in: Option<SignIn>,
    /// A company's directory that says who is there. Default none.
    pub scim: Option<Scim>,
    /// An identity provider that tells who left. Default none.
    pub shared_signals: Option<SharedSignals>,
    /// Where metrics and probes are served; loopback. Default 127.0.0.1:7444.
    pub metrics: SocketAddr,
    /// What bounds load.
    pub limits: Limits,
    /// What bounds surprises of the wall clock.
    pub clock: ClockBounds,
    /// Lives of the broker's own keys.
    pub keys: KeyLives,
    /// What is kept how long.
    pub retention: Retention,
    /// Where audit events are copied to. Default none.
    pub audit_sinks: Vec<AuditSink>,
    /// Who is notified. Default nobody.
    pub notify: Notify,
    /// Logs.
    pub telemetry: Telemetry,
}

/// What stores the ledger.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Engine {
    /// The default.
    #[default]
    Fjall,
    /// The second engine.
    Sled,
    /// Forgets everything at exit.
    Memory,
}

/// Where the key comes from that seals the broker's own keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SealSource {
    /// A file outside the data folder that only the server's user may read.
    KeyFile(PathBuf),
    /// A systemd credential, by name.
    SystemdCredential(String),
}

/// One way in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listener {
    /// What it listens on.
    pub socket: Socket,
    /// What it offers; never empty.
    pub services: Vec<Service>,
    /// Whose identities [`Service::WorkloadApi`] and [`Service::Sds`] serve there; the first is the default one's.
    pub tenants: Vec<TenantName>,
}

/// What a listener listens on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Socket {
    /// TCP with our own TLS.
    Tls(SocketAddr),
    /// Plain TCP behind a proxy that ends TLS: nobody can prove who he is.
    BehindProxy(SocketAddr),
    /// A Unix socket.
    Unix {
        /// Where it is.
        path: PathBuf,
        /// Its permission bits. Default 0600.
        mode: u32,
    },
}

/// A service that a listener may offer.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Service {
    /// For workloads.
    Broker,
    /// For resource servers.
    Verifier,
    /// For operators.
    Admin,
    /// OAuth and PKI endpoints.
    Http,
    /// For people who sign in.
    SignIn,
    /// For a company's directory.
    Scim,
    /// For events of an identity provider.
    SharedSignals,
    /// The SPIFFE Workload API.
    WorkloadApi,
    /// Envoy's secret discovery.
    Sds,
}

/// Where the server's own certificate comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ServerCertificate {
    /// From the broker's own CA, renewed by the server.
    Own {
        /// DNS names or IP addresses. Default `localhost` and `127.0.0.1`.
        names: Vec<String>,
    },
    /// From files.
    Files {
        /// PEM chain, leaf first.
        certificate: PathBuf,
        /// PEM private key.
        key: PathBuf,
    },
}

/// A foreign CA set.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientCa {
    /// Names it in bindings.
    pub name: String,
    /// PEM certificates.
    pub file: PathBuf,
    /// SPIFFE trust domains that it may vouch for; empty for any but the broker's own.
    pub trust_domains: Vec<String>,
}

/// How people sign in as operators.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignIn {
    /// Who may, as what.
    pub rules: Arc<SignInRules>,
    /// The provider, and where its keys come from.
    pub issuer: Issuer,
}

/// A company's directory (SCIM 2.0).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scim {
    /// One or two lines, each the hex SHA-256 of a bearer token that it may come with. Read for each request.
    pub token_hashes_file: PathBuf,
}

/// An identity provider that tells of events (Shared Signals Framework 1.0).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SharedSignals {
    /// The transmitter, and where its keys come from; its `audience` is that of the events.
    pub issuer: Issuer,
    /// Formats of subjects that are believed. Default `iss_sub` and `email`.
    pub subjects: Vec<SubjectFormat>,
    /// Whether a revoked session means that the person left, and not only that its sign-ins end. Default false.
    pub session_revoked_leaves: bool,
}

/// How an event names its subject (RFC 9493 section 3.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SubjectFormat {
    /// Issuer and subject.
    IssuerAndSubject,
    /// A mail address.
    Email,
    /// An id that both sides know: the directory's id or external id, or the subject at the provider.
    Opaque,
}

/// An issuer of identity tokens, and where its keys come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Issuer {
    /// What is believed of it.
    pub rules: Arc<IssuerRules>,
    /// Where its keys come from.
    pub keys: KeySource,
    /// How often its keys are fetched. Default 600 s.
    pub refresh: Duration,
    /// For how long beyond that an older key set serves when the issuer is down. Default 3,600 s.
    pub stale: Duration,
}

/// Where an issuer's keys come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KeySource {
    /// A file; nothing is fetched.
    Pinned(PathBuf),
    /// Discovery at the issuer's URL.
    Fetched {
        /// PEM roots that its certificate must lead to. Default: the system's bundle.
        ca_file: PathBuf,
        /// Whether it may be at private addresses.
        allow_private: bool,
    },
}

/// What bounds load.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Bytes of the longest request message. Default 1 MiB.
    pub request_bytes: usize,
    /// Open connections over all listeners. Default 10,000.
    pub connections: usize,
    /// HTTP/2 streams on one connection. Default 256.
    pub streams_per_connection: u32,
    /// Open `WatchRevocations` streams. Default 1,000.
    pub watchers: usize,
    /// Open `HoldTask` streams. Default 50,000.
    pub holds: usize,
    /// Requests a second of one caller. Default 5,000.
    pub rate_per_caller_per_second: u32,
    /// Requests that one caller may make at once after a pause. Default 10,000.
    pub rate_burst: u32,
    /// HTTP/2 frames a second of one proven caller that come to nothing (of no whole request), over all of its connections; twice
    /// as many at once after a pause. Default 2,000.
    pub frames_per_caller_per_second: u32,
    /// Requests that begin something (issue, renew, open, hold) that are worked on at a time; a tenant that is alone gets
    /// half. Default 0: 16 for each processor, see [`Self::requests_at_work`].
    pub at_work: usize,
    /// Of these, what one tenant gets while others ask too. Default 0: a quarter, see
    /// [`Self::requests_at_work_per_tenant`].
    pub at_work_per_tenant: usize,
    /// Requests of one tenant that may wait for their turn, and its proposals that may wait for the committer. Default
    /// 2,048.
    pub queue_per_tenant: usize,
    /// How long a held task outlives its broken stream. Default 10 s.
    pub hold_grace: Duration,
    /// How often a held stream beats. Default 3 s.
    pub heartbeat: Duration,
    /// How long requests in flight may take to finish at the stop. Default 10 s.
    pub drain: Duration,
    /// How long a TLS handshake may take, and what a request has to say; longer for what is long. Default 10 s.
    pub handshake: Duration,
}

/// What bounds surprises of the wall clock.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClockBounds {
    /// The widest jump forward that needs no confirmation. Default 300 s.
    pub max_jump: Duration,
    /// The longest time down that needs no confirmation. Default 7 days: whoever sets the clock of a host that starts gets
    /// tokens dated no further ahead.
    pub max_downtime: Duration,
}

/// Lives of the broker's own keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyLives {
    /// How long a token key signs. Default 14 days.
    pub token_active: Duration,
    /// How long a token key is published before it signs. Default 900 s.
    pub token_publish: Duration,
    /// How long a tenant's intermediate CA signs. Default 30 days.
    pub ca_active: Duration,
    /// How long others may cache a key set. Default 300 s.
    pub key_set_max_age: Duration,
}

/// What is kept how long.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Retention {
    /// Audit events. Default 400 days.
    pub audit: Duration,
    /// Leases after their end. Default 10 minutes.
    pub ended_lease: Duration,
}

/// A place that audit events are copied to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AuditSink {
    /// Names its position in the ledger. Default: the kind.
    pub name: String,
    /// Where it is.
    pub target: SinkTarget,
}

/// Where an audit sink is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SinkTarget {
    /// JSON lines.
    File {
        /// Appended to.
        path: PathBuf,
    },
    /// Syslog over TLS (RFC 5425).
    Syslog {
        /// `host:port`.
        address: String,
        /// The name its certificate must carry. Default: the host.
        server_name: String,
        /// PEM roots; needed, since the system's are never used.
        ca_file: Option<PathBuf>,
    },
    /// JSON lines by POST.
    Https {
        /// Begins with `https://`.
        url: String,
        /// PEM roots; needed, since the system's are never used.
        ca_file: Option<PathBuf>,
        /// Holds the bearer token, when one is needed.
        bearer_token_file: Option<PathBuf>,
    },
}

/// Logs and traces.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Telemetry {
    /// A `tracing` filter. Default `info`.
    pub log: String,
    /// Default text.
    pub format: LogFormat,
    /// Where spans go. Default nowhere.
    pub otlp: Option<Otlp>,
}

/// An OpenTelemetry collector that takes spans over gRPC.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Otlp {
    /// `http://HOST:PORT`, on loopback: spans travel in the clear.
    pub endpoint: String,
    /// Of how many traces in a million spans are sent. Default 10,000: one in a hundred.
    pub sampled_per_million: u32,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

impl Config {
    /// Reads and checks a file, and the files that it names.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn load(file: &Path) -> Result<Self, Problems> {
        let text = std::fs::read_to_string(file).map_err(|error| problem::unreadable(file.to_path_buf(), &error))?;
        Self::parse(&text, file)
    }

    /// Parses text that stands in `file`; the files that it names are checked too.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Problems> {
        parse::config(text, file)
    }

    /// Reads and checks a file of `[[issuer]]` sections alone, and the files that it names.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn load_issuers(file: &Path) -> Result<Vec<Issuer>, Problems> {
        let text = std::fs::read_to_string(file).map_err(|error| problem::unreadable(file.to_path_buf(), &error))?;
        parse::issuers_alone(&text, file)
    }

    /// Everything on loopback, for trying things out: TLS on `port`, metrics on the next one (port 0 lets the system
    /// choose both).
    ///
    /// The sealing key and the anchor lie beside the ledger, which a configuration file may not ask for: a copy of the
    /// folder carries its key, and a folder that is put back as a whole is not noticed.
    #[must_use]
    pub fn dev(data_dir: &Path, port: u16) -> Self {
        let metrics_port = if port == 0 { 0 } else { port.checked_add(1).unwrap_or(port - 1) };
        Self {
            data_dir: data_dir.to_path_buf(),
            trust_domain: TrustDomain::default(),
            public_url: PublicUrl::loopback(port),
            engine: Engine::default(),
            anchor: data_dir.join("anchor"),
            seal: SealSource::KeyFile(data_dir.join("seal.key")),
            listeners: vec![Listener {
                socket: Socket::Tls(([127, 0, 0, 1], port).into()),
                services: Service::USUAL.to_vec(),
                tenants: Vec::new(),
            }],
            server_certificate: ServerCertificate::default(),
            client_cas: Vec::new(),
            issuers: Vec::new(),
            sign_in: None,
            scim: None,
            shared_signals: None,
            metrics: ([127, 0, 0, 1], metrics_port).into(),
            limits: Limits::default(),
            clock: ClockBounds::default(),
            keys: KeyLives::default(),
            retention: Retention::default(),
            audit_sinks: Vec::new(),
            notify: Notify::default(),
            telemetry: Telemetry::default(),
        }
    }
}

impl Service {
    /// Every service.
    pub const ALL: [Self; 9] = [
        Self::Broker,
        Self::Verifier,
        Self::Admin,
        Self::Http,
        Self::SignIn,
        Self::Scim,
        Self::SharedSignals,
        Self::WorkloadApi,
        Self::Sds,
    ];
    /// Those that need nothing declared.
    pub const USUAL: [Self; 4] = [Self::Broker, Self::Verifier, Self::Admin, Self::Http];

    /// The word in the config.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Verifier => "verifier",
            Self::Admin => "admin",
            Self::Http => "http",
            Self::SignIn => "sign_in",
            Self::Scim => "scim",
            Self::SharedSignals => "shared_signals",
            Self::WorkloadApi => "workload_api",
            Self::Sds => "sds",
        }
    }

    /// Whether it is for processes on this host alone, which the kernel vouches for.
    #[must_use]
    pub fn is_local(self) -> bool {
        matches!(self, Self::WorkloadApi | Self::Sds)
    }
}

impl Default for ServerCertificate {
    fn default() -> Self {
        Self::Own { names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()] }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes: 1 << 20,
            connections: 10_000,
            streams_per_connection: 256,
            watchers: 1_000,
            holds: 50_000,
            rate_per_caller_per_second: 5_000,
            rate_burst: 10_000,
            frames_per_caller_per_second: 2_000,
            at_work: 0,
            at_work_per_tenant: 0,
            queue_per_tenant: 2_048,
            hold_grace: Duration::from_secs(10),
            heartbeat: Duration::from_secs(3),
            drain: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// [`Self::at_work`], or what this machine can take.
    #[must_use]
    pub fn requests_at_work(&self) -> usize {
        match self.at_work {
            0 => std::thread::available_parallelism().map_or(1, usize::from) * AT_WORK_PER_PROCESSOR,
            given => given,
        }
    }

    /// [`Self::at_work_per_tenant`], or a quarter of what is worked on at a time.
    #[must_use]
    pub fn requests_at_work_per_tenant(&self) -> usize {
        match self.at_work_per_tenant {
            0 => self.requests_at_work().div_ceil(TENANTS_AT_WORK),
            given => given,
        }
    }
}

impl Default for ClockBounds {
    fn default() -> Self {
        Self { max_jump: Duration::from_secs(300), max_downtime: Duration::from_secs(604_800) }
    }
}

impl Default for KeyLives {
    fn default() -> Self {
        Self {
            token_active: Duration::from_secs(14 * DAY_SECONDS),
            token_publish: Duration::from_secs(900),
            ca_active: Duration::from_secs(30 * DAY_SECONDS),
            key_set_max_age: Duration::from_secs(300),
        }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self { audit: Duration::from_secs(400 * DAY_SECONDS), ended_lease: Duration::from_secs(600) }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { log: LOG.to_owned(), format: LogFormat::default(), otlp: None }
    }
}

/// Enough that one durable commit serves many, and few enough that a newcomer's request is not far behind them.
const AT_WORK_PER_PROCESSOR: usize = 16;
/// Tenants that may work at full speed beside each other.
const TENANTS_AT_WORK: usize = 4;
const DAY_SECONDS: u64 = 86_400;

#[cfg(test)]
mod tests;

/// The log filter when none is given: the store engines tell of their files at `info`.
const LOG: &str = "info,fjall=warn,lsm_tree=warn,sled=warn";
