//! `mayfly policy check` and `test`: folders of trust files, without a broker.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;

use crate::{
    cli::{
        apply, cell,
        failure::{Failure, Outcome},
        session::Session,
    },
    config::Config,
    model::IssuerRules,
    policy::{self, Document, Extent, TrustMap},
};

use super::{run, table};

/// Folders of trust files.
#[derive(Args, Clone, Debug)]
pub struct FoldersArgs {
    /// Folders as `apply -f` takes them, each a trust map of its own.
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
    /// The server's configuration, or a file of its `[[issuer]]` sections, when workloads prove themselves with identity
    /// tokens.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl FoldersArgs {
    pub(super) fn check(&self, session: &Session) -> Outcome {
        let issuers = self.issuers()?;
        for folder in &self.folders {
            let map = load(folder, &issuers)?;
            let with = map.tenants.values().filter(|tenant| tenant.policy().is_some()).count();
            session.output.remark(&format!(
                "{}: {} tenants, {with} of them with policies: nothing is wrong",
                folder.display(),
                map.tenants.len()
            ));
        }
        Ok(())
    }

    pub(super) fn test(&self, session: &Session) -> Outcome {
        let issuers = self.issuers()?;
        let mut results = Vec::new();
        for folder in &self.folders {
            let map = load(folder, &issuers)?;
            for (path, text) in apply::tables(folder)? {
                let cases = table::parse(&text).map_err(|why| Failure::Usage(format!("{path}: {why}")))?;
                results.extend(cases.iter().map(|case| run::run(&map, &path, case)));
            }
        }
        if results.is_empty() {
            return Err(Failure::Usage("there is no case: write some in a file that ends in .test.toml".into()));
        }
        session.output.list(&results)?;
        let failed = results.iter().filter(|result| !result.passed).count();
        if failed > 0 {
            return Err(Failure::Negative(format!("{failed} of {} cases turn out otherwise", results.len())));
        }
        session.output.remark(&format!("{} cases turn out as they say", results.len()));
        Ok(())
    }

    fn issuers(&self) -> Outcome<Vec<Arc<IssuerRules>>> {
        let Some(file) = &self.config else { return Ok(Vec::new()) };
        let issuers = Config::load(file).map(|config| config.issuers).or_else(|_| Config::load_issuers(file));
        let issuers = issuers.map_err(|problems| Failure::Usage(problems.to_string()))?;
        Ok(issuers.into_iter().map(|issuer| issuer.rules).collect())
    }
}

/// The trust map of a folder.
fn load(folder: &Path, issuers: &[Arc<IssuerRules>]) -> Outcome<TrustMap> {
    let files = apply::read(folder)?;
    let documents: Vec<Document<'_>> =
        files.iter().map(|file| Document { path: &file.path, text: &file.text }).collect();
    policy::parse_with(&documents, Extent::Whole, issuers, run::now()).map_err(|problems| {
        let lines: Vec<String> = problems.list().iter().map(|problem| cell::printable(&problem.to_string())).collect();
        let more = if problems.more() > 0 { format!("\nand {} more", problems.more()) } else { String::new() };
        Failure::Negative(format!("{}:\n{}{more}", folder.display(), lines.join("\n")))
    })
}
