//! What is done on the host, without asking a daemon: init, adoption of a root, store check, recovery of an operator.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    ServerError,
    dev::operator_folder,
    lock, open,
    open::{open_engine, seal_key},
};
use crate::{
    broker::{
        Broker, Refusal,
        found::{self, Founding},
        time::SystemClock,
    },
    config::{self, Config, Engine},
    ledger::{CheckReport, check, engine, fits},
    mint::{
        pem,
        seal::{Seal, SealKey},
        x509::MintedLeaf,
    },
    model::OperatorName,
};

/// Opens the store of a config without serving, and founds what is missing.
///
/// # Errors
/// See [`ServerError`].
pub async fn offline(config: &Config, external_root: bool) -> Result<(Arc<Broker>, fs::File), ServerError> {
    let lock = lock(&config.data_dir)?;
    let (broker, _) = open(config, Arc::new(SystemClock))?;
    found::ensure(&broker, &Founding { external_root }).await?;
    Ok((broker, lock))
}

/// Makes a data folder: seal key, root and issuing CA, first operator certificate and a commented config.
///
/// The seal key lies beside the data folder, so that a copy of the folder alone is worth nothing. With an external root
/// the request for the issuing CA is returned as PEM, and the operator's certificate is made by [`adopt_root`].
///
/// # Errors
/// When the folder is not empty or cannot be written.
pub async fn init(data: &Path, trust_domain: &str, external_root: bool) -> Result<String, ServerError> {
    let failed = |error: io::Error| ServerError::Folder(data.to_path_buf(), error);
    private_folder(data).map_err(failed)?;
    if fs::read_dir(data).map_err(failed)?.next().is_some() {
        return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, "the folder is not empty")));
    }
    let base = data.canonicalize().map_err(failed)?;
    let seal = sibling(&base, "seal.key");
    SealKey::create(&seal)?;
    let file = sibling(&base, "toml");
    let text = config::SAMPLE
        .replace("/var/lib/mayfly", &base.display().to_string())
        .replace("/etc/mayfly/seal.key", &seal.display().to_string())
        .replace("mayfly.internal", trust_domain);
    write_new(&file, text.as_bytes(), 0o640).map_err(failed)?;
    let config = Config::load(&file).map_err(|problems| failed(io::Error::other(problems.to_string())))?;
    let (broker, _lock) = offline(&config, external_root).await?;
    let mut said = format!("made {}, {} and {}\n", base.display(), seal.display(), file.display());
    if external_root {
        let request = broker.external_root_request().await?;
        said.push_str(&pem::request(&request));
    } else {
        write_operator(&broker, &base, &first_operator()).await?;
        said.push_str(&format!(
            "first operator certificate in {}\nstart with: mayfly serve --config {}\n",
            operator_folder(&base).display(),
            file.display()
        ));
    }
    broker.ledger.close();
    Ok(said)
}

/// Brings in the issuing certificate that an outside root signed: its own certificate first, the root last.
///
/// # Errors
/// When the chain does not fit the waiting request.
pub async fn adopt_root(config: &Config, chain_pem: &[u8]) -> Result<(), ServerError> {
    existing(config)?;
    let (broker, _lock) = offline(config, true).await?;
    let chain = pem::parse_certificates(chain_pem)
        .map_err(|error| ServerError::Adopt(Refusal::invalid("chain", error.to_string())))?;
    broker.adopt_issuing(&chain).await.map_err(ServerError::Adopt)?;
    write_operator(&broker, &config.data_dir, &first_operator()).await?;
    broker.ledger.close();
    Ok(())
}

/// Reads every row of a store that no daemon has open.
///
/// # Errors
/// When the store does not open; [`set_journal_aside`] may help then.
pub fn check_store(config: &Config, progress: impl FnMut(engine::Table, u64)) -> Result<CheckReport, ServerError> {
    existing(config)?;
    let _lock = lock(&config.data_dir)?;
    let seal = Seal::new(&seal_key(&config.seal)?);
    let engine = open_engine(config)?;
    fits(engine.as_ref(), seal.row_key(), &seal.check_value())?;
    Ok(check(engine.as_ref(), seal.row_key(), progress)?)
}

/// Moves journal files that keep the store from opening aside. What they held after the damage is lost.
///
/// # Errors
/// When files cannot be moved, or the engine has no journal of this kind.
pub fn set_journal_aside(config: &Config) -> Result<Vec<PathBuf>, ServerError> {
    existing(config)?;
    let _lock = lock(&config.data_dir)?;
    match config.engine {
        Engine::Fjall => Ok(engine::fjall::set_damaged_journal_aside(&config.data_dir.join("store"))?),
        Engine::Sled | Engine::Memory => Err(ServerError::NoEngine("fjall journal")),
    }
}

/// Makes an operator's certificate on the host, and writes it to `out`.
///
/// # Errors
/// When the store does not open or `out` cannot be written.
pub async fn recover_operator(config: &Config, name: &OperatorName, out: &Path) -> Result<(), ServerError> {
    existing(config)?;
    let (broker, _lock) = offline(config, false).await?;
    let leaf = broker.recover_operator(name).await?;
    write_identity(&broker, out, &leaf)?;
    broker.ledger.close();
    Ok(())
}

/// The certificate of the first operator of a development daemon, and its root beside, where they are missing or over.
///
/// # Errors
/// When they cannot be made or written.
pub async fn dev_operator(broker: &Broker, data: &Path) -> Result<(), ServerError> {
    let roots = broker.roots()?;
    write_new(&data.join("ca.pem"), pem::certificates(&roots).as_bytes(), 0o644)
        .or_else(|error| if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })
        .map_err(|error| ServerError::Folder(data.to_path_buf(), error))?;
    if operator_folder(data).join("key.pem").exists() {
        return Ok(());
    }
    write_operator(broker, data, &first_operator()).await
}

/// Refuses to make a store where one was to be looked after: the folder is another one than was meant.
fn existing(config: &Config) -> Result<(), ServerError> {
    if config.data_dir.join("store").is_dir() { Ok(()) } else { Err(ServerError::NoStore(config.data_dir.clone())) }
}

/// A folder that only its owner may enter.
pub(super) fn private_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

async fn write_operator(broker: &Broker, data: &Path, name: &OperatorName) -> Result<(), ServerError> {
    let leaf = broker.recover_operator(name).await?;
    write_identity(broker, &operator_folder(data), &leaf)
}

fn write_identity(broker: &Broker, out: &Path, leaf: &MintedLeaf) -> Result<(), ServerError> {
    let failed = |error: io::Error| ServerError::Folder(out.to_path_buf(), error);
    private_folder(out).map_err(failed)?;
    let key = leaf.private_key_der.as_ref().map(pem::private_key);
    let roots = broker.roots()?;
    write_new(&out.join("ca.pem"), pem::certificates(&roots).as_bytes(), 0o644).map_err(failed)?;
    write_new(&out.join("cert.pem"), pem::certificates(&leaf.chain_der).as_bytes(), 0o644).map_err(failed)?;
    let key = key.as_ref().map_or("", |key| key.expose());
    write_new(&out.join("key.pem"), key.as_bytes(), 0o600).map_err(failed)
}

/// Never over what is there: a key that is overwritten is lost.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()
}

/// `/var/lib/mayfly` -> `/var/lib/mayfly.EXTENSION`.
fn sibling(base: &Path, extension: &str) -> PathBuf {
    let mut name = base.file_name().unwrap_or_default().to_os_string();
    name.push(".");
    name.push(extension);
    base.with_file_name(name)
}

fn first_operator() -> OperatorName {
    #[expect(clippy::expect_used, reason = "the name is well formed")]
    FIRST_OPERATOR.parse().expect("a name")
}

/// As founding names it.
const FIRST_OPERATOR: &str = "admin";
