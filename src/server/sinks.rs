//! Audit sinks from the config.

use std::{path::Path, time::Duration};

use super::ServerError;
use crate::{
    api::listen::certificates,
    config::{Config, SinkTarget},
    sink::{AnySink, FileSink, FileSinkConfig, HttpsSink, HttpsSinkConfig, SyslogSink, SyslogSinkConfig, TlsTrust},
};

/// Every sink that the config names.
pub(super) fn open(config: &Config) -> Result<Vec<AnySink>, ServerError> {
    config.audit_sinks.iter().map(|sink| open_one(&sink.name, &sink.target)).collect()
}

fn open_one(name: &str, target: &SinkTarget) -> Result<AnySink, ServerError> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| ServerError::Sink(name.to_owned(), error);
    let name = name.to_owned();
    Ok(match target {
        SinkTarget::File { path } => {
            AnySink::File(FileSink::new(FileSinkConfig { name, path: path.clone(), deadline: DEADLINE }))
        }
        SinkTarget::Syslog { address, server_name, ca_file } => {
            let config = SyslogSinkConfig {
                name: name.clone(),
                address: address.clone(),
                server_name: server_name.clone(),
                tls: trust(&name, ca_file.as_deref())?,
                host_name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
                deadline: DEADLINE,
            };
            AnySink::Syslog(Box::new(SyslogSink::new(config).map_err(|e| failed(Box::new(e)))?))
        }
        SinkTarget::Https { url, ca_file, bearer_token_file } => {
            let config = HttpsSinkConfig {
                name: name.clone(),
                url: url.clone(),
                tls: trust(&name, ca_file.as_deref())?,
                token_file: bearer_token_file.clone(),
                deadline: DEADLINE,
            };
            AnySink::Https(Box::new(HttpsSink::new(config).map_err(|e| failed(Box::new(e)))?))
        }
    })
}

fn trust(name: &str, ca_file: Option<&Path>) -> Result<TlsTrust, ServerError> {
    let missing = || ServerError::Sink(name.to_owned(), "it has no ca_file; name the roots of the receiver".into());
    Ok(TlsTrust { roots: certificates(ca_file.ok_or_else(missing)?)?, identity: None })
}

/// For one batch.
const DEADLINE: Duration = Duration::from_secs(10);
