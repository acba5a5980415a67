//! The audit, for operators: listed, followed, exported and verified.

use std::sync::Arc;

use tokio::sync::{broadcast::error::RecvError, mpsc};

use super::{
    Broker,
    event::unstamp,
    page::{self, PageAsk},
    refusal::Refusal,
    rings::KeyUse,
    trail::{self, Stream},
    view,
    who::Operator,
};
use crate::{
    audit::verify::{Coverage, Start, Verifier},
    identity::Caller,
    ledger::{LogRow, keys, stream_id, stream_name},
    mint::audit_key,
    model::{LeaseId, PartnerName, TaskId, TenantName, TenantNumber},
    pb,
    pb::export_events_response::Item,
    policy::Role,
};

/// What follows a stream of answers.
pub type Answers<T> = mpsc::Receiver<Result<T, Refusal>>;

impl Broker {
    /// Audit events, in the order of their streams and, within one, as they happened. A page may be short while there is
    /// a next one.
    ///
    /// # Errors
    /// When the caller is no operator, a filter is malformed, or the store failed.
    pub async fn list_events(
        &self,
        caller: &Caller,
        request: pb::ListEventsRequest,
    ) -> Result<pb::ListEventsResponse, Refusal> {
        let (operator, ask) = self.looks(caller, request.page.as_ref())?;
        let tenant = self.tenant_of_filter(&request)?;
        let (begin, done) = begin_of(&ask)?;
        let (mut events, mut seen) = (Vec::new(), 0_usize);
        for stream in self.streams_of(&operator, &tenant, &request.partner, &begin).await? {
            let mut next = Some(match &request.from {
                _ if stream.id.as_slice() == begin => done.saturating_add(1),
                Some(from) => trail::sequence_at(&self.ledger, &stream.id, unstamp(from))?,
                None => 0,
            });
            while let Some(from) = next {
                let (found, more) = trail::events_from(&self.ledger, &stream.id, from, PAGES)?;
                next = more;
                for event in found {
                    seen += 1;
                    let sequence = event.sequence;
                    events.extend(Some(event).filter(|event| is_wanted(&request, event)));
                    if events.len() >= ask.size || seen >= page::SCAN_MOST {
                        let next_page_token = page::token(&trail::place(&stream.id, sequence));
                        return Ok(pb::ListEventsResponse { events, next_page_token });
                    }
                }
                tokio::task::yield_now().await;
            }
        }
        Ok(pb::ListEventsResponse { events, next_page_token: String::new() })
    }

    /// Streams audit events as they are committed. The operator is looked up again for each batch: one that was removed
    /// or cut hears no more.
    ///
    /// # Errors
    /// When the caller is no operator; [`Refusal::RevisionGone`] when the log no longer reaches back to `after`.
    pub async fn tail_events(
        self: &Arc<Self>,
        caller: &Caller,
        request: pb::TailEventsRequest,
    ) -> Result<Answers<pb::Event>, Refusal> {
        self.auditor(caller)?;
        let after = self.tail_start(request.after)?;
        let (broker, caller) = (Arc::clone(self), caller.clone());
        let (sender, answers) = mpsc::channel(ANSWERS);
        tokio::spawn(async move {
            if let Err(refusal) = broker.tail(&caller, &request, after, &sender).await {
                // The listener may be gone already.
                let _ = sender.send(Err(refusal)).await;
            }
        });
        Ok(answers)
    }

    /// Streams whole audit streams. Checkpoints name streams of every tenant, so only operators whose scope is everything
    /// are given them.
    ///
    /// # Errors
    /// When the caller is no operator.
    pub async fn export_events(
        self: &Arc<Self>,
        caller: &Caller,
        request: pb::ExportEventsRequest,
    ) -> Result<Answers<pb::ExportEventsResponse>, Refusal> {
        let operator = self.auditor(caller)?;
        let broker = Arc::clone(self);
        let (sender, answers) = mpsc::channel(ANSWERS);
        tokio::spawn(async move {
            if let Err(refusal) = broker.export(&operator, &request, &sender).await {
                let _ = sender.send(Err(refusal)).await;
            }
        });
        Ok(answers)
    }

    /// Checks chains and checkpoints in the store and locates what is wrong.
    ///
    /// # Errors
    /// When the caller is no operator, or what it asks for is beyond its scope.
    pub async fn verify_events(
        &self,
        caller: &Caller,
        request: pb::VerifyEventsRequest,
    ) -> Result<pb::VerifyEventsResponse, Refusal> {
        let operator = self.auditor(caller)?;
        let (tenant, partner) = (request.tenant, request.partner);
        if !operator.sees(&tenant, &partner) {
            return Err(Refusal::NotAllowed("name a tenant and partner of your scope"));
        }
        let coverage = match (tenant.is_empty(), partner.is_empty()) {
            (true, true) => Coverage::All,
            (false, true) => Coverage::Tenant(tenant.clone()),
            (false, false) => Coverage::Stream(stream_name(&tenant, &partner)),
            (true, false) => return Err(Refusal::invalid("tenant", "is needed with a partner")),
        };
        let ring = self.rings.ring(&self.ledger, TenantNumber::BROKER)?;
        let trusted = ring.of(KeyUse::Audit).filter_map(|row| row.record.public_key.as_slice().try_into().ok());
        let mut verifier = Verifier::new(Start::Genesis, coverage, trusted.collect(), audit_key::verify);
        let mut number = 0;
        loop {
            let checkpoints = self.ledger.checkpoints(number, PAGES)?;
            let Some(last) = checkpoints.last() else { break };
            number = last.number;
            checkpoints.iter().for_each(|checkpoint| verifier.checkpoint(checkpoint));
            tokio::task::yield_now().await;
        }
        let mut verifier = verifier.events();
        for stream in self.streams_of(&operator, &tenant, &partner, &[]).await? {
            let (name, mut from) = (stream_name(&stream.tenant, &stream.partner), 0);
            loop {
                let rows = self.ledger.audit_pages(&stream.id, from, PAGES)?;
                let Some((last, _)) = rows.last() else { break };
                from = last.saturating_add(1);
                for (first, record) in &rows {
                    match record {
                        Some(record) => verifier.page(&name, record, *first),
                        None => verifier.unreadable(&name, *first),
                    }
                }
                tokio::task::yield_now().await;
            }
        }
        Ok(verifier.finish().into())
    }

    fn auditor(&self, caller: &Caller) -> Result<Operator, Refusal> {
        if caller.expires().is_some_and(|end| end <= self.now()) {
            return Err(Refusal::Unproven("the certificate you came with has expired"));
        }
        let operator = self.operator(caller)?;
        operator.require(Role::Auditor)?;
        Ok(operator)
    }

    /// The tenant that a filter narrows to: the one named, or the one that an id says.
    fn tenant_of_filter(&self, request: &pb::ListEventsRequest) -> Result<String, Refusal> {
        let _: Option<TenantName> = view::optional_id("tenant", &request.tenant)?;
        let _: Option<PartnerName> = view::optional_id("partner", &request.partner)?;
        let task: Option<TaskId> = view::optional_id("task_id", &request.task_id)?;
        let lease: Option<LeaseId> = view::optional_id("lease_id", &request.lease_id)?;
        let number = task.map(|task| task.tenant()).or(lease.map(|lease| lease.tenant()));
        let named = number.and_then(|number| self.registry.name(number)).map(|name| name.to_string());
        Ok(if request.tenant.is_empty() { named.unwrap_or_default() } else { request.tenant.clone() })
    }

    fn tail_start(&self, after: Option<pb::Revision>) -> Result<u64, Refusal> {
        let (incarnation, now) = self.ledger.basis();
        let Some(after) = after else { return Ok(now) };
        let begin = self.ledger.log_begin()?.map_or(now.saturating_add(1), |row| row.number);
        let known = after.incarnation == incarnation && after.number <= now && after.number.saturating_add(1) >= begin;
        if known { Ok(after.number) } else { Err(Refusal::RevisionGone) }
    }

    async fn tail(
        &self,
        caller: &Caller,
        request: &pb::TailEventsRequest,
        mut after: u64,
        to: &mpsc::Sender<Result<pb::Event, Refusal>>,
    ) -> Result<(), Refusal> {
        // What a commit announces only wakes: the log says what it wrote, so a listener that lags misses nothing.
        let mut commits = self.ledger.subscribe();
        loop {
            let rows = self.ledger.log_after(after, PAGES)?;
            let operator = self.auditor(caller)?;
            for row in &rows {
                for event in self.logged(&operator, request, row)? {
                    if to.send(Ok(event)).await.is_err() {
                        return Ok(());
                    }
                }
                after = row.number;
            }
            if !rows.is_empty() {
                continue;
            }
            let woken = tokio::select! {
                woken = commits.recv() => woken,
                () = to.closed() => return Ok(()),
            };
            match woken {
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Err(Refusal::Unavailable("the broker is stopping")),
            }
        }
    }

    /// Events of one commit that an operator sees and asks for.
    fn logged(
        &self,
        operator: &Operator,
        request: &pb::TailEventsRequest,
        row: &LogRow,
    ) -> Result<Vec<pb::Event>, Refusal> {
        let mut found = Vec::new();
        for (stream, first) in &row.pages {
            if is_other_stream(request, stream) {
                continue;
            }
            let events = trail::page_events(&self.ledger, stream, *first)?;
            found.extend(events.into_iter().filter(|event| {
                let (tenant, partner) = event.stream.split_once('/').unwrap_or_default();
                (request.tenant.is_empty() || request.tenant == tenant)
                    && (request.partner.is_empty() || request.partner == partner)
                    && operator.sees(tenant, partner)
            }));
        }
        Ok(found)
    }

    async fn export(
        &self,
        operator: &Operator,
        request: &pb::ExportEventsRequest,
        to: &mpsc::Sender<Result<pb::ExportEventsResponse, Refusal>>,
    ) -> Result<(), Refusal> {
        let mut number = 0;
        while operator.reaches(None, None) {
            let checkpoints = self.ledger.checkpoints(number, PAGES)?;
            let Some(last) = checkpoints.last() else { break };
            number = last.number;
            for checkpoint in checkpoints {
                if !send(to, Item::Checkpoint(checkpoint)).await {
                    return Ok(());
                }
            }
        }
        let streams: Vec<Stream> = self.streams_of(operator, &request.tenant, &request.partner, &[]).await?;
        for stream in streams {
            let mut next = Some(0);
            while let Some(from) = next {
                let (events, more) = trail::events_from(&self.ledger, &stream.id, from, PAGES)?;
                next = more;
                for event in events {
                    if !send(to, Item::Event(event)).await {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}

/// False when nobody listens any more.
async fn send(to: &mpsc::Sender<Result<pb::ExportEventsResponse, Refusal>>, item: Item) -> bool {
    to.send(Ok(pb::ExportEventsResponse { item: Some(item) })).await.is_ok()
}

fn is_other_stream(request: &pb::TailEventsRequest, stream: &keys::StreamId) -> bool {
    let both = !request.tenant.is_empty() && !request.partner.is_empty();
    both && stream_id(&request.tenant, &request.partner) != *stream
}

/// The stream and sequence that a page token names; nothing and 0 for the beginning.
fn begin_of(ask: &PageAsk) -> Result<(Vec<u8>, u64), Refusal> {
    if ask.after.is_empty() {
        return Ok((Vec::new(), 0));
    }
    let (stream, sequence) =
        keys::parse_audit(&ask.after).ok_or_else(|| Refusal::invalid("page.token", "is of another list"))?;
    Ok((stream.to_vec(), sequence))
}

fn is_wanted(request: &pb::ListEventsRequest, event: &pb::Event) -> bool {
    let at = trail::time(event);
    (request.task_id.is_empty() || request.task_id == event.task_id)
        && (request.lease_id.is_empty() || request.lease_id == event.lease_id)
        && event.kind.starts_with(&request.kind_prefix)
        && request.from.as_ref().is_none_or(|from| at >= unstamp(from))
        && request.to.as_ref().is_none_or(|to| at < unstamp(to))
}

const PAGES: usize = 256;
const ANSWERS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_events_names_stream_and_sequence() {
        let after = trail::place(&[7; 12], 42);
        assert_eq!(begin_of(&PageAsk { size: 1, after }).unwrap(), (vec![7; 12], 42));
        assert_eq!(begin_of(&PageAsk { size: 1, after: Vec::new() }).unwrap(), (Vec::new(), 0));
        assert!(begin_of(&PageAsk { size: 1, after: vec![1] }).is_err());
    }

    #[test]
    fn the_end_of_a_time_span_is_not_in_it() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let event = pb::Event { kind: "lease.issued".into(), at: at(10), ..Default::default() };
        let request = |from, to| pb::ListEventsRequest { from: at(from), to: at(to), ..Default::default() };
        assert!(is_wanted(&request(10, 11), &event));
        assert!(!is_wanted(&request(9, 10), &event));
        assert!(!is_wanted(&request(11, 12), &event));
    }
}
