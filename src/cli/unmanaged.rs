//! `mayfly unmanaged`: credentials that other systems issued, known by name, owner and place.

pub(super) mod file;

use std::path::PathBuf;

use clap::{Args, Subcommand, builder::PossibleValuesParser};
use prost_types::Timestamp;

use crate::{
    model::{
        Digest, PartnerName,
        shape::looks_like_a_secret,
        unmanaged::{AT_ONCE, KINDS},
    },
    pb,
};

use super::{
    arg::{self, OwnedArgs},
    cell::{Fields, Record},
    failure::{Failure, Outcome},
    found,
    issue::text,
    page,
    session::Session,
};

/// Credentials that nobody here manages: registered so that somebody answers for them. Never the credential itself.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = HELP)]
pub enum UnmanagedCommand {
    /// Registers one, in place of the one of its name.
    Add(Box<AddArgs>),
    /// Registers those of a CSV or JSON file. Nothing is done while anything in it is wrong.
    Import(ImportArgs),
    /// Forgets one.
    Remove(RemoveArgs),
    /// Lists them, with what is wrong with each.
    List(OwnedArgs),
}

/// Arguments of `unmanaged add`.
#[derive(Args, Clone, Debug)]
pub struct AddArgs {
    /// TENANT/NAME, or NAME when it is no tenant's.
    #[arg(value_name = "NAME")]
    name: String,
    /// What it is.
    #[arg(long, value_parser = PossibleValuesParser::new(KINDS))]
    kind: String,
    /// The partner that holds it, or gave it.
    #[arg(long)]
    partner: Option<PartnerName>,
    /// Who answers for it.
    #[arg(long, default_value = "", hide_default_value = true)]
    owner: String,
    /// What it is for.
    #[arg(long, default_value = "", hide_default_value = true)]
    purpose: String,
    /// Where it lives: a system, a path, the name of a variable.
    #[arg(long, default_value = "", hide_default_value = true)]
    location: String,
    /// How it is ended.
    #[arg(long, default_value = "", hide_default_value = true)]
    revocation: String,
    /// Its SHA-256, 64 hex digits.
    #[arg(long, value_name = "HEX", default_value = "", hide_default_value = true)]
    fingerprint: String,
    /// Makes the fingerprint here, of what is in this file (`-` for stdin), which goes nowhere.
    #[arg(long, value_name = "FILE", conflicts_with = "fingerprint")]
    fingerprint_of: Option<String>,
    /// When it was made.
    #[arg(long, value_parser = arg::time, value_name = "TIME")]
    created: Option<Timestamp>,
    /// When it was last replaced.
    #[arg(long, value_parser = arg::time, value_name = "TIME")]
    rotated: Option<Timestamp>,
    /// When it ends by itself.
    #[arg(long, value_parser = arg::time, value_name = "TIME")]
    expires: Option<Timestamp>,
    /// Why, for the audit.
    #[arg(long)]
    reason: String,
}

/// Arguments of `unmanaged import`.
#[derive(Args, Clone, Debug)]
pub struct ImportArgs {
    /// CSV with a line of headings, or JSON: a list of objects. Fields as `unmanaged list` shows them.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Say what is wrong and what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Why, for the audit.
    #[arg(long, required_unless_present = "dry_run", default_value = "", hide_default_value = true)]
    reason: String,
}

/// Arguments of `unmanaged remove`.
#[derive(Args, Clone, Debug)]
pub struct RemoveArgs {
    /// TENANT/NAME, or NAME when it is no tenant's.
    #[arg(value_name = "NAME")]
    name: String,
    /// Why, for the audit.
    #[arg(long)]
    reason: String,
}

impl UnmanagedCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses, or an entry is wrong.
    pub async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::Add(args) => args.run(session).await,
            Self::Import(args) => args.run(session).await,
            Self::Remove(args) => args.run(session).await,
            Self::List(args) => {
                let request = pb::ListUnmanagedRequest {
                    tenant: text(args.tenant.as_ref()),
                    partner: text(args.partner.as_ref()),
                    owner: args.owner,
                    ..Default::default()
                };
                session.output.list(&collect(session, request, args.limit.limit).await?)
            }
        }
    }
}

impl AddArgs {
    async fn run(self, session: &Session) -> Outcome {
        let (tenant, name) = path(&self.name);
        let fingerprint = match &self.fingerprint_of {
            Some(source) => Digest::of(found::read(source)?.as_bytes()).to_string(),
            None => self.fingerprint,
        };
        let credential = pb::UnmanagedCredential {
            tenant,
            name,
            partner: text(self.partner.as_ref()),
            kind: self.kind,
            owner: self.owner,
            purpose: self.purpose,
            location: self.location,
            fingerprint,
            created: self.created,
            rotated: self.rotated,
            expires: self.expires,
            revocation: self.revocation,
            ..Default::default()
        };
        // Before it is sent anywhere.
        refuse_secrets([(0, &credential)])?;
        let request = pb::AddUnmanagedRequest { credentials: vec![credential], dry_run: false, reason: self.reason };
        let reply = session.admin().await?.add_unmanaged(request).await?.into_inner();
        let wrong: Vec<_> = reply.problems.iter().map(|p| format!("`{}` {}", p.field, p.problem)).collect();
        if !wrong.is_empty() {
            return Err(Failure::Negative(wrong.join("\n")));
        }
        session.output.one(&counts(&reply))
    }
}

impl ImportArgs {
    async fn run(self, session: &Session) -> Outcome {
        let entries = file::read(&self.file)?;
        refuse_secrets(entries.iter().map(|(line, credential)| (*line, credential)))?;
        let (mut total, mut wrong) = (pb::AddUnmanagedResponse::default(), Vec::new());
        // All of it is looked at before any of it is written.
        for dry_run in [true, false] {
            if !dry_run && (self.dry_run || !wrong.is_empty()) {
                break;
            }
            total = pb::AddUnmanagedResponse::default();
            for some in entries.chunks(AT_ONCE) {
                let credentials = some.iter().map(|(_, credential)| credential.clone()).collect();
                let request = pb::AddUnmanagedRequest { credentials, dry_run, reason: self.reason.clone() };
                let reply = session.admin().await?.add_unmanaged(request).await?.into_inner();
                total.added += reply.added;
                total.changed += reply.changed;
                total.unchanged += reply.unchanged;
                total.revision = reply.revision.or(total.revision);
                for problem in &reply.problems {
                    let at = usize::try_from(problem.index).unwrap_or(usize::MAX);
                    let line = some.get(at).map_or(0, |(line, _)| *line);
                    wrong.push(format!("{}:{line}: `{}` {}", self.file.display(), problem.field, problem.problem));
                }
            }
        }
        if !wrong.is_empty() {
            return Err(Failure::Negative(format!("{}\nnothing was imported", wrong.join("\n"))));
        }
        session.output.one(&counts(&total).flag("dry_run", self.dry_run))
    }
}

impl RemoveArgs {
    async fn run(self, session: &Session) -> Outcome {
        let (tenant, name) = path(&self.name);
        let request = pb::RemoveUnmanagedRequest { tenant, name, reason: self.reason };
        let reply = session.admin().await?.remove_unmanaged(request).await?.into_inner();
        if !reply.removed {
            return Err(Failure::Negative(format!("no unmanaged credential `{}` is known", self.name)));
        }
        session.output.one(&Fields::new().flag("removed", true).revision("revision", reply.revision.as_ref()))
    }
}

/// Those that an operator sees, page by page.
///
/// # Errors
/// When the broker refuses.
pub async fn collect(
    session: &Session,
    request: pb::ListUnmanagedRequest,
    limit: u32,
) -> Outcome<Vec<pb::UnmanagedCredential>> {
    let client = session.admin().await?;
    page::collect(session, limit, |page| {
        let (mut client, request) = (client.clone(), pb::ListUnmanagedRequest { page: Some(page), ..request.clone() });
        async move {
            let reply = client.list_unmanaged(request).await?.into_inner();
            Ok((reply.credentials, reply.next_page_token))
        }
    })
    .await
}

/// Nothing that looks like a secret leaves this process; what was given is not repeated.
fn refuse_secrets<'a>(entries: impl IntoIterator<Item = (u64, &'a pb::UnmanagedCredential)>) -> Outcome {
    let mut wrong = Vec::new();
    for (line, entry) in entries {
        let texts = [
            ("name", &entry.name),
            ("owner", &entry.owner),
            ("purpose", &entry.purpose),
            ("location", &entry.location),
            ("revocation", &entry.revocation),
        ];
        for (field, _) in texts.into_iter().filter(|(_, text)| looks_like_a_secret(text)) {
            let place = if line > 0 { format!("line {line}: ") } else { String::new() };
            wrong.push(format!("{place}`{field}` looks like the secret itself; write where it is kept"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failure::Usage(format!("{}\nnothing was sent", wrong.join("\n")))) }
}

fn path(text: &str) -> (String, String) {
    let (tenant, name) = text.split_once('/').unwrap_or(("", text));
    (tenant.to_owned(), name.to_owned())
}

fn counts(reply: &pb::AddUnmanagedResponse) -> Fields {
    Fields::new()
        .number("added", reply.added)
        .number("changed", reply.changed)
        .number("unchanged", reply.unchanged)
        .revision("revision", reply.revision.as_ref())
}

impl Record for pb::UnmanagedCredential {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("TENANT", "tenant"),
        ("UNMANAGED", "name"),
        ("KIND", "kind"),
        ("PARTNER", "partner"),
        ("OWNER", "owner"),
        ("PURPOSE", "purpose"),
        ("LOCATION", "location"),
        ("EXPIRES", "expires"),
        ("REASONS", "reasons"),
    ];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("tenant", &self.tenant)
            .text("name", &self.name)
            .text("partner", &self.partner)
            .text("kind", &self.kind)
            .text("owner", &self.owner)
            .text("purpose", &self.purpose)
            .text("location", &self.location)
            .text("fingerprint", &self.fingerprint)
            .time("created", self.created.as_ref())
            .time("rotated", self.rotated.as_ref())
            .time("expires", self.expires.as_ref())
            .text("revocation", &self.revocation)
            .text("operator", &self.operator)
            .time("registered", self.registered.as_ref())
            .words("reasons", &self.reasons)
    }
}

const HELP: &str = "\
A file for import has the fields tenant, name, partner, kind, owner, purpose, location, fingerprint, created, rotated,
expires and revocation; name and kind are needed. Times are dates or RFC 3339.

Examples:
  mayfly unmanaged add acme/export-key --kind api-key --partner globex --owner data@acme.example \\
      --purpose 'nightly export' --location 'CI variable EXPORT_KEY of acme/export' --reason 'inventory 2027'
  mayfly unmanaged import keys.csv --dry-run
  mayfly unmanaged list --tenant acme
  mayfly unmanaged remove acme/export-key --reason 'replaced by a grant'";
