//! Where audit events ship to: a file, a syslog collector over TLS, or an HTTPS collector.
//!
//! A sink acknowledges a batch by returning `Ok`; only then may retention drop what was in it. Delivery is
//! at-least-once: after an error the same batch is shipped again, and a receiver tells copies apart by stream and
//! sequence, or by revision.

pub mod backoff;
mod error;
mod file;
mod https;
mod syslog;
mod tls;

use crate::{model::Timestamp, pb::Revision};

pub use error::SinkError;
pub use file::{FileSink, FileSinkConfig};
pub use https::{HttpsSink, HttpsSinkConfig};
pub use syslog::{SyslogSink, SyslogSinkConfig};
pub use tls::{ClientIdentity, TlsTrust};

/// One event, or checkpoint, on its way out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SinkEvent {
    /// Revision of its commit.
    pub revision: Revision,
    /// When it happened.
    pub at: Timestamp,
    /// Its JSON, without line end; see [`crate::audit::export`].
    pub json_line: String,
}

/// A sink of any kind.
#[derive(Debug)]
pub enum AnySink {
    /// JSON lines in a file.
    File(FileSink),
    /// RFC 5424 messages over TLS.
    Syslog(Box<SyslogSink>),
    /// JSON lines by POST.
    Https(Box<HttpsSink>),
}

impl AnySink {
    /// The name it was configured with.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::File(sink) => sink.name(),
            Self::Syslog(sink) => sink.name(),
            Self::Https(sink) => sink.name(),
        }
    }

    /// Ships a batch in order and returns once it is acknowledged, or its deadline passed.
    ///
    /// # Errors
    /// When any part may not have arrived; ship the whole batch again after [`backoff::delay`].
    pub async fn ship(&mut self, batch: &[SinkEvent]) -> Result<(), SinkError> {
        if batch.is_empty() {
            return Ok(());
        }
        match self {
            Self::File(sink) => sink.ship(batch).await,
            Self::Syslog(sink) => sink.ship(batch).await,
            Self::Https(sink) => sink.ship(batch).await,
        }
    }
}

/// A batch as JSON lines.
fn lines(batch: &[SinkEvent]) -> Vec<u8> {
    let mut text = Vec::with_capacity(batch.iter().map(|event| event.json_line.len() + 1).sum());
    for event in batch {
        text.extend(event.json_line.as_bytes());
        text.push(b'\n');
    }
    text
}

#[cfg(test)]
mod testing;
