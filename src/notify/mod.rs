//! Ways out to people: signed webhooks and mail. What is told, and to whom, is decided above; nothing here waits or
//! tries twice.

mod body;
mod item;
mod mail;
mod webhook;

use std::{io, path::PathBuf, time::Duration};

use crate::{
    config,
    mint::webhook::NoSecrets,
    model::{Timestamp, Topic},
};

pub use item::Item;
use mail::Mail;
use webhook::Webhook;

/// Something to tell.
#[derive(Clone, Debug)]
pub struct Message {
    /// The same for every attempt: receivers tell copies by it.
    pub id: String,
    /// Kind of its events; `notify.test` for a test.
    pub kind: String,
    /// Its topic; none for a test.
    pub topic: Option<Topic>,
    /// Whom it is for; empty for nobody in particular.
    pub owner: String,
    /// When it came up.
    pub created: Timestamp,
    /// Events that it tells of, those that are not listed included.
    pub count: u32,
    /// The first of them.
    pub items: Vec<Item>,
}

/// How a route is reached.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Channel {
    /// A signed POST.
    Webhook,
    /// SMTP.
    Mail,
}

impl Channel {
    /// The word in names, commands and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Mail => "mail",
        }
    }
}

/// One channel of a route: it succeeds and fails by itself.
#[derive(Debug)]
pub struct Outlet {
    /// The route's name.
    pub route: String,
    /// The channel.
    pub channel: Channel,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Webhook(Webhook),
    Mail(Box<Mail>),
}

/// Why something was not delivered. No variant carries a secret, a URL or what the other side wrote.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// No end in time.
    #[error("no answer within {} s", .0.as_secs())]
    Deadline(Duration),
    /// The file of secrets, or of the password.
    #[error("cannot read {}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The secrets in it.
    #[error("{} cannot be used: {why}", file.display())]
    Secrets {
        /// The file.
        file: PathBuf,
        /// Why.
        why: NoSecrets,
    },
    /// At a private address.
    #[error("{0} is at a private address; set allow_private if that is meant")]
    Private(String),
    /// The request failed on its way; the address is left out.
    #[error("the request failed")]
    Request(#[source] reqwest::Error),
    /// An answer other than 2xx.
    #[error("the receiver answered {0}, not 2xx; redirects are not followed")]
    Status(u16),
    /// The name of the mail server gave no address.
    #[error("{0} has no address")]
    NoAddress(String),
    /// The mail server, or the way to it.
    #[error("the mail server {0}")]
    Smtp(String),
    /// The mail server will not take this message.
    #[error("the mail server answered {0} to this message")]
    SmtpRefused(u16),
    /// A message that cannot be written as mail.
    #[error("it cannot be written as mail")]
    Unwritable,
}

/// Why a route cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum OutletError {
    /// A file of roots.
    #[error("cannot read {}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Roots that are none.
    #[error("{} holds no usable certificate", .0.display())]
    NoRoots(PathBuf),
    /// The secrets, as [`DeliveryError::Secrets`].
    #[error(transparent)]
    Secrets(DeliveryError),
    /// The address.
    #[error("the url cannot be used")]
    Url,
    /// The client.
    #[error("the client cannot be set up")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Outlet {
    /// The channels of every route; connects to nothing yet.
    ///
    /// # Errors
    /// When a file is missing or wrong.
    pub fn open(config: &config::Notify, public_url: &str) -> Result<Vec<Self>, (String, OutletError)> {
        let mut outlets = Vec::new();
        for route in &config.routes {
            let failed = |error| (route.name.clone(), error);
            let outlet = |channel, way| Self { route: route.name.clone(), channel, way };
            if let Some(webhook) = &route.webhook {
                let way = Webhook::open(webhook, public_url).map_err(failed)?;
                outlets.push(outlet(Channel::Webhook, Way::Webhook(way)));
            }
            if let (Some(smtp), false) = (&config.smtp, route.mail.is_empty()) {
                let way = Mail::open(smtp, &route.mail, public_url).map_err(failed)?;
                outlets.push(outlet(Channel::Mail, Way::Mail(Box::new(way))));
            }
        }
        Ok(outlets)
    }

    /// Route and channel, as rows and metrics name it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.route, self.channel.word())
    }

    /// Where it leads, for operators: a host, or addresses. Never a path or a query, which may hold a secret.
    #[must_use]
    pub fn target(&self) -> String {
        match &self.way {
            Way::Webhook(webhook) => webhook.host(),
            Way::Mail(mail) => mail.recipients(),
        }
    }

    /// Tells once; returns when it was taken.
    ///
    /// # Errors
    /// When it may not have been: try again later.
    pub async fn deliver(&self, message: &Message, now: Timestamp) -> Result<(), DeliveryError> {
        let delivery = async {
            match &self.way {
                Way::Webhook(webhook) => webhook.deliver(message, &self.route, now).await,
                Way::Mail(mail) => mail.deliver(message, &self.route, now).await,
            }
        };
        tokio::time::timeout(DEADLINE, delivery).await.unwrap_or(Err(DeliveryError::Deadline(DEADLINE)))
    }
}

impl DeliveryError {
    /// Whether others may be taken all the same: it is about this one message.
    #[must_use]
    pub fn is_of_message(&self) -> bool {
        match self {
            // What comes for every message alike; anything else may be the answer to what this one says.
            Self::Status(status) => !matches!(status, 401 | 404 | 407 | 410 | 429 | 502..=504),
            Self::SmtpRefused(_) | Self::Unwritable => true,
            Self::Deadline(_)
            | Self::File { .. }
            | Self::Secrets { .. }
            | Self::Private(_)
            | Self::Request(_)
            | Self::NoAddress(_)
            | Self::Smtp(_) => false,
        }
    }
}

/// For one attempt, all of it.
const DEADLINE: Duration = Duration::from_secs(10);
