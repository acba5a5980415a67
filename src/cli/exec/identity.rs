//! Who exec is to the broker: what was named, or what the place where it runs gives it.

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::Url;
use rustls::RootCertStore;
use serde_json::Value;
use zeroize::Zeroizing;

use super::need::Job;
use crate::{
    cli::{
        failure::{Failure, Outcome},
        session::Session,
    },
    client::{
        Address, Ambient, CallError, ClientConfig, FederatedCalls, Identity, Link, Platform, Source, ambient, pem,
    },
    pb,
};

/// What was chosen.
#[derive(Debug)]
pub enum Who {
    /// The user of this process, at the broker's socket.
    User,
    /// A client certificate.
    Certificate,
    /// An identity token, with a key made for this run.
    Federated(Ambient),
}

/// All that was found, and what was chosen of it.
#[derive(Debug)]
pub struct Chosen {
    /// The choice; `None` when there is none.
    pub who: Option<Who>,
    /// Whether flags or their variables made it.
    pub is_named: bool,
    /// Platforms, usable or not.
    pub found: Vec<Ambient>,
}

impl Chosen {
    /// Chooses: what was named first, then what the place gives, then what lies around by default.
    #[must_use]
    pub fn of(session: &Session, token_file: Option<&Path>) -> Self {
        let global = session.global();
        let variable = |name: &str| std::env::var(name).ok();
        let found = ambient(variable, Path::is_file);
        let given = token_file.map(|path| Ambient { platform: Platform::Given, source: Ok(Source::File(path.into())) });
        if let Some(given) = given {
            return Self { who: Some(Who::Federated(given)), is_named: true, found };
        }
        if global.names_identity() {
            return Self { who: Some(Who::Certificate), is_named: true, found };
        }
        if matches!(global.server, Address::Unix(_)) {
            return Self { who: Some(Who::User), is_named: true, found };
        }
        let usable = found.iter().find(|ambient| ambient.source.is_ok()).cloned();
        let who = match usable {
            Some(ambient) => Some(Who::Federated(ambient)),
            None => session.identity_folder().map(|_| Who::Certificate),
        };
        Self { who, is_named: false, found }
    }

    /// What was found and chosen, for people; nothing secret.
    #[must_use]
    pub fn explain(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .found
            .iter()
            .map(|ambient| match &ambient.source {
                Ok(source) => format!("found: {}, {}", ambient.platform.word(), how(source)),
                Err(missing) => format!("found: {}, but {missing}", ambient.platform.word()),
            })
            .collect();
        if lines.is_empty() {
            lines.push("found: no platform that gives identity tokens".into());
        }
        let by = if self.is_named { ", since it was named" } else { "" };
        lines.push(match &self.who {
            Some(Who::User) => format!("chosen: the user of this process, at the broker's socket{by}"),
            Some(Who::Certificate) => format!("chosen: a client certificate{by}"),
            Some(Who::Federated(ambient)) => format!("chosen: {}{by}", ambient.platform.word()),
            None => "chosen: nothing".into(),
        });
        lines
    }

    /// The way to the broker as whom was chosen.
    ///
    /// # Errors
    /// When there is no identity, or it cannot be had.
    pub async fn link(&self, session: &Session, audience: &str) -> Outcome<Arc<Link>> {
        match &self.who {
            None => Err(Failure::Usage(format!(
                "no identity: {}; or give --identity DIR, --cert and --key, or --id-token-file",
                self.explain().join("; ")
            ))),
            Some(Who::User | Who::Certificate) => certificate(session),
            Some(Who::Federated(ambient)) => {
                let token = token(ambient, audience).await?;
                federated(session, &token)
            }
        }
    }

    /// Tokens for the command cannot be bound to a key that only this process has.
    pub fn unbind(&self, job: &mut Job) {
        if !matches!(self.who, Some(Who::Federated(_))) {
            return;
        }
        for need in &mut job.needs {
            let wanted = &mut need.wanted;
            let is_token = matches!(wanted.kind, pb::CredentialKind::Jwt | pb::CredentialKind::Opaque);
            if is_token && wanted.binding == pb::Binding::Unspecified {
                wanted.binding = pb::Binding::None;
            }
        }
    }
}

/// Files of the identity are read anew for each connection.
fn certificate(session: &Session) -> Outcome<Arc<Link>> {
    let global = session.global().clone();
    // What is wrong now is said at once and as usage.
    global.config()?;
    let config = move || {
        global.config().map_err(|failure| {
            if let Failure::Identity(error) = failure {
                CallError::Identity(error)
            } else {
                CallError::Config(failure.to_string())
            }
        })
    };
    Ok(Arc::new(Link::new(Box::new(config), FederatedCalls::default())))
}

/// With a key that is made for this run and thrown away.
fn federated(session: &Session, token: &str) -> Outcome<Arc<Link>> {
    let carried = FederatedCalls::new(token).map_err(|wrong| Failure::Usage(format!("the identity token {wrong}")))?;
    let identity = Identity::ephemeral().map_err(|error| Failure::Internal(error.to_string()))?;
    let global = session.global();
    let config = ClientConfig {
        address: global.server.clone(),
        ca_pem: session.ca_pem()?,
        identity: Some(identity),
        server_name: global.server_name.clone(),
    };
    Ok(Arc::new(Link::new(Box::new(move || Ok(config.clone())), carried)))
}

/// The identity token of a platform, for `audience`.
///
/// # Errors
/// When the platform does not give it.
pub async fn token(ambient: &Ambient, audience: &str) -> Outcome<Zeroizing<String>> {
    let platform = ambient.platform.word();
    let token = match &ambient.source {
        Ok(Source::Variable(token)) => Ok(token.clone()),
        Ok(Source::File(path)) => read(path),
        Ok(Source::Request { url, bearer }) => request(url, bearer, audience).await,
        Ok(Source::Agent) => agent(audience).await,
        Err(missing) => Err((*missing).to_owned()),
    };
    let token = token.map_err(|why| Failure::Negative(format!("no identity token from {platform}: {why}")))?;
    Ok(Zeroizing::new(token.trim().to_owned()))
}

/// What a token says of itself. Not verified: for people to compare with their bindings.
#[must_use]
pub fn claims(token: &str) -> Option<Value> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&claims).ok()
}

fn how(source: &Source) -> String {
    match source {
        Source::Variable(_) => "with a token in the environment".into(),
        Source::File(path) => format!("with a token in {}", path.display()),
        Source::Request { .. } => "with a token on request".into(),
        Source::Agent => "with a token from buildkite-agent".into(),
    }
}

fn read(path: &Path) -> Result<Zeroizing<String>, String> {
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
