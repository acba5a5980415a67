//! `mayfly issue`, `renew` and `release`.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::{
    client::{pem, read_key},
    model::{ApprovalId, GrantName, LeaseId, PartnerName, Purpose, SecretName, TaskId, TenantName, WorkloadName},
    pb,
};

use super::{
    arg::{self, BindingArg, KindArg},
    cell::Fields,
    delivery::{self, DeliveryArgs},
    failure::{Failure, Outcome},
    intent::IntentArgs,
    request::OwnRequest,
    session::{KEY_FILE, Session},
};

/// What is asked for; the same words for `issue` and `explain`.
#[derive(Args, Clone, Debug)]
pub struct WantedArgs {
    /// The tenant to act in; may be left out with --task.
    #[arg(long, required_unless_present = "task")]
    pub tenant: Option<TenantName>,
    /// The partner that acts; may be left out with --task.
    #[arg(long, required_unless_present = "task")]
    pub partner: Option<PartnerName>,
    /// Why, as the grant lists it; may be left out with --task.
    #[arg(long, required_unless_present = "task")]
    pub purpose: Option<Purpose>,
    /// The task to issue under; without it a task is opened for this credential alone.
    #[arg(long, value_name = "ID")]
    pub task: Option<TaskId>,
    /// The grant to use, when more than one would fit.
    #[arg(long)]
    pub grant: Option<GrantName>,
    /// The form of the credential; may be left out with --secret.
    #[arg(long, value_enum, required_unless_present = "secret")]
    pub kind: Option<KindArg>,
    /// The static secret to hand out, as the grant lists it.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["audiences", "actions", "dns_names", "binding"])]
    pub secret: Option<SecretName>,
    /// Who it is for; repeat for more, at most 8.
    #[arg(long = "audience", value_name = "AUDIENCE", required_unless_present = "secret")]
    pub audiences: Vec<String>,
    /// What it shall allow; repeat for more, at most 32.
    #[arg(long = "action", value_name = "ACTION")]
    pub actions: Vec<String>,
    /// How long it lives, as in 5m; the grant's default when left out. Too long is refused, not cut.
    #[arg(long, value_parser = arg::seconds)]
    pub ttl: Option<u32>,
    /// DNS name in the certificate beside the SPIFFE ID; repeat for more, at most 8.
    #[arg(long = "dns-name", value_name = "NAME")]
    pub dns_names: Vec<String>,
    /// Whether a token is bound to the client certificate that asks for it.
    #[arg(long, value_enum, default_value = "auto")]
    pub binding: BindingArg,
    #[command(flatten)]
    pub intent: IntentArgs,
}

impl WantedArgs {
    /// The kind; that of a static secret where one is named and nothing else is said.
    #[must_use]
    pub fn kind(&self) -> KindArg {
        self.kind.unwrap_or(KindArg::Secret)
    }

    /// The request without key and idempotency.
    #[must_use]
    pub fn request(&self) -> pb::IssueRequest {
        pb::IssueRequest {
            task_id: text(self.task.as_ref()),
            tenant: text(self.tenant.as_ref()),
            partner: text(self.partner.as_ref()),
            purpose: text(self.purpose.as_ref()),
            grant: text(self.grant.as_ref()),
            kind: pb::CredentialKind::from(self.kind()).into(),
            secret: text(self.secret.as_ref()),
            audiences: self.audiences.clone(),
            actions: self.actions.clone(),
            ttl_seconds: self.ttl.unwrap_or(0),
            dns_names: self.dns_names.clone(),
            binding: pb::Binding::from(self.binding).into(),
            task_type: self.intent.task_type(),
            parameters: self.intent.parameters(),
            ..pb::IssueRequest::default()
        }
    }
}

/// Issues one credential under a task.
#[derive(Args, Clone, Debug)]
#[command(after_help = ISSUE_HELP)]
pub struct IssueArgs {
    #[command(flatten)]
    wanted: WantedArgs,
    /// X.509: a PKCS #10 request, PEM or DER, for a key that you keep.
    #[arg(long, value_name = "FILE", conflicts_with = "generate_key")]
    csr: Option<PathBuf>,
    /// X.509: let the broker make the key, which then crosses the wire. Without this and --csr the key is made here.
    #[arg(long)]
    generate_key: bool,
    /// Without --task: how long the new task lives, as in 1h; with the credential when left out.
    #[arg(long, value_parser = arg::seconds, value_name = "TTL", conflicts_with = "task")]
    task_deadline: Option<u32>,
    /// The approval to use, where the grant needs one (`mayfly approval request`).
    #[arg(long, value_name = "ID")]
    approval: Option<ApprovalId>,
    /// Makes a retry safe: the same key and request end the first credential and return a new one.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    idempotency_key: String,
    /// Have the credential wait for whoever comes with the handle that is printed instead, for so long; 60s when no time
    /// is given, at most 10m.
    #[arg(long, value_name = "TTL", num_args = 0..=1, default_missing_value = "60s", value_parser = arg::seconds)]
    pickup: Option<u32>,
    /// The one workload that may pick it up; any of the tenant when left out.
    #[arg(long, value_name = "WORKLOAD", requires = "pickup")]
    pickup_by: Option<WorkloadName>,
    #[command(flatten)]
    delivery: DeliveryArgs,
}

impl IssueArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses, or the credential cannot be delivered.
    pub async fn run(self, session: &Session) -> Outcome {
        self.delivery.check(&session.output)?;
        let own = self.own_request()?;
        let csr = match (&self.csr, &own) {
            (Some(path), _) => read_csr(path)?,
            (None, Some(own)) => own.csr_der.clone(),
            (None, None) => Vec::new(),
        };
        let pickup = self.pickup.map(|ttl_seconds| {
            let workload = text(self.pickup_by.as_ref());
            pb::PickupWish { ttl_seconds, workload }
        });
        // A key that was made here would not be where the certificate is picked up.
        let for_others = pickup.is_some() && self.wanted.kind() == KindArg::X509 && self.csr.is_none();
        let request = pb::IssueRequest {
            csr_der: csr.into(),
            generate_key: self.generate_key || for_others,
            pickup,
            task_deadline_seconds: self.task_deadline.unwrap_or(0),
            idempotency_key: self.idempotency_key,
            approval_id: text(self.approval.as_ref()),
            ..self.wanted.request()
        };
        let reply = session.broker().await?.issue(request).await?.into_inner();
        self.delivery.deliver(&session.output, reply, own.as_ref().map(|own| own.key_pem.as_str()))
    }

    /// The key to make here: for a certificate, when neither a request was given nor the broker shall make it.
    fn own_request(&self) -> Outcome<Option<OwnRequest>> {
        match self.wanted.kind() {
            KindArg::Jwt | KindArg::Opaque | KindArg::Secret if self.csr.is_some() || self.generate_key => {
                Err(Failure::Usage("--csr and --generate-key are for --kind x509".into()))
            }
            KindArg::Jwt | KindArg::Opaque | KindArg::Secret => Ok(None),
            KindArg::X509 if self.csr.is_some() || self.generate_key || self.pickup.is_some() => Ok(None),
            KindArg::X509 => OwnRequest::fresh().map(Some),
        }
    }
}

/// Replaces a live credential by a successor for the same workload, task and key.
#[derive(Args, Clone, Debug)]
#[command(after_help = RENEW_HELP)]
pub struct RenewArgs {
    /// The lease to renew, 40 hex digits; may be left out with --from.
    #[arg(value_name = "LEASE", required_unless_present = "from")]
    lease: Option<LeaseId>,
    /// A folder that `issue --out` wrote: its lease is renewed, with its key, and its files are replaced.
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// X.509: a PKCS #10 request with the same public key, PEM or DER.
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    csr: Option<PathBuf>,
    /// How long the successor lives, as in 5m; the grant's default when left out.
    #[arg(long, value_parser = arg::seconds)]
    ttl: Option<u32>,
    /// The broker made the key, and shall make a new one.
    #[arg(long, conflicts_with = "csr")]
    generate_key: bool,
    /// Makes a retry safe.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    idempotency_key: String,
    #[command(flatten)]
    delivery: DeliveryArgs,
}

impl RenewArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses, or the credential cannot be delivered.
    pub async fn run(self, session: &Session) -> Outcome {
        let out = self.delivery.out.clone().or_else(|| self.from.clone().filter(|_| !self.delivery.print));
        let delivery = DeliveryArgs { out, print: self.delivery.print };
        delivery.check(&session.output)?;
        let lease_id = match (&self.lease, &self.from) {
            (Some(lease), _) => lease.to_string(),
            (None, Some(folder)) => delivery::lease_id(folder)?,
            (None, None) => return Err(Failure::Usage("name a LEASE or --from DIR".into())),
        };
        let own = self.own_request()?;
        let csr_der = match (&self.csr, &own) {
            (Some(path), _) => read_csr(path)?,
            (None, Some(own)) => own.csr_der.clone(),
            (None, None) => Vec::new(),
        };
        let request = pb::RenewRequest {
            lease_id,
            ttl_seconds: self.ttl.unwrap_or(0),
            csr_der,
            idempotency_key: self.idempotency_key,
        };
        let reply = session.broker().await?.renew(request).await?.into_inner();
        delivery.deliver(&session.output, reply, own.as_ref().map(|own| own.key_pem.as_str()))
    }

    /// A request with the folder's key; none for tokens, which have no key file.
    fn own_request(&self) -> Outcome<Option<OwnRequest>> {
        let key = self.from.as_ref().map(|folder| folder.join(KEY_FILE));
        match key.filter(|key| key.exists() && !self.generate_key) {
            Some(key) => OwnRequest::with_key(&read_key(&key)?).map(Some),
            None => Ok(None),
        }
    }
}

/// Ends one lease that is no longer needed. Ending twice is not an error.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  mayfly release 4000000100c0ffee00c0ffee0000000000000001")]
pub struct ReleaseArgs {
    /// The lease to end, 40 hex digits.
    #[arg(value_name = "LEASE")]
    lease: LeaseId,
}

impl ReleaseArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn run(self, session: &Session) -> Outcome {
        let request = pb::ReleaseRequest { lease_id: self.lease.to_string() };
        let reply = session.broker().await?.release(request).await?.into_inner();
        session.output.one(
            &Fields::new()
                .text("lease_id", &self.lease.to_string())
                .flag("ended_now", reply.ended_now)
                .revision("revision", reply.revision.as_ref()),
        )
    }
}

fn read_csr(path: &Path) -> Outcome<Vec<u8>> {
    let bytes = std::fs::read(path).map_err(|error| Failure::file("read", path, error))?;
    pem::request_der(&bytes)
        .ok_or_else(|| Failure::Usage(format!("{} is no PKCS #10 request in PEM or DER", path.display())))
}

/// The text of a name that may be left out; empty then.
pub fn text(name: Option<&impl ToString>) -> String {
    name.map(ToString::to_string).unwrap_or_default()
}

const ISSUE_HELP: &str = "\
A token goes to stdout when that is not a terminal, or into the folder of --out; never onto a screen unless --print
asks for it. For a certificate the key is made on this machine and stays here, unless --csr or --generate-key is given.

Examples:
  # a token of five minutes, for one deployment, into a pipe
  mayfly issue --tenant acme --partner globex --purpose deploy --kind jwt \\
      --audience https://api.acme.example --action deploy:write --ttl 5m | ./deploy --token-from-stdin

  # a certificate and its key as files, under a task that is open
  mayfly issue --task 4000000100c0ffee00c0ffee --kind x509 --audience db.acme.example --out ./tls";

const RENEW_HELP: &str = "\
Examples:
  # renew what `issue --out ./tls` wrote, in place, with the same key
  mayfly renew --from ./tls
  mayfly renew 4000000100c0ffee00c0ffee0000000000000001 --ttl 5m --out ./creds";
