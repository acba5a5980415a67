//! `mayfly pickup`: takes the credential that waits behind a handle, once.

use clap::Args;
use zeroize::Zeroizing;

use crate::pb;

use super::{
    delivery::DeliveryArgs,
    failure::{Failure, Outcome},
    found,
    session::Session,
};

/// Takes the credential that waits behind a handle of `issue --pickup`. It works once: a second time ends the credential
/// and tells its owner.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct PickupArgs {
    /// File with the handle, or `-` for stdin. Default: the variable MAYFLY_PICKUP.
    #[arg(long, value_name = "FILE")]
    from: Option<String>,
    #[command(flatten)]
    delivery: DeliveryArgs,
}

impl PickupArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is no handle, the broker refuses, or the credential cannot be delivered.
    pub async fn run(self, session: &Session) -> Outcome {
        self.delivery.check(&session.output)?;
        let handle = match &self.from {
            Some(source) => found::read(source)?,
            None => std::env::var(VARIABLE).map(Zeroizing::new).map_err(|_| {
                Failure::Usage(format!("no handle: give --from FILE, `--from -`, or the variable {VARIABLE}"))
            })?,
        };
        let request = pb::PickupRequest { handle: handle.trim().to_owned() };
        // Asked once: a lost answer that was asked for again would be an alarm.
        let reply = session.broker().await?.pickup(request).await?.into_inner();
        self.delivery.deliver(&session.output, reply, None)
    }
}

const VARIABLE: &str = "MAYFLY_PICKUP";

const HELP: &str = "\
Examples:
  # one process asks, another one gets it
  mayfly issue --tenant acme --partner globex --purpose deploy --kind jwt --audience https://api.acme.example \\
      --pickup --pickup-by deployer > handle
  mayfly --identity deployer pickup --from handle --out ./creds";
