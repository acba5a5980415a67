//! Everything that a job needs, fetched and handed over before its command starts.

use std::{
    path::Path,
    sync::{Arc, PoisonError},
    time::Duration,
};

use zeroize::Zeroizing;

use super::{
    endpoint::{Endpoint, SOCKET},
    hand::{self, Descriptors, Variables, Written},
    need::{Job, Need, Way},
    pump::Shared,
};
use crate::{
    cli::failure::{Failure, Outcome},
    client::{CallError, Credential, Holding, Renewing, Task},
};

/// What the command is given, and what keeps it fresh.
#[derive(Debug)]
pub struct Prepared {
    /// Beside what it inherits.
    pub variables: Variables,
    /// Secrets of its output.
    pub patterns: Shared,
    /// What is replaced ahead of its end.
    pub renewed: Vec<Arc<Renewing>>,
    /// Every credential as it was handed over first.
    pub first: Vec<Arc<Credential>>,
    _endpoint: Option<Endpoint>,
}

/// One credential as it came.
enum Got {
    Fixed(Arc<Credential>),
    Renewed(Arc<Renewing>, Arc<Credential>),
}

/// Fetches and hands over all that `job` needs; `place` is the private folder, where one is needed.
///
/// # Errors
/// Every piece that is missing, by name.
pub async fn prepare(
    task: &Task,
    job: &Job,
    descriptors: &Descriptors,
    written: &Written,
    place: Option<&Path>,
    patience: Duration,
) -> Outcome<Prepared> {
    let patterns = Shared::default();
    let got = fetch(task, job, place, &patterns, written, patience).await?;
    let mut variables: Variables = Vec::new();
    let mut say = |name: &str, value: String| variables.push((name.to_owned(), Zeroizing::new(value)));
    say("MAYFLY_TASK_ID", task.id().to_owned());
    if let Some(place) = place {
        say("MAYFLY_DIR", place.display().to_string());
    }
    let (mut renewed, mut served, mut first) = (Vec::new(), Vec::new(), Vec::new());
    for (need, got) in job.needs.iter().zip(got) {
        if let Some(path) = hand::files(need, place).first() {
            variables.push((need.file_variable(), Zeroizing::new(path.display().to_string())));
        }
        let (Got::Fixed(credential) | Got::Renewed(_, credential)) = &got;
        first.push(Arc::clone(credential));
        variables.extend(hand::environment(need, credential)?);
        for way in &need.ways {
            if let Way::Fd(number) = way {
                let filled = descriptors.fill(*number, &hand::stream(credential));
                filled.map_err(|error| Failure::io(format!("fill descriptor {number} for `{}`", need.name), error))?;
            }
        }
        if let Got::Renewed(renewing, _) = got {
            if need.ways.contains(&Way::Endpoint) {
                served.push((need.name.clone(), Arc::clone(&renewing)));
            }
            renewed.push(renewing);
        }
    }
    let endpoint = match place {
        Some(place) if !served.is_empty() => {
            let opened = Endpoint::open(place, served).map_err(|error| Failure::io("open the endpoint", error))?;
            let path = place.join(SOCKET).display().to_string();
            variables.push(("MAYFLY_ENDPOINT".to_owned(), Zeroizing::new(path)));
            Some(opened)
        }
        Some(_) | None => None,
    };
    Ok(Prepared { variables, patterns, renewed, first, _endpoint: endpoint })
}

/// Whether something of it goes into the private folder.
#[must_use]
pub fn needs_place(job: &Job) -> bool {
    job.needs.iter().flat_map(|need| &need.ways).any(|way| match way {
        Way::File(path) => path.is_relative(),
        Way::Endpoint => true,
        Way::Env(_) | Way::Fd(_) => false,
    })
}

/// All credentials at once, while the hold is being set up.
async fn fetch(
    task: &Task,
    job: &Job,
    place: Option<&Path>,
    patterns: &Shared,
    written: &Written,
    patience: Duration,
) -> Outcome<Vec<Got>> {
    let wanted = job.needs.iter().map(|need| one(task, need, place, patterns, written, patience));
    let (all, holding) = tokio::join!(all(wanted), tokio::time::timeout(patience, task.settled()));
    let mut missing = Vec::new();
    let mut got = Vec::new();
    for (need, one) in job.needs.iter().zip(all) {
        match one {
            Ok(one) => got.push(one),
            Err(error) => missing.push((need.name.clone(), Failure::from(error))),
        }
    }
    if !missing.is_empty() {
        return Err(Failure::Missing(missing));
    }
    match holding {
        Ok(Holding::Held) => Ok(got),
        Ok(Holding::Over(why)) => {
            Err(Failure::Negative(format!("the task ended before the command: {}", super::run::word_of(why))))
        }
        Ok(Holding::Starting | Holding::Broken(_)) | Err(_) => {
            let last = match &*task.holding().borrow() {
                Holding::Broken(why) => format!(": {why}"),
                Holding::Starting | Holding::Held | Holding::Over(_) => String::new(),
            };
            Err(Failure::Negative(format!("the task could not be held{last}")))
        }
    }
}

/// One credential, its files written.
async fn one(
    task: &Task,
    need: &Need,
    place: Option<&Path>,
    patterns: &Shared,
    written: &Written,
    patience: Duration,
) -> Result<Got, CallError> {
    let patterns = Arc::clone(patterns);
    // Masked before anyone can have it.
    let mask = move |credential: &Credential| {
        patterns.write().unwrap_or_else(PoisonError::into_inner).add(credential.expose_secret());
    };
    if !need.is_renewed() {
        let credential = task.issue(&need.wanted, patience).await?;
        mask(&credential);
        return Ok(Got::Fixed(Arc::new(credential)));
    }
    let paths = hand::files(need, place);
    let written = written.clone();
    let hand_over = move |credential: &Credential| {
        mask(credential);
        hand::write_files(&paths, credential, &written)
    };
    let renewing = task.renewing(need.wanted.clone(), patience, hand_over).await?;
    let first = renewing.current();
    Ok(Got::Renewed(Arc::new(renewing), first))
}

/// Runs all at once and returns the results in order.
async fn all<T>(work: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<_> = work.into_iter().map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|cx| {
        let mut is_done = true;
        for (one, result) in &mut running {
            if result.is_none() {
                match one.as_mut().poll(cx) {
                    std::task::Poll::Ready(value) => *result = Some(value),
                    std::task::Poll::Pending => is_done = false,
                }
            }
        }
        if is_done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    running.into_iter().filter_map(|(_, result)| result).collect()
}
