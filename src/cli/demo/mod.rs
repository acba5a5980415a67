//! `mayfly demo`: a tour of a real daemon that proves, step by step, that what should be dead is dead and what should
//! live lives.
//!
//! ```text
//! demo --spawns--> mayfly serve --dev            (the broker, on a temporary folder)
//!   |  --spawns--> mayfly demo-resource-server   (one per tenant: asks the broker, answers 200 or 401)
//!   +--gRPC/TLS--> broker: as workloads, as operator     +--HTTPS--> resource servers: as whoever holds a credential
//! ```

mod act;
mod authority;
mod child;
mod keep;
mod platform;
mod report;
mod resource_server;
mod stage;
mod trust;
mod visit;

#[cfg(test)]
mod tests;

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    failure::{Failure, Outcome},
    output::Output,
};

use act::Act;
use report::Report;
use stage::Stage;

pub use resource_server::ResourceServerArgs;

/// Shows on a real daemon in a temporary folder that what should be dead is dead and what should live lives.
///
/// Exit code 0 only when every proof held, 4 when one did not.
#[derive(Args, Clone, Copy, Debug)]
#[command(after_help = DEMO_HELP)]
pub struct DemoArgs {
    /// Leave the daemon running, and print commands to try.
    #[arg(long)]
    pub keep: bool,
    /// Break one thing on purpose; the demo must then fail.
    #[arg(long, value_enum)]
    pub sabotage: Option<SabotageArg>,
}

/// What the demo can break.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum SabotageArg {
    /// The resource servers believe a good answer for ever, so a revocation goes unseen.
    Revoke,
    /// A tenant's resource server is registered for the other tenant too, and takes its credentials.
    Tenant,
    /// One bit of an exported audit event is flipped.
    Audit,
}

impl DemoArgs {
    /// Runs the command. Every process it starts ends with it, whichever way it goes.
    ///
    /// # Errors
    /// When a proof did not hold, the daemon did not start, or the demo was interrupted.
    pub async fn run(self, output: &Output) -> Outcome {
        let mut interrupted = Interrupted::listen()?;
        let mut report = Report::new(output);
        // Dropping the tour drops the stage, and with it the processes and the folder.
        let mut stage = tokio::select! {
            toured = self.tour(&mut report) => toured?,
            () = interrupted.wait() => return Err(Failure::Negative("interrupted".into())),
        };
        if self.keep {
            keep::explain(&stage, output)?;
            tokio::select! {
                () = stage.wait_for_daemon() => output.remark("the daemon is gone"),
                () = interrupted.wait() => {}
            }
        }
        report.verdict()
    }

    async fn tour(self, report: &mut Report<'_>) -> Outcome<Stage> {
        let mut stage = Stage::set(self.sabotage).await?;
        for act in Act::ALL {
            let outcome = act.play(&mut stage, report).await;
            report.settle(act.name(), outcome)?;
            if *act == Act::Apply && report.is_broken() {
                // Nothing else can be shown without a trust map.
                break;
            }
        }
        report.close()?;
        Ok(stage)
    }
}

/// The signals that end the demo.
struct Interrupted([tokio::signal::unix::Signal; 3]);

impl Interrupted {
    fn listen() -> Outcome<Self> {
        let listen = |kind| signal(kind).map_err(|error| Failure::io("listen for signals", error));
        Ok(Self([listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?]))
    }

    async fn wait(&mut self) {
        let Self([interrupt, terminate, hangup]) = self;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

const DEMO_HELP: &str = "\
Examples:
  mayfly demo
  # and then try it yourself
  mayfly demo --keep
  # a demo that must fail, because a resource server ignores revocations
  mayfly demo --sabotage revoke";
