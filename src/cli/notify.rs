//! `mayfly notify`: how notifications stand, and a test of them.

use clap::{Args, Subcommand};

use crate::pb;

use super::{
    cell::{Fields, Record},
    failure::{Failure, Outcome},
    session::Session,
};

/// Notifications to owners.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = HELP)]
pub enum NotifyCommand {
    /// Shows every route and how each of its channels stands.
    Status,
    /// Sends a marked message through the daemon, and says what came of it. Exit code 1 when it was not delivered.
    Test(TestArgs),
}

/// Arguments of `notify test`.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub struct TestArgs {
    /// By the route of this owner, or the default one.
    #[arg(long, value_name = "OWNER")]
    owner: Option<String>,
    /// By this route.
    #[arg(long, value_name = "ROUTE")]
    route: Option<String>,
}

impl NotifyCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses, or a test was not delivered.
    pub async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::Status => {
                let reply = session.admin().await?.list_notify_outlets(pb::ListNotifyOutletsRequest {}).await?;
                session.output.list(&reply.into_inner().outlets)
            }
            Self::Test(args) => args.run(session).await,
        }
    }
}

impl TestArgs {
    async fn run(self, session: &Session) -> Outcome {
        let request = pb::TestNotificationRequest {
            owner: self.owner.unwrap_or_default(),
            route: self.route.unwrap_or_default(),
        };
        let reply = session.admin().await?.test_notification(request).await?.into_inner();
        session.output.list(&reply.results)?;
        session.output.remark(&format!("message {}", reply.message_id));
        let failed = reply.results.iter().filter(|result| !result.delivered).count();
        match (reply.results.len(), failed) {
            (0, _) => Err(Failure::Negative("the route leads nowhere".into())),
            (_, 0) => Ok(()),
            (all, failed) => Err(Failure::Negative(format!("{failed} of {all} channels did not take it"))),
        }
    }
}

impl Record for pb::NotifyOutlet {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("ROUTE", "route"),
        ("CHANNEL", "channel"),
        ("TARGET", "target"),
        ("DEFAULT", "default"),
        ("KINDS", "kinds"),
        ("WAITING", "waiting"),
        ("LAST SUCCESS", "last_success"),
        ("FAILING SINCE", "failing_since"),
        ("GIVEN UP", "given_up"),
        ("LAST ERROR", "last_error"),
    ];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("route", &self.route)
            .text("channel", channel(self.channel))
            .text("target", &self.target)
            .words("owners", &self.owners)
            .flag("default", self.is_default)
            .words("kinds", &self.topics)
            .number("waiting", self.waiting)
            .time("last_success", self.last_success.as_ref())
            .time("failing_since", self.failing_since.as_ref())
            .number("failures", self.failures)
            .text("last_error", &self.last_error)
            .time("next_attempt", self.next_attempt.as_ref())
            .number("delivered", self.delivered)
            .number("given_up", self.given_up)
    }
}

impl Record for pb::NotifyTestResult {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("ROUTE", "route"),
        ("CHANNEL", "channel"),
        ("TARGET", "target"),
        ("DELIVERED", "delivered"),
        ("MS", "milliseconds"),
        ("ERROR", "error"),
    ];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("route", &self.route)
            .text("channel", channel(self.channel))
            .text("target", &self.target)
            .flag("delivered", self.delivered)
            .number("milliseconds", self.milliseconds)
            .text("error", &self.error)
    }
}

fn channel(code: i32) -> &'static str {
    match pb::NotifyChannel::try_from(code) {
        Ok(pb::NotifyChannel::Webhook) => "webhook",
        Ok(pb::NotifyChannel::Mail) => "mail",
        Ok(pb::NotifyChannel::Unspecified) | Err(_) => "unknown",
    }
}

const HELP: &str = "\
Routes stand in the server's config, section [notify].

Examples:
  mayfly notify status
  mayfly notify test --owner payments@acme.example
  mayfly notify test --route security";

#[cfg(feature = "server")]
#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::{cli::Cli, notify::Item};

    #[test]
    fn each_command_that_an_owner_is_told_is_whole() {
        let mut kinds: Vec<&str> = crate::model::Topic::ALARMS.to_vec();
        kinds.extend(["grant.attestation_due", "scope.suspended", "scope.barred", "scope.quarantined"]);
        kinds.extend(["quarantine.lapsed", "task.abandoned"]);
        let mut count = 0;
        for kind in kinds {
            for cause in ["attestation overdue", "dormant", "owner left", "transfer pending"] {
                let event = crate::pb::Event {
                    kind: kind.into(),
                    tenant: "acme".into(),
                    grant: "ci-deploy".into(),
                    task_id: "400000010000000000000001".into(),
                    proof: "ab".repeat(32),
                    details: vec!["scope=partner globex in tenant acme".into(), format!("cause={cause}")],
                    ..Default::default()
                };
                for command in Item::of(&event).next {
                    let command = command.replace("TIME", "2027-01-31T00:00:00Z");
                    let words = command.split('\'').enumerate().flat_map(super::super::tests::quoted);
                    let parsed = Cli::try_parse_from(words);
                    assert!(parsed.is_ok(), "{command}: {}", parsed.err().map(|e| e.to_string()).unwrap_or_default());
                    count += 1;
                }
            }
        }
        assert!(count > 50, "{count}");
    }
}
