//! JSON lines by POST over HTTPS.

use std::{fmt, path::PathBuf, time::Duration};

use http::{HeaderValue, StatusCode, header};
use reqwest::{Client, Url, redirect};
use zeroize::Zeroizing;

use super::{SinkError, SinkEvent, TlsTrust, lines};

/// Where an HTTPS sink posts to.
#[derive(Debug)]
pub struct HttpsSinkConfig {
    /// For logs and metrics.
    pub name: String,
    /// An `https` URL without user and password.
    pub url: String,
    /// Whom to trust.
    pub tls: TlsTrust,
    /// Holds a bearer token (RFC 6750), read for each batch so that it can be replaced at any time.
    pub token_file: Option<PathBuf>,
    /// For one attempt.
    pub deadline: Duration,
}

/// Posts events as `application/x-ndjson`; any 2xx status acknowledges the batch.
///
/// Redirects and proxies are not followed: the token is for one receiver.
pub struct HttpsSink {
    name: String,
    url: Url,
    client: Client,
    token_file: Option<PathBuf>,
    deadline: Duration,
}

impl HttpsSink {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// When the URL or the TLS settings cannot be used.
    pub fn new(config: HttpsSinkConfig) -> Result<Self, SinkError> {
        let url = Url::parse(&config.url).or(Err(SinkError::Url))?;
        if url.scheme() != "https" || !url.username().is_empty() || url.password().is_some() {
            return Err(SinkError::Url);
        }
        let client = Client::builder()
            .use_preconfigured_tls(config.tls.client()?)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .https_only(true)
            .timeout(config.deadline)
            .build()
            .map_err(|error| SinkError::Request(error.without_url()))?;
        let (name, token_file, deadline) = (config.name, config.token_file, config.deadline);
        Ok(Self { name, url, client, token_file, deadline })
    }

    /// The name it was configured with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// See [`super::AnySink::ship`].
    ///
    /// # Errors
    /// When the receiver cannot be reached in time, or answers anything but 2xx.
    pub async fn ship(&mut self, batch: &[SinkEvent]) -> Result<(), SinkError> {
        let mut request =
            self.client.post(self.url.clone()).header(header::CONTENT_TYPE, "application/x-ndjson").body(lines(batch));
        if let Some(authorization) = self.authorization().await? {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let answer = request.send().await.map_err(|error| {
            if error.is_timeout() {
                SinkError::Deadline(self.deadline)
            } else {
                SinkError::Request(error.without_url())
            }
        })?;
        let status: StatusCode = answer.status();
        if status.is_success() { Ok(()) } else { Err(SinkError::Status(status.as_u16())) }
    }

    async fn authorization(&self) -> Result<Option<HeaderValue>, SinkError> {
        let Some(path) = &self.token_file else {
            return Ok(None);
        };
        let read = tokio::fs::read(path).await.map_err(SinkError::io("read the token file"))?;
        let text = Zeroizing::new(read);
        let token = text.trim_ascii();
        if token.is_empty() || token.len() > TOKEN_MAX_BYTES || !token.iter().all(u8::is_ascii_graphic) {
            return Err(SinkError::Token);
        }
        let header = Zeroizing::new([b"Bearer ".as_slice(), token].concat());
        let mut value = HeaderValue::from_bytes(&header).or(Err(SinkError::Token))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

impl fmt::Debug for HttpsSink {
    // Without the URL's query, which may hold a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpsSink")
            .field("name", &self.name)
            .field("host", &self.url.host_str())
            .finish_non_exhaustive()
    }
}

const TOKEN_MAX_BYTES: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::testing::{Server, batch};

    fn config(server: &Server) -> HttpsSinkConfig {
        HttpsSinkConfig {
            name: "h".into(),
            url: format!("https://localhost:{}/in?key=hunter2", server.port()),
            tls: server.trust(),
            token_file: None,
            deadline: Duration::from_secs(20),
        }
    }

    async fn answer(server: &Server, status: &str) -> String {
        let mut peer = server.accept().await;
        let request = peer.read_request().await;
        peer.write(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes()).await;
        request
    }

    #[tokio::test]
    async fn only_a_2xx_answer_acknowledges() {
        let server = Server::start().await;
        let mut sink = HttpsSink::new(config(&server)).expect("config");
        for (status, code) in [("204 No Content", None), ("500 Oops", Some(500)), ("302 Found", Some(302))] {
            let events = batch(1..3);
            let (shipped, request) = tokio::join!(sink.ship(&events), answer(&server, status));
            assert!(request.starts_with("POST /in?key=hunter2 HTTP/1.1\r\n"), "{request}");
            assert!(request.contains("content-type: application/x-ndjson\r\n"), "{request}");
            assert!(request.ends_with("\r\n\r\n{\"n\":1}\n{\"n\":2}\n"), "{request}");
            match (shipped, code) {
                (Ok(()), None) => {}
                (Err(SinkError::Status(got)), Some(want)) => assert_eq!(got, want),
                (other, _) => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn the_token_is_read_anew_for_each_batch_and_shown_nowhere() {
        let server = Server::start().await;
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("token");
        let mut sink =
            HttpsSink::new(HttpsSinkConfig { token_file: Some(path.clone()), ..config(&server) }).expect("ok");
        for token in ["canary-one", "canary-two"] {
            std::fs::write(&path, format!("{token}\n")).expect("written");
            let events = batch(1..2);
            let (shipped, request) = tokio::join!(sink.ship(&events), answer(&server, "403 No"));
            assert!(request.contains(&format!("authorization: Bearer {token}\r\n")), "{request}");
            let shown = format!("{shipped:?} {sink:?}");
            assert!(!shown.contains("canary") && !shown.contains("hunter2"), "{shown}");
        }
        std::fs::write(&path, "two words").expect("written");
        assert!(matches!(sink.ship(&batch(1..2)).await, Err(SinkError::Token)));
    }

    #[tokio::test]
    async fn an_unreachable_receiver_is_an_error_without_the_address() {
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = closed.local_addr().expect("address").port();
        drop(closed);
        let server = Server::start().await;
        let url = format!("https://127.0.0.1:{port}/?key=hunter2");
        let mut sink = HttpsSink::new(HttpsSinkConfig { url, ..config(&server) }).expect("config");
        let error = sink.ship(&batch(1..2)).await.expect_err("closed");
        assert!(!format!("{error:?} {error}").contains("hunter2"), "{error:?}");
    }

    #[tokio::test]
    async fn plain_http_and_credentials_in_the_url_are_refused() {
        let server = Server::start().await;
        for url in ["http://localhost/", "https://u:p@localhost/", "localhost"] {
            assert!(HttpsSink::new(HttpsSinkConfig { url: url.into(), ..config(&server) }).is_err(), "{url}");
        }
    }
}
