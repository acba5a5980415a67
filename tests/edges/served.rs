//! A real server, asked whatever is sound, damaged, or kept from fuzzing.

use std::{
    path::Path,
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use mayfly::{
    audit::{chain, export},
    pb,
};
use tonic::Code;

use super::{EVENT, HTTP2, TRUST, readers, token};

/// One sound message for each of some methods, and what comes of it.
fn messages() -> Vec<(&'static str, Vec<u8>, Code)> {
    use prost::Message;
    let issue = pb::IssueRequest {
        tenant: "acme".into(),
        partner: "globex".into(),
        purpose: "export".into(),
        kind: pb::CredentialKind::Jwt.into(),
        audiences: vec!["https://api.example".into()],
        actions: vec!["read".into()],
        ..pb::IssueRequest::default()
    };
    let scope = pb::Scope { kind: pb::ScopeKind::Partner.into(), partner: "globex".into(), ..pb::Scope::default() };
    let revoke = pb::RevokeRequest { scope: Some(scope), reason: "test".into(), ..pb::RevokeRequest::default() };
    let presented = Some(pb::introspect_request::Credential::Token(token()));
    let introspect = pb::IntrospectRequest { credential: presented, ..pb::IntrospectRequest::default() };
    let document = Some(pb::TrustDocument { path: "trust.toml".into(), text: TRUST.into() });
    let apply = pb::ApplyRequest { options: Some(pb::ApplyOptions::default()), document };
    let test = pb::TestIdentityTokenRequest { token: token(), ..pb::TestIdentityTokenRequest::default() };
    vec![
        ("Issue", issue.encode_to_vec(), Code::Ok),
        ("Revoke", revoke.encode_to_vec(), Code::Ok),
        ("Introspect", introspect.encode_to_vec(), Code::Ok),
        ("Apply", apply.encode_to_vec(), Code::InvalidArgument),
        ("TestIdentityToken", test.encode_to_vec(), Code::Ok),
    ]
}

/// One reader, by the name of its target.
fn read(target: &str, bytes: &[u8]) {
    let text = || String::from_utf8_lossy(bytes);
    match target {
        "anchor" => readers::anchor(bytes),
        "audit_export" => readers::audit_export(bytes),
        "authority" => readers::authority(bytes),
        "backup" => readers::backup(bytes),
        "certificate" => readers::certificate(bytes),
        "claims" => readers::claims(bytes),
        "config" => readers::config(&text()),
        "connection" => readers::connection(bytes),
        "csr" => readers::csr(bytes),
        "endpoint" => readers::endpoint(bytes),
        "files" => readers::files(&text()),
        "http" => drop(readers::http(bytes)),
        "identity_token" => readers::identity_token(&text()),
        "message" => drop(readers::message(bytes)),
        "policies" => readers::policies(&text()),
        "presented" => readers::presented(bytes),
        "replay" => readers::replay(bytes),
        "row" => readers::row(bytes),
        "stamp" => readers::stamp(bytes),
        "token" => readers::token(&text()),
        "trust" => readers::trust(&text()),
        other => unreachable!("{other} has a target, and no line here"),
    }
}

#[test]
fn every_target_is_built_and_has_seeds_that_do_no_harm() {
    let _alone = alone();
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).expect("the manifest");
    let panics = Panics::counted();
    let mut targets = 0;
    for file in fuzz.join("fuzz_targets").read_dir().expect("targets") {
        let file = file.expect("a target").path();
        let target = file.file_stem().and_then(|name| name.to_str()).expect("a name");
        assert!(manifest.contains(&format!("name = \"{target}\"\n")), "{target} is not built");
        let seeds: Vec<_> = fuzz.join("seeds").join(target).read_dir().expect(target).collect();
        assert!(!seeds.is_empty(), "{target} has no seed");
        for seed in seeds {
            read(target, &std::fs::read(seed.expect("a seed").path()).expect("a seed"));
        }
        targets += 1;
    }
    assert_eq!((targets, panics.more()), (21, 0));
}

/// A server of one's own, since what it was asked before makes a difference.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    readers::restart();
    alone
}

/// Panics of a server's threads, which answer others all the same.
struct Panics(usize);

static PANICS: AtomicUsize = AtomicUsize::new(0);

impl Panics {
    fn counted() -> Self {
        static HOOKED: Once = Once::new();
        HOOKED.call_once(|| {
            let told = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                // They bear no test's name.
                if std::thread::current().name().is_none_or(|name| name.starts_with("tokio") || name.contains("mayfly"))
                {
                    PANICS.fetch_add(1, Ordering::Relaxed);
                }
                told(info);
            }));
        });
        Self(PANICS.load(Ordering::Relaxed))
    }

    fn more(&self) -> usize {
        PANICS.load(Ordering::Relaxed) - self.0
    }
}

/// Damages by a seed, the same each time.
struct Damage(u32);

impl Damage {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 8
    }

    fn of(&mut self, sound: &[u8]) -> Vec<u8> {
        let mut damaged = sound.to_vec();
        let at = usize::try_from(self.next()).expect("a number") % damaged.len();
        damaged[at] = self.next().to_be_bytes()[3];
        damaged
    }
}

#[test]
fn no_message_makes_the_server_panic() {
    let _alone = alone();
    let panics = Panics::counted();
    let sound = messages();
    let mut damage = Damage(1);
    for path in readers::METHODS.iter() {
        let name = path.rsplit('/').next().expect("a name");
        let ask = |message: &[u8]| readers::message(&[name.as_bytes(), b"\n", message].concat());
        ask(&[]);
        ask(&[0xff; 40]);
        let known = sound.iter().find(|(method, ..)| *method == name);
        if let Some((_, message, wanted)) = known {
            assert_eq!(ask(message), Some(*wanted), "{name}");
        }
        let sound = known.map_or(&b"\x0a\x04acme\x12\x06globex"[..], |(_, message, _)| message);
        for _ in 0..6 {
            ask(&damage.of(sound));
        }
    }
    assert_eq!(panics.more(), 0);
}

#[test]
fn nothing_that_a_directory_or_a_provider_tells_makes_the_server_panic() {
    let _alone = alone();
    let panics = Panics::counted();
    let mut damage = Damage(2);
    for (request, status) in [
        (&b"\x00{\"userName\":\"bob@acme.example\",\"externalId\":\"7\"}"[..], "201"),
        (b"\x01{\"userName\":\"ann@acme.example\",\"active\":false}", "200"),
        (b"\x02{\"Operations\":[{\"op\":\"replace\",\"path\":\"active\",\"value\":true}]}", "200"),
        (b"\x03userName eq \"ann@acme.example\"", "200"),
        (b"\x04a.b.c", "400"),
        (EVENT, "202"),
        (b"\x06t/acme/jwks.json", "200"),
    ] {
        let reply = readers::http(request);
        let line = String::from_utf8_lossy(&reply).lines().next().unwrap_or_default().to_owned();
        assert!(line.contains(status), "{}: {line}", String::from_utf8_lossy(request));
        for _ in 0..20 {
            readers::http(&[&request[..1], &damage.of(&request[1..])].concat());
        }
    }
    assert_eq!(panics.more(), 0);
}

#[test]
fn nothing_that_is_replayed_makes_a_broker_panic() {
    let _alone = alone();
    let mut damage = Damage(3);
    for (kind, detail) in [
        ("scope.revoked", "scope=partner globex"),
        ("scope.suspended", "scope=grant acme/tokens"),
        ("trust.changed", "narrowed grant tokens: ttl_max 300s -> 60s"),
        ("key.cut", "key_id=k1"),
        ("secret.rotated", "scope=secret acme/stripe"),
    ] {
        for _ in 0..20 {
            let detail = String::from_utf8_lossy(&damage.of(detail.as_bytes())).into_owned();
            let mut event = pb::Event { stream: "acme/-".into(), sequence: 1, ..pb::Event::default() };
            (event.kind, event.tenant, event.details) = (kind.into(), "acme".into(), vec![detail]);
            chain::seal_event(&mut event, chain::GENESIS);
            readers::replay(export::event_line(&event).expect("a line").as_bytes());
        }
    }
}

#[test]
fn whatever_comes_over_a_connection_the_server_goes_on() {
    let _alone = alone();
    let panics = Panics::counted();
    let mut damage = Damage(4);
    for sound in [&b"GET /t/acme/jwks.json HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], HTTP2] {
        readers::connection(sound);
        readers::endpoint(sound);
        for _ in 0..40 {
            readers::connection(&damage.of(sound));
            readers::endpoint(&damage.of(sound));
        }
    }
    assert!(readers::http(b"\x06t/acme/jwks.json").starts_with(b"HTTP/1.1 200"));
    assert_eq!(panics.more(), 0);
}
