//! Bundle, feed and checks in one place.

use std::{
    sync::{PoisonError, RwLock},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use rustls::pki_types::CertificateDer;

use super::{
    CertificateRefusal, FeedError, Revocations, TokenRefusal, TrustBundle, VerifiedCertificate, VerifiedToken,
    certificate, token,
};
use crate::{
    model::{Digest, ScopeId, TenantName, Timestamp, time::SKEW},
    pb::{Revision, WatchRevocationsResponse},
};

/// What the feed is asked about a credential: its scopes, those that its claims name included, and its basis.
pub(super) type Question = (Vec<ScopeId>, (u64, u64));

/// What credentials are checked against besides keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Freshness {
    /// The revocation feed, and nothing passes once it was silent for longer than this.
    Feed {
        /// The bound on how long a revocation can go unseen.
        max_staleness: Duration,
    },
    /// Keys and times only: a revoked credential works until it expires.
    KeySetOnly,
}

/// Why nothing can be checked now.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unusable {
    /// No bundle was fetched yet.
    #[error("there is no trust bundle yet")]
    NoBundle,
    /// The bundle is older than the broker allows.
    #[error("the trust bundle is too old")]
    StaleBundle,
    /// The feed was silent for longer than configured, or the clock stepped back behind its last message.
    #[error("the revocation feed is too old")]
    StaleFeed,
}

/// Checks the credentials of one tenant without asking the broker.
///
/// Clocks may differ by [`SKEW`]: a token is taken until 30 seconds after it expires. Certificates are given no such
/// time.
#[derive(Debug)]
pub struct OfflineVerifier {
    tenant: TenantName,
    freshness: Freshness,
    bundle: ArcSwapOption<TrustBundle>,
    revocations: RwLock<Revocations>,
}

impl OfflineVerifier {
    /// Refuses everything until it was given a bundle and, unless [`Freshness::KeySetOnly`], the feed.
    #[must_use]
    pub fn new(tenant: TenantName, freshness: Freshness) -> Self {
        Self { tenant, freshness, bundle: ArcSwapOption::empty(), revocations: RwLock::default() }
    }

    /// The tenant whose credentials it takes.
    #[must_use]
    pub fn tenant(&self) -> &TenantName {
        &self.tenant
    }

    /// What it checks against.
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        self.freshness
    }

    /// Takes a newer bundle; one of another tenant is ignored, and `false` returned.
    pub fn install(&self, bundle: TrustBundle) -> bool {
        let fits = *bundle.tenant() == self.tenant;
        if fits {
            self.bundle.store(Some(bundle.into()));
        }
        fits
    }

    /// Applies the next message of the feed.
    ///
    /// # Errors
    /// When it makes no sense after the ones before; nothing passes until the feed began anew.
    pub fn apply(&self, message: &WatchRevocationsResponse, now: Timestamp) -> Result<(), FeedError> {
        self.revocations.write().unwrap_or_else(PoisonError::into_inner).apply(message, now)
    }

    /// Drops what the feed said; see [`Revocations::reset`].
    pub fn reset_feed(&self) {
        self.revocations.write().unwrap_or_else(PoisonError::into_inner).reset();
    }

    /// The revision to resume the feed after; see [`Revocations::resume_after`].
    #[must_use]
    pub fn resume_after(&self) -> Option<Revision> {
        self.revocations.write().unwrap_or_else(PoisonError::into_inner).resume_after()
    }

    /// Checks a token presented to `audience`, with the SHA-256 of the client certificate it came with.
    ///
    /// # Errors
    /// When it is not, or no longer, good here.
    pub fn check_token(
        &self,
        text: &str,
        audience: &str,
        presented_certificate_sha256: Option<Digest>,
        now: Timestamp,
    ) -> Result<VerifiedToken, TokenRefusal> {
        let bundle = self.fresh_bundle(now)?;
        let (verified, question) = token::check(text, audience, presented_certificate_sha256, &bundle, now)?;
        self.ask_feed(&question, now)?.map_or(Ok(()), token::verdict)?;
        Ok(verified)
    }

    /// Checks a certificate chain, leaf first, as presented in a TLS handshake that proved the leaf's key.
    ///
    /// # Errors
    /// When it is not, or no longer, good here.
    pub fn check_certificate(
        &self,
        chain: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<VerifiedCertificate, CertificateRefusal> {
        let bundle = self.fresh_bundle(now)?;
        let (verified, question) = certificate::check(chain, &bundle, now)?;
        self.ask_feed(&question, now)?.map_or(Ok(()), certificate::verdict)?;
        Ok(verified)
    }

    fn fresh_bundle(&self, now: Timestamp) -> Result<std::sync::Arc<TrustBundle>, Unusable> {
        let bundle = self.bundle.load_full().ok_or(Unusable::NoBundle)?;
        if bundle.is_fresh(now) { Ok(bundle) } else { Err(Unusable::StaleBundle) }
    }

    /// What the feed says; `None` when it is not followed.
    fn ask_feed(&self, (scopes, basis): &Question, now: Timestamp) -> Result<Option<super::FeedStanding>, Unusable> {
        let Freshness::Feed { max_staleness } = self.freshness else {
            return Ok(None);
        };
        let feed = self.revocations.read().unwrap_or_else(PoisonError::into_inner);
        let heard = feed.last_heard().ok_or(Unusable::StaleFeed)?;
        if now.since(heard) > max_staleness || heard > now.after(SKEW) {
            return Err(Unusable::StaleFeed);
        }
        Ok(Some(feed.standing(scopes, *basis)))
    }
}

#[cfg(test)]
mod tests;
