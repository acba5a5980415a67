//! Who exec is to the broker: what was named, or what the place where it runs gives it.

use std::{path::Path, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use zeroize::Zeroizing;

use super::need::Job;
use crate::{
    cli::{
        failure::{Failure, Outcome},
        session::Session,
    },
    client::{
        Address, Ambient, CallError, ClientConfig, FederatedCalls, Link, Platform, Source, ambient, ambient_token,
        read_token,
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
                match session.global().server {
                    Address::Unix(_) => keyless(session, &token, &ambient.source),
                    Address::Https { .. } => federated(session, &token),
                }
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
    let global = session.global();
    let config = ClientConfig {
        address: global.server.clone(),
        ca_pem: session.ca_pem()?,
        identity: None,
        server_name: global.server_name.clone(),
    };
    Ok(Arc::new(Link::federated(config, token)?))
}

/// Over a socket there is no key that goes on in the token's place. One in a file is read anew for each connection: the
/// platform renews it.
fn keyless(session: &Session, token: &str, source: &Result<Source, &'static str>) -> Outcome<Arc<Link>> {
    let carried =
        FederatedCalls::keyless(token).map_err(|wrong| Failure::Usage(format!("the identity token {wrong}")))?;
    let file = match source {
        Ok(Source::File(path)) => Some(path.clone()),
        Ok(Source::Variable(_) | Source::Request { .. } | Source::Agent) | Err(_) => None,
    };
    let (address, calls) = (session.global().server.clone(), carried.clone());
    let config = move || {
        if let Some(path) = &file {
            let token = read_token(path).map_err(CallError::Config)?;
            calls.carry_token(&token).map_err(|wrong| CallError::Config(format!("{}: {wrong}", path.display())))?;
        }
        Ok(ClientConfig { address: address.clone(), ca_pem: Vec::new(), identity: None, server_name: None })
    };
    Ok(Arc::new(Link::new(Box::new(config), carried)))
}

/// The identity token of a platform, for `audience`.
///
/// # Errors
/// When the platform does not give it.
pub async fn token(ambient: &Ambient, audience: &str) -> Outcome<Zeroizing<String>> {
    ambient_token(ambient, audience).await.map_err(|error| Failure::Negative(error.to_string()))
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
