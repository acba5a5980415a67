//! People: what a directory and an identity provider have told of them, in memory and on disk.
//!
//! Nobody needs to be known to sign in. Who is known and not there any more cannot, and has no sign-in that goes on.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{Broker, refusal::Refusal};
use crate::{
    config::{Config, Scim, SubjectFormat},
    issuers::{Document, IssuersError, Provider},
    ledger::{Ledger, PeopleCommit, Receipt, Refused, Voices, person_keys},
    model::{
        ApprovalVote, IssuerRules, PersonId, PersonKey, SignInRules, Timestamp,
        person::{folded, same_address},
    },
    pb, records,
};

/// People who administer, and who tells of them.
#[derive(Debug, Default)]
pub struct People {
    /// Where they sign in.
    pub door: Option<Door>,
    /// Who tells of events.
    pub signals: Option<Signals>,
    /// The directory.
    pub scim: Option<Scim>,
    known: RwLock<Known>,
    /// Held while rows are read, changed and written: two changes from one state would lose one.
    pub(super) writing: tokio::sync::Mutex<()>,
}

/// Where people sign in.
#[derive(Debug)]
pub struct Door {
    /// Who may, as what.
    pub rules: Arc<SignInRules>,
    /// Whose word counts.
    pub provider: Provider,
}

/// Who tells of events.
#[derive(Debug)]
pub struct Signals {
    /// The transmitter.
    pub rules: Arc<IssuerRules>,
    /// Its keys.
    pub provider: Provider,
    /// Formats of subjects that are believed.
    pub subjects: Vec<SubjectFormat>,
    /// Whether a revoked session means that the person left.
    pub session_revoked_leaves: bool,
}

/// Why people cannot be known.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    /// A provider's keys.
    #[error(transparent)]
    Provider(#[from] IssuersError),
    /// The rows.
    #[error("what is known of people cannot be read")]
    Ledger(#[from] Refused),
}

/// Whom something is about: what they are called, folded, and their ids at directory and provider.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Called {
    pub(super) names: BTreeSet<String>,
    pub(super) subjects: BTreeSet<String>,
    pub(super) operator: Option<String>,
}

#[derive(Debug, Default)]
struct Known {
    rows: BTreeMap<PersonId, Arc<records::PersonRecord>>,
    by: HashMap<PersonKey, BTreeSet<PersonId>>,
    /// Rows that cannot be read, and what each was found by: that person counts as gone. Of one that was found by nothing
    /// nobody can say whose it was.
    damaged: BTreeMap<PersonId, BTreeSet<PersonKey>>,
    /// Rows of an older version, which had nothing that they are found by when they cannot be read.
    unindexed: BTreeSet<PersonId>,
}

impl Called {
    /// By a name alone.
    pub(super) fn by_name(name: &str) -> Self {
        Self { names: [folded(name)].into_iter().collect(), ..Self::default() }
    }

    /// What a row says.
    pub(super) fn of(record: &records::PersonRecord) -> Self {
        let names = std::iter::once(&record.user_name).chain(&record.former).map(|name| folded(name));
        let subjects = [&record.external_id, &record.subject].into_iter().cloned();
        Self {
            names: names.filter(|name| !name.is_empty()).collect(),
            subjects: subjects.filter(|subject| !subject.is_empty()).collect(),
            operator: Some(record.operator.clone()).filter(|operator| !operator.is_empty()),
        }
    }

    /// Whether the owner of a grant is meant.
    pub(super) fn owns(&self, owner: &str) -> bool {
        self.names.contains(&folded(owner)) || self.subjects.contains(owner)
    }

    /// Of who agreed to something, as it was called then.
    fn of_voter(vote: &ApprovalVote) -> Option<Self> {
        let voter = vote.voter.as_ref()?;
        Some(Self {
            names: voter.names.iter().map(|name| folded(name)).filter(|name| !name.is_empty()).collect(),
            subjects: voter.subjects.iter().cloned().collect(),
            operator: Some(vote.operator.to_string()),
        })
    }

    fn keys(&self) -> impl Iterator<Item = PersonKey> {
        let names = self.names.iter().map(|name| PersonKey::name(name));
        let subjects = self.subjects.iter().map(|subject| PersonKey::subject(subject));
        names.chain(subjects).chain(self.operator.iter().map(|operator| PersonKey::operator(operator)))
    }
}

impl Known {
    fn put(&mut self, id: PersonId, record: &records::PersonRecord) {
        self.remove(&id);
        for key in person_keys(record) {
            self.by.entry(key).or_default().insert(id);
        }
        self.rows.insert(id, Arc::new(record.clone()));
    }

    fn remove(&mut self, id: &PersonId) {
        self.damaged.remove(id);
        self.unindexed.remove(id);
        let Some(old) = self.rows.remove(id) else { return };
        for key in person_keys(&old) {
            if let Some(ids) = self.by.get_mut(&key) {
                ids.remove(id);
                if ids.is_empty() {
                    self.by.remove(&key);
                }
            }
        }
    }
}

impl People {
    /// Reads what is known, and prepares to ask who is declared.
    ///
    /// # Errors
    /// When a file is missing or wrong, or the store failed.
    pub fn open(config: &Config, ledger: &Ledger) -> Result<Self, PeopleError> {
        let door = config.sign_in.as_ref().map(|declared| {
            let provider = Provider::open(&declared.issuer, Document::OpenId)?;
            Ok::<_, IssuersError>(Door { rules: Arc::clone(&declared.rules), provider })
        });
        let signals = config.shared_signals.as_ref().map(|declared| {
            Ok::<_, IssuersError>(Signals {
                rules: Arc::clone(&declared.issuer.rules),
                provider: Provider::open(&declared.issuer, Document::SharedSignals)?,
                subjects: declared.subjects.clone(),
                session_revoked_leaves: declared.session_revoked_leaves,
            })
        });
        let mut found_by: BTreeMap<PersonId, BTreeSet<PersonKey>> = BTreeMap::new();
        for (id, key) in ledger.people_keys()? {
            found_by.entry(id).or_default().insert(key);
        }
        let mut known = Known::default();
        for (id, record) in ledger.people()? {
            let keys = found_by.remove(&id).unwrap_or_default();
            match record {
                Some(record) => {
                    known.put(id, &record);
                    if keys != person_keys(&record) {
                        known.unindexed.insert(id);
                    }
                }
                None => {
                    known.damaged.insert(id, keys);
                }
            }
        }
        let (door, signals) = (door.transpose()?, signals.transpose()?);
        Ok(Self { door, signals, scim: config.scim.clone(), known: RwLock::new(known), ..Self::default() })
    }

    /// Whether a sign-in of such a person that began (or whose token was issued) then is over, or never to begin.
    pub(super) fn is_closed_to(&self, called: &Called, since: Timestamp) -> bool {
        let known = self.known();
        let ended = |record: &records::PersonRecord| !record.active || since.millis() <= record.ended_until;
        !damaged(&known, called).is_empty() || found(&known, called).iter().any(|(_, record)| ended(record))
    }

    /// Whether the directory has somebody who is there and whom this id, or where there is none this verified mail address, is
    /// of. Nobody whose row cannot be read is there.
    pub(super) fn is_provisioned(&self, directory_id: Option<&str>, by_claim: bool, email: Option<&str>) -> bool {
        let known = self.known();
        let mut called = Called::default();
        called.subjects.extend(directory_id.map(str::to_owned));
        called.names.extend(email.filter(|_| !by_claim).map(folded));
        let is = |row: &records::PersonRecord| {
            let by_id = directory_id.is_some_and(|id| row.external_id == id);
            by_id || (!by_claim && email.is_some_and(|email| same_address(email, &row.user_name)))
        };
        found(&known, &called).iter().any(|(_, row)| row.provisioned && row.active && is(row))
    }

    /// Whether who agreed to something may still: was neither signed out since nor has left.
    pub(super) fn counts(&self, vote: &ApprovalVote) -> bool {
        Called::of_voter(vote).is_none_or(|called| !self.is_closed_to(&called, vote.at))
    }

    /// Whether the owner of grants is somebody who has left, by the word of a directory or a provider.
    pub(super) fn has_left(&self, owner: &str) -> bool {
        let called = Called { subjects: [owner.to_owned()].into(), ..Called::by_name(owner) };
        let known = self.known();
        let rows = found(&known, &called);
        let is_here = |row: &records::PersonRecord| {
            row.provisioned && row.active && (folded(&row.user_name) == folded(owner) || row.external_id == owner)
        };
        // A name of before may be another's by now.
        let here = rows.iter().any(|(_, row)| is_here(row));
        let gone = rows.iter().any(|(_, row)| !row.active && Called::of(row).owns(owner));
        let keys: BTreeSet<PersonKey> = called.keys().collect();
        known.damaged.values().any(|own| !own.is_disjoint(&keys)) || (gone && !here)
    }

    /// Rows about such a person.
    pub(super) fn about(&self, called: &Called) -> Vec<(PersonId, Arc<records::PersonRecord>)> {
        found(&self.known(), called)
    }

    /// One row.
    pub(super) fn row(&self, id: &PersonId) -> Option<Arc<records::PersonRecord>> {
        self.known().rows.get(id).cloned()
    }

    /// All rows that a filter keeps, in the order of ids.
    pub(super) fn rows(
        &self,
        keep: impl Fn(&records::PersonRecord) -> bool,
    ) -> Vec<(PersonId, Arc<records::PersonRecord>)> {
        let known = self.known();
        known.rows.iter().filter(|(_, row)| keep(row)).map(|(id, row)| (*id, Arc::clone(row))).collect()
    }

    /// How many are known, beside owners who left by an operator's word.
    pub(super) fn count(&self) -> usize {
        self.known().rows.values().filter(|row| row.left.is_empty()).count()
    }

    /// Rows that cannot be read and may be of such a person.
    pub(super) fn damaged(&self, called: &Called) -> Vec<PersonId> {
        damaged(&self.known(), called)
    }

    /// Rows to write once more, so that it is known of whom they are if they cannot be read one day.
    fn unindexed(&self) -> Vec<(PersonId, records::PersonRecord)> {
        let known = self.known();
        let rows = known.unindexed.iter().filter_map(|id| Some((*id, known.rows.get(id)?)));
        rows.map(|(id, row)| (id, records::PersonRecord::clone(row))).take(INDEXED_AT_ONCE).collect()
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        // Every change under the lock leaves it whole.
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, puts: &[(PersonId, records::PersonRecord)], deletes: &[PersonId]) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        puts.iter().for_each(|(id, record)| known.put(*id, record));
        deletes.iter().for_each(|id| known.remove(id));
    }
}

/// Asks people on the ledger's behalf.
#[derive(Debug)]
struct Heard(Arc<People>);

impl Voices for Heard {
    fn counts(&self, vote: &ApprovalVote) -> bool {
        self.0.counts(vote)
    }
}

/// Has the ledger ask whose word still counts, from now on.
pub fn watch(people: &Arc<People>, ledger: &Ledger) {
    ledger.ask_for_voices(Box::new(Heard(Arc::clone(people))));
}

impl Broker {
    /// Writes rows of an older version once more, a few at a time.
    ///
    /// # Errors
    /// When the store failed: they are as they were.
    async fn index_people(&self) -> Result<(), Refusal> {
        loop {
            let _writing = self.people.writing.lock().await;
            let rows = self.people.unindexed();
            if rows.is_empty() {
                return Ok(());
            }
            self.put_people(rows, Vec::new(), Vec::new(), self.now()).await?;
        }
    }

    /// Writes rows and events in one commit; in force for the next check when it returns.
    ///
    /// INVARIANT: the caller holds [`People::writing`] since it has read what it changes.
    pub(super) async fn put_people(
        &self,
        puts: Vec<(PersonId, records::PersonRecord)>,
        deletes: Vec<PersonId>,
        events: Vec<pb::Event>,
        now: Timestamp,
    ) -> Result<Receipt, Refusal> {
        let (people, rows, gone) = (Arc::clone(&self.people), puts.clone(), deletes.clone());
        let commit = PeopleCommit { puts, deletes, events, now };
        Ok(self.ledger.put_people(commit, move || people.publish(&rows, &gone)).await?)
    }

    /// The row that notes something of a person that no directory has told of: the one that is there, or a new one while
    /// fewer than `most` are known.
    ///
    /// # Errors
    /// When there is no room, or no entropy.
    pub(super) fn mark(
        &self,
        called: &Called,
        most: usize,
        now: Timestamp,
    ) -> Result<(PersonId, records::PersonRecord), Refusal> {
        let same = |record: &records::PersonRecord| {
            !record.provisioned && record.left.is_empty() && Called::of(record) == *called
        };
        let there = self.people.about(called).into_iter().find(|(_, record)| same(record));
        if let Some((id, record)) = there {
            return Ok((id, records::PersonRecord::clone(&record)));
        }
        if self.people.count() >= most {
            return Err(Refusal::Unavailable("no room is left for people"));
        }
        let mut names = called.names.iter().cloned();
        let mut subjects = called.subjects.iter().cloned();
        let record = records::PersonRecord {
            user_name: names.next().unwrap_or_default(),
            former: names.collect(),
            subject: subjects.next().unwrap_or_default(),
            external_id: subjects.next().unwrap_or_default(),
            operator: called.operator.clone().unwrap_or_default(),
            active: true,
            created: now.millis(),
            changed: now.millis(),
            ..Default::default()
        };
        Ok((PersonId::fresh()?, record))
    }

    /// Marks that say nothing any more: every sign-in that they ended has ended by itself.
    pub(super) fn idle_marks(&self, now: Timestamp) -> Vec<PersonId> {
        let idle = |row: &records::PersonRecord| {
            let says_nothing_else = row.active && !row.provisioned && row.left.is_empty();
            says_nothing_else && Timestamp::from_millis(row.ended_until).after(MARK_KEPT) < now
        };
        self.people.rows(idle).into_iter().map(|(id, _)| id).collect()
    }
}

/// Fetches the keys of providers ahead of their end, until `stop`.
///
/// # Errors
/// Never; as the loops beside it.
pub async fn keep_fresh(broker: Arc<Broker>, stop: CancellationToken) -> io::Result<()> {
    if let Err(error) = broker.index_people().await {
        tracing::warn!(%error, "people of an older version were not written anew; the next start does");
    }
    loop {
        let door = broker.people.door.as_ref().map(|door| &door.provider);
        let signals = broker.people.signals.as_ref().map(|signals| &signals.provider);
        for provider in door.into_iter().chain(signals) {
            provider.refresh_if_due(broker.now());
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Rows that cannot be read and may be of such a person.
fn damaged(known: &Known, called: &Called) -> Vec<PersonId> {
    if known.damaged.is_empty() {
        return Vec::new();
    }
    let keys: BTreeSet<PersonKey> = called.keys().collect();
    let may_be = |own: &BTreeSet<PersonKey>| own.is_empty() || !own.is_disjoint(&keys);
    known.damaged.iter().filter(|(_, own)| may_be(own)).map(|(id, _)| *id).collect()
}

fn found(known: &Known, called: &Called) -> Vec<(PersonId, Arc<records::PersonRecord>)> {
    let ids: BTreeSet<PersonId> = called.keys().filter_map(|key| known.by.get(&key)).flatten().copied().collect();
    ids.into_iter().filter_map(|id| Some((id, Arc::clone(known.rows.get(&id)?)))).collect()
}

/// People that are known at most, those that a directory has removed included.
pub(super) const PEOPLE_MOST: usize = 20_000;
/// With the room that only closings have: that somebody has left is noted beside a full directory.
pub(super) const CLOSINGS_MOST: usize = PEOPLE_MOST + 2_000;
/// Rows of an older version that are written in one commit.
const INDEXED_AT_ONCE: usize = 500;
/// As long as an ID token or a sign-in can live, and more.
const MARK_KEPT: Duration = Duration::from_secs(2 * 86_400);
/// How often it is looked whose keys are due.
const LOOK: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::testing::founded;

    #[test]
    fn a_row_that_cannot_be_read_closes_sign_in_to_its_person_alone() {
        let (people, now) = (People::default(), Timestamp::from_seconds(9));
        let ann = records::PersonRecord {
            user_name: "ann@acme.example".into(),
            external_id: "e1".into(),
            ..Default::default()
        };
        let damage = |id: u8, keys| people.known.write().expect("lock").damaged.insert(PersonId([id; 16]), keys);
        let by_id = Called { subjects: ["e1".to_owned()].into(), ..Called::default() };
        let (by_name, bob) = (Called::by_name("ANN@acme.example"), Called::by_name("bob@acme.example"));
        damage(1, person_keys(&ann));
        assert!(people.is_closed_to(&by_name, now) && people.is_closed_to(&by_id, now));
        assert!(people.has_left("Ann@acme.example") && !people.has_left("bob@acme.example"));
        assert!(!people.is_closed_to(&bob, now), "somebody else's row closed it");
        assert_eq!((people.damaged(&by_id), people.damaged(&bob)), (vec![PersonId([1; 16])], vec![]));
        // Of one that is found by nothing nobody can say whose it was.
        damage(2, BTreeSet::new());
        assert!(people.is_closed_to(&bob, now));
        assert_eq!(people.damaged(&bob), [PersonId([2; 16])]);
    }

    #[tokio::test]
    async fn a_full_directory_leaves_room_to_note_who_has_left() {
        let (broker, _) = founded().await;
        let row = records::PersonRecord { active: true, provisioned: true, ..Default::default() };
        let rows = |from: usize, to: usize| -> Vec<_> {
            (from..to).map(|at| (PersonId((at as u128).to_be_bytes()), row.clone())).collect()
        };
        broker.people.publish(&rows(0, PEOPLE_MOST), &[]);
        let (ann, now) = (Called::by_name("ann@acme.example"), broker.now());
        assert!(broker.mark(&ann, PEOPLE_MOST, now).is_err());
        assert!(broker.mark(&ann, CLOSINGS_MOST, now).is_ok());
        broker.people.publish(&rows(PEOPLE_MOST, CLOSINGS_MOST), &[]);
        assert!(broker.mark(&ann, CLOSINGS_MOST, now).is_err());
    }
}
