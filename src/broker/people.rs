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
    ledger::{Ledger, PeopleCommit, Receipt, Refused},
    model::{IssuerRules, PersonId, SignInRules, Timestamp, person::folded},
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
    by: HashMap<String, BTreeSet<PersonId>>,
    /// Rows that cannot be read: nobody can say who left.
    damaged: BTreeSet<PersonId>,
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

    fn keys(&self) -> impl Iterator<Item = String> {
        let names = self.names.iter().map(|name| format!("n:{name}"));
        let subjects = self.subjects.iter().map(|subject| format!("s:{subject}"));
        names.chain(subjects).chain(self.operator.iter().map(|operator| format!("o:{operator}")))
    }
}

impl Known {
    fn put(&mut self, id: PersonId, record: &records::PersonRecord) {
        self.remove(&id);
        for key in Called::of(record).keys() {
            self.by.entry(key).or_default().insert(id);
        }
        self.rows.insert(id, Arc::new(record.clone()));
    }

    fn remove(&mut self, id: &PersonId) {
        self.damaged.remove(id);
        let Some(old) = self.rows.remove(id) else { return };
        for key in Called::of(&old).keys() {
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
        let mut known = Known::default();
        for (id, record) in ledger.people()? {
            match record {
                Some(record) => known.put(id, &record),
                None => {
                    known.damaged.insert(id);
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
        !known.damaged.is_empty() || found(&known, called).iter().any(|(_, record)| ended(record))
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

    /// How many are known.
    pub(super) fn count(&self) -> usize {
        self.known().rows.len()
    }

    /// Rows that cannot be read.
    pub(super) fn damaged(&self) -> Vec<PersonId> {
        self.known().damaged.iter().copied().collect()
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

impl Broker {
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

    /// The row that notes something of a person that no directory has told of: the one that is there, or a new one.
    ///
    /// # Errors
    /// When there is no room, or no entropy.
    pub(super) fn mark(&self, called: &Called, now: Timestamp) -> Result<(PersonId, records::PersonRecord), Refusal> {
        let same = |record: &records::PersonRecord| !record.provisioned && Called::of(record) == *called;
        let there = self.people.about(called).into_iter().find(|(_, record)| same(record));
        if let Some((id, record)) = there {
            return Ok((id, records::PersonRecord::clone(&record)));
        }
        if self.people.count() >= PEOPLE_MOST {
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
            row.active && !row.provisioned && Timestamp::from_millis(row.ended_until).after(MARK_KEPT) < now
        };
        self.people.rows(idle).into_iter().map(|(id, _)| id).collect()
    }
}

/// Fetches the keys of providers ahead of their end, until `stop`.
///
/// # Errors
/// Never; as the loops beside it.
pub async fn keep_fresh(broker: Arc<Broker>, stop: CancellationToken) -> io::Result<()> {
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

fn found(known: &Known, called: &Called) -> Vec<(PersonId, Arc<records::PersonRecord>)> {
    let ids: BTreeSet<PersonId> = called.keys().filter_map(|key| known.by.get(&key)).flatten().copied().collect();
    ids.into_iter().filter_map(|id| Some((id, Arc::clone(known.rows.get(&id)?)))).collect()
}

/// People that are known at most, those that a directory has removed included.
pub(super) const PEOPLE_MOST: usize = 20_000;
/// As long as an ID token or a sign-in can live, and more.
const MARK_KEPT: Duration = Duration::from_secs(2 * 86_400);
/// How often it is looked whose keys are due.
const LOOK: Duration = Duration::from_secs(5);
