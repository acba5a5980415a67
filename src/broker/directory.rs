//! A company's directory says who is there, and who is not any more (SCIM 2.0, RFC 7644). Who is not leaves as an owner.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use super::{Broker, event, owners::Leaving, people::Called, refusal::Refusal, sign_in::source_text};
use crate::{
    identity::oidc::shown,
    model::{PersonId, Timestamp, person::folded},
    pb, records,
};

/// A user as the directory sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    /// Ours.
    pub id: PersonId,
    /// How the directory names it.
    pub user_name: String,
    /// The directory's id; empty for none.
    pub external_id: String,
    /// Whether it is there.
    pub active: bool,
    /// When it was added.
    pub created: Timestamp,
    /// When it was last changed.
    pub changed: Timestamp,
}

/// What a directory changes of a user; `None` leaves as it is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct UserChange {
    /// The name.
    pub user_name: Option<String>,
    /// The directory's id.
    pub external_id: Option<String>,
    /// Whether it is there.
    pub active: Option<bool>,
}

/// Why a directory was not done as asked.
#[derive(Debug, thiserror::Error)]
pub enum NotChanged {
    /// There is no such user.
    #[error("there is no such user")]
    Unknown,
    /// Another has the name.
    #[error("another user has this userName")]
    Taken,
    /// A value.
    #[error("{0}")]
    Value(&'static str),
    /// The broker.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Broker {
    /// One user.
    ///
    /// # Errors
    /// [`NotChanged::Unknown`].
    pub fn user(&self, id: &str) -> Result<User, NotChanged> {
        let (id, row) = self.provisioned(id)?;
        Ok(user(id, &row))
    }

    /// All users that a filter keeps, in the order of their ids.
    #[must_use]
    pub fn users(&self, keep: impl Fn(&User) -> bool) -> Vec<User> {
        let rows = self.people.rows(|row| row.provisioned);
        rows.into_iter().map(|(id, row)| user(id, &row)).filter(|user| keep(user)).collect()
    }

    /// Adds a user; one that is not active has left.
    ///
    /// # Errors
    /// When a value is wrong, the name is taken, or the store failed: then it is to be told again.
    pub async fn add_user(&self, change: UserChange, source: Option<SocketAddr>) -> Result<User, NotChanged> {
        let writing = self.people.writing.lock().await;
        let now = self.now();
        let id = PersonId::fresh().map_err(Refusal::from)?;
        let blank =
            records::PersonRecord { active: true, provisioned: true, created: now.millis(), ..Default::default() };
        let row = self.changed(id, &blank, change, now)?;
        let called = Called::of(&row);
        // The directory's word for a person who is there again is newer than any that it had left.
        let Reopened { gone, mut puts } = if row.active { self.reopened(&row, now) } else { Reopened::default() };
        let row = records::PersonRecord { ended_until: self.ended_until(&called, row.ended_until), ..row };
        let added = of_person("person.added", &row, source, now);
        self.make_room(gone.len())?;
        puts.push((id, row.clone()));
        self.put_people(puts, gone, vec![added], now).await?;
        drop(writing);
        self.after_directory(id, &row, source).await?;
        Ok(user(id, &row))
    }

    /// Changes a user; one that is not active any more leaves. Again changes nothing, and makes sure that it has left.
    ///
    /// # Errors
    /// As [`Self::add_user`], and when there is no such user.
    pub async fn change_user(
        &self,
        id: &str,
        change: UserChange,
        source: Option<SocketAddr>,
    ) -> Result<User, NotChanged> {
        let writing = self.people.writing.lock().await;
        let now = self.now();
        let (id, old) = self.provisioned(id)?;
        let mut row = self.changed(id, &old, change, now)?;
        if row != *old {
            row.changed = now.millis();
            let mut reopened = Reopened::default();
            let is_renamed = folded(&row.user_name) != folded(&old.user_name) || row.external_id != old.external_id;
            if row.active && (!old.active || is_renamed) {
                reopened = self.reopened(&row, now);
                // What ended by a mark stays over without it.
                row.ended_until = self.ended_until(&Called::of(&row), row.ended_until);
            }
            let kind = match (old.active, row.active) {
                (true, false) => "person.closed",
                (false, true) => "person.opened",
                (true, true) | (false, false) => "person.changed",
            };
            let event = of_person(kind, &row, source, now);
            let Reopened { gone, mut puts } = reopened;
            puts.push((id, row.clone()));
            self.put_people(puts, gone, vec![event], now).await?;
        }
        drop(writing);
        self.after_directory(id, &row, source).await?;
        Ok(user(id, &row))
    }

    /// Removes a user, who leaves with that. What it was called stays closed until the directory adds it again.
    ///
    /// # Errors
    /// As [`Self::change_user`].
    pub async fn remove_user(&self, id: &str, source: Option<SocketAddr>) -> Result<(), NotChanged> {
        // First it leaves: when that fails, it is still there to be removed again.
        let gone = self.change_user(id, UserChange { active: Some(false), ..UserChange::default() }, source).await?;
        let _writing = self.people.writing.lock().await;
        let now = self.now();
        let (id, old) = self.provisioned(&gone.id.to_string())?;
        let mut row = records::PersonRecord::clone(&old);
        (row.provisioned, row.active, row.removed) = (false, false, true);
        row.changed = now.millis();
        let removed = of_person("person.removed", &row, source, now);
        self.put_people(vec![(id, row)], Vec::new(), vec![removed], now).await?;
        Ok(())
    }

    /// What a person answers for is suspended, by somebody else's word than an operator's. `own` are the directory's rows
    /// of this person: who leaves by another's word may be active there still.
    pub(super) async fn owner_left(
        &self,
        called: &Called,
        own: &BTreeSet<PersonId>,
        name: &str,
        event: pb::Event,
    ) -> Result<u64, Refusal> {
        let by = event.actor.clone();
        let is_owner = |owner: &str| called.owns(owner) && !self.is_anothers(owner, own);
        let leaving = Leaving { is_owner: &is_owner, name, reach: None, by: &by, event, dry_run: false };
        Ok(self.person_leaves(&leaving).await?.suspended)
    }

    /// Whether a name was given to somebody else since: it is that one's then.
    pub(super) fn is_anothers(&self, name: &str, own: &BTreeSet<PersonId>) -> bool {
        let now_named =
            |row: &records::PersonRecord| row.provisioned && row.active && folded(&row.user_name) == folded(name);
        let named = self.people.about(&Called::by_name(name));
        named.iter().any(|(id, row)| !own.contains(id) && now_named(row))
    }

    /// What the directory's word for somebody who is there does to rows of people who have left.
    ///
    /// Those of this very person are gone. One whom the directory removed and who had a name that is this person's now is
    /// somebody else, and stays closed by all that is its own; the name is this one's from now on.
    fn reopened(&self, row: &records::PersonRecord, now: Timestamp) -> Reopened {
        let mut reopened = Reopened::default();
        let about = self.people.about(&Called::of(row)).into_iter();
        for (id, left) in about.filter(|(_, left)| !left.provisioned && !left.active) {
            if is_same(&left, row) {
                reopened.gone.push(id);
                continue;
            }
            let own = records::PersonRecord::clone(&left);
            let mut kept = without_names(own, row);
            if Called::of(&kept) == Called::default() {
                // Nothing is left that it could be told by.
                reopened.gone.push(id);
            } else if kept != *left {
                kept.changed = now.millis();
                reopened.puts.push((id, kept));
            }
        }
        reopened
    }

    async fn after_directory(
        &self,
        id: PersonId,
        row: &records::PersonRecord,
        source: Option<SocketAddr>,
    ) -> Result<(), Refusal> {
        if row.active {
            return Ok(());
        }
        let now = self.now();
        let mut event = event::own("scope.suspended", now);
        (event.actor, event.source) = (ACTOR.to_owned(), source_text(source));
        event.reason = "the directory says that the owner has left".to_owned();
        self.owner_left(&Called::of(row), &[id].into(), &shown(&row.user_name), event).await.map(drop)
    }

    /// A row with changes, checked.
    fn changed(
        &self,
        id: PersonId,
        old: &records::PersonRecord,
        change: UserChange,
        now: Timestamp,
    ) -> Result<records::PersonRecord, NotChanged> {
        let mut row = old.clone();
        if let Some(external_id) = change.external_id {
            row.external_id =
                plain(external_id, "externalId must have at most 255 bytes, none of them control characters")?;
        }
        if let Some(user_name) = change.user_name.filter(|name| *name != old.user_name) {
            let user_name = plain(user_name, NAME)?;
            if !old.user_name.is_empty() && folded(&user_name) != folded(&old.user_name) {
                // Grants may name the owner as it was called before.
                row.former.retain(|name| folded(name) != folded(&old.user_name));
                row.former.push(old.user_name.clone());
            }
            row.user_name = user_name;
        }
        if folded(&row.user_name).is_empty() {
            return Err(NotChanged::Value(NAME));
        }
        if row.former.len() > FORMER_MOST {
            return Err(NotChanged::Value("a user can be renamed 16 times; add it anew"));
        }
        let same =
            |other: &records::PersonRecord| other.provisioned && folded(&other.user_name) == folded(&row.user_name);
        let others = self.people.about(&Called::by_name(&row.user_name));
        if others.iter().any(|(other, record)| *other != id && same(record)) {
            return Err(NotChanged::Taken);
        }
        row.active = change.active.unwrap_or(row.active);
        if old.active && !row.active {
            row.ended_until = now.millis();
        }
        Ok(row)
    }

    /// Up to when sign-ins of such a person had ended, by any row.
    fn ended_until(&self, called: &Called, own: u64) -> u64 {
        self.people.about(called).iter().map(|(_, row)| row.ended_until).fold(own, u64::max)
    }

    fn make_room(&self, freed: usize) -> Result<(), NotChanged> {
        let full = self.people.count().saturating_sub(freed) >= super::people::PEOPLE_MOST;
        if full { Err(Refusal::Unavailable("no room is left for people").into()) } else { Ok(()) }
    }

    fn provisioned(&self, id: &str) -> Result<(PersonId, Arc<records::PersonRecord>), NotChanged> {
        let id: PersonId = id.parse().map_err(|()| NotChanged::Unknown)?;
        let row = self.people.row(&id).filter(|row| row.provisioned).ok_or(NotChanged::Unknown)?;
        Ok((id, row))
    }
}

/// What becomes of rows about people who have left.
#[derive(Debug, Default)]
struct Reopened {
    gone: Vec<PersonId>,
    puts: Vec<(PersonId, records::PersonRecord)>,
}

/// Whether somebody who has left is who is there now. Where both have ids, those say so: a name may have been given to
/// somebody else. Without, of whom the directory removed the name that he had last; of others what an event or an operator
/// called them is all that there is.
fn is_same(left: &records::PersonRecord, now: &records::PersonRecord) -> bool {
    let ids: Vec<&String> = [&left.external_id, &left.subject].into_iter().filter(|id| !id.is_empty()).collect();
    if !ids.is_empty() && !now.external_id.is_empty() {
        return ids.contains(&&now.external_id);
    }
    !left.removed || folded(&left.user_name) == folded(&now.user_name)
}

/// A row without the name that is somebody else's now.
fn without_names(mut row: records::PersonRecord, other: &records::PersonRecord) -> records::PersonRecord {
    let is_others = |name: &str| folded(name) == folded(&other.user_name);
    row.former.retain(|name| !is_others(name));
    if is_others(&row.user_name) {
        // It is shown by what is left of it.
        row.user_name = row.former.pop().unwrap_or_default();
    }
    row
}

fn user(id: PersonId, row: &records::PersonRecord) -> User {
    User {
        id,
        user_name: row.user_name.clone(),
        external_id: row.external_id.clone(),
        active: row.active,
        created: Timestamp::from_millis(row.created),
        changed: Timestamp::from_millis(row.changed.max(row.created)),
    }
}

fn plain(text: String, wrong: &'static str) -> Result<String, NotChanged> {
    let good = text.len() <= 255 && !text.chars().any(char::is_control);
    if good { Ok(text) } else { Err(NotChanged::Value(wrong)) }
}

fn of_person(kind: &str, row: &records::PersonRecord, source: Option<SocketAddr>, now: Timestamp) -> pb::Event {
    let mut event = event::own(kind, now);
    (event.actor, event.source) = (ACTOR.to_owned(), source_text(source));
    event.details = vec![format!("person={}", shown(&row.user_name)), format!("active={}", row.active)];
    event
}

const ACTOR: &str = "scim";
const NAME: &str = "userName must have 1 to 255 bytes, none of them control characters";
/// Names that a user had before.
const FORMER_MOST: usize = 16;

#[cfg(test)]
mod tests;
