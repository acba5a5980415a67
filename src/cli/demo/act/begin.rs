//! Apply, issue, check.

use std::time::Instant;

use rustls::pki_types::CertificateDer;

use crate::{
    cli::{
        demo::{
            SabotageArg,
            report::Report,
            stage::{Credential, Stage, request},
            trust::{self, Partner, Tenant},
        },
        failure::{Failure, Outcome},
        render::word,
    },
    model::time::system_wall,
    pb::{
        ApplyOptions, ApplyRequest, CredentialKind, GetTrustBundleRequest, IntrospectRequest, TrustDocument,
        introspect_request::Credential as Presented,
    },
    verifier::{Freshness, OfflineVerifier, TrustBundle},
};

use super::unless;

/// Applies the trust map and lets the resource servers begin.
pub(super) async fn apply(stage: &mut Stage, report: &mut Report<'_>) -> Outcome {
    let sabotaged = stage.sabotage == Some(SabotageArg::Tenant);
    let text = trust::text(system_wall(), sabotaged);
    let options = ApplyOptions { reason: "demo".into(), ..ApplyOptions::default() };
    let since = Instant::now();
    let parts = [
        ApplyRequest { options: Some(options), document: None },
        ApplyRequest { options: None, document: Some(TrustDocument { path: "demo.toml".into(), text }) },
    ];
    let reply = stage.admin.apply(tokio_stream::iter(parts)).await?.into_inner();
    let what = format!("two tenants, two partners: {} changes in one commit", reply.change_count);
    report.prove("apply", what, since, unless(reply.change_count > 0, "nothing changed"))?;
    for change in reply.changes.iter().filter(|change| change.noun == "grant") {
        report.tell(&format!("{} {} {}/{}", word::change(change.kind), change.noun, change.tenant, change.name))?;
    }
    stage.open_servers().await
}

/// Issues a credential of each kind.
pub(super) async fn issue(stage: &mut Stage, report: &mut Report<'_>) -> Outcome {
    let wanted = [
        (Tenant::Acme, Partner::Drift, CredentialKind::Jwt),
        (Tenant::Acme, Partner::Drift, CredentialKind::Opaque),
        (Tenant::Globex, Partner::Klue, CredentialKind::X509),
    ];
    for (tenant, partner, kind) in wanted {
        let since = Instant::now();
        let credential = stage.issue(tenant, request(tenant, partner, kind)).await?;
        let end = if kind == CredentialKind::X509 { ", its key made here and kept" } else { "" };
        report.prove("issue", format!("{}{end}", credential.name()), since, None)?;
        stage.live.push(credential);
    }
    Ok(())
}

/// Checks each of them: the broker is asked, keys and roots are used offline, a resource server is visited.
pub(super) async fn check(stage: &mut Stage, report: &mut Report<'_>) -> Outcome {
    for credential in &stage.live {
        let since = Instant::now();
        let broken = unless(introspect(stage, credential).await?, "it is not active");
        report.prove("check", format!("introspection says active: {}", credential.name()), since, broken)?;
    }
    for credential in &stage.live {
        let since = Instant::now();
        match credential.lease.kind() {
            CredentialKind::Jwt => {
                let broken = offline(stage, credential).await?;
                report.prove("check", "the JWT is verified offline, with the tenant's key set alone", since, broken)?;
            }
            CredentialKind::X509 => {
                let broken = offline(stage, credential).await?;
                report.prove("check", "the certificate's chain leads to the tenant's root", since, broken)?;
            }
            CredentialKind::Opaque | CredentialKind::Secret | CredentialKind::Unspecified => {}
        }
    }
    let (certificates, tokens): (Vec<_>, Vec<_>) =
        stage.live.iter().cloned().partition(|credential| credential.token().is_none());
    let since = Instant::now();
    let broken = stage.all_welcome(&certificates).await?;
    report.prove("check", "the certificate opens globex's service by a TLS handshake", since, broken)?;
    let since = Instant::now();
    let broken = stage.all_welcome(&tokens).await?;
    report.prove("check", "acme's service, a process of its own, lets both tokens in", since, broken)
}

async fn introspect(stage: &Stage, credential: &Credential) -> Outcome<bool> {
    let presented = match (credential.token(), credential.chain_der.first()) {
        (Some(token), _) => Presented::Token(token.to_owned()),
        (None, Some(leaf)) => Presented::CertificateDer(leaf.clone()),
        (None, None) => return Err(super::incomplete()),
    };
    let request = IntrospectRequest {
        credential: Some(presented),
        audience: credential.tenant.audience(),
        presented_certificate_sha256: stage.worker_sha256(credential.tenant)?.0.to_vec(),
    };
    Ok(stage.verifier(credential.tenant)?.introspect(request).await?.into_inner().active)
}

/// Checks a credential as a resource server does that never asks about it; says what is wrong.
async fn offline(stage: &Stage, credential: &Credential) -> Outcome<Option<String>> {
    let tenant = credential.tenant;
    let failed = |error: &dyn std::error::Error| Failure::Internal(format!("the tenant's trust bundle: {error}"));
    let name = tenant.name().parse().map_err(|error| failed(&error))?;
    let asked = GetTrustBundleRequest { tenant: tenant.name().into() };
    let reply = stage.verifier(tenant)?.get_trust_bundle(asked).await?.into_inner();
    let verifier = OfflineVerifier::new(name, Freshness::KeySetOnly);
    let now = system_wall();
    let bundle = TrustBundle::parse(&reply, verifier.tenant().clone(), now).map_err(|error| failed(&error))?;
    verifier.install(bundle);
    Ok(match credential.token() {
        Some(token) => {
            let presented = Some(stage.worker_sha256(tenant)?);
            verifier.check_token(token, &tenant.audience(), presented, now).err().map(|why| why.to_string())
        }
        None => {
            let chain: Vec<_> = credential.chain_der.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
            verifier.check_certificate(&chain, now).err().map(|why| why.to_string())
        }
    })
}
