//! Issuers of identity tokens, and what became of a token.

use crate::{
    cli::cell::{Fields, Record},
    pb,
};

impl Record for pb::Issuer {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("ISSUER", "name"),
        ("KIND", "kind"),
        ("REUSE", "reuse"),
        ("KEYS", "key_ids"),
        ("FETCHED", "fetched"),
        ("USABLE", "usable"),
        ("STALE", "stale"),
        ("BARRED", "barred"),
        ("ERROR", "error"),
    ];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("name", &self.name)
            .text("url", &self.url)
            .text("kind", &self.kind)
            .text("audience", &self.audience)
            .text("reuse", &self.reuse)
            .flag("pinned", self.pinned)
            .time("fetched", self.fetched.as_ref())
            .words("key_ids", &self.key_ids)
            .number("skipped_keys", self.skipped_keys)
            .flag("stale", self.stale)
            .flag("usable", self.usable)
            .time("tried", self.tried.as_ref())
            .text("error", &self.error)
            .flag("barred", self.barred)
    }
}

impl Record for pb::TestIdentityTokenResponse {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[("ACCEPTED", "accepted"), ("FAULT", "fault")];

    fn fields(&self) -> Fields {
        let claim = |claim: &pb::TokenClaim| Fields::new().text("name", &claim.name).text("value", &claim.value);
        Fields::new()
            .flag("accepted", self.accepted)
            .text("fault", &self.fault)
            .text("issuer", &self.issuer)
            .text("subject", &self.subject)
            .hex("token_sha256", &self.token_sha256)
            .time("expires", self.expires.as_ref())
            .records("claims", self.claims.iter().map(claim).collect())
            .records("bindings", self.bindings.iter().map(Record::fields).collect())
    }
}

impl Record for pb::TokenBinding {
    const COLUMNS: &'static [(&'static str, &'static str)] =
        &[("TENANT", "tenant"), ("WORKLOAD", "workload"), ("FITS", "fits")];

    fn fields(&self) -> Fields {
        Fields::new()
            .text("tenant", &self.tenant)
            .text("workload", &self.workload)
            .flag("fits", self.fits)
            .words("reasons", &self.reasons)
    }
}
