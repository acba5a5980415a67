//! Mail over SMTP (RFC 5321), each message over a connection of its own.

use std::{
    fmt,
    net::IpAddr,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use lettre::{
    AsyncSmtpTransport, AsyncTransport, Tokio1Executor,
    message::{
        Mailbox, Mailboxes,
        header::{self, ContentType, HeaderName, HeaderValue},
    },
    transport::smtp::{
        authentication::Credentials,
        client::{Certificate, CertificateStore, Tls, TlsParameters},
        extension::ClientId,
    },
};

use super::{
    DeliveryError, Message, OutletError,
    webhook::{read_bounded, roots},
};
use crate::{
    config::{self, SmtpTls},
    model::{Timestamp, address::is_private},
};

/// One server, and the addresses of one route.
pub(super) struct Mail {
    host: String,
    port: u16,
    tls: Tls,
    login: Option<(String, PathBuf)>,
    from: Mailbox,
    to: Vec<lettre::Address>,
    allow_private: bool,
    public_url: String,
}

impl Mail {
    pub(super) fn open(config: &config::Smtp, to: &[String], public_url: &str) -> Result<Self, OutletError> {
        let to = to.iter().map(|address| address.parse());
        Ok(Self {
            host: config.host.clone(),
            port: config.port,
            tls: tls(config)?,
            login: config.login.clone(),
            from: config.from.parse().map_err(|_| OutletError::Url)?,
            to: to.collect::<Result<_, _>>().map_err(|_| OutletError::Url)?,
            allow_private: config.allow_private,
            public_url: public_url.to_owned(),
        })
    }

    pub(super) fn recipients(&self) -> String {
        self.to.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    pub(super) async fn deliver(&self, message: &Message, route: &str, now: Timestamp) -> Result<(), DeliveryError> {
        let mail = self.mail(message, route, now)?;
        let mut outcome = Err(DeliveryError::NoAddress(self.host.clone()));
        for address in self.addresses().await? {
            outcome = self.send(address, mail.clone()).await;
            // Another address of the same server helps only where this one is not there.
            if !matches!(&outcome, Err(DeliveryError::Smtp(why)) if why == AWAY) {
                break;
            }
        }
        outcome
    }

    async fn send(&self, address: IpAddr, mail: lettre::Message) -> Result<(), DeliveryError> {
        let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(address.to_string())
            .port(self.port)
            .tls(self.tls.clone())
            .timeout(Some(STEP_TIME))
            .hello_name(self.hello_name());
        if let Some((user, file)) = &self.login {
            let password = read_bounded(file).await?;
            transport = transport.credentials(Credentials::new(user.clone(), password.trim().to_owned()));
        }
        // What the server wrote is not repeated: nobody knows what is in it.
        transport.build().send(mail).await.map(drop).map_err(|error| match error.status() {
            Some(code) if error.is_permanent() && !matches!(u16::from(code), 500..=504 | 530..=538) => {
                DeliveryError::SmtpRefused(code.into())
            }
            Some(code) => DeliveryError::Smtp(format!("answered {}", u16::from(code))),
            None if error.is_timeout() => DeliveryError::Smtp("did not answer in time".to_owned()),
            None if error.is_tls() => DeliveryError::Smtp("has no TLS that can be used".to_owned()),
            None if error.is_client() => DeliveryError::Smtp("does not offer what is needed".to_owned()),
            None => DeliveryError::Smtp(AWAY.to_owned()),
        })
    }

    /// Plain text. Headers hold nothing of a stranger's, and bodies are encoded, so that nothing in them ends the message.
    fn mail(&self, message: &Message, route: &str, now: Timestamp) -> Result<lettre::Message, DeliveryError> {
        let to: Mailboxes = self.to.iter().map(|address| Mailbox::new(None, address.clone())).collect();
        let automatic = HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned());
        let mut mail = lettre::Message::builder()
            .from(self.from.clone())
            .mailbox(header::To::from(to))
            .subject(format!("[mayfly] {}", message.title()))
            .message_id(Some(format!("<{}@{}>", message.id, self.from.email.domain())))
            .date(SystemTime::UNIX_EPOCH + Duration::from_secs(now.seconds()))
            .header(ContentType::TEXT_PLAIN)
            .body(message.text(route, &self.public_url))
            .map_err(|_| DeliveryError::Unwritable)?;
        // RFC 3834: no vacation notes in return.
        mail.headers_mut().insert_raw(automatic);
        Ok(mail)
    }

    /// What is connected to is what was looked at, so a name cannot change in between.
    async fn addresses(&self) -> Result<Vec<IpAddr>, DeliveryError> {
        let none = || DeliveryError::NoAddress(self.host.clone());
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await.map_err(|_| none())?;
        let found: Vec<IpAddr> = found.map(|address| address.ip()).take(ADDRESSES_MOST).collect();
        if found.is_empty() {
            return Err(none());
        }
        let usable: Vec<_> = found.into_iter().filter(|address| self.allow_private || !is_private(*address)).collect();
        if usable.is_empty() { Err(DeliveryError::Private(self.host.clone())) } else { Ok(usable) }
    }

    fn hello_name(&self) -> ClientId {
        let host = self.public_url.parse::<http::Uri>().ok().and_then(|url| url.host().map(str::to_owned));
        match host {
            Some(host) if host.parse::<IpAddr>().is_err() && !host.starts_with('[') => ClientId::Domain(host),
            Some(_) | None => ClientId::default(),
        }
    }
}

impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mail").field("host", &self.host).field("to", &self.recipients()).finish_non_exhaustive()
    }
}

fn tls(config: &config::Smtp) -> Result<Tls, OutletError> {
    if config.tls == SmtpTls::None {
        return Ok(Tls::None);
    }
    let failed = |error: lettre::transport::smtp::Error| OutletError::Client(error.into());
    let mut parameters = TlsParameters::builder(config.host.clone()).certificate_store(CertificateStore::None);
    for root in roots(&config.ca_file)? {
        parameters = parameters.add_root_certificate(Certificate::from_der(root.to_vec()).map_err(failed)?);
    }
    let parameters = parameters.build().map_err(failed)?;
    Ok(match config.tls {
        SmtpTls::Implicit => Tls::Wrapper(parameters),
        SmtpTls::Starttls => Tls::Required(parameters),
        SmtpTls::None => Tls::None,
    })
}

const AWAY: &str = "cannot be reached, or broke off";
/// Addresses of one server that are tried.
const ADDRESSES_MOST: usize = 4;
/// For each step of the conversation.
const STEP_TIME: Duration = Duration::from_secs(5);
