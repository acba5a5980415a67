use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::model::{IssuerKind, Reuse, SignatureAlgorithm, TrustDomain};

const HEAD: &str = "data_dir = \"data\"\npublic_url = \"https://mayfly.example.com/\"\nseal.key_file = \"seal.key\"\n";

fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse(text, Path::new("/etc/nowhere/mayfly.toml"))
}

#[test]
fn the_sample_parses_and_its_commented_values_are_the_defaults() {
    let config = parse(SAMPLE).expect("sample");
    let dev = Config::dev(Path::new("/var/lib/mayfly"), 7443);
    let seal = SealSource::KeyFile("/etc/mayfly/seal.key".into());
    assert_eq!(config, Config { seal, anchor: "/etc/mayfly/mayfly.anchor".into(), ..dev });

    // The commented scalars spell out the defaults; the commented tables name files that do not exist here.
    let scalars: String = SAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => format!("{rest}\n"),
            Some(_) | None => format!("{line}\n"),
        })
        .collect();
    let dropped = [
        "unix",
        "mode",
        "services = [\"workload_api",
        "tenants =",
        "behind_proxy",
        "certificate_file",
        "key_file = \"/etc/mayfly/server",
        "name =",
        "file =",
        "kind",
        "path",
        "server_name =",
        "ca_file",
        "url",
        "bearer_token_file",
        "systemd_credential",
        "address = \"syslog",
        "address = \"127.0.0.1:8080",
        "endpoint",
        "audience",
        "reuse",
        "on_reuse",
        "algorithms",
        "max_age",
        "longest_job",
        "refresh",
        "stale",
        "jwks_file",
        "allow_",
        "trust_domain = \"prod",
        "trust_domains",
        "sampling_ratio",
        "owners",
        "default =",
        "mail",
        "secret_file",
        "host",
        "port",
        "tls =",
        "username",
        "password_file",
        "from",
        "issuer",
        "client_id",
        "scopes",
        "require_nonce",
        "directory_claim",
        "require_provisioned",
        "certificate_seconds",
        "operator",
        "claims",
        "token_hashes_file",
        "subjects",
        "session_revoked_leaves",
    ];
    let kept: String =
        scalars.lines().filter(|l| !dropped.iter().any(|d| l.starts_with(d))).map(|l| format!("{l}\n")).collect();
    assert!(kept.contains("\nhandshake_seconds = 10"));
    let explicit = parse(&kept).map_err(|problems| problems.to_string()).expect("defaults spelled out");
    assert_eq!(explicit, config);
}

#[test]
fn every_problem_is_reported_at_once_with_its_line_and_mend() {
    let text = r#"data_dir = 7
trust_domain = "Mayfly"
public_url = "http://mayfly.example.com"
colour = "red"
[store]
engin = "fjall"
[seal]
key_file = "seal.key"
systemd_credential = "seal"
[[listener]]
address = "localhost"
[[listener]]
address = "0.0.0.0:8080"
behind_proxy = true
services = ["http", "admin", "htp"]
[metrics]
address = "0.0.0.0:7444"
[limits]
connections = 0
drain_seconds = "ten"
drain_second = 10
[keys]
token_publish_seconds = 10
[[audit_sink]]
kind = "kafka"
[telemetry]
log = "info,=="
format = "xml"
"#;
    let problems = parse(text).expect_err("problems").to_string();
    let want = r#"/etc/nowhere/mayfly.toml:1: data_dir: is a whole number; write text, as in data_dir = "/var/lib/mayfly"
/etc/nowhere/mayfly.toml:2: trust_domain: `Mayfly` is no trust domain: labels of a-z, 0-9 and `-` with dots between; write it as in "mayfly.internal"
/etc/nowhere/mayfly.toml:3: public_url: `http://mayfly.example.com` does not begin with https://; write it as in "https://mayfly.example.com"
/etc/nowhere/mayfly.toml:4: colour: is not a known field; known here: data_dir, trust_domain, public_url, store, seal, metrics, listener, issuer, operators, scim, shared_signals, tls, client_ca, limits, clock, keys, retention, audit_sink, notify, telemetry
/etc/nowhere/mayfly.toml:6: store.engin: is not a known field; did you mean `engine`?
/etc/nowhere/mayfly.toml:9: seal.systemd_credential: is given beside key_file; leave out one of the two
/etc/nowhere/mayfly.toml:10: listener[0].address: is missing or wrong; add address = "127.0.0.1:7443" or unix = "..."
/etc/nowhere/mayfly.toml:11: listener[0].address: `localhost` is not an IP address with a port; write it as in "127.0.0.1:7443"
/etc/nowhere/mayfly.toml:15: listener[1].services[2]: `htp` is not known; write one of "broker", "verifier", "admin", "http", "sign_in", "scim", "shared_signals", "workload_api", "sds"
/etc/nowhere/mayfly.toml:15: listener[1].services[1]: cannot be offered behind a proxy, where nobody can prove who he is; leave it out, or end TLS here
/etc/nowhere/mayfly.toml:17: metrics.address: 0.0.0.0:7444 is not on loopback; write 127.0.0.1:7444
/etc/nowhere/mayfly.toml:19: limits.connections: is out of range; write 2 to 1000000; the default is 10000
/etc/nowhere/mayfly.toml:20: limits.drain_seconds: is a text; write a whole number, as in drain_seconds = 10
/etc/nowhere/mayfly.toml:21: limits.drain_second: is not a known field; did you mean `drain_seconds`?
/etc/nowhere/mayfly.toml:23: keys.token_publish_seconds: is less than key_set_max_age_seconds, so a cached key set would lack a key that signs; write at least 300
/etc/nowhere/mayfly.toml:25: audit_sink[0].kind: `kafka` is not known; write one of "file", "syslog", "https"
/etc/nowhere/mayfly.toml:28: telemetry.format: `xml` is not known; write one of "text", "json""#;
    let without_log: Vec<&str> = problems.lines().filter(|line| !line.contains("telemetry.log")).collect();
    assert_eq!(without_log.join("\n").replace("is text;", "is a text;"), want);
    assert!(problems.contains("mayfly.toml:27: telemetry.log: `info,==` is no filter"), "{problems}");
}

#[test]
fn one_tenant_may_have_half_of_what_is_at_work_and_no_more() {
    let parsed = |limits: &str| parse(&format!("{HEAD}[limits]\n{limits}\n"));
    let shares = |limits: &str| parsed(limits).expect(limits).limits.requests_at_work_per_tenant();
    assert_eq!(shares("requests_at_work = 9"), 3, "a quarter, and never none");
    assert_eq!(shares("requests_at_work = 9\nrequests_at_work_per_tenant = 5"), 5);
    let problems = parsed("requests_at_work = 9\nrequests_at_work_per_tenant = 6").expect_err("too much").to_string();
    assert!(
        problems.contains(
            "limits.requests_at_work_per_tenant: is more than half of requests_at_work; write at most 5, or 0 for a quarter"
        ),
        "{problems}"
    );
}

#[test]
fn a_syntax_error_names_its_line() {
    let problems = parse("data_dir = \"data\"\n[seal\n").expect_err("syntax");
    assert_eq!(problems.found()[0].line, 2, "{problems}");
}

#[test]
fn an_empty_file_says_what_is_needed() {
    let problems = parse("").expect_err("empty");
    let fields: Vec<&str> = problems.found().iter().map(|p| p.field.as_str()).collect();
    assert_eq!(fields, ["data_dir", "public_url", "seal.key_file"]);
}

#[test]
fn admin_is_on_loopback_and_unix_sockets_only_unless_listed() {
    let services = |listener: &str| {
        parse(&format!("{HEAD}[[listener]]\n{listener}\n")).expect(listener).listeners[0].services.clone()
    };
    for local in ["address = \"127.0.0.1:1\"", "address = \"[::1]:1\"", "unix = \"/run/a.sock\""] {
        assert!(services(local).contains(&Service::Admin), "{local}");
    }
    assert!(!services("address = \"0.0.0.0:1\"").contains(&Service::Admin));
    assert!(services("address = \"0.0.0.0:1\"\nservices = [\"admin\"]").contains(&Service::Admin));
    assert_eq!(services("address = \"127.0.0.1:1\"\nbehind_proxy = true"), [Service::Http]);
}

#[test]
fn relative_paths_count_from_the_file_and_the_issuer_from_the_public_url() {
    let config = parse(HEAD).expect("head");
    assert_eq!(config.data_dir, Path::new("/etc/nowhere/data"));
    assert_eq!(config.public_url.issuer(&"acme".parse().expect("name")), "https://mayfly.example.com/t/acme");
    assert_eq!(config.trust_domain.of_tenant(&"acme".parse().expect("name")), "acme.mayfly.internal");
}

#[test]
fn a_trust_domain_covers_what_lies_under_it_and_nothing_that_only_ends_alike() {
    let base = TrustDomain::default();
    assert!(base.covers("mayfly.internal") && base.covers("acme.mayfly.internal"));
    assert!(!base.covers("notmayfly.internal") && !base.covers("mayfly.internal.evil") && !base.covers("internal"));
    assert!("x".repeat(191).parse::<TrustDomain>().is_ok() && "x".repeat(192).parse::<TrustDomain>().is_err());
}

#[test]
fn a_key_that_others_may_read_is_refused_with_its_mode_and_a_mend() {
    let folder = tempfile::tempdir().expect("folder");
    let (certificate, key) = (folder.path().join("server.pem"), folder.path().join("server.key"));
    std::fs::write(&certificate, "").expect("write");
    std::fs::write(&key, "").expect("write");
    let text = format!("{HEAD}[tls]\ncertificate_file = \"server.pem\"\nkey_file = \"server.key\"\n");
    let file = folder.path().join("mayfly.toml");
    for (mode, fine) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o644, false)] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).expect("mode");
        let outcome = Config::parse(&text, &file);
        // Root may own a key that one group reads.
        let fine = fine || (mode == 0o640 && rustix::process::getuid().is_root());
        assert_eq!(outcome.is_ok(), fine, "{mode:o}");
        if let Err(problems) = outcome {
            let text = problems.to_string();
            assert!(text.contains(&format!("has mode {mode:04o}")) && text.contains("chmod 0600"), "{text}");
        }
    }
}

#[test]
fn an_anchor_lies_outside_the_data_folder_and_beside_the_seal_key_unless_told_otherwise() {
    let config = parse(HEAD).expect("reads");
    let SealSource::KeyFile(key) = &config.seal else { panic!("a file") };
    assert_eq!(config.anchor, key.with_file_name("data.anchor"));
    let given = parse(&format!("{HEAD}store.anchor = \"/elsewhere/anchor\"\n")).expect("reads");
    assert_eq!(given.anchor, Path::new("/elsewhere/anchor"));
    let inside = parse(&format!("{HEAD}store.anchor = \"data/anchor\"\n")).expect_err("inside").to_string();
    assert!(inside.contains("store.anchor: lies inside data_dir") && inside.contains("move it out"), "{inside}");
    let key = parse(&format!("{HEAD}store.anchor = \"seal.key\"\n")).expect_err("the key").to_string();
    assert!(key.contains("store.anchor: is the seal key"), "{key}");
}

#[test]
fn a_seal_key_inside_the_data_folder_is_refused() {
    let problems = parse(&HEAD.replace("\"seal.key\"", "\"data/seal.key\"")).expect_err("inside").to_string();
    assert!(problems.contains(":3: seal.key_file: lies inside data_dir"), "{problems}");
}

#[test]
fn the_dev_configuration_is_on_loopback_only() {
    for port in [0, 7443, u16::MAX] {
        let config = Config::dev(Path::new("/data"), port);
        assert!(config.metrics.ip().is_loopback());
        assert!(config.metrics.port() != port || port == 0);
        assert!(matches!(config.listeners[0].socket, Socket::Tls(address) if address.ip().is_loopback()));
    }
}

#[test]
fn a_password_in_a_url_is_refused_and_not_repeated() {
    let sink = "[[audit_sink]]\nname = \"siem\"\nkind = \"https\"\nurl = \"https://user:hunter2@siem.example.com/\"\n";
    let problems = parse(&format!("{HEAD}{sink}")).expect_err("refused").to_string();
    assert!(problems.contains("holds a user or password") && !problems.contains("hunter2"), "{problems}");
}

fn issuer(more: &str) -> Result<Issuer, String> {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("keys.json"), "{}").expect("written");
    let text =
        format!("{HEAD}[[issuer]]\nname = \"ci\"\naudience = \"https://mayfly\"\njwks_file = \"keys.json\"\n{more}\n");
    let config = Config::parse(&text, &folder.path().join("mayfly.toml")).map_err(|problems| problems.to_string())?;
    Ok(config.issuers.into_iter().next().expect("one"))
}

#[test]
fn a_file_of_issuers_alone_has_nothing_else_and_all_its_problems_are_told() {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("keys.json"), "{}").expect("written");
    let file = folder.path().join("issuers.toml");
    let good = "[[issuer]]\nname = \"ci\"\nurl = \"https://gitlab.com\"\naudience = \"https://mayfly\"\n\
                jwks_file = \"keys.json\"\n";
    std::fs::write(&file, good).expect("written");
    let issuers = Config::load_issuers(&file).expect("sound");
    assert_eq!(issuers.iter().map(|issuer| issuer.rules.name.as_str()).collect::<Vec<_>>(), ["ci"]);
    std::fs::write(&file, format!("data_dir = \"/x\"\n{good}[[issuer]]\nname = \"ci\"\n")).expect("written");
    let told = Config::load_issuers(&file).expect_err("three problems").to_string();
    for want in ["issuers.toml:1: data_dir: is not a known field", "issuers.toml:7: ", "url: is missing"] {
        assert!(told.contains(want), "{told}");
    }
}

#[test]
fn an_issuer_of_a_public_service_has_its_kind_and_its_ways_by_its_host() {
    for (url, kind, reuse) in [
        ("https://token.actions.githubusercontent.com", IssuerKind::Github, Reuse::Single),
        ("https://token.actions.githubusercontent.com/octo-enterprise", IssuerKind::Github, Reuse::Single),
        ("https://gitlab.com", IssuerKind::Gitlab, Reuse::OncePerTaskKey),
        ("https://oidc.circleci.com/org/2f3e", IssuerKind::Circleci, Reuse::OncePerTaskKey),
        ("https://agent.buildkite.com", IssuerKind::Buildkite, Reuse::Single),
    ] {
        let known = issuer(&format!("url = \"{url}\"")).expect(url);
        assert_eq!((known.rules.kind, known.rules.reuse), (kind, reuse), "{url}");
        assert_eq!(known.rules.algorithms, [SignatureAlgorithm::Rs256]);
        assert!(known.rules.allow_events.is_empty() && !known.rules.allow_ssh_rerun);
        // Whoever calls it something else would lose what protects its customers from each other.
        let told = issuer(&format!("url = \"{url}\"\nkind = \"generic\"")).expect_err(url);
        assert!(told.contains("which all of its customers share"), "{told}");
    }
    let own =
        issuer("url = \"https://gitlab.acme.example\"\nkind = \"gitlab\"\nreuse = \"until-expiry\"").expect("own");
    assert_eq!((own.rules.kind, own.rules.reuse), (IssuerKind::Gitlab, Reuse::UntilExpiry));
}

#[test]
fn what_is_wrong_with_an_issuer_is_told_at_once_with_its_line() {
    let text = format!(
        "{HEAD}[[issuer]]\nname = \"CI\"\nurl = \"http://issuer.example\"\nkind = \"gitea\"\nalgorithms = [\"HS256\"]\n\
         max_age_seconds = 5\nreuse = \"often\"\nscopes = 1\n[[issuer]]\nname = \"a\"\n"
    );
    let told = parse(&text).expect_err("problems").to_string();
    for line in [
        ":4: issuer[0].audience: is missing",
        ":5: issuer[0].name: `CI` has a character",
        ":6: issuer[0].url: `http://issuer.example` is no https URL",
        ":7: issuer[0].kind: `gitea` is not known",
        ":8: issuer[0].algorithms[0]: `HS256` is not known",
        ":9: issuer[0].max_age_seconds: is out of range",
        ":10: issuer[0].reuse: `often` is not known",
        ":11: issuer[0].scopes: is not a known field",
        ":12: issuer[1].url: is missing",
        ":12: issuer[1].audience: is missing",
    ] {
        assert!(told.contains(line), "{line}\n{told}");
    }
    for (more, says) in [
        ("url = \"https://x.example\"", "kind: is missing"),
        ("url = \"https://x.example?a=b\"\nkind = \"generic\"", "is no https URL"),
        ("url = \"https://u:p@x.example\"\nkind = \"generic\"", "is no https URL"),
        (
            "url = \"https://x.example\"\nkind = \"generic\"\nallow_events = [\"workflow_run\"]",
            "is for kind = \"github\"",
        ),
        ("url = \"https://x.example\"\nkind = \"github\"\nallow_events = [\"push\"]", "is allowed in any case"),
        ("url = \"https://x.example\"\nkind = \"github\"\nallow_ssh_rerun = true", "is for kind = \"circleci\""),
        ("url = \"https://x.example\"\nkind = \"spiffe\"", "trust_domain: is missing"),
        ("url = \"https://x.example\"\nkind = \"spiffe\"\ntrust_domain = \"spiffe://x\"", "is no trust domain"),
        ("url = \"https://x.example\"\nkind = \"generic\"\ntrust_domain = \"x\"", "is for kind = \"spiffe\""),
        ("url = \"https://oidc.circleci.com\"", "names no organisation"),
        ("url = \"https://x.example\"\nkind = \"generic\"\nallow_private = true", "has no use beside jwks_file"),
        ("url = \"https://x.example\"\nkind = \"generic\"\nca_file = \"keys.json\"", "is given beside jwks_file"),
        ("url = \"https://x.example\"\nkind = \"generic\"\nalgorithms = []", "is empty"),
    ] {
        let told = issuer(more).expect_err(more);
        assert!(told.contains(says), "{more}: {told}");
    }
    let twice = "url = \"https://x.example\"\nkind = \"generic\"\n[[issuer]]\nname = \"ci\"\nurl = \"https://x.example\"\nkind = \"generic\"\naudience = \"a\"\njwks_file = \"keys.json\"";
    let told = issuer(twice).expect_err("twice");
    assert!(told.contains("is taken by an issuer above") && told.contains("is that of an issuer above"), "{told}");
}

const SIGN_IN: &str = "[[listener]]\naddress = \"127.0.0.1:1\"\nservices = [\"sign_in\"]\n[operators.sign_in]\n\
    issuer = \"https://idp.example\"\nclient_id = \"mayfly\"\njwks_file = \"/etc/hostname\"\n\
    [[operators.sign_in.rule]]\noperator = \"oncall\"\nclaims = { groups = [\"sre\"] }\n";

#[test]
fn people_and_workloads_have_issuers_of_their_own() {
    let config = parse(&format!("{HEAD}{SIGN_IN}")).map_err(|problems| problems.to_string()).expect("reads");
    let declared = config.sign_in.expect("declared");
    assert_eq!((declared.rules.life.as_secs(), declared.rules.issuer.max_age.as_secs()), (28_800, 600));
    assert_eq!(declared.rules.scopes, ["openid", "email"]);
    let shared = "[[issuer]]\nname = \"idp\"\nkind = \"generic\"\nurl = \"https://idp.example/\"\naudience = \"a\"\n\
        jwks_file = \"/etc/hostname\"\n";
    let problems = parse(&format!("{HEAD}{SIGN_IN}{shared}")).expect_err("shared").to_string();
    assert!(problems.contains("operators.sign_in.issuer"), "{problems}");
}

#[test]
fn what_is_declared_is_offered_and_what_is_offered_is_declared() {
    let unoffered = SIGN_IN.replace("\"sign_in\"", "\"admin\"");
    let undeclared = "[[listener]]\naddress = \"127.0.0.1:1\"\nservices = [\"scim\"]\n";
    for (text, field) in [(unoffered.as_str(), "operators.sign_in"), (undeclared, "scim")] {
        let problems = parse(&format!("{HEAD}{text}")).expect_err("half of it").to_string();
        assert!(problems.contains(field), "{problems}");
    }
}

#[test]
fn a_rule_says_who_somebody_is() {
    for claims in ["{ email_verified = \"true\" }", "{}", "{ groups = [] }", "{ groups = \"\" }", "\"sre\""] {
        let text = SIGN_IN.replace("{ groups = [\"sre\"] }", claims);
        assert!(parse(&format!("{HEAD}{text}")).is_err(), "{claims}");
    }
}

#[test]
fn identities_are_served_on_unix_sockets_for_named_tenants_only() {
    let problems = |listener: &str| match parse(&format!("{HEAD}[[listener]]\n{listener}\n")) {
        Ok(config) => {
            let listener = &config.listeners[0];
            Ok((listener.services.clone(), listener.tenants.iter().map(ToString::to_string).collect::<Vec<_>>()))
        }
        Err(problems) => Err(problems.to_string()),
    };
    let unix = |services: &str, more: &str| problems(&format!("unix = \"/run/w.sock\"\nservices = {services}\n{more}"));
    let both = "[\"workload_api\", \"sds\"]";
    let (services, tenants) = unix(both, "tenants = [\"b\", \"a\"]").expect("good");
    assert_eq!((services, tenants), (vec![Service::WorkloadApi, Service::Sds], vec!["b".to_owned(), "a".to_owned()]));
    assert!(unix(both, "").expect_err("no tenant").contains("tenants"));
    assert!(unix(both, "tenants = []").expect_err("no tenant").contains("tenants"));
    assert!(unix(both, "tenants = [\"a\", \"a\"]").expect_err("twice").contains("twice"));
    assert!(unix(both, "tenants = [\"A b\"]").expect_err("no name").contains("tenants[0]"));
    assert!(unix("[\"broker\"]", "tenants = [\"a\"]").expect_err("not needed").contains("leave it out"));
    let many: Vec<String> = (0..17).map(|n| format!("\"t{n}\"")).collect();
    assert!(unix(both, &format!("tenants = [{}]", many[..16].join(","))).is_ok());
    assert!(unix(both, &format!("tenants = [{}]", many.join(","))).is_err());
    let tcp = format!("address = \"127.0.0.1:0\"\nservices = {both}\ntenants = [\"a\"]");
    assert!(problems(&tcp).expect_err("not local").contains("Unix socket"));
}
