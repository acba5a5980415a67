//! A token that renews itself, in requests of one's own.

use std::{fmt, sync::Arc};

use http::{HeaderValue, Uri, uri::Authority};
use tokio::time::Instant;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
};
use zeroize::Zeroizing;

use super::{Advice, Body, Credential, Renewing};

/// The token of a credential that renews itself, for each request anew, for one service alone.
///
/// For gRPC it is a tonic interceptor: `ShopClient::with_interceptor(channel, bearer.clone())`; the channel must be one to
/// its service. For HTTP see [`Self::header_for`], and [`Self::send`] with the feature `reqwest`. Cloning shares it.
#[derive(Clone)]
pub struct Bearer {
    pub(super) renewing: Arc<Renewing>,
    /// Its host and port.
    authority: Authority,
}

/// Why a request is not sent with a token.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoBearer {
    /// The credential is none that goes into a request; a certificate goes into TLS.
    #[error("the credential is no token: ask for `CredentialKind::Jwt` or `CredentialKind::Opaque`")]
    NotAToken,
    /// The service it is to be for is no `https://HOST[:PORT]`.
    #[error("`{0}` is not https://HOST or https://HOST:PORT")]
    Service(String),
    /// The request goes elsewhere: whoever is there would have the token.
    #[error("the token is for {service}, and the request goes to {target}")]
    Elsewhere {
        /// Whom it is for.
        service: String,
        /// Where it would go, without its path.
        target: String,
    },
    /// It has ended and the broker has given no other: it is away, or the task is over.
    #[error("the token has ended and there is no successor")]
    Ended,
}

impl NoBearer {
    /// What to do now.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            Self::Ended => Advice::Again(std::time::Duration::ZERO),
            Self::NotAToken | Self::Service(_) | Self::Elsewhere { .. } => Advice::Stop,
        }
    }
}

impl Bearer {
    /// Of a credential that renews itself, for as long as this lives; for `service`, which is `https://HOST` or
    /// `https://HOST:PORT`.
    ///
    /// # Errors
    /// When it is no token, or the service is not said so.
    pub fn new(renewing: Arc<Renewing>, service: &str) -> Result<Self, NoBearer> {
        if !matches!(renewing.current().body, Body::Token(_)) {
            return Err(NoBearer::NotAToken);
        }
        let wrong = || NoBearer::Service(service.to_owned());
        let uri: Uri = service.parse().map_err(|_| wrong())?;
        let authority = origin(&uri).filter(|_| uri.query().is_none() && matches!(uri.path(), "" | "/"));
        Ok(Self { renewing, authority: authority.ok_or_else(wrong)? })
    }

    /// The value of `Authorization` (RFC 6750 section 2.1) for a request to `target`. It is marked as sensitive.
    ///
    /// # Errors
    /// When the request is not for its service over TLS, or the token has ended.
    pub fn header_for(&self, target: &Uri) -> Result<HeaderValue, NoBearer> {
        self.fits(target)?;
        self.header(&self.renewing.current())
    }

    /// Whether a request goes to its service.
    pub(super) fn fits(&self, target: &Uri) -> Result<(), NoBearer> {
        if origin(target).as_ref() == Some(&self.authority) {
            return Ok(());
        }
        let host = target.authority().map_or("nowhere", |authority| authority.as_str());
        // Of the target neither path nor user: they may be secrets.
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let target = format!("{}://{host}", target.scheme_str().unwrap_or("no scheme"));
        Err(NoBearer::Elsewhere { service: format!("https://{}", self.authority), target })
    }

    /// The value with one credential.
    pub(super) fn header(&self, credential: &Credential) -> Result<HeaderValue, NoBearer> {
        let text = text(credential)?;
        let mut value = HeaderValue::from_str(&text).map_err(|_| NoBearer::Ended)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let unavailable = |why: NoBearer| Status::unavailable(why.to_string());
        let text = text(&self.renewing.current()).map_err(unavailable)?;
        let value = MetadataValue::<Ascii>::try_from(text.as_str());
        let mut value = value.map_err(|_| Status::internal("the token is not of visible ASCII characters"))?;
        value.set_sensitive(true);
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bearer").field("service", &self.authority).finish_non_exhaustive()
    }
}

/// What stands behind `Authorization:`.
fn text(credential: &Credential) -> Result<Zeroizing<String>, NoBearer> {
    if credential.ends() <= Instant::now() {
        return Err(NoBearer::Ended);
    }
    let Body::Token(token) = &credential.body else { return Err(NoBearer::NotAToken) };
    Ok(Zeroizing::new(format!("Bearer {}", token.as_str())))
}

/// Host in lower case and port of an `https` URI that names no user.
fn origin(uri: &Uri) -> Option<Authority> {
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    if uri.scheme_str() != Some("https") || authority.host().is_empty() {
        return None;
    }
    let port = authority.port_u16().unwrap_or(443);
    format!("{}:{port}", authority.host().to_ascii_lowercase()).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_its_host_and_port_over_tls() {
        let of = |text: &str| origin(&text.parse().expect("a URI")).map(|found| found.to_string());
        assert_eq!(of("https://Shop.example/a?b=c"), Some("shop.example:443".into()));
        assert_eq!(of("https://shop.example:443"), of("https://shop.example"));
        assert_eq!(of("https://[::1]:8443/"), Some("[::1]:8443".into()));
        for none in ["http://shop.example", "https://user@shop.example", "/a", "shop.example"] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    #[test]
    fn only_what_time_mends_is_to_be_tried_again() {
        assert_eq!(NoBearer::Ended.advice(), Advice::Again(std::time::Duration::ZERO));
        assert_eq!(NoBearer::NotAToken.advice(), Advice::Stop);
    }
}
