//! Reading what is known of people, and their sign-ins.

use super::{engine::Table, keys, open::Ledger, refused::Refused};
use crate::{
    model::{Digest, PersonId, PersonKey},
    records,
};

impl Ledger {
    /// A sign-in; one that cannot be read is over.
    ///
    /// # Errors
    /// When the store failed.
    pub fn sign_in_row(&self, id: &PersonId) -> Result<Option<records::SignInRecord>, Refused> {
        let key = keys::sign_in(id);
        let Some(value) = self.get(Table::People, &key)? else { return Ok(None) };
        let read = self.shared.codec.decode(Table::People, &key, &value);
        Ok(read.inspect_err(|e| self.shared.aside.note(Table::People, &key, e)).ok())
    }

    /// Whether something that may come once has come.
    ///
    /// # Errors
    /// When the store failed.
    pub fn is_spent(&self, what: &Digest) -> Result<bool, Refused> {
        Ok(self.get(Table::Spent, &what.0)?.is_some())
    }

    /// Every sign-in that can be read, those that are over and not swept yet included.
    ///
    /// # Errors
    /// When the store failed.
    pub fn sign_ins(&self) -> Result<Vec<records::SignInRecord>, Refused> {
        let (mut rows, mut after) = (Vec::new(), Vec::new());
        loop {
            let (mut some, next) = self.page(Table::People, &[keys::SIGN_INS], &after, 1_024, |key, value| {
                self.shared.codec.decode(Table::People, key, value).ok()
            })?;
            rows.append(&mut some);
            let Some(next) = next else { return Ok(rows) };
            after = next;
        }
    }

    /// What every person's row is found by, whether it can be read or not.
    ///
    /// # Errors
    /// When the store failed.
    pub fn people_keys(&self) -> Result<Vec<(PersonId, PersonKey)>, Refused> {
        let (mut found, mut after) = (Vec::new(), Vec::new());
        loop {
            let read = |key: &[u8], _: &[u8]| keys::parse_person_key(key);
            let (mut some, next) = self.page(Table::People, &[keys::PERSON_KEYS], &after, 4_096, read)?;
            found.append(&mut some);
            let Some(next) = next else { return Ok(found) };
            after = next;
        }
    }

    /// Everybody that was told of, in the order of ids; `None` for who cannot be read.
    ///
    /// # Errors
    /// When the store failed.
    pub fn people(&self) -> Result<Vec<(PersonId, Option<records::PersonRecord>)>, Refused> {
        let (mut people, mut after) = (Vec::new(), Vec::new());
        loop {
            let (mut some, next) = self.page(Table::People, &[keys::PEOPLE], &after, 1_024, |key, value| {
                let id = PersonId::from_slice(key.get(1..)?)?;
                let read = self.shared.codec.decode(Table::People, key, value);
                Some((id, read.inspect_err(|e| self.shared.aside.note(Table::People, key, e)).ok()))
            })?;
            people.append(&mut some);
            let Some(next) = next else { return Ok(people) };
            after = next;
        }
    }
}
