//! What one client wants, and what it was told last.

use super::secrets::{SECRET, secrets};
use crate::{
    broker::{Refusal, spiffe::Update},
    foreign::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse},
};

/// One client's stream.
///
/// ```text
/// asks for names --> told them (version n, nonce n) --> acknowledges nonce n
///                    ^                                        |
///                    +-- asks for other names, or an update --+
/// ```
#[derive(Debug, Default)]
pub(super) struct Subscription {
    /// `None` before the first request; empty for everything.
    names: Option<Vec<String>>,
    /// Responses so far: version and nonce of the last.
    told: u64,
}

impl Subscription {
    /// What a client says that is wrong with what it was told last.
    pub(super) fn complaint<'r>(&self, request: &'r DiscoveryRequest) -> Option<&'r str> {
        let is_of_last = request.response_nonce == nonce(self.told);
        request.error_detail.as_ref().filter(|_| is_of_last).map(|error| error.message.as_str())
    }

    /// A request: the response to it, when it needs one.
    ///
    /// # Errors
    /// When it asks for what there is not.
    pub(super) fn asked(
        &mut self,
        request: DiscoveryRequest,
        update: Option<&Update>,
    ) -> Result<Option<DiscoveryResponse>, Refusal> {
        check_type(&request)?;
        if request.resource_names.len() > NAMES_AT_MOST {
            return Err(Refusal::invalid("resource_names", format!("has more than {NAMES_AT_MOST} entries")));
        }
        // An answer to an older response than the last: what the client has to say of that one follows.
        if !request.response_nonce.is_empty() && request.response_nonce != nonce(self.told) {
            return Ok(None);
        }
        let mut names = request.resource_names;
        names.sort_unstable();
        names.dedup();
        if self.told > 0 && self.names.as_ref() == Some(&names) && !request.response_nonce.is_empty() {
            return Ok(None);
        }
        let names = self.names.insert(names).clone();
        update.map(|update| self.response(&names, update)).transpose()
    }

    /// An update: the response that tells of it, when anything was asked for.
    ///
    /// # Errors
    /// When what was asked for is not there any more.
    pub(super) fn updated(&mut self, update: &Update) -> Result<Option<DiscoveryResponse>, Refusal> {
        self.names.clone().map(|names| self.response(&names, update)).transpose()
    }

    /// The secrets of these names, as the next response.
    ///
    /// # Errors
    /// When one is unknown.
    pub(super) fn response(&mut self, names: &[String], update: &Update) -> Result<DiscoveryResponse, Refusal> {
        let resources = secrets(names, update)?;
        self.told += 1;
        Ok(DiscoveryResponse {
            version_info: self.told.to_string(),
            resources,
            canary: false,
            type_url: SECRET.to_owned(),
            nonce: nonce(self.told),
        })
    }
}

/// Refuses what is about other resources than secrets.
pub(super) fn check_type(request: &DiscoveryRequest) -> Result<(), Refusal> {
    if matches!(request.type_url.as_str(), "" | SECRET) {
        return Ok(());
    }
    Err(Refusal::invalid("type_url", format!("is not `{SECRET}`, which is all that is served here")))
}

/// Within a stream no two are alike.
fn nonce(told: u64) -> String {
    format!("{told:08x}")
}

/// More than any Envoy asks for on one stream.
const NAMES_AT_MOST: usize = 256;

#[cfg(test)]
mod tests;
