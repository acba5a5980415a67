//! From TOML text to a [`Config`], section by section.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::Duration,
};

use toml::de::DeTable;

use crate::model::{TenantName, TrustDomain};

use super::{
    ClientCa, ClockBounds, Config, DAY_SECONDS, Engine, Issuer, KeyLives, Limits, Listener, LogFormat, Otlp, Problems,
    PublicUrl, Retention, SealSource, ServerCertificate, Service, Socket, Telemetry, issuers, notify,
    problem::Notes,
    read::{At, FileRule, Section},
    sign_in, sinks,
};

pub(super) fn config(text: &str, file: &Path) -> Result<Config, Problems> {
    parse(text, file, root)
}

/// A file of `[[issuer]]` sections alone.
pub(super) fn issuers_alone(text: &str, file: &Path) -> Result<Vec<Issuer>, Problems> {
    parse(text, file, |mut root| {
        let issuers = issuers::issuers(root.sections("issuer"));
        root.finish();
        Some(issuers)
    })
}

fn parse<T>(text: &str, file: &Path, read: impl FnOnce(Section<'_>) -> Option<T>) -> Result<T, Problems> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let folder = file.parent().unwrap_or(Path::new(""));
    let notes = Notes::new(text);
    for error in &errors {
        let offset = error.span().map_or(0, |span| span.start);
        notes.note(offset, "", error.message().trim_end(), "mend the TOML here");
    }
    let parsed = if errors.is_empty() { read(Section::root(table.get_ref(), &notes, folder)) } else { None };
    notes.close(parsed, file.to_path_buf())
}

fn root(mut root: Section<'_>) -> Option<Config> {
    let data_dir = root.required_path("data_dir", "/var/lib/mayfly");
    let trust_domain = root.parsed("trust_domain", "mayfly.internal", str::parse::<TrustDomain>);
    let public_url = root
        .required_text("public_url", "https://mayfly.example.com")
        .and_then(|text| root.parse(text, "https://mayfly.example.com", str::parse::<PublicUrl>));
    let mut store = root.section("store");
    let engine = store.choice("engine", ENGINES);
    let folder = data_dir.as_ref().map(|at| at.value.as_path());
    let seal = seal(root.section("seal"), folder);
    let anchor = anchor(&mut store, folder, seal.as_ref());
    store.finish();
    let anchor = anchor.unwrap_or_else(|| default_anchor(folder, seal.as_ref()));
    let metrics = metrics(root.section("metrics"));
    let listeners = listeners(&mut root);
    let issuers = issuers::issuers(root.sections("issuer"));
    let mut operators = root.section("operators");
    let sign_in = sign_in::sign_in(&mut operators, &issuers, root.has("scim"));
    operators.finish();
    let (has_scim, has_signals) = (root.has("scim"), root.has("shared_signals"));
    let scim = sign_in::scim(root.section("scim"), has_scim);
    let shared_signals = sign_in::shared_signals(root.section("shared_signals"), has_signals, &issuers);
    let declared = [
        (Service::SignIn, "operators.sign_in", sign_in.is_some()),
        (Service::Scim, "scim", scim.is_some()),
        (Service::SharedSignals, "shared_signals", shared_signals.is_some()),
    ];
    sign_in::check_offered(&root, &listeners, &declared);
    let config = Config {
        data_dir: data_dir.map(|at| at.value).unwrap_or_default(),
        trust_domain: trust_domain.map(|at| at.value).unwrap_or_default(),
        public_url: public_url.map_or_else(|| PublicUrl::loopback(0), |at| at.value),
        engine: engine.map(|at| at.value).unwrap_or_default(),
        anchor,
        listeners,
        server_certificate: server_certificate(root.section("tls")),
        client_cas: client_cas(root.sections("client_ca")),
        issuers,
        sign_in,
        scim,
        shared_signals,
        metrics,
        limits: limits(root.section("limits")),
        clock: clock(root.section("clock")),
        keys: keys(root.section("keys")),
        retention: retention(root.section("retention")),
        audit_sinks: sinks::audit_sinks(root.sections("audit_sink")),
        notify: notify::notify(root.section("notify")),
        telemetry: telemetry(root.section("telemetry")),
        // A missing one was noted, so the stand-in never leaves this module.
        seal: seal.unwrap_or(SealSource::SystemdCredential(String::new())),
    };
    root.finish();
    Some(config)
}

fn anchor(store: &mut Section<'_>, data_dir: Option<&Path>, seal: Option<&SealSource>) -> Option<PathBuf> {
    let anchor = store.path("anchor", "/etc/mayfly/mayfly.anchor")?;
    if data_dir.is_some_and(|folder| anchor.value.starts_with(folder)) {
        let wrong = "lies inside data_dir, so it would go back together with the data folder";
        store.note_at(&anchor, wrong, "move it out of data_dir");
    }
    if matches!(seal, Some(SealSource::KeyFile(key)) if *key == anchor.value) {
        store.note_at(&anchor, "is the seal key, which it would overwrite", "give a file of its own");
    }
    Some(anchor.value)
}

/// Beside the seal key, or beside the data folder when the key is no file.
fn default_anchor(data_dir: Option<&Path>, seal: Option<&SealSource>) -> PathBuf {
    let data_dir = data_dir.unwrap_or(Path::new("mayfly"));
    let mut name = data_dir.file_name().unwrap_or_default().to_os_string();
    name.push(".anchor");
    match seal {
        Some(SealSource::KeyFile(key)) => key.with_file_name(name),
        Some(SealSource::SystemdCredential(_)) | None => data_dir.with_file_name(name),
    }
}

fn seal(mut section: Section<'_>, data_dir: Option<&Path>) -> Option<SealSource> {
    let file = section.path("key_file", "/etc/mayfly/seal.key");
    let credential = section.text("systemd_credential", "mayfly-seal");
    let seal = match (file, credential) {
        (Some(file), None) => {
            section.check_file(&file, FileRule::PrivateOrMissing);
            if data_dir.is_some_and(|folder| file.value.starts_with(folder)) {
                let wrong = "lies inside data_dir, so a copy of the data folder would carry its own key";
                section.note_at(&file, wrong, "move it out of data_dir");
            }
            Some(SealSource::KeyFile(file.value))
        }
        (None, Some(credential)) => Some(SealSource::SystemdCredential(credential.value)),
        (Some(_), Some(credential)) => {
            section.note_at(&credential, "is given beside key_file", "leave out one of the two");
            None
        }
        (None, None) => {
            section.note("key_file", "is missing", "add key_file = \"/etc/mayfly/seal.key\" or systemd_credential");
            None
        }
    };
    section.finish();
    seal
}

fn metrics(mut section: Section<'_>) -> std::net::SocketAddr {
    let address = section.address("address", "127.0.0.1:7444");
    if let Some(address) = address.as_ref().filter(|at| !at.value.ip().is_loopback()) {
        section.note_at(address, format!("{} is not on loopback", address.value), "write 127.0.0.1:7444");
    }
    section.finish();
    address.map_or_else(|| ([127, 0, 0, 1], 7444).into(), |at| at.value)
}

fn listeners(root: &mut Section<'_>) -> Vec<Listener> {
    let mut taken = HashSet::new();
    let mut listeners = Vec::new();
    for mut section in root.sections("listener") {
        let listener = listener(&mut section);
        let place = listener.as_ref().map(|listener| match &listener.socket {
            Socket::Tls(address) | Socket::BehindProxy(address) => (address.to_string(), address.port() == 0),
            Socket::Unix { path, mode: _ } => (path.display().to_string(), false),
        });
        if let Some((place, any_port)) = place
            && !any_port
            && !taken.insert(place.clone())
        {
            section.note("address", format!("{place} is taken by a listener above"), "choose another");
        }
        section.finish();
        listeners.extend(listener);
    }
    if listeners.is_empty() {
        let socket = Socket::Tls(([127, 0, 0, 1], 7443).into());
        listeners.push(Listener { socket, services: Service::USUAL.to_vec(), tenants: Vec::new() });
    }
    listeners
}

fn listener(section: &mut Section<'_>) -> Option<Listener> {
    let address = section.address("address", "127.0.0.1:7443");
    let unix = section.path("unix", "/run/mayfly/mayfly.sock");
    let mode = section.parsed("mode", "0600", parse_mode);
    let behind_proxy = section.flag("behind_proxy", false);
    let listed = section.choices("services", SERVICES);
    let socket = match (address, unix) {
        (Some(address), None) => {
            if let Some(mode) = &mode {
                section.note_at(mode, "is for Unix sockets", "leave it out");
            }
            if behind_proxy { Socket::BehindProxy(address.value) } else { Socket::Tls(address.value) }
        }
        (None, Some(unix)) => {
            if behind_proxy {
                section.note("behind_proxy", "is for TCP addresses", "leave it out, or give an address");
            }
            Socket::Unix { path: unix.value, mode: mode.map_or(0o600, |at| at.value) }
        }
        (Some(_), Some(unix)) => {
            section.note_at(&unix, "is given beside address", "make it a [[listener]] of its own");
            return None;
        }
        (None, None) => {
            section.note("address", "is missing or wrong", "add address = \"127.0.0.1:7443\" or unix = \"...\"");
            return None;
        }
    };
    let services = match listed {
        None => default_services(&socket),
        Some(listed) => {
            check_services(section, &socket, &listed);
            listed.value.into_iter().map(|at| at.value).collect()
        }
    };
    let tenants = served_tenants(section, &services);
    Some(Listener { socket, services, tenants })
}

/// Whose identities are served to processes on this host. Named here, since a tenant's trust map can name any user: only
/// the host's own config says which tenants its users' processes listen to.
fn served_tenants(section: &mut Section<'_>, services: &[Service]) -> Vec<TenantName> {
    let listed = section.texts("tenants", "acme");
    let needs = services.iter().any(|service| service.is_local());
    let Some(listed) = listed else {
        if needs {
            let wrong = "is missing, and workload_api and sds serve no tenant unless it is named";
            section.note("tenants", wrong, "add tenants = [\"acme\"]");
        }
        return Vec::new();
    };
    if !needs {
        section.note_at(&listed, "is for workload_api and sds", "leave it out");
    }
    if listed.value.is_empty() || listed.value.len() > TENANTS_AT_MOST {
        section.note_at(&listed, format!("names {}", listed.value.len()), format!("name 1 to {TENANTS_AT_MOST}"));
    }
    let mut tenants = Vec::new();
    for text in &listed.value {
        match text.value.parse::<TenantName>() {
            Ok(tenant) if tenants.contains(&tenant) => section.note_at(text, "is listed twice", "leave out one"),
            Ok(tenant) => tenants.push(tenant),
            Err(error) => section.note_at(text, format!("`{}` {error}", text.value), "write the tenant's name"),
        }
    }
    tenants
}

fn default_services(socket: &Socket) -> Vec<Service> {
    match socket {
        Socket::Tls(address) if !address.ip().is_loopback() => vec![Service::Broker, Service::Verifier, Service::Http],
        Socket::Tls(_) | Socket::Unix { .. } => Service::USUAL.to_vec(),
        Socket::BehindProxy(_) => vec![Service::Http],
    }
}

fn check_services(section: &Section<'_>, socket: &Socket, listed: &At<Vec<At<Service>>>) {
    if listed.value.is_empty() {
        section.note_at(listed, "offers nothing", "name a service, or leave it out for all that fit");
    }
    let mut seen = HashSet::new();
    for service in &listed.value {
        if !seen.insert(service.value) {
            section.note_at(service, "is listed twice", "leave out one of the two");
        }
        let proxied = matches!(socket, Socket::BehindProxy(_));
        let needs_no_proof = matches!(service.value, Service::Http | Service::Scim | Service::SharedSignals);
        if proxied && !needs_no_proof {
            let wrong = "cannot be offered behind a proxy, where nobody can prove who he is";
            section.note_at(service, wrong, "leave it out, or end TLS here");
        }
        if service.value.is_local() && !matches!(socket, Socket::Unix { .. }) {
            let wrong = "is for processes on this host, which only a Unix socket tells apart";
            section.note_at(service, wrong, "move it to a listener with unix = \"...\"");
        }
    }
}

fn parse_mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777 && mode & 0o600 == 0o600 && mode & 0o111 == 0)
        .ok_or_else(|| "is not 0600, 0660 or 0666".to_owned())
}

fn server_certificate(mut section: Section<'_>) -> ServerCertificate {
    let names = section.texts("server_names", "mayfly.example.com");
    let certificate = section.path("certificate_file", "/etc/mayfly/server.pem");
    let key = section.path("key_file", "/etc/mayfly/server.key");
    if let Some(certificate) = &certificate {
        section.check_file(certificate, FileRule::Public);
    }
    if let Some(key) = &key {
        section.check_file(key, FileRule::Private);
    }
    let chosen = match (certificate, key) {
        (Some(certificate), Some(key)) => {
            if let Some(names) = &names {
                section.note_at(names, "is given beside certificate_file", "leave it out");
            }
            ServerCertificate::Files { certificate: certificate.value, key: key.value }
        }
        (Some(lonely), None) => {
            section.note_at(&lonely, "is given without key_file", "add key_file");
            ServerCertificate::default()
        }
        (None, Some(lonely)) => {
            section.note_at(&lonely, "is given without certificate_file", "add certificate_file");
            ServerCertificate::default()
        }
        (None, None) => names.map_or_else(ServerCertificate::default, |names| {
            if names.value.is_empty() {
                section.note_at(&names, "is empty", "name what clients call this server");
            }
            for name in &names.value {
                if rustls::pki_types::ServerName::try_from(name.value.as_str()).is_err() {
                    let wrong = format!("`{}` is neither a DNS name nor an IP address", name.value);
                    section.note_at(name, wrong, "write it as in \"mayfly.example.com\"");
                }
            }
            ServerCertificate::Own { names: names.value.into_iter().map(|name| name.value).collect() }
        }),
    };
    section.finish();
    chosen
}

fn client_cas(sections: Vec<Section<'_>>) -> Vec<ClientCa> {
    let mut cas: Vec<ClientCa> = Vec::new();
    for mut section in sections {
        let name = section.required_text("name", "corp");
        let file = section.required_path("file", "/etc/mayfly/corp-ca.pem");
        if let Some(file) = &file {
            section.check_file(file, FileRule::Public);
        }
        let trust_domains = trust_domains(&mut section);
        if let (Some(name), Some(file)) = (name, file) {
            if cas.iter().any(|ca| ca.name == name.value) {
                section.note_at(&name, format!("`{}` is taken by one above", name.value), "choose another name");
            }
            cas.push(ClientCa { name: name.value, file: file.value, trust_domains });
        }
        section.finish();
    }
    cas
}

fn trust_domains(section: &mut Section<'_>) -> Vec<String> {
    let Some(listed) = section.texts("trust_domains", "prod.example") else { return Vec::new() };
    if listed.value.is_empty() {
        section.note_at(&listed, "is empty", "name what it may vouch for, or leave it out");
    }
    for domain in listed.value.iter().filter(|domain| !issuers::is_trust_domain(&domain.value)) {
        section.note_at(domain, "is no trust domain", "write it without spiffe:// and path: \"prod.example\"");
    }
    listed.value.into_iter().map(|domain| domain.value).collect()
}

fn limits(mut section: Section<'_>) -> Limits {
    let s = &mut section;
    let limits = Limits {
        request_bytes: size(s.whole("request_bytes", 1 << 20, 4_096..=64 << 20)),
        connections: size(s.whole("connections", 10_000, 2..=1_000_000)),
        streams_per_connection: number(s.whole("streams_per_connection", 256, 1..=65_535)),
        watchers: size(s.whole("watchers", 1_000, 1..=1_000_000)),
        holds: size(s.whole("holds", 50_000, 1..=10_000_000)),
        rate_per_caller_per_second: number(s.whole("rate_per_caller_per_second", 5_000, 1..=10_000_000)),
        rate_burst: number(s.whole("rate_burst", 10_000, 1..=100_000_000)),
        frames_per_caller_per_second: number(s.whole("frames_per_caller_per_second", 2_000, 10..=10_000_000)),
        at_work: size(s.whole("requests_at_work", 0, 0..=1_000_000)),
        at_work_per_tenant: size(s.whole("requests_at_work_per_tenant", 0, 0..=1_000_000)),
        queue_per_tenant: size(s.whole("queue_per_tenant", 2_048, 1..=1_000_000)),
        hold_grace: times(s.whole("hold_grace_seconds", 10, 1..=3_600), 1),
        heartbeat: times(s.whole("heartbeat_seconds", 3, 1..=600), 1),
        drain: times(s.whole("drain_seconds", 10, 0..=3_600), 1),
        handshake: times(s.whole("handshake_seconds", 10, 1..=120), 1),
    };
    if limits.heartbeat >= limits.hold_grace {
        section.note("heartbeat_seconds", "is not less than hold_grace_seconds", "choose at most a third of it");
    }
    if limits.at_work_per_tenant > limits.requests_at_work().div_ceil(2) {
        let mend = format!("write at most {}, or 0 for a quarter", limits.requests_at_work().div_ceil(2));
        section.note("requests_at_work_per_tenant", "is more than half of requests_at_work", mend);
    }
    section.finish();
    limits
}

fn clock(mut section: Section<'_>) -> ClockBounds {
    let clock = ClockBounds {
        max_jump: times(section.whole("max_jump_seconds", 300, 1..=86_400), 1),
        max_downtime: times(section.whole("max_downtime_seconds", 604_800, 60..=31_536_000), 1),
    };
    section.finish();
    clock
}

fn keys(mut section: Section<'_>) -> KeyLives {
    let publish = section.whole("token_publish_seconds", 900, 0..=DAY_SECONDS);
    let max_age = section.whole("key_set_max_age_seconds", 300, 0..=DAY_SECONDS);
    if publish.value < max_age.value {
        let wrong = "is less than key_set_max_age_seconds, so a cached key set would lack a key that signs";
        section.note_at(&publish, wrong, format!("write at least {}", max_age.value));
    }
    let keys = KeyLives {
        token_active: times(section.whole("token_active_days", 14, 1..=365), DAY_SECONDS),
        token_publish: times(publish, 1),
        ca_active: times(section.whole("ca_active_days", 30, 1..=365), DAY_SECONDS),
        key_set_max_age: times(max_age, 1),
    };
    section.finish();
    keys
}

fn retention(mut section: Section<'_>) -> Retention {
    let retention = Retention {
        audit: times(section.whole("audit_days", 400, 1..=36_500), DAY_SECONDS),
        ended_lease: times(section.whole("ended_lease_minutes", 10, 1..=1_440), 60),
    };
    section.finish();
    retention
}

fn telemetry(mut section: Section<'_>) -> Telemetry {
    let filter = |text: &str| match text.parse::<tracing_subscriber::EnvFilter>() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("is no filter: {error}")),
    };
    let log = section.parsed("log", "info", filter).map_or_else(|| super::LOG.to_owned(), |at| at.value);
    let format = section.choice("format", FORMATS).map(|at| at.value).unwrap_or_default();
    let otlp = otlp(section.section("otlp"));
    section.finish();
    Telemetry { log, format, otlp }
}

fn otlp(mut section: Section<'_>) -> Option<Otlp> {
    let endpoint = section.parsed("endpoint", "http://127.0.0.1:4317", loopback_url);
    let sampled_per_million = section.millionths("sampling_ratio", 10_000).value;
    if let Some(endpoint) = endpoint.as_ref().filter(|_| !cfg!(feature = "otlp")) {
        section.note_at(endpoint, "is set, and this mayfly was built without the feature `otlp`", "leave it out");
    }
    section.finish();
    Some(Otlp { endpoint: endpoint?.value, sampled_per_million })
}

/// Spans travel in the clear, so they may not leave the host: a collector on it ships them on.
fn loopback_url(text: &str) -> Result<String, String> {
    let url: http::Uri = text.parse().map_err(|_| "is not a URL".to_owned())?;
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let near = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    let plain = url.scheme_str() == Some("http") && url.port_u16().is_some() && matches!(url.path(), "" | "/");
    let bare = url.query().is_none() && url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    if near && plain && bare {
        Ok(text.to_owned())
    } else {
        Err("is not http:// with a loopback host and a port".to_owned())
    }
}

fn size(at: At<u64>) -> usize {
    usize::try_from(at.value).unwrap_or(usize::MAX)
}

fn number(at: At<u64>) -> u32 {
    u32::try_from(at.value).unwrap_or(u32::MAX)
}

fn times(at: At<u64>, seconds: u64) -> Duration {
    Duration::from_secs(at.value.saturating_mul(seconds))
}

const ENGINES: &[(&str, Engine)] = &[("fjall", Engine::Fjall), ("sled", Engine::Sled), ("memory", Engine::Memory)];
const FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
const SERVICES: &[(&str, Service)] = &[
    ("broker", Service::Broker),
    ("verifier", Service::Verifier),
    ("admin", Service::Admin),
    ("http", Service::Http),
    ("sign_in", Service::SignIn),
    ("scim", Service::Scim),
    ("shared_signals", Service::SharedSignals),
    ("workload_api", Service::WorkloadApi),
    ("sds", Service::Sds),
];
/// Tenants that one socket serves identities of: each is looked at for each caller.
const TENANTS_AT_MOST: usize = 16;
