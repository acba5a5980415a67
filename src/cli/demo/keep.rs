//! `--keep`: what to try while the daemon runs.

use crate::cli::{
    failure::{Failure, Outcome},
    output::Output,
};

use super::{
    stage::Stage,
    trust::{ACTION, PURPOSE, Partner, Tenant},
};

/// Prints where everything is and commands to try.
///
/// # Errors
/// When stdout cannot be written to.
pub fn explain(stage: &Stage, output: &Output) -> Outcome {
    let (pid, address) = stage.daemon();
    let (worker, server) = stage.folders(Tenant::Acme)?;
    let program = std::env::current_exe().map_err(|error| Failure::io("find this program", error))?;
    let commands = Commands {
        program: program.display().to_string(),
        server: address.to_string(),
        operator: stage.operator().display().to_string(),
        worker: worker.display().to_string(),
        verifier: server.display().to_string(),
    };
    let own = std::process::id();
    output.line(&format!(
        "\nThe daemon runs on: process {pid} at {address}, folder {}.\n\
         End it with Ctrl-C here, or `kill {own}`; the folder goes with it.\n",
        stage.folder().display()
    ))?;
    output.line(&commands.text())
}

/// What the commands are filled with.
pub(super) struct Commands {
    /// This program, which need not be on the reader's path.
    pub(super) program: String,
    /// The daemon's URL.
    pub(super) server: String,
    /// Identity folder of the operator.
    pub(super) operator: String,
    /// Identity folder of acme's workload.
    pub(super) worker: String,
    /// Identity folder of acme's resource server.
    pub(super) verifier: String,
}

impl Commands {
    /// The commands, each below what it is for.
    pub(super) fn text(&self) -> String {
        let Self { program, server, operator, worker, verifier } = self;
        let (tenant, partner, audience) = (Tenant::Acme.name(), Partner::Drift.name(), Tenant::Acme.audience());
        format!(
            "# Protect a service of your own. A caller gets a token for its task ...\n\
             TOKEN=$({program} issue --server {server} --identity {worker} \\\n    \
             --tenant {tenant} --partner {partner} --purpose {PURPOSE} --kind opaque \\\n    \
             --audience {audience} --action {ACTION} --binding none)\n\
             # ... calls your service: curl -H \"Authorization: Bearer $TOKEN\" https://your.service ...\n\
             # ... and your service asks with what came in that header; exit code 0 lets the caller in, 4 does not.\n\
             printf %s \"$TOKEN\" | {program} introspect - --server {server} --identity {verifier} \\\n    \
             --audience {audience}\n\n\
             # What is this token, and whose?\n\
             printf %s \"$TOKEN\" | {program} whois - --server {server} --identity {operator}\n\n\
             # End everything that {partner} holds, and ask again.\n\
             {program} revoke partner {partner} --reason trying --server {server} --identity {operator}\n\
             printf %s \"$TOKEN\" | {program} introspect - --server {server} --identity {verifier} \\\n    \
             --audience {audience}\n\n\
             # Let it begin anew; what ended stays ended.\n\
             {program} lift partner {partner} --reason trying --server {server} --identity {operator}\n\n\
             # Who did what?\n\
             {program} events list --tenant {tenant} --partner {partner} --server {server} --identity {operator}\n"
        )
    }
}
