//! How model values are spelt in canonical JSON.

/// Instants as RFC 3339 text in UTC, to the second.
pub(super) mod rfc3339 {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::model::Timestamp;

    pub(in crate::policy) fn serialize<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&at.rfc3339())
    }

    pub(in crate::policy) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(from)?;
        Timestamp::parse_rfc3339(&text).ok_or_else(|| serde::de::Error::custom("not an RFC 3339 time"))
    }
}

/// Credential kinds as their words.
pub(super) mod kinds {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::{model::CredentialKind, policy::sorted::Sorted};

    pub(in crate::policy) fn serialize<S: Serializer>(
        kinds: &Sorted<CredentialKind>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(kinds.iter().map(|kind| kind.word()))
    }

    pub(in crate::policy) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Sorted<CredentialKind>, D::Error> {
        let words = Vec::<String>::deserialize(from)?;
        let kind =
            |word: &String| CredentialKind::from_word(word).ok_or_else(|| serde::de::Error::custom("no such kind"));
        words.iter().map(kind).collect::<Result<Vec<_>, _>>().map(Sorted::from)
    }
}
