//! The device authorization grant (RFC 8628): a code is shown here, entered elsewhere, and waited for.

use std::{fs, path::Path, sync::Arc, time::Duration};

use reqwest::{Client, Response, Url, redirect};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::Instant;

use crate::{
    cli::failure::{Failure, Outcome},
    client::pem,
    model::{Chain, secret::SecretText},
    pb,
    settings::read::system_roots,
};

/// A provider, as its discovery document has it.
#[derive(Debug)]
pub struct Provider {
    client: Client,
    authorization: Url,
    token: Url,
    client_id: String,
    scope: String,
}

/// What a person enters, and where.
#[derive(Clone, Debug)]
pub struct Code {
    /// The page.
    pub page: String,
    /// The code.
    pub user_code: String,
    /// Page and code in one, where the provider has that.
    pub link: Option<String>,
    device_code: Arc<SecretText>,
    pause: Duration,
    life: Duration,
}

/// What the provider says to one poll.
enum Said {
    Granted(SecretText),
    Pending,
    SlowDown,
    /// Nothing, or nothing that can be read: RFC 8628 section 3.5 has the client come less often.
    Nothing,
    Refused(String),
}

/// How long to wait, poll after poll.
#[derive(Debug)]
struct Polling {
    pause: Duration,
    life: Duration,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    device_authorization_endpoint: Option<String>,
    token_endpoint: Option<String>,
}

#[derive(Deserialize)]
struct Begun {
    device_code: String,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_in: u64,
    interval: Option<u64>,
}

#[derive(Deserialize)]
struct Polled {
    id_token: Option<String>,
    error: Option<String>,
}

impl Provider {
    /// Finds the provider's endpoints.
    ///
    /// # Errors
    /// When there is no such provider, or it has no device flow.
    pub async fn find(told: &pb::GetSignInResponse, ca: Option<&Path>) -> Outcome<Self> {
        let client = client(ca)?;
        let issuer = told.issuer.as_str();
        let place = url(&format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')))?;
        let answer = client.get(place).send().await.map_err(|error| unreachable(&error))?;
        if !answer.status().is_success() {
            return Err(no(format!("its discovery document is answered with {}", answer.status())));
        }
        let found: Discovery = read(answer).await?;
        if found.issuer != issuer {
            return Err(no("its discovery document is of another issuer"));
        }
        let endpoint = |place: Option<String>| {
            place.ok_or_else(|| no("it has no device flow (RFC 8628)")).and_then(|place| url(&place))
        };
        Ok(Self {
            client,
            authorization: endpoint(found.device_authorization_endpoint)?,
            token: endpoint(found.token_endpoint)?,
            client_id: told.client_id.clone(),
            scope: told.scopes.join(" "),
        })
    }

    /// Asks for a code (section 3.1).
    ///
    /// # Errors
    /// When the provider refuses.
    pub async fn begin(&self, nonce: &str) -> Outcome<Code> {
        let form = [("client_id", self.client_id.as_str()), ("scope", &self.scope), ("nonce", nonce)];
        let answer = self.post(&self.authorization, &form).await.map_err(|error| unreachable(&error))?;
        if !answer.status().is_success() {
            let why = read::<Polled>(answer).await.ok().and_then(|said| said.error);
            return Err(no(format!("it gives no code: {}", why.unwrap_or_else(|| "no reason".to_owned()))));
        }
        let begun: Begun = read(answer).await?;
        // Elsewhere somebody could look over the shoulder, or put a page of his own in between.
        url(&begun.verification_uri)?;
        let pause = Duration::from_secs(begun.interval.unwrap_or(PAUSE).clamp(1, PAUSE_MOST));
        Ok(Code {
            page: begun.verification_uri,
            user_code: begun.user_code,
            link: begun.verification_uri_complete.filter(|link| url(link).is_ok()),
            device_code: Arc::new(SecretText::new(begun.device_code)),
            pause,
            life: Duration::from_secs(begun.expires_in.min(LIFE_MOST)),
        })
    }

    /// Waits until the person has entered the code (section 3.4).
    ///
    /// # Errors
    /// When the person or the provider says no, or the time for it is over.
    pub async fn wait_for(&self, code: &Code) -> Outcome<SecretText> {
        let mut polling = Polling { pause: code.pause, life: code.life };
        let began = Instant::now();
        let mut pause = polling.pause;
        loop {
            tokio::time::sleep(pause).await;
            let said = self.poll(code).await;
            if let Said::Granted(token) = said {
                return Ok(token);
            }
            pause = polling.next(&said, began.elapsed())?;
        }
    }

    async fn poll(&self, code: &Code) -> Said {
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", code.device_code.expose()),
            ("client_id", &self.client_id),
        ];
        let Ok(answer) = self.post(&self.token, &form).await else { return Said::Nothing };
        let Ok(said) = read::<Polled>(answer).await else { return Said::Nothing };
        match (said.id_token, said.error.as_deref()) {
            (Some(token), None) => Said::Granted(SecretText::new(token)),
            (_, Some("authorization_pending")) => Said::Pending,
            (_, Some("slow_down")) => Said::SlowDown,
            (_, Some("access_denied")) => Said::Refused("it was refused on the page".to_owned()),
            (_, Some("expired_token")) => Said::Refused(OVER.to_owned()),
            (_, Some(other)) => Said::Refused(format!("it answers {other}")),
            (None, None) => Said::Refused("it gives no ID token; `openid` must be among the scopes".to_owned()),
        }
    }

    async fn post(&self, place: &Url, form: &[(&str, &str)]) -> reqwest::Result<Response> {
        let mut encoded = place.clone();
        encoded.set_query(None);
        encoded.query_pairs_mut().extend_pairs(form);
        let body = encoded.query().unwrap_or_default().to_owned();
        let kind = ("content-type", "application/x-www-form-urlencoded");
        self.client
            .post(place.clone())
            .header(kind.0, kind.1)
            .header("accept", "application/json")
            .body(body)
            .send()
            .await
    }
}

impl Polling {
    /// How long to wait before the next poll (RFC 8628 section 3.5).
    fn next(&mut self, said: &Said, elapsed: Duration) -> Outcome<Duration> {
        match said {
            Said::Granted(_) | Said::Pending => {}
            Said::SlowDown => self.pause += SLOWER,
            Said::Nothing => self.pause = (self.pause * 2).min(Duration::from_secs(PAUSE_MOST)),
            Said::Refused(why) => return Err(no(why.clone())),
        }
        if elapsed + self.pause >= self.life { Err(no(OVER)) } else { Ok(self.pause) }
    }
}

async fn read<T: DeserializeOwned>(mut answer: Response) -> Outcome<T> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| unreachable(&error))? {
        if bytes.len() + chunk.len() > ANSWER_MAX_BYTES {
            return Err(no("its answer is longer than 100 KiB"));
        }
        bytes.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&bytes).map_err(|_| no("its answer is not what the standard asks for"))
}

fn client(ca: Option<&Path>) -> Outcome<Client> {
    let ca = ca.map(Path::to_path_buf).or_else(system_roots);
    let ca = ca.ok_or_else(|| Failure::Usage("the system has no bundle of roots: give --provider-ca FILE".into()))?;
    let text = fs::read(&ca).map_err(|error| Failure::Usage(format!("{}: {error}", ca.display())))?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(pem::certificates(&text).unwrap_or_default());
    if roots.is_empty() {
        return Err(Failure::Usage(format!("{} holds no certificate", ca.display())));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = builder.map_err(|error| Failure::Internal(error.to_string()))?;
    let tls = tls.with_root_certificates(roots).with_no_client_auth();
    let built = Client::builder()
        .use_preconfigured_tls(tls)
        .redirect(redirect::Policy::none())
        .https_only(true)
        .timeout(ANSWER_TIME)
        .build();
    built.map_err(|error| Failure::Internal(error.to_string()))
}

fn url(text: &str) -> Outcome<Url> {
    let plain = Url::parse(text).ok().filter(|url| url.scheme() == "https" && url.has_host());
    plain.ok_or_else(|| no("it names a place that is not https"))
}

fn unreachable(error: &reqwest::Error) -> Failure {
    Failure::Negative(format!("the identity provider cannot be reached: {}", Chain(error)))
}

fn no(why: impl std::fmt::Display) -> Failure {
    Failure::Negative(format!("the identity provider: {why}"))
}

const OVER: &str = "the time for the code is over; run `mayfly login` again";
/// Seconds between polls when the provider does not say (section 3.2), and at most.
const PAUSE: u64 = 5;
const PAUSE_MOST: u64 = 60;
/// What a provider adds by `slow_down` (section 3.5).
const SLOWER: Duration = Duration::from_secs(5);
/// Seconds that a code is waited for at most.
const LIFE_MOST: u64 = 1_800;
const ANSWER_TIME: Duration = Duration::from_secs(10);
const ANSWER_MAX_BYTES: usize = 100 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_client_that_is_told_to_slow_down_stays_slow() {
        let mut polling = Polling { pause: seconds(5), life: seconds(600) };
        assert_eq!(polling.next(&Said::Pending, seconds(5)).expect("goes on"), seconds(5));
        assert_eq!(polling.next(&Said::SlowDown, seconds(10)).expect("goes on"), seconds(10));
        assert_eq!(polling.next(&Said::Pending, seconds(20)).expect("goes on"), seconds(10));
        assert_eq!(polling.next(&Said::Nothing, seconds(30)).expect("goes on"), seconds(20));
        assert_eq!(polling.next(&Said::Nothing, seconds(50)).expect("goes on"), seconds(40));
        assert_eq!(polling.next(&Said::Nothing, seconds(90)).expect("goes on"), seconds(60), "no longer than a minute");
    }

    #[test]
    fn a_code_is_not_polled_for_when_its_time_is_over_or_it_was_refused() {
        let mut polling = Polling { pause: seconds(5), life: seconds(600) };
        assert!(polling.next(&Said::Pending, seconds(594)).is_ok());
        assert!(polling.next(&Said::Pending, seconds(595)).is_err());
        let refused = polling.next(&Said::Refused("no".into()), seconds(1)).expect_err("refused");
        assert!(refused.report().contains("no"));
    }

    #[test]
    fn only_places_with_https_are_gone_to() {
        assert!(url("https://idp.example/device").is_ok());
        for bad in ["http://idp.example/device", "javascript:alert(1)", "idp.example", ""] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }
}
