//! `mayfly events verify`: the audit checked by the broker, or an export of it checked here without one.

use std::{
    fs::File,
    io::{BufReader, Write},
    path::{Path, PathBuf},
};

use clap::Args;

use super::StreamArgs;
use crate::{
    audit::{
        Start, Verifier, export,
        verify::{Coverage, Report},
    },
    cli::{
        arg,
        cell::Record,
        failure::{Failure, Outcome},
        issue::text,
        output::{Format, Output, table},
        session::Session,
    },
    mint::audit_key,
    pb,
};

/// Checks chains and checkpoints in the store, or in a file; exit code 4 when something is wrong.
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// A file that `events export` wrote; checked here, without the broker.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    streams: StreamArgs,
    /// Public key that may sign checkpoints, 64 hex digits; repeatable. Get it elsewhere than from the file.
    #[arg(long = "trusted-key", value_parser = parse_key, value_name = "HEX", requires = "file")]
    trusted: Vec<[u8; 32]>,
    /// The file must begin with the very first checkpoint: nothing was dropped by retention.
    #[arg(long, requires = "file")]
    from_first: bool,
}

fn parse_key(text: &str) -> Result<[u8; 32], String> {
    arg::sha256(text)?.try_into().map_err(|_| "a key has 64 hex digits".to_owned())
}

impl VerifyArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses, the file cannot be read, or the check finds something.
    pub async fn run(self, session: &Session) -> Outcome {
        match &self.file {
            Some(file) => self.offline(file, &session.output),
            None => self.online(session).await,
        }
    }

    async fn online(&self, session: &Session) -> Outcome {
        let streams = &self.streams;
        let request =
            pb::VerifyEventsRequest { tenant: text(streams.tenant.as_ref()), partner: text(streams.partner.as_ref()) };
        let reply = session.admin().await?.verify_events(request).await?.into_inner();
        conclude(&session.output, &reply, 0)
    }

    fn offline(&self, file: &Path, output: &Output) -> Outcome {
        let coverage = self.coverage()?;
        if self.trusted.is_empty() {
            // Said even with --quiet: whoever rewrote the file could have signed it anew. Nothing can be told where
            // stderr is closed.
            let _ = writeln!(std::io::stderr(), "{UNTRUSTED}");
        }
        let start = if self.from_first { Start::Genesis } else { Start::AsGiven };
        let verifier = Verifier::new(start, coverage, self.trusted.clone(), audit_key::verify);
        let report = export::verify_lines(|| File::open(file).map(BufReader::new), verifier)
            .map_err(|error| Failure::file("read", file, error))?;
        let Report { more_findings, checkpoints, .. } = report;
        conclude(output, &report.into(), more_findings)?;
        if checkpoints == 0 {
            return Err(Failure::CheckFailed("no checkpoint is in the file: nothing vouches for it".into()));
        }
        Ok(())
    }

    fn coverage(&self) -> Outcome<Coverage> {
        match (&self.streams.tenant, &self.streams.partner) {
            (None, None) => Ok(Coverage::All),
            (Some(tenant), None) => Ok(Coverage::Tenant(tenant.to_string())),
            (Some(tenant), Some(partner)) => Ok(Coverage::Stream(format!("{tenant}/{partner}"))),
            (None, Some(_)) => Err(Failure::Usage("with a file, --partner needs --tenant".into())),
        }
    }
}

/// Writes what was seen; findings are a failure.
fn conclude(output: &Output, reply: &pb::VerifyEventsResponse, more: u64) -> Outcome {
    match output.format() {
        Format::Json => output.one(&reply.fields())?,
        Format::Table => {
            let checked = format!(
                "checked {} streams, {} events, {} checkpoints",
                reply.streams, reply.events, reply.checkpoints
            );
            output.line(&checked)?;
            if !reply.findings.is_empty() {
                output.line(&table(&reply.findings))?;
            }
        }
    }
    match u64::try_from(reply.findings.len()).unwrap_or(u64::MAX).saturating_add(more) {
        0 => Ok(()),
        count => Err(Failure::CheckFailed(format!("the audit is not as it was written: {count} findings"))),
    }
}

const UNTRUSTED: &str = "\
WARNING: no --trusted-key was given, so the key inside the file is trusted. This shows that the file agrees with itself,
not that the broker wrote it.";

#[cfg(test)]
mod tests;
