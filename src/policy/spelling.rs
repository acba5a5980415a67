//! How model values are spelt in canonical JSON.

/// Whether a set that is left out when it is empty is so.
pub(super) fn is_empty<T>(set: &super::sorted::Sorted<T>) -> bool {
    set.iter().next().is_none()
}

/// Whether a flag that is left out when it is not set is so.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
pub(super) fn is_false(flag: &bool) -> bool {
    !flag
}

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
