//! Why a token is not taken: much for the operator, little for the caller.

use crate::model::Timestamp;

/// Why an identity token is not taken. For operators: it repeats what the token claims.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TokenFault {
    /// Longer than 16 KiB, or not three parts of base64url.
    #[error("it is no signed token: {0}")]
    Malformed(&'static str),
    /// Header or claims are no JSON with one meaning.
    #[error("its {part} is no JSON to rely on: {why}")]
    Json {
        /// `header` or `claims`.
        part: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A header that is not taken.
    #[error("its header {0}")]
    Header(&'static str),
    /// Signed in a way that the issuer is not declared for.
    #[error("its algorithm `{0}` is not one of the issuer's `algorithms`")]
    Algorithm(String),
    /// No issuer of the config has this URL.
    #[error("no [[issuer]] of the config has url = \"{0}\"")]
    UnknownIssuer(String),
    /// The issuer's keys are not there.
    #[error("the key set of issuer `{issuer}` is not there: {why}")]
    NoKeys {
        /// Its name.
        issuer: String,
        /// Why.
        why: String,
    },
    /// The issuer has no such key.
    #[error("the issuer has no key with id `{0}`")]
    UnknownKey(String),
    /// The signature does not hold.
    #[error("its signature does not hold")]
    Signature,
    /// Not for us alone.
    #[error("its audience is {found}, not \"{want}\" alone")]
    Audience {
        /// What it says.
        found: String,
        /// The issuer's `audience`.
        want: String,
    },
    /// Of another provider than the one that people sign in at.
    #[error("it is of \"{0}\", which is not the provider that people sign in at")]
    OtherProvider(String),
    /// Issued to another client.
    #[error("its `azp` is not \"{want}\", the client that people sign in with")]
    Party {
        /// The client id.
        want: String,
    },
    /// Another nonce than that of the key that it came with, or none where one is asked for.
    #[error("its nonce is not that of the key to be certified")]
    Nonce,
    /// A claim that every token must have is missing or malformed.
    #[error("its claim `{0}` is missing or malformed")]
    Claim(&'static str),
    /// The claims as a whole.
    #[error("its claims are not taken: {0}")]
    Claims(&'static str),
    /// Over.
    #[error("it expired at {0}")]
    Expired(Timestamp),
    /// Longer ago than the issuer's `max_age_seconds`.
    #[error("it was issued at {0}, longer ago than the issuer's max_age_seconds")]
    TooOld(Timestamp),
    /// From the future.
    #[error("it is from the future: valid from {0}")]
    Early(Timestamp),
    /// A GitHub event that runs code of strangers.
    #[error(
        "event `{0}` runs code of strangers; name it in the issuer's `allow_events` and in the binding if it is meant"
    )]
    Event(String),
    /// A CircleCI job that somebody can have changed by hand.
    #[error("the job was rerun with SSH; set the issuer's `allow_ssh_rerun` if that is meant")]
    SshRerun,
    /// A person's.
    #[error("it is of a person who signed in (claim `{0}`), and people are no workloads")]
    Person(&'static str),
    /// A SPIFFE ID of elsewhere.
    #[error("its subject `{0}` is no SPIFFE ID in the issuer's trust domain")]
    Subject(String),
}

/// What a caller learns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TokenCode {
    /// It is not taken.
    Refused,
    /// It is over.
    Expired,
    /// It cannot be checked now.
    Unavailable,
}

impl TokenFault {
    /// What the caller may learn of it.
    #[must_use]
    pub fn code(&self) -> TokenCode {
        match self {
            Self::NoKeys { .. } => TokenCode::Unavailable,
            Self::Expired(_) | Self::TooOld(_) => TokenCode::Expired,
            Self::Malformed(_)
            | Self::Json { .. }
            | Self::Header(_)
            | Self::Algorithm(_)
            | Self::UnknownIssuer(_)
            | Self::UnknownKey(_)
            | Self::Signature
            | Self::Audience { .. }
            | Self::OtherProvider(_)
            | Self::Party { .. }
            | Self::Nonce
            | Self::Claim(_)
            | Self::Claims(_)
            | Self::Early(_)
            | Self::Event(_)
            | Self::SshRerun
            | Self::Person(_)
            | Self::Subject(_) => TokenCode::Refused,
        }
    }
}
