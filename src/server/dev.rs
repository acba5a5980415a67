//! `serve --dev`: everything that is missing is made in a data folder, on loopback only.

use std::{
    io,
    net::TcpListener,
    path::{Path, PathBuf},
};

use super::{ServerError, host};
use crate::{
    config::{ClientCa, Config, Engine, Issuer},
    mint::seal::SealKey,
};

/// What `serve --dev` can be told.
#[derive(Clone, Debug)]
pub struct Dev {
    /// The data folder.
    pub data: PathBuf,
    /// The TLS port; 0 takes a free one.
    pub port: u16,
    /// The store engine.
    pub engine: Engine,
    /// Foreign CAs of workloads: name and PEM file.
    pub client_cas: Vec<(String, PathBuf)>,
    /// Issuers of identity tokens.
    pub issuers: Vec<Issuer>,
    /// Whether limits are lifted, for load tests.
    pub unlimited: bool,
}

/// The config of a development daemon. Makes the data folder and the seal key where they are missing.
///
/// # Errors
/// When the folder cannot be written.
pub fn prepare(dev: &Dev) -> Result<Config, ServerError> {
    let failed = |error: io::Error| ServerError::Folder(dev.data.clone(), error);
    host::private_folder(&dev.data).map_err(failed)?;
    let port = if dev.port == 0 { free_port().map_err(failed)? } else { dev.port };
    let mut config = Config::dev(&dev.data, port);
    config.engine = dev.engine;
    config.client_cas = dev
        .client_cas
        .iter()
        .map(|(name, file)| ClientCa { name: name.clone(), file: file.clone(), trust_domains: Vec::new() })
        .collect();
    config.issuers.clone_from(&dev.issuers);
    if dev.port == 0 {
        config.metrics.set_port(0);
    }
    if dev.unlimited {
        lift(&mut config);
    }
    let seal = dev.data.join("seal.key");
    if !seal.exists() {
        SealKey::create(&seal)?;
    }
    Ok(config)
}

/// Where the first operator's certificate lies.
#[must_use]
pub fn operator_folder(data: &Path) -> PathBuf {
    data.join("operator")
}

fn lift(config: &mut Config) {
    config.limits.rate_per_caller_per_second = u32::MAX;
    config.limits.rate_burst = u32::MAX;
    config.limits.queue_per_tenant = 1 << 20;
    config.limits.at_work = 1 << 16;
    config.limits.at_work_per_tenant = 1 << 15;
    config.limits.frames_per_caller_per_second = u32::MAX;
}

/// A port that was free a moment ago.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
