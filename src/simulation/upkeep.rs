//! What a daemon does by itself, and the clock that an operator confirms.

use super::{
    ground,
    world::{Fine, Sabotage, World},
};
use crate::{broker::event, ledger::CheckpointDraft, pb};

/// What runs by itself in a daemon.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Upkeep {
    Sweep,
    Walk,
    Trim,
    Checkpoint,
    Observe,
    Rings,
    Uses,
}

impl World {
    pub fn upkeep(&mut self, work: Upkeep) -> Fine {
        let broker = self.broker();
        let (now, wall) = (self.now(), broker.time.wall());
        self.marks.latest = self.marks.latest.max(now);
        let sabotaged = self.sabotage == Some(Sabotage::SweepByWallClock);
        let done = self.carry_out(async move {
            match work {
                Upkeep::Sweep if sabotaged => {
                    let before = wall.before(ground::ENDED_KEPT);
                    broker.ledger.sweep(before, wall, 0).await.map(drop)
                }
                Upkeep::Sweep => broker.sweep_all().await,
                Upkeep::Walk => broker.walk_cuts().await,
                Upkeep::Trim => match broker.audit_key() {
                    Ok(key) => broker.trim_audit(&std::sync::Arc::new(key)).await,
                    // Its row is damaged: the daemon does not trim either.
                    Err(_) => Ok(()),
                },
                Upkeep::Checkpoint => {
                    let draft = CheckpointDraft {
                        key_id: "audit".into(),
                        public_key: [7; 32],
                        sign: std::sync::Arc::new(|_| [0; 64]),
                        now,
                    };
                    broker.ledger.checkpoint(draft).await.map(drop)
                }
                Upkeep::Observe => {
                    broker.observe_time().await;
                    Ok(())
                }
                Upkeep::Rings => {
                    broker.step_rings(now).await;
                    Ok(())
                }
                Upkeep::Uses => {
                    let _written = broker.write_uses().await;
                    Ok(())
                }
            }
        })?;
        if let (Upkeep::Sweep, Some(Ok(()))) = (work, &done) {
            self.model.swept = self.model.swept.max(now);
        }
        self.trace.note(format_args!("  {work:?}: {}", done.map_or("crashed".into(), |done| format!("{done:?}"))));
        Ok(())
    }

    /// An operator takes the clock as it is, where that is possible.
    pub fn confirm_time(&mut self) -> Fine {
        let broker = self.broker();
        let request = pb::ConfirmTimeRequest { now: Some(event::stamp(broker.time.wall())), reason: "test".into() };
        let done = self.carry_out(async move { broker.confirm_time(&ground::admin(), request).await })?;
        let done = done.map_or("crashed", |done| if done.is_ok() { "done" } else { "refused" });
        self.trace.note(format_args!("  time confirmed: {done}"));
        Ok(())
    }
}
