//! Requests over reqwest with a token that is always fresh.

use std::time::Duration;

use http::{HeaderValue, StatusCode, Uri, header::AUTHORIZATION};
use reqwest::{Client, Request, RequestBuilder, Response};

use super::{Advice, Bearer, bearer::NoBearer};

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum NotSent {
    /// There is no token for it.
    #[error(transparent)]
    Bearer(#[from] NoBearer),
    /// It could not be made, or was not answered.
    #[error("the request came to nothing")]
    Request(#[source] reqwest::Error),
}

impl NotSent {
    /// What to do now. Whether a request that may have arrived can be sent again is its sender's to know.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            Self::Bearer(error) => error.advice(),
            Self::Request(error) if error.is_connect() || error.is_timeout() => Advice::Again(Duration::ZERO),
            Self::Request(_) => Advice::Stop,
        }
    }
}

impl Bearer {
    /// Sends a request with the token as it is now; waits for a successor until `patience` ends where it has ended.
    ///
    /// Where the service answers 401 and there is another token by then, a request whose body can be read twice is sent
    /// once more. The token goes to its service alone: reqwest takes it off where a redirect leads to another host or port,
    /// and a client made with `https_only` follows none out of TLS.
    ///
    /// # Errors
    /// When the request is not for its service over TLS, there is no token that lives, or nothing is answered.
    pub async fn send(&self, request: RequestBuilder, patience: Duration) -> Result<Response, NotSent> {
        let (client, request) = request.build_split();
        let request = request.map_err(NotSent::Request)?;
        let again = request.try_clone();
        let first = self.live(&request, patience).await?;
        let answer = self.execute(&client, request, first.clone()).await?;
        let Some(again) = again.filter(|_| answer.status() == StatusCode::UNAUTHORIZED) else { return Ok(answer) };
        match self.live(&again, Duration::ZERO).await {
            Ok(next) if next != first => self.execute(&client, again, next).await,
            Ok(_) | Err(_) => Ok(answer),
        }
    }

    async fn live(&self, request: &Request, patience: Duration) -> Result<HeaderValue, NoBearer> {
        let target: Uri = request.url().as_str().parse().map_err(|_| NoBearer::Service("the request's URL".into()))?;
        self.fits(&target)?;
        let credential = self.renewing.live(patience).await.ok_or(NoBearer::Ended)?;
        self.header(&credential)
    }

    async fn execute(&self, client: &Client, mut request: Request, value: HeaderValue) -> Result<Response, NotSent> {
        request.headers_mut().insert(AUTHORIZATION, value);
        client.execute(request).await.map_err(|error| NotSent::Request(error.without_url()))
    }
}
