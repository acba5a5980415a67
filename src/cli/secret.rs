//! `mayfly secret`: static secrets for what nothing can mint. Values go in, and come out to tasks alone.

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use zeroize::Zeroizing;

use crate::{
    model::{PartnerName, SecretName, TenantName, static_secret::VALUE_MAX_BYTES},
    pb,
};

use super::{
    arg::{LimitArgs, OwnedArgs},
    cell::{Fields, Record},
    failure::{Failure, Outcome},
    issue::text,
    page,
    render::word,
    session::Session,
};

/// Static secrets: a vendor's API key, a deploy key. Handed out to tasks under a grant, and known who has which version.
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = HELP)]
pub enum SecretCommand {
    /// Puts a new one; its value comes from a file or stdin.
    Put(PutArgs),
    /// Puts a new value in the place of the old one, which is destroyed here.
    Rotate(RotateArgs),
    /// Gives one another owner or purpose.
    Edit(EditArgs),
    /// Destroys the value and ends its leases; who had it stays known.
    Retire(RetireArgs),
    /// Lists them, without their values.
    List(OwnedArgs),
    /// Shows one with its versions, without its value.
    Show(ShowArgs),
    /// Says who has it, or had it, by version and task.
    Holders(HoldersArgs),
}

/// Where a value comes from. Never from an argument, which others on the machine can read.
#[derive(Args, Clone, Debug)]
pub struct ValueArgs {
    /// File with the value; stdin when left out, or `-`.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Keep every byte. Else the end of a single line is taken off, as `echo` puts it there.
    #[arg(long)]
    exact: bool,
}

/// Arguments of `secret put`.
#[derive(Args, Clone, Debug)]
pub struct PutArgs {
    /// TENANT/NAME.
    #[arg(value_name = "NAME")]
    name: String,
    /// The partner whose grants may hand it out.
    #[arg(long)]
    partner: PartnerName,
    /// Who rotates it, and is told when that is needed.
    #[arg(long)]
    owner: String,
    /// What it is for.
    #[arg(long)]
    purpose: String,
    #[command(flatten)]
    value: ValueArgs,
    /// Why, for the audit.
    #[arg(long)]
    reason: String,
}

/// Arguments of `secret rotate`.
#[derive(Args, Clone, Debug)]
pub struct RotateArgs {
    /// TENANT/NAME.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    value: ValueArgs,
    /// End the leases of older versions at once: their tasks get the new one when they ask again.
    #[arg(long)]
    revoke_old: bool,
    /// Why, for the audit.
    #[arg(long)]
    reason: String,
}

/// Arguments of `secret edit`.
#[derive(Args, Clone, Debug)]
pub struct EditArgs {
    /// TENANT/NAME.
    #[arg(value_name = "NAME")]
    name: String,
    /// Who rotates it from now on.
    #[arg(long, default_value = "", hide_default_value = true)]
    owner: String,
    /// What it is for.
    #[arg(long, default_value = "", hide_default_value = true, required_unless_present = "owner")]
    purpose: String,
    /// Why, for the audit.
    #[arg(long)]
    reason: String,
}

/// Arguments of `secret retire`.
#[derive(Args, Clone, Debug)]
pub struct RetireArgs {
    /// TENANT/NAME.
    #[arg(value_name = "NAME")]
    name: String,
    /// Why, for the audit.
    #[arg(long)]
    reason: String,
}

/// Arguments of `secret show`.
#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// TENANT/NAME.
    #[arg(value_name = "NAME")]
    name: String,
}

/// Arguments of `secret holders`.
#[derive(Args, Clone, Debug)]
pub struct HoldersArgs {
    /// TENANT/NAME.
    #[arg(value_name = "NAME")]
    name: String,
    /// Only of this version.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    version: u32,
    /// Only those whose lease lives.
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    limit: LimitArgs,
}

impl SecretCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses, or a value cannot be read.
    pub async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::Put(args) => args.run(session).await,
            Self::Rotate(args) => args.run(session).await,
            Self::Edit(args) => args.run(session).await,
            Self::Retire(args) => args.run(session).await,
            Self::List(args) => {
                let request = pb::ListSecretsRequest {
                    tenant: text(args.tenant.as_ref()),
                    partner: text(args.partner.as_ref()),
                    owner: args.owner,
                    ..Default::default()
                };
                session.output.list(&collect(session, request, args.limit.limit).await?)
            }
            Self::Show(args) => {
                let (tenant, name) = path(&args.name)?;
                let request = pb::ListSecretsRequest { tenant, name, ..Default::default() };
                let found = collect(session, request, 1).await?;
                let secret = found.first().ok_or_else(|| no_such(&args.name))?;
                session.output.one(&secret.fields())
            }
            Self::Holders(args) => args.run(session).await,
        }
    }
}

impl PutArgs {
    async fn run(self, session: &Session) -> Outcome {
        let (tenant, name) = path(&self.name)?;
        let value = self.value.read()?;
        let request = pb::PutSecretRequest {
            tenant,
            name,
            partner: self.partner.to_string(),
            owner: self.owner,
            purpose: self.purpose,
            value: value.to_vec(),
            reason: self.reason,
        };
        let reply = session.admin().await?.put_secret(request).await?.into_inner();
        session.output.one(&changed(reply.secret.as_ref(), reply.revision.as_ref()))
    }
}

impl RotateArgs {
    async fn run(self, session: &Session) -> Outcome {
        let (tenant, name) = path(&self.name)?;
        let value = self.value.read()?;
        let revoke_old = self.revoke_old;
        let request = pb::RotateSecretRequest { tenant, name, value: value.to_vec(), revoke_old, reason: self.reason };
        let reply = session.admin().await?.rotate_secret(request).await?.into_inner();
        let (live, name) = (reply.live_holders, &self.name);
        if live > 0 && revoke_old {
            session.output.remark(&format!("{live} task(s) lost the old version; it is dead when its vendor ends it"));
        } else if live > 0 {
            let get = "they get the new one when they renew; the old one is dead when its vendor ends it";
            session
                .output
                .remark(&format!("{live} task(s) hold the old version: {get}; see `mayfly secret holders {name}`"));
        }
        let fields = changed(reply.secret.as_ref(), reply.revision.as_ref());
        session.output.one(&fields.number("live_holders", live).flag("revoked_old", revoke_old))
    }
}

impl EditArgs {
    async fn run(self, session: &Session) -> Outcome {
        let (tenant, name) = path(&self.name)?;
        let request =
            pb::EditSecretRequest { tenant, name, owner: self.owner, purpose: self.purpose, reason: self.reason };
        let reply = session.admin().await?.edit_secret(request).await?.into_inner();
        session.output.one(&changed(reply.secret.as_ref(), reply.revision.as_ref()))
    }
}

impl RetireArgs {
    async fn run(self, session: &Session) -> Outcome {
        let (tenant, name) = path(&self.name)?;
        let request = pb::RetireSecretRequest { tenant, name, reason: self.reason };
        let reply = session.admin().await?.retire_secret(request).await?.into_inner();
        session.output.remark("the value is gone here, and stays good until its vendor ends it");
        let fields = Fields::new().flag("retired", true).number("live_holders", reply.live_holders);
        session.output.one(&fields.revision("revision", reply.revision.as_ref()))
    }
}

impl HoldersArgs {
    async fn run(self, session: &Session) -> Outcome {
        let (tenant, name) = path(&self.name)?;
        let client = session.admin().await?;
        let holders = page::collect(session, self.limit.limit, |page| {
            let mut client = client.clone();
            let request = pb::ListSecretHoldersRequest {
                page: Some(page),
                tenant: tenant.clone(),
                name: name.clone(),
                version: self.version,
                live: self.live,
            };
            async move {
                let reply = client.list_secret_holders(request).await?.into_inner();
                Ok((reply.holders, reply.next_page_token))
            }
        });
        session.output.list(&holders.await?)
    }
}

impl ValueArgs {
    fn read(&self) -> Outcome<Zeroizing<Vec<u8>>> {
        let from_stdin = |path: &&PathBuf| path.as_path() != Path::new("-");
        let mut value = match self.file.as_ref().filter(from_stdin) {
            Some(path) => {
                let file = File::open(path).map_err(|error| Failure::file("read", path, error))?;
                limited(file, &path.display().to_string())?
            }
            None if io::stdin().is_terminal() => {
                let mend = "the value would stay readable on this terminal: pipe it in, or give --file";
                return Err(Failure::Usage(mend.into()));
            }
            None => limited(io::stdin().lock(), "stdin")?,
        };
        if !self.exact {
            trim_line(&mut value);
        }
        if value.is_empty() { Err(Failure::Usage("the value is empty".into())) } else { Ok(value) }
    }
}

fn limited(from: impl Read, name: &str) -> Outcome<Zeroizing<Vec<u8>>> {
    // Room for all that is allowed, so that growing leaves no copy behind.
    let mut value = Zeroizing::new(Vec::with_capacity(VALUE_MAX_BYTES + 16));
    let most = u64::try_from(VALUE_MAX_BYTES).unwrap_or(u64::MAX);
    from.take(most + 3).read_to_end(&mut value).map_err(|error| Failure::io(format!("read {name}"), error))?;
    if value.len() > VALUE_MAX_BYTES + 2 {
        return Err(Failure::Usage(format!("{name} holds more than {VALUE_MAX_BYTES} bytes")));
    }
    Ok(value)
}

/// Takes the line end off a value of one line. One of several lines keeps it: keys in PEM need theirs.
fn trim_line(value: &mut Vec<u8>) {
    let end = value.iter().position(|byte| *byte == b'\n');
    if end.is_some_and(|end| end + 1 == value.len()) {
        value.pop();
        if value.last() == Some(&b'\r') {
            value.pop();
        }
    }
}

async fn collect(session: &Session, request: pb::ListSecretsRequest, limit: u32) -> Outcome<Vec<pb::SecretInfo>> {
    let client = session.admin().await?;
    page::collect(session, limit, |page| {
        let (mut client, request) = (client.clone(), pb::ListSecretsRequest { page: Some(page), ..request.clone() });
        async move {
            let reply = client.list_secrets(request).await?.into_inner();
            Ok((reply.secrets, reply.next_page_token))
        }
    })
    .await
}

fn path(text: &str) -> Outcome<(String, String)> {
    let wrong = || Failure::Usage(format!("`{text}`: expected TENANT/NAME"));
    let (tenant, name) = text.split_once('/').ok_or_else(wrong)?;
    let (tenant, name) = tenant.parse::<TenantName>().ok().zip(name.parse::<SecretName>().ok()).ok_or_else(wrong)?;
    Ok((tenant.to_string(), name.to_string()))
}

fn no_such(name: &str) -> Failure {
    Failure::Negative(format!("there is no secret `{name}` that you may know of"))
}

fn changed(secret: Option<&pb::SecretInfo>, revision: Option<&pb::Revision>) -> Fields {
    let secret = secret.cloned().unwrap_or_default();
    Fields::new()
        .text("tenant", &secret.tenant)
        .text("name", &secret.name)
        .number("version", secret.version)
        .text("owner", &secret.owner)
        .text("purpose", &secret.purpose)
        .revision("revision", revision)
}

impl Record for pb::SecretInfo {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("TENANT", "tenant"),
        ("SECRET", "name"),
        ("PARTNER", "partner"),
        ("VERSION", "version"),
        ("ROTATED", "rotated"),
        ("OWNER", "owner"),
        ("PURPOSE", "purpose"),
        ("GRANTS", "grants"),
        ("PROBLEM", "problem"),
    ];

    fn fields(&self) -> Fields {
        let version = |version: &pb::SecretVersion| {
            Fields::new()
                .number("number", version.number)
                .time("made", version.made.as_ref())
                .text("operator", &version.operator)
                .time("ended", version.ended.as_ref())
                .flag("revoked", version.revoked)
        };
        Fields::new()
            .text("tenant", &self.tenant)
            .text("name", &self.name)
            .text("partner", &self.partner)
            .text("owner", &self.owner)
            .text("purpose", &self.purpose)
            .number("version", self.version)
            .time("rotated", self.versions.last().and_then(|last| last.made.as_ref()))
            .time("retired", self.retired.as_ref())
            .text("problem", &self.problem)
            .words("grants", &self.grants)
            .records("versions", self.versions.iter().map(version).collect())
    }
}

impl Record for pb::SecretHolder {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("VERSION", "version"),
        ("TASK", "task_id"),
        ("WORKLOAD", "workload"),
        ("PARTNER", "partner"),
        ("STANDING", "standing"),
        ("SINCE", "first"),
        ("LAST", "last"),
        ("TIMES", "times"),
        ("JOB", "job_url"),
    ];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("tenant", &self.tenant)
            .text("secret", &self.secret)
            .number("version", self.version)
            .flag("superseded", self.superseded)
            .text("partner", &self.partner)
            .text("workload", &self.workload)
            .text("taken_by", &self.taken_by)
            .text("grant", &self.grant)
            .text("purpose", &self.purpose)
            .text("task_id", &self.task_id)
            .text("standing", &word::standing(self.standing))
            .time("first", self.first.as_ref())
            .time("last", self.last.as_ref())
            .number("times", self.times)
            .text("lease_id", &self.lease_id)
            .time("expires", self.expires.as_ref())
            .text("job_url", &self.job_url)
    }
}

const HELP: &str = "\
Values come from a file or stdin, never from an argument, and no command shows them. The end of a lease does not end a
static secret: only its vendor can. Rotate it there, then here.

Examples:
  pass show stripe/acme | mayfly secret put acme/stripe-key --partner globex --owner pay@acme.example \\
      --purpose 'charges of the shop' --reason 'first key'
  mayfly exec --tenant acme --partner globex --purpose pay --credential secret=stripe-key,env=STRIPE_KEY -- ./charge
  mayfly secret holders acme/stripe-key --live
  mayfly secret rotate acme/stripe-key --file new-key --revoke-old --reason 'leaked in a log'";

#[cfg(test)]
mod tests {
    use super::*;

    fn trimmed(value: &[u8]) -> Vec<u8> {
        let mut value = value.to_vec();
        trim_line(&mut value);
        value
    }

    #[test]
    fn the_end_of_a_single_line_is_no_part_of_a_key_and_that_of_several_is() {
        assert_eq!(trimmed(b"key\n"), b"key");
        assert_eq!(trimmed(b"key\r\n"), b"key");
        for kept in [&b"key"[..], b"a\nb\n", b"a\nb", b"\xff\x00\n\x01", b""] {
            assert_eq!(trimmed(kept), kept);
        }
    }

    #[test]
    fn a_value_is_limited_and_read_as_it_is() {
        assert_eq!(limited(&b"\xff\x00key\n"[..], "x").expect("reads").as_slice(), b"\xff\x00key\n");
        assert!(limited(&vec![b'x'; VALUE_MAX_BYTES][..], "x").is_ok());
        assert!(limited(&vec![b'x'; VALUE_MAX_BYTES + 3][..], "x").is_err());
    }

    #[test]
    fn a_secret_is_named_with_its_tenant() {
        assert_eq!(path("acme/stripe").expect("a name"), ("acme".into(), "stripe".into()));
        for bad in ["stripe", "acme/", "/stripe", "acme/a/b", "Acme/stripe"] {
            assert!(matches!(path(bad), Err(Failure::Usage(_))), "{bad}");
        }
    }
}
