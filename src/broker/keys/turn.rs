//! One turn of a tenant's rings: the steps that are taken, and what they write.

use std::sync::Arc;

use super::{algorithm, ca_end, maker::Maker};
use crate::{
    broker::{
        Broker, event,
        found::{KeyPut, in_state},
        refusal::Refusal,
        rings::{KeyRow, KeyUse},
    },
    ledger::KeyCommit,
    mint::keyring::{KeyFacts, KeyState, Step},
    model::{TenantName, TenantNumber, Timestamp},
    pb,
};

/// What one step of a ring writes.
#[derive(Debug, Default)]
pub(super) struct Turn {
    puts: Vec<KeyPut>,
    deletes: Vec<Vec<u8>>,
    changed: Vec<String>,
    pub(super) events: Vec<pb::Event>,
}

impl Broker {
    pub(super) fn mark_cut(
        &self,
        turn: &mut Turn,
        rows: &[KeyRow],
        facts: &[KeyFacts],
        (tenant, key_use): (&TenantName, KeyUse),
        now: Timestamp,
    ) {
        for facts in facts.iter().filter(|facts| facts.state == KeyState::Cut) {
            let row = rows.iter().find(|row| row.key_use == key_use && row.record.key_id == facts.key_id);
            let Some(row) = row.filter(|row| row.facts().state != KeyState::Cut) else { continue };
            if ca_end(row).is_some() && facts.since < now {
                // Not cut, but thrown away for its age: it is destroyed in this turn.
                continue;
            }
            turn.puts.push((row.row_key.clone(), in_state(&row.record, KeyState::Cut, now)));
            turn.changed.push(facts.key_id.clone());
            turn.events.push(describe(event::own("key.cut", now), tenant, key_use, &facts.key_id));
        }
    }

    pub(super) fn take(
        &self,
        turn: &mut Turn,
        rows: &[KeyRow],
        (number, tenant, key_use): (TenantNumber, &TenantName, KeyUse),
        steps: &[Step],
        now: Timestamp,
        event: &dyn Fn(&str) -> pb::Event,
    ) -> Result<(), Refusal> {
        let find = |id: &str| rows.iter().find(|row| row.key_use == key_use && row.record.key_id == id);
        for step in steps {
            let (kind, key_id) = match step {
                Step::Prepare => {
                    let put = self.make(rows, (number, tenant, key_use), KeyState::Prepared, now)?;
                    let key_id = put.1.key_id.clone();
                    turn.puts.push(put);
                    ("key.prepared", key_id)
                }
                Step::Activate(id) => {
                    let puts = find(id).map(|row| (row.row_key.clone(), in_state(&row.record, KeyState::Active, now)));
                    turn.puts.extend(puts);
                    ("key.activated", id.clone())
                }
                Step::Retire(id) => {
                    let puts = find(id).map(|row| (row.row_key.clone(), in_state(&row.record, KeyState::Retired, now)));
                    turn.puts.extend(puts);
                    turn.changed.push(id.clone());
                    ("key.retired", id.clone())
                }
                Step::Destroy(id) => {
                    turn.deletes.extend(find(id).map(|row| row.row_key.clone()));
                    turn.changed.push(id.clone());
                    ("key.destroyed", id.clone())
                }
            };
            turn.events.push(describe(event(kind), tenant, key_use, &key_id));
        }
        self.never_without(turn, rows, (number, tenant, key_use), now, event)
    }

    /// When nothing would sign after this turn, a new key does at once.
    fn never_without(
        &self,
        turn: &mut Turn,
        rows: &[KeyRow],
        of: (TenantNumber, &TenantName, KeyUse),
        now: Timestamp,
        event: &dyn Fn(&str) -> pb::Event,
    ) -> Result<(), Refusal> {
        let (_, tenant, key_use) = of;
        let facts = self.facts(rows, key_use, now);
        let over = |id: &str| {
            let stepped = turn.puts.iter().find(|(_, record)| record.key_id == id);
            stepped.is_some_and(|(_, record)| KeyState::from_code(record.state) != KeyState::Active)
        };
        let signs = facts.iter().any(|facts| facts.state == KeyState::Active && !over(&facts.key_id));
        let code = u32::from(key_use.code());
        let begins = turn
            .puts
            .iter()
            .any(|(_, record)| record.key_use == code && KeyState::from_code(record.state) == KeyState::Active);
        if signs || begins {
            return Ok(());
        }
        let put = self.make(rows, of, KeyState::Active, now)?;
        turn.events.push(describe(event("key.activated"), tenant, key_use, &put.1.key_id));
        turn.puts.push(put);
        Ok(())
    }

    pub(super) fn replace_now(
        &self,
        turn: &mut Turn,
        rows: &[KeyRow],
        of: (TenantNumber, &TenantName, KeyUse),
        now: Timestamp,
        event: &dyn Fn(&str) -> pb::Event,
    ) -> Result<(), Refusal> {
        let facts = self.facts(rows, of.2, now);
        let put = self.make(rows, of, KeyState::Active, now)?;
        turn.events.push(describe(event("key.activated"), of.1, of.2, &put.1.key_id));
        turn.puts.push(put);
        let active = facts.iter().filter(|facts| facts.state == KeyState::Active);
        let retire: Vec<Step> = active.map(|facts| Step::Retire(facts.key_id.clone())).collect();
        self.take(turn, rows, of, &retire, now, event)
    }

    fn make(
        &self,
        rows: &[KeyRow],
        (number, tenant, key_use): (TenantNumber, &TenantName, KeyUse),
        state: KeyState,
        now: Timestamp,
    ) -> Result<KeyPut, Refusal> {
        let trust = self.registry.by_number(&self.ledger, number)?.ok_or(Refusal::Unknown("tenant"))?;
        let row = rows.iter().find(|row| row.key_use == KeyUse::Wrapping);
        let row = row.ok_or(Refusal::Unavailable("the tenant's keys are not readable"))?;
        let wrapping = self.rings.seal().open_wrapping(&row.row_key, &row.record.sealed_pkcs8);
        let wrapping = wrapping.map_err(Refusal::fault)?;
        let algorithm = algorithm(trust.trust.token_algorithm());
        Maker { broker: self, number, tenant, algorithm, wrapping: &wrapping, now }.make(key_use, state)
    }

    pub(super) async fn commit_turn(
        &self,
        number: TenantNumber,
        turn: Turn,
        now: Timestamp,
    ) -> Result<crate::ledger::Receipt, Refusal> {
        let Turn { puts, deletes, changed, events } = turn;
        let rings = Arc::clone(&self.rings);
        let commit = KeyCommit { puts, deletes, changed, events, now };
        Ok(self.ledger.step_keys(commit, move || rings.changed(number)).await?)
    }
}

fn describe(mut event: pb::Event, tenant: &TenantName, key_use: KeyUse, key_id: &str) -> pb::Event {
    tenant.as_str().clone_into(&mut event.tenant);
    event.details = vec![format!("use={}", key_use.word()), format!("key_id={key_id}")];
    event
}
