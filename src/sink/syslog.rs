//! Syslog over TLS: RFC 5424 messages with the octet counting of RFC 5425.
//!
//! Syslog has no acknowledgement. A batch counts as acknowledged when it was written and flushed to a connection that
//! was open just before; what the collector or the network loses after that is lost. So delivery is at-least-once up to
//! the socket, and no further: where that is not enough, use a file or HTTPS sink.

use std::{sync::Arc, time::Duration};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{SinkError, SinkEvent, TlsTrust};

/// Where a syslog sink sends to.
#[derive(Debug)]
pub struct SyslogSinkConfig {
    /// For logs and metrics.
    pub name: String,
    /// `host:port`; 6514 is the registered port.
    pub address: String,
    /// The name that the collector's certificate must be for.
    pub server_name: String,
    /// Whom to trust.
    pub tls: TlsTrust,
    /// RFC 5424 HOSTNAME of this broker: printable ASCII; other characters are left out.
    pub host_name: String,
    /// For connecting and sending one batch.
    pub deadline: Duration,
}

/// Sends events as syslog messages over TLS.
#[derive(Debug)]
pub struct SyslogSink {
    name: String,
    address: String,
    server_name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    host_name: String,
    deadline: Duration,
    connection: Option<TlsStream<TcpStream>>,
}

impl SyslogSink {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// When the server name or the TLS settings cannot be used.
    pub fn new(config: SyslogSinkConfig) -> Result<Self, SinkError> {
        let printable = |c: &char| c.is_ascii_graphic();
        let host_name: String = config.host_name.chars().filter(printable).take(HOST_NAME_MAX).collect();
        Ok(Self {
            name: config.name,
            address: config.address,
            server_name: ServerName::try_from(config.server_name).or(Err(SinkError::ServerName))?,
            tls: Arc::new(config.tls.client()?),
            host_name: if host_name.is_empty() { "-".to_owned() } else { host_name },
            deadline: config.deadline,
            connection: None,
        })
    }

    /// The name it was configured with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// See [`super::AnySink::ship`] and what this module says about acknowledgement.
    ///
    /// # Errors
    /// When the collector cannot be reached or written to in time. The connection is given up then.
    pub async fn ship(&mut self, batch: &[SinkEvent]) -> Result<(), SinkError> {
        let kept = self.connection.take();
        let Ok(sent) = timeout(self.deadline, self.send(kept, batch)).await else {
            return Err(SinkError::Deadline(self.deadline));
        };
        self.connection = Some(sent?);
        Ok(())
    }

    async fn send(
        &self,
        kept: Option<TlsStream<TcpStream>>,
        batch: &[SinkEvent],
    ) -> Result<TlsStream<TcpStream>, SinkError> {
        let mut connection = match still_open(kept).await {
            Some(open) => open,
            None => self.connect().await?,
        };
        let frames: Vec<u8> = batch.iter().flat_map(|event| frame(&self.host_name, event)).collect();
        connection.write_all(&frames).await.map_err(SinkError::io("write to the collector"))?;
        connection.flush().await.map_err(SinkError::io("flush to the collector"))?;
        Ok(connection)
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>, SinkError> {
        let socket = TcpStream::connect(&self.address).await.map_err(SinkError::io("connect to the collector"))?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        connector.connect(self.server_name.clone(), socket).await.map_err(SinkError::io("agree on tls"))
    }
}

/// The connection, unless its peer closed it. A collector never sends, so anything to read means an end.
async fn still_open(connection: Option<TlsStream<TcpStream>>) -> Option<TlsStream<TcpStream>> {
    let mut connection = connection?;
    let mut byte = [0];
    // One poll and no wait.
    match timeout(Duration::ZERO, connection.read(&mut byte)).await {
        Ok(_) => None,
        Err(_) => Some(connection),
    }
}

/// One message with its length in front (RFC 5425 section 4.3).
fn frame(host_name: &str, event: &SinkEvent) -> Vec<u8> {
    // The JSON is UTF-8, so a byte order mark leads it (RFC 5424 section 6.4). The revision stands as structured data
    // under the enterprise number that RFC 5612 sets aside, as there is no registered one.
    let message = format!(
        "<{PRIORITY}>1 {} {host_name} mayfly - audit [mayfly@32473 revision=\"{:016x}.{}\"] \u{feff}{}",
        event.at, event.revision.incarnation, event.revision.number, event.json_line
    );
    format!("{} {message}", message.len()).into_bytes()
}

/// Facility 13 (log audit), severity 6 (informational): RFC 5424 section 6.2.1.
const PRIORITY: u8 = 13 * 8 + 6;
/// RFC 5424 section 6.
const HOST_NAME_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::testing::{Server, batch};

    fn sink(server: &Server, address: String) -> SyslogSink {
        SyslogSink::new(SyslogSinkConfig {
            name: "s".into(),
            address,
            server_name: "localhost".into(),
            tls: server.trust(),
            host_name: "broker\n1".into(),
            deadline: Duration::from_secs(20),
        })
        .expect("config")
    }

    #[test]
    fn a_message_has_the_form_of_rfc_5424_and_says_its_octets() {
        let events = batch(7..8);
        let json = "{\"n\":7}";
        let message = format!(
            "<110>1 1970-01-01T00:00:07Z host mayfly - audit [mayfly@32473 revision=\"0000000000000001.7\"] \u{feff}{json}"
        );
        let framed = String::from_utf8(frame("host", &events[0])).expect("utf-8");
        assert_eq!(framed, format!("{} {message}", message.len()));
    }

    #[tokio::test]
    async fn a_batch_arrives_and_a_closed_connection_is_replaced() {
        let server = Server::start().await;
        let mut sink = sink(&server, server.address());
        for n in 1..3 {
            let events = batch(n..n + 1);
            let (shipped, mut peer) = tokio::join!(sink.ship(&events), server.accept());
            shipped.expect("shipped");
            let expected = frame("broker1", &events[0]);
            assert_eq!(peer.read_exactly(expected.len()).await, expected);
            // The peer leaves; wait until the sink's side has seen it.
            peer.close().await;
            sink.connection.as_mut().expect("kept").get_ref().0.readable().await.expect("readable");
        }
    }

    #[tokio::test]
    async fn a_collector_with_another_root_is_refused() {
        let (server, other) = (Server::start().await, Server::start().await);
        let mut sink = sink(&other, server.address());
        let events = batch(1..2);
        let (shipped, ()) = tokio::join!(sink.ship(&events), server.accept_and_fail());
        assert!(matches!(shipped, Err(SinkError::Io { doing: "agree on tls", .. })), "{shipped:?}");
    }

    #[tokio::test]
    async fn a_collector_that_does_not_answer_ends_at_the_deadline() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let server = Server::start().await;
        let mut sink = sink(&server, silent.local_addr().expect("address").to_string());
        sink.deadline = Duration::from_millis(50);
        assert!(matches!(sink.ship(&batch(1..2)).await, Err(SinkError::Deadline(_))));
    }
}
