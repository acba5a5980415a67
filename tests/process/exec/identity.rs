use std::{
    io::{Read, Write},
    net::TcpListener,
    process::Command,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::rig::run;
use crate::process::rig::Said;

/// Asks which identity would be used, with nothing in the environment but these.
fn explain(variables: &[(&str, &str)], arguments: &[&str]) -> Said {
    let folder = tempfile::tempdir().expect("folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mayfly"));
    command.current_dir(folder.path()).env_clear().envs(variables.iter().copied());
    command.args(["exec", "--explain-identity"]).args(arguments);
    run(command)
}

fn token() -> String {
    let claims = URL_SAFE_NO_PAD.encode(r#"{"iss":"https://ci.example","sub":"job:1"}"#);
    format!("{}.{claims}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode("{}"))
}

#[test]
fn what_is_found_and_chosen_is_told_without_secrets() {
    let token = token();
    let said = explain(&[], &[]);
    assert!(said.code == 125 && said.out.contains("chosen: nothing"), "{said:?}");
    for (variables, place) in [
        (&[("GITLAB_CI", "true"), ("MAYFLY_ID_TOKEN", token.as_str())][..], "GitLab CI"),
        (&[("CIRCLECI", "true"), ("CIRCLE_OIDC_TOKEN_V2", token.as_str())], "CircleCI"),
        (&[("MAYFLY_ID_TOKEN", token.as_str())], "MAYFLY_ID_TOKEN"),
    ] {
        let said = explain(variables, &[]);
        assert!(said.code == 0 && said.out.contains(&format!("chosen: {place}")), "{said:?}");
        assert!(said.out.contains("\"sub\":\"job:1\""), "{said:?}");
        assert!(!said.out.contains("c2lnbmF0dXJl") && !said.errors.contains("c2lnbmF0dXJl"), "{said:?}");
    }
    for (variables, missing) in [
        (("GITHUB_ACTIONS", "true"), "id-token: write"),
        (("GITLAB_CI", "true"), "id_tokens"),
        (("KUBERNETES_SERVICE_HOST", "10.0.0.1"), "project a service account token"),
    ] {
        let said = explain(&[variables], &[]);
        assert!(said.code == 125 && said.out.contains(missing), "{said:?}");
    }
    let said = explain(&[("MAYFLY_ID_TOKEN", &token)], &["--identity", "/somewhere"]);
    assert!(said.code == 0 && said.out.contains("chosen: a client certificate, since it was named"), "{said:?}");
    let said = explain(&[], &["--server", "unix:///run/m.sock"]);
    assert!(said.code == 0 && said.out.contains("the user of this process"), "{said:?}");
}

#[test]
fn a_token_file_that_is_named_counts_before_all_else() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{}\n", token())).expect("written");
    let named = ["--id-token-file", file.to_str().expect("UTF-8"), "--identity", "/somewhere"];
    let said = explain(&[], &named);
    assert!(said.code == 0 && said.out.contains("job:1"), "{said:?}");
    std::fs::remove_file(&file).expect("removed");
    let said = explain(&[], &named);
    assert!(said.code == 125 && said.errors.contains("no identity token"), "{said:?}");
}

#[test]
fn githubs_runner_is_asked_for_a_token_with_our_audience() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/token?api-version=2", listener.local_addr().expect("bound"));
    let served = std::thread::spawn(move || {
        let mut heads = Vec::new();
        for body in [format!("{{\"value\":\"{}\"}}", token()), "{}".into(), "x".repeat(100_000)] {
            let (mut stream, _) = listener.accept().expect("a request");
            let mut head = vec![0; 4096];
            let count = stream.read(&mut head).expect("a head");
            heads.push(String::from_utf8_lossy(&head[..count]).into_owned());
            let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
            let _ = stream.write_all(reply.as_bytes());
        }
        heads
    });
    let ask = || {
        let variables = [
            ("GITHUB_ACTIONS", "true"),
            ("ACTIONS_ID_TOKEN_REQUEST_URL", url.as_str()),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "runners-own"),
        ];
        explain(&variables, &["--server", "https://broker.example:7443"])
    };
    let said = ask();
    assert!(said.code == 0 && said.out.contains("\"iss\":\"https://ci.example\""), "{said:?}");
    assert!(!said.out.contains("runners-own"), "{said:?}");
    // An answer without a token, and one without end.
    for why in ["has no `value`", "too long"] {
        let said = ask();
        assert!(said.code == 125 && said.errors.contains(why), "{said:?}");
    }
    let heads = served.join().expect("served");
    let audience = "GET /token?api-version=2&audience=https%3A%2F%2Fbroker.example%3A7443 HTTP/1.1";
    assert!(heads[0].starts_with(audience), "{heads:?}");
    assert!(heads[0].to_ascii_lowercase().contains("authorization: bearer runners-own"), "{heads:?}");
}

#[test]
fn a_token_is_not_asked_for_over_plain_http_from_elsewhere() {
    let variables = [
        ("GITHUB_ACTIONS", "true"),
        ("ACTIONS_ID_TOKEN_REQUEST_URL", "http://192.0.2.1/token"),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "x"),
    ];
    let said = explain(&variables, &[]);
    assert!(said.code == 125 && said.errors.contains("not https"), "{said:?}");
}
