//! `mayfly job finish` and `mayfly job add-mask`: what later steps ask of the holder.

use std::time::Duration;

use clap::Args;

use super::{
    control::{Answer, Ask, ask},
    env_file::masks,
    start::{HOLDER, StateArgs},
    state::{self, Left},
};
use crate::{
    cli::{
        arg,
        cell::Fields,
        exec::{
            identity::{Chosen, Who},
            run::COMPLETION,
        },
        failure::{Failure, Outcome},
        session::Session,
    },
    pb,
};

/// Arguments of `job finish`.
#[derive(Args, Clone, Debug)]
pub struct FinishArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Do not end the task: hold it for the next job on this machine, which comes with `job start --take-over` within
    /// this time; else it ends then.
    #[arg(long, value_parser = arg::seconds, value_name = "TIME")]
    hand_on: Option<u32>,
}

/// Arguments of `job add-mask`.
#[derive(Args, Clone, Debug)]
pub struct AddMaskArgs {
    #[command(flatten)]
    state: StateArgs,
}

impl FinishArgs {
    /// Ends the job, or hands its task on. What is over already is no error.
    ///
    /// # Errors
    /// When the state cannot be believed, or the task cannot be handed on.
    pub async fn run(self, session: &Session) -> Outcome {
        let path = self.state.path();
        let Some(left) = state::read(&path)? else {
            session.output.remark("nothing to finish: no job is held here");
            return Ok(());
        };
        if let Some(seconds) = self.hand_on {
            let asked = ask(&left.folder, &Ask::HandOn { seconds }, HOLDER).await;
            asked.map_err(|_| Failure::Negative("nobody holds the task any more: it cannot be handed on".into()))?;
            return session.output.one(&Fields::new().text("task_id", &left.task_id).flag("ended_now", false));
        }
        let ended_now = match ask(&left.folder, &Ask::Finish, HOLDER).await {
            Ok(said) => told(session, &said),
            Err(_) => left_alone(session, &left).await,
        };
        if !left.holder.end_by_itself(GOING).await {
            left.holder.end(GOING).await;
        }
        // What it could not take away any more.
        left.wipe();
        state::remove(&path)?;
        session.output.one(&Fields::new().text("task_id", &left.task_id).flag("ended_now", ended_now))
    }
}

impl AddMaskArgs {
    /// Has GitHub's runner mask the successors as well.
    ///
    /// # Errors
    /// When no job is held.
    pub async fn run(self, session: &Session) -> Outcome {
        let path = self.state.path();
        let left = state::read(&path)?;
        let left = left.ok_or_else(|| Failure::Negative("no job is held here".into()))?;
        let asked = ask(&left.folder, &Ask::Secrets, HOLDER).await;
        let said = asked.map_err(|_| Failure::Negative("nobody holds that job any more".into()))?;
        said.secrets.iter().flat_map(|secret| masks(secret)).try_for_each(|mask| session.output.line(&mask))
    }
}

fn told(session: &Session, said: &Answer) -> bool {
    if let Some(error) = &said.error {
        session.output.remark(&format!("the task could not be completed and ends by itself: {error}"));
    }
    said.ended_now
}

/// Without its holder: its hold breaks, and whoever has an identity of its own can say so at once.
async fn left_alone(session: &Session, left: &Left) -> bool {
    // One that does not answer holds no longer.
    left.holder.end(GOING).await;
    if let Some(why) = &left.over {
        session.output.remark(&format!("the task had ended before the job: {why}"));
        return false;
    }
    match completed(session, left).await {
        Some(ended_now) => ended_now,
        None => {
            session
                .output
                .remark("its holder was killed: the task ends within its grace time, and what it wrote is gone");
            false
        }
    }
}

/// As the holder of a certificate or the user at the broker's socket. A key made for one run is gone with its holder.
async fn completed(session: &Session, left: &Left) -> Option<bool> {
    let chosen = Chosen::of(session, None);
    if left.task_id.is_empty() || !matches!(chosen.who, Some(Who::User | Who::Certificate)) {
        return None;
    }
    let link = chosen.link(session, "").await.ok()?;
    let request = pb::CompleteTaskRequest { task_id: left.task_id.clone() };
    let done = link.call(COMPLETION, |mut broker| {
        let request = request.clone();
        async move { broker.complete_task(request).await }
    });
    Some(done.await.ok()?.ended_now)
}

/// How long a holder may take to go when all is done.
const GOING: Duration = Duration::from_secs(5);
