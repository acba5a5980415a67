//! Sets that have one spelling.

use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A set as a sorted slice: one spelling, little memory.
///
/// Invariant: strictly ascending.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sorted<T>(Box<[T]>);

impl<T: Ord> Sorted<T> {
    /// Whether `item` is in the set.
    #[must_use]
    pub fn has(&self, item: &T) -> bool {
        self.0.binary_search(item).is_ok()
    }
}

impl<T> Default for Sorted<T> {
    fn default() -> Self {
        Self(Box::default())
    }
}

impl<T: Ord> From<Vec<T>> for Sorted<T> {
    fn from(mut items: Vec<T>) -> Self {
        items.sort_unstable();
        items.dedup();
        Self(items.into_boxed_slice())
    }
}

impl<T: Ord> FromIterator<T> for Sorted<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        items.into_iter().collect::<Vec<_>>().into()
    }
}

impl<T> Deref for Sorted<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Serialize> Serialize for Sorted<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(to)
    }
}

impl<'de, T: Deserialize<'de> + Ord> Deserialize<'de> for Sorted<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Vec::deserialize(from).map(Self::from)
    }
}

/// How far a right reaches: everything of its sort, also what comes later, or what is named.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase", bound(deserialize = "T: Deserialize<'de> + Ord"))]
pub enum Reach<T> {
    /// Everything.
    All,
    /// Only what is named.
    Only(Sorted<T>),
}

impl<T: Ord> Reach<T> {
    /// Whether `item` is within reach.
    #[must_use]
    pub fn includes(&self, item: &T) -> bool {
        match self {
            Self::All => true,
            Self::Only(items) => items.has(item),
        }
    }

    /// Whether all that `other` reaches is within reach.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Only(_), Self::All) => false,
            (Self::Only(mine), Self::Only(theirs)) => theirs.iter().all(|item| mine.has(item)),
        }
    }
}
