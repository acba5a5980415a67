//! The command line: one file per noun. Each command parses its arguments, makes its calls and shows the answers.

mod apply;
mod approval;
mod arg;
mod attest;
#[cfg(feature = "server")]
mod backup;
mod bar;
mod cell;
mod completions;
mod confirm;
mod decommission;
mod delivery;
#[cfg(feature = "server")]
mod demo;
#[cfg(feature = "server")]
mod events;
mod exec;
mod explain;
mod failure;
mod found;
mod hold;
mod intent;
mod inventory;
mod issue;
mod issuer;
mod job;
mod key;
mod lease;
#[cfg(feature = "server")]
pub mod local;
mod login;
mod notify;
mod operator;
mod output;
mod owner;
mod page;
mod pickup;
mod policy;
mod private_file;
mod quarantine;
mod render;
mod request;
#[cfg(feature = "server")]
mod restore;
mod revocation;
mod revoke;
mod scope;
mod secret;
mod session;
mod status;
mod task;
mod trust;
mod unmanaged;
#[cfg(feature = "server")]
pub mod untrusted;
mod verify;

#[cfg(feature = "server")]
#[cfg(test)]
mod runbooks;
#[cfg(feature = "server")]
#[cfg(test)]
mod tests;

use std::{
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use tokio::runtime::Builder;

pub use failure::{Exit, Failure, Outcome};
pub use output::{Format, Output};
pub use session::{GlobalArgs, Session};

/// A credential broker: task-scoped, minutes-long tokens and certificates per partner and tenant.
///
/// A workload asks for a credential that fits its task, its tenant and its partner, and no more. The credential dies
/// when the task completes, when its time runs out, when the task's process disappears, or the moment an operator says
/// so.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "mayfly",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    after_help = HELP
)]
pub struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

/// The commands: workloads' first, then resource servers', then operators'.
#[derive(Clone, Debug, Subcommand)]
enum Command {
    Exec(Box<exec::ExecArgs>),
    /// Holds a task for the steps of a CI job; checks job files.
    #[command(subcommand)]
    Job(job::JobCommand),
    /// Opens, keeps, completes and shows tasks.
    #[command(subcommand)]
    Task(task::TaskCommand),
    Issue(Box<issue::IssueArgs>),
    Renew(issue::RenewArgs),
    Pickup(pickup::PickupArgs),
    Release(issue::ReleaseArgs),
    Introspect(verify::IntrospectArgs),
    Watch(verify::WatchArgs),
    Bundle(verify::BundleArgs),
    Login(login::LoginArgs),
    Logout(login::LogoutArgs),
    Apply(apply::ApplyArgs),
    /// Lists tenants.
    #[command(subcommand)]
    Tenant(trust::TenantCommand),
    /// Lists partners.
    #[command(subcommand)]
    Partner(trust::PartnerCommand),
    /// Lists and attests grants.
    #[command(subcommand)]
    Grant(trust::GrantCommand),
    /// Lists workload bindings.
    #[command(subcommand)]
    Workload(trust::WorkloadCommand),
    /// Lists issuers of identity tokens, and tests tokens.
    #[command(subcommand)]
    Issuer(issuer::IssuerCommand),
    /// Lists operators and certifies their keys.
    #[command(subcommand)]
    Operator(operator::OperatorCommand),
    /// Lists and shows leases.
    #[command(subcommand)]
    Lease(lease::LeaseCommand),
    Revoke(revoke::RevokeArgs),
    Whois(verify::WhoisArgs),
    Bar(bar::BarArgs),
    Lift(bar::LiftArgs),
    Quarantine(quarantine::QuarantineArgs),
    Attest(attest::AttestArgs),
    /// Asks for leave to use a grant, and gives it.
    #[command(subcommand)]
    Approval(approval::ApprovalCommand),
    /// Gives grants to new owners, and suspends those of owners who leave.
    #[command(subcommand)]
    Owner(owner::OwnerCommand),
    Offboard(decommission::OffboardArgs),
    Closeout(decommission::CloseoutArgs),
    Retire(decommission::RetireArgs),
    Inventory(Box<inventory::InventoryArgs>),
    /// Shows who can reach what.
    #[command(subcommand)]
    Trust(inventory::TrustCommand),
    WhoCanRevoke(inventory::WhoCanRevokeArgs),
    /// Checks and tests policies on this machine, and shows what runs in shadow.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Lists revocations and shows their clean-up.
    #[command(subcommand)]
    Revocation(revocation::RevocationCommand),
    /// Reads, exports and checks the audit.
    #[cfg(feature = "server")]
    #[command(subcommand)]
    Events(events::EventsCommand),
    /// Lists and rotates keys.
    #[command(subcommand)]
    Key(key::KeyCommand),
    Explain(Box<explain::ExplainArgs>),
    /// Shows and tests notifications to owners.
    #[command(subcommand)]
    Notify(notify::NotifyCommand),
    /// Puts, rotates and retires static secrets, and says who has them.
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// Registers credentials that nobody here manages.
    #[command(subcommand)]
    Unmanaged(unmanaged::UnmanagedCommand),
    /// Shows what the daemon thinks of itself.
    Status,
    /// Makes and checks backups.
    #[cfg(feature = "server")]
    #[command(subcommand)]
    Backup(backup::BackupCommand),
    #[cfg(feature = "server")]
    Restore(restore::RestoreArgs),
    /// Confirms what the daemon is in doubt about, so that issuing goes on.
    #[command(subcommand)]
    Confirm(confirm::ConfirmCommand),
    /// Confirms the daemon's clock.
    #[command(subcommand)]
    Time(status::TimeCommand),
    #[cfg(feature = "server")]
    Demo(demo::DemoArgs),
    #[cfg(feature = "server")]
    #[command(hide = true)]
    DemoResourceServer(demo::ResourceServerArgs),
    Completions(completions::CompletionsArgs),
    #[cfg(feature = "server")]
    #[command(flatten)]
    Local(local::LocalCommand),
}

/// Runs the command line and returns its exit code. The first argument is the program's name.
#[must_use]
pub fn run<A: Into<OsString>>(arguments: impl IntoIterator<Item = A>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, &arguments),
    };
    let output = Output::standard(cli.global.output, cli.global.quiet);
    let session = Session::new(cli.global, output);
    // Its exit code is its command's.
    if let Command::Exec(args) = &cli.command {
        return args.run(&session);
    }
    if let Command::Job(job::JobCommand::Start(args)) = &cli.command {
        return args.run(&session);
    }
    match execute(cli.command, &session) {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            if failure.exit() != Exit::Ok {
                session.output.progress_done();
                // Nothing can be told where stderr is closed.
                let _ = writeln!(io::stderr(), "{}", failure.report());
            }
            failure.exit().into()
        }
    }
}

/// Help and version go to stdout with exit code 0, wrong usage to stderr with 2, or 125 where 2 could be a command's own.
fn usage(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    // Nothing can be told where the stream is closed.
    let _ = error.print();
    match exec::usage_code(arguments) {
        Some(code) if error.use_stderr() => code.into(),
        None if error.use_stderr() => Exit::Usage.into(),
        Some(_) | None => Exit::Ok.into(),
    }
}

fn execute(command: Command, session: &Session) -> Outcome {
    let runtime = runtime(&command).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::io("start the runtime", error))?;
    runtime.block_on(command.run(session))
}

/// A client waits for one thing after the other; a server does many at once.
fn runtime(command: &Command) -> Builder {
    #[cfg(feature = "server")]
    if matches!(command, Command::Local(_)) {
        let mut many = Builder::new_multi_thread();
        many.event_interval(crate::server::EVENT_INTERVAL);
        return many;
    }
    #[cfg(not(feature = "server"))]
    let _ = command;
    Builder::new_current_thread()
}

impl Command {
    async fn run(self, session: &Session) -> Outcome {
        match self {
            // It makes a runtime of its own, after what has to come before any.
            Self::Exec(_) => Err(Failure::Internal("exec is not run like other commands".into())),
            Self::Job(command) => command.run(session).await,
            Self::Task(command) => command.run(session).await,
            Self::Issue(args) => args.run(session).await,
            Self::Renew(args) => args.run(session).await,
            Self::Pickup(args) => args.run(session).await,
            Self::Release(args) => args.run(session).await,
            Self::Introspect(args) => args.run(session).await,
            Self::Watch(args) => args.run(session).await,
            Self::Bundle(args) => args.run(session).await,
            Self::Login(args) => args.run(session).await,
            Self::Logout(args) => args.run(session).await,
            Self::Apply(args) => args.run(session).await,
            Self::Tenant(command) => command.run(session).await,
            Self::Partner(command) => command.run(session).await,
            Self::Grant(command) => command.run(session).await,
            Self::Workload(command) => command.run(session).await,
            Self::Issuer(command) => command.run(session).await,
            Self::Operator(command) => command.run(session).await,
            Self::Lease(command) => command.run(session).await,
            Self::Revoke(args) => args.run(session).await,
            Self::Whois(args) => args.run(session).await,
            Self::Bar(args) => args.run(session).await,
            Self::Lift(args) => args.run(session).await,
            Self::Quarantine(args) => args.run(session).await,
            Self::Attest(args) => args.run(session).await,
            Self::Approval(command) => command.run(session).await,
            Self::Owner(command) => command.run(session).await,
            Self::Offboard(args) => args.run(session).await,
            Self::Closeout(args) => args.run(session).await,
            Self::Retire(args) => args.run(session).await,
            Self::Inventory(args) => args.run(session).await,
            Self::Trust(command) => command.run(session).await,
            Self::WhoCanRevoke(args) => args.run(session).await,
            Self::Policy(command) => command.run(session).await,
            Self::Revocation(command) => command.run(session).await,
            #[cfg(feature = "server")]
            Self::Events(command) => command.run(session).await,
            Self::Key(command) => command.run(session).await,
            Self::Explain(args) => args.run(session).await,
            Self::Notify(command) => command.run(session).await,
            Self::Secret(command) => command.run(session).await,
            Self::Unmanaged(command) => command.run(session).await,
            Self::Status => status::run(session).await,
            #[cfg(feature = "server")]
            Self::Backup(command) => command.run(session).await,
            #[cfg(feature = "server")]
            Self::Restore(args) => args.run(&session.output).await,
            Self::Confirm(command) => command.run(session).await,
            Self::Time(command) => command.run(session).await,
            #[cfg(feature = "server")]
            Self::Demo(args) => args.run(&session.output).await,
            #[cfg(feature = "server")]
            Self::DemoResourceServer(args) => args.run(session).await,
            Self::Completions(args) => args.run(&session.output),
            #[cfg(feature = "server")]
            Self::Local(command) => command.run(&session.output).await,
        }
    }
}

const HELP: &str = "\
Examples:
  # a token for one deployment, into a pipe
  mayfly issue --tenant acme --partner globex --purpose deploy --kind jwt \\
      --audience https://api.acme.example --action deploy:write | ./deploy

  # a command with all that it needs, within a task that ends with it
  mayfly exec --job deploy -- make deploy

  # is it still good?
  printf %s \"$TOKEN\" | mayfly introspect -

  # end everything a partner holds, everywhere, now
  mayfly revoke partner globex --reason 'incident 4711'

Exit codes:
  0  done
  1  refused by the broker, or no such thing; the reason code is on stderr
  2  wrong usage, or an unusable file
  3  the broker cannot be reached
  4  a check failed: an inactive credential, an altered audit
  5  internal error, here or in the broker

Results go to stdout, everything else to stderr. Secrets go to stdout or files only when asked for,
and are never taken from arguments.";
