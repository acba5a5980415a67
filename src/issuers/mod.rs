//! The issuers that the config declares, and their keys: fetched ahead of need, kept within bounds, served stale for a
//! while when an issuer is down. Who is not declared is not asked anything.

mod fetch;
mod held;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::{
    config,
    identity::{
        FederatedProof, PeerKey,
        oidc::{KeySet, NoKeySet, TokenFault, UnverifiedToken},
    },
    model::{IssuerName, IssuerRules, Timestamp},
};

use fetch::Source;
use held::Held;

pub use fetch::{Document, FetchError, guarded};

/// One issuer that vouches for no workload: where people sign in, or where events come from.
#[derive(Clone, Debug)]
pub struct Provider(Arc<Held>);

/// The declared issuers, by their URL.
#[derive(Default)]
pub struct Issuers(BTreeMap<String, Arc<Held>>);

/// Why issuers cannot be used as declared.
#[derive(Debug, thiserror::Error)]
pub enum IssuersError {
    /// A file cannot be read.
    #[error("cannot read {} of issuer `{issuer}`", file.display())]
    File {
        /// The issuer.
        issuer: IssuerName,
        /// The file.
        file: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A pinned key set is none.
    #[error("{} of issuer `{issuer}` is no usable key set", file.display())]
    Pinned {
        /// The issuer.
        issuer: IssuerName,
        /// The file.
        file: PathBuf,
        /// What is wrong.
        #[source]
        source: NoKeySet,
    },
    /// Nothing can be fetched.
    #[error("nothing can be fetched from issuer `{issuer}`")]
    Fetch {
        /// The issuer.
        issuer: IssuerName,
        /// Why.
        #[source]
        source: FetchError,
    },
}

/// How an issuer's keys stand.
#[derive(Clone, Debug)]
pub struct IssuerState {
    /// The issuer.
    pub rules: Arc<IssuerRules>,
    /// Whether its keys come from a file.
    pub pinned: bool,
    /// When the keys in use were fetched.
    pub fetched: Option<Timestamp>,
    /// Ids of the keys in use.
    pub key_ids: Vec<String>,
    /// Keys of the set that are of no use here.
    pub skipped: usize,
    /// Whether the keys in use are older than they should be.
    pub stale: bool,
    /// Whether there are keys to check tokens with now.
    pub usable: bool,
    /// When they were last asked for.
    pub tried: Option<Timestamp>,
    /// Why they could not be had then.
    pub error: Option<String>,
}

impl Issuers {
    /// Reads what is pinned and prepares to fetch the rest; asks nobody yet.
    ///
    /// # Errors
    /// When a file is missing or wrong.
    pub fn open(declared: &[config::Issuer]) -> Result<Self, IssuersError> {
        let mut issuers = Self::default();
        for issuer in declared {
            issuers.0.insert(issuer.rules.url.clone(), Arc::new(held(issuer, Document::OpenId)?));
        }
        Ok(issuers)
    }

    /// Whether none is declared: then nobody proves himself with a token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is believed of each.
    #[must_use]
    pub fn rules(&self) -> Vec<Arc<IssuerRules>> {
        self.0.values().map(|held| Arc::clone(&held.rules)).collect()
    }

    /// Whether one has this name.
    #[must_use]
    pub fn knows(&self, name: &IssuerName) -> bool {
        self.0.values().any(|held| held.rules.name == *name)
    }

    /// How each stands, in the order of their names.
    #[must_use]
    pub fn states(&self, now: Timestamp) -> Vec<IssuerState> {
        let mut states: Vec<IssuerState> = self.0.values().map(|held| held.state(now)).collect();
        states.sort_by(|a, b| a.rules.name.cmp(&b.rules.name));
        states
    }

    /// Checks a token with its issuer's keys, which are fetched when they are missing or do not have the token's key.
    ///
    /// # Errors
    /// When it is not to be believed, or cannot be checked now.
    pub async fn prove(
        &self,
        token: UnverifiedToken,
        key: Option<PeerKey>,
        now: impl Fn() -> Timestamp,
    ) -> Result<FederatedProof, TokenFault> {
        let held = self.0.get(token.claimed_issuer());
        let held = held.ok_or_else(|| TokenFault::UnknownIssuer(token.shown_issuer()))?;
        let keys = held.keys_for(token.claimed_key_id(), now()).await?;
        token.verify(&held.rules, &keys, key, now())
    }

    /// Fetches keys ahead of their end, until `stop`.
    pub async fn keep_fresh(self: Arc<Self>, now: impl Fn() -> Timestamp, stop: CancellationToken) {
        loop {
            for held in self.0.values() {
                held.refresh_if_due(now());
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

impl Provider {
    /// Reads what is pinned, or prepares to fetch; asks nobody yet.
    ///
    /// # Errors
    /// When a file is missing or wrong.
    pub fn open(declared: &config::Issuer, document: Document) -> Result<Self, IssuersError> {
        Ok(Self(Arc::new(held(declared, document)?)))
    }

    /// Its keys, fetched when they are missing or do not have this one.
    ///
    /// # Errors
    /// When there are none.
    pub async fn keys_for(&self, key_id: &str, now: Timestamp) -> Result<Arc<KeySet>, TokenFault> {
        self.0.keys_for(key_id, now).await
    }

    /// Asks for newer keys when those in use near their end.
    pub fn refresh_if_due(&self, now: Timestamp) {
        self.0.refresh_if_due(now);
    }
}

fn held(issuer: &config::Issuer, document: Document) -> Result<Held, IssuersError> {
    let name = &issuer.rules.name;
    Ok(match &issuer.keys {
        config::KeySource::Pinned(file) => {
            let keys = pinned(name, file)?;
            Held::new(issuer, Source::File(file.clone()), Some(keys))
        }
        config::KeySource::Fetched { ca_file, allow_private } => {
            let pem = read(name, ca_file)?;
            let source = Source::https(&issuer.rules.url, &pem, *allow_private, document);
            let failed = |source| IssuersError::Fetch { issuer: name.clone(), source };
            Held::new(issuer, source.map_err(failed)?, None)
        }
    })
}

impl fmt::Debug for Issuers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn read(issuer: &IssuerName, file: &Path) -> Result<Vec<u8>, IssuersError> {
    let failed = |source| IssuersError::File { issuer: issuer.clone(), file: file.to_path_buf(), source };
    std::fs::read(file).map_err(failed)
}

fn pinned(issuer: &IssuerName, file: &Path) -> Result<KeySet, IssuersError> {
    let wrong = |source| IssuersError::Pinned { issuer: issuer.clone(), file: file.to_path_buf(), source };
    KeySet::parse(&read(issuer, file)?).map_err(wrong)
}

/// How often it is looked whose keys are due.
const LOOK: Duration = Duration::from_secs(5);
