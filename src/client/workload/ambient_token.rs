//! Fetches the identity token that a place gives to what runs there.

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use reqwest::Url;
use rustls::RootCertStore;
use serde_json::Value;
use zeroize::Zeroizing;

use super::{Ambient, Source, pem};

/// A platform that does not give an identity token.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no identity token from {platform}: {why}")]
pub struct NoToken {
    /// Its name for people.
    pub platform: &'static str,
    /// What it said, or what is missing. Nothing secret.
    pub why: String,
}

/// The identity token of a platform, for `audience`: see [`super::ambient()`]. 10 seconds and 16 KiB at most.
///
/// # Errors
/// When the platform does not give it.
pub async fn ambient_token(ambient: &Ambient, audience: &str) -> Result<Zeroizing<String>, NoToken> {
    let token = match &ambient.source {
        Ok(Source::Variable(token)) => Ok(token.clone()),
        Ok(Source::File(path)) => read_token(path),
        Ok(Source::Request { url, bearer }) => request(url, bearer, audience).await,
        Ok(Source::Agent) => agent(audience).await,
        Err(missing) => Err((*missing).to_owned()),
    };
    let token = token.map_err(|why| NoToken { platform: ambient.platform.word(), why })?;
    Ok(Zeroizing::new(token.trim().to_owned()))
}

/// The text of a file with an identity token, 16 KiB at most.
///
/// # Errors
/// Why it cannot be read, with its path.
pub fn read_token(path: &Path) -> Result<Zeroizing<String>, String> {
    let mut text = Zeroizing::new(String::with_capacity(TOKEN_MOST));
    let limit = u64::try_from(TOKEN_MOST).unwrap_or(u64::MAX);
    let file = std::fs::File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    file.take(limit).read_to_string(&mut text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text)
}

/// As GitHub's runners give it: a JSON object with `value`.
async fn request(url: &str, bearer: &str, audience: &str) -> Result<Zeroizing<String>, String> {
    let mut url = Url::parse(url).map_err(|error| format!("the request URL: {error}"))?;
    let is_local = matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"));
    if url.scheme() != "https" && !(url.scheme() == "http" && is_local) {
        return Err("the request URL is not https".into());
    }
    url.query_pairs_mut().append_pair("audience", audience);
    let said = |error: reqwest::Error| error.without_url().to_string();
    let client = reqwest::Client::builder()
        .use_preconfigured_tls(tls()?)
        .redirect(reqwest::redirect::Policy::none())
        .timeout(REQUEST)
        .build()
        .map_err(said)?;
    let mut answer = client.get(url).bearer_auth(bearer).send().await.map_err(said)?;
    if !answer.status().is_success() {
        return Err(format!("the platform answered {}", answer.status()));
    }
    let mut body = Zeroizing::new(Vec::with_capacity(TOKEN_MOST));
    while let Some(chunk) = answer.chunk().await.map_err(said)? {
        if body.len() + chunk.len() > TOKEN_MOST {
            return Err("the answer is too long".into());
        }
        body.extend_from_slice(&chunk);
    }
    let mut value: Value = serde_json::from_slice(&body).map_err(|_| "the answer is no JSON".to_owned())?;
    match value.get_mut("value").map(Value::take) {
        Some(Value::String(token)) => Ok(Zeroizing::new(token)),
        Some(_) | None => Err("the answer has no `value`".into()),
    }
}

async fn agent(audience: &str) -> Result<Zeroizing<String>, String> {
    let mut command = tokio::process::Command::new("buildkite-agent");
    command.args(["oidc", "request-token", "--audience", audience]).stdin(Stdio::null()).kill_on_drop(true);
    let done = tokio::time::timeout(REQUEST, command.output()).await;
    let done = done.map_err(|_| "buildkite-agent does not answer".to_owned())?;
    let done = done.map_err(|error| format!("buildkite-agent: {error}"))?;
    let (out, code) = (Zeroizing::new(done.stdout), done.status);
    if !code.success() {
        return Err(format!("buildkite-agent: {code}"));
    }
    String::from_utf8(out.to_vec()).map(Zeroizing::new).map_err(|_| "buildkite-agent gave no text".into())
}

/// The system's roots: those of `SSL_CERT_FILE`, or of the first bundle where distributions keep it.
fn tls() -> Result<rustls::ClientConfig, String> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let file = named.or_else(|| BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file()));
    let mut roots = RootCertStore::empty();
    if let Some(bytes) = file.and_then(|file| std::fs::read(file).ok()) {
        // A bundle may hold roots that we cannot use.
        roots.add_parsable_certificates(pem::certificates(&bytes).unwrap_or_default());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth())
}

const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const TOKEN_MOST: usize = 16 * 1024;
const REQUEST: Duration = Duration::from_secs(10);
