//! What callers come with: tokens, handles, certificates and requests for them.

use std::{
    path::Path,
    sync::{Arc, LazyLock},
    time::Duration,
};

use base64::Engine as _;
use mayfly::{
    config::Config,
    identity::{
        ClientAuthorities, PeerCertificate,
        oidc::{KeySet, UnverifiedToken},
    },
    mint::{
        handle::Handle,
        jwt, opaque,
        signing::{Algorithm, SigningKey},
        x509,
    },
    model::{
        IssuerKind, IssuerRules, LeaseId, OnReuse, SignInRules, SignatureAlgorithm, Stamp, TenantName, Timestamp,
        issuer::LONGEST_JOB,
    },
    pb, policy,
    verifier::{Freshness, OfflineVerifier, TrustBundle},
};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
    SerialNumber,
};
use rustls::pki_types::CertificateDer;

/// A signed token, a reference token, a handle, and what a token claims.
pub fn token(text: &str) {
    let _ = jwt::peek(text);
    let _ = opaque::parse(text);
    if let Ok(handle) = Handle::parse(text) {
        assert_eq!(handle.text().expose(), text, "a handle has one spelling");
    }
    let (basis, scopes) = text.split_once(' ').unwrap_or((text, ""));
    let _ = Stamp::from_claims(basis, scopes);
}

/// An identity token, the header, claims or key set in one, and a pattern for claims.
pub fn identity_token(text: &str) {
    let _ = UnverifiedToken::parse(text).map(|token| token.unverified_claims());
    let _ = UnverifiedToken::parse(&format!("{}.{}.", part(br#"{"alg":"RS256","kid":"k"}"#), part(text.as_bytes())));
    let _ = UnverifiedToken::parse(&format!("{}.{}.", part(text.as_bytes()), part(br#"{"iss":"x"}"#)));
    let _ = KeySet::parse(text.as_bytes());
    let _ = text.parse::<policy::ClaimPattern>();
}

/// What an issuer has signed that is believed: the kind of token, then its claims.
pub fn claims(bytes: &[u8]) {
    let Some((kind, claims)) = bytes.split_first() else { return };
    let believed = &*ISSUER;
    let kind = usize::from(*kind) % (IssuerKind::ALL.len() + 2);
    match IssuerKind::ALL.get(kind) {
        Some((_, kind)) => {
            let rules = Arc::new(rules(*kind));
            let proof = UnverifiedToken::parse(&believed.sign("JWT", claims));
            let _ = proof.and_then(|token| token.verify(&rules, &believed.keys, None, NOW));
        }
        None if kind == IssuerKind::ALL.len() => {
            let event = UnverifiedToken::parse_event(&believed.sign("secevent+jwt", claims));
            let rules = Arc::new(rules(IssuerKind::Generic));
            if let Ok(event) = event.and_then(|token| token.verify_event(&rules, &believed.keys, NOW)) {
                assert!(event.events().count() > 0, "an event says what happened");
            }
        }
        None => {
            let person = UnverifiedToken::parse(&believed.sign("JWT", claims));
            let _ = person.and_then(|token| token.verify_person(&sign_in(), &believed.keys, "nonce", NOW));
        }
    }
}

/// What a resource server is shown: the form, then a token, the claims of a signed one, a certificate, or the stamp of one
/// that the tenant's CA has signed.
pub fn presented(bytes: &[u8]) {
    static TENANT: LazyLock<Tenant> = LazyLock::new(Tenant::new);
    let Some((form, shown)) = bytes.split_first() else { return };
    let tenant = &*TENANT;
    let token = match form % 4 {
        0 => String::from_utf8_lossy(shown).into_owned(),
        1 => ISSUER.sign("at+jwt", shown),
        2 => {
            let chain = [CertificateDer::from(shown.to_vec())];
            assert!(tenant.verifier.check_certificate(&chain, NOW).is_err(), "nobody made such a certificate");
            return;
        }
        _ => {
            let stamp = Stamp::from_extension(shown);
            let taken = tenant.verifier.check_certificate(&[tenant.leaf(shown)], NOW);
            assert_eq!(taken.is_ok(), stamp.is_some(), "{taken:?}");
            return;
        }
    };
    if let Ok(verified) = tenant.verifier.check_token(&token, AUDIENCE, None, NOW) {
        assert!(verified.expires.after(Duration::from_secs(30)) > NOW && verified.bound.is_none());
    }
}

/// A certificate request.
pub fn csr(bytes: &[u8]) {
    let _ = x509::parse_csr(bytes);
}

/// A certificate's stamp.
pub fn stamp(bytes: &[u8]) {
    if let Some(stamp) = Stamp::from_extension(bytes) {
        assert_eq!(Stamp::from_extension(&stamp.to_extension()), Some(stamp));
    }
    if let Some(stamp) = Stamp::from_bytes(bytes) {
        assert_eq!(stamp.to_bytes(), bytes, "a stamp has one spelling");
    }
}

/// A client's certificate: the bytes as one, and the bytes as the names within one that a believed CA has signed.
pub fn certificate(bytes: &[u8]) {
    static BELIEVED: LazyLock<Believed> = LazyLock::new(Believed::new);
    let raw = CertificateDer::from(bytes.to_vec());
    let _ = PeerCertificate::from_chain(std::slice::from_ref(&raw), &BELIEVED.authorities, NOW);
    let _ = PeerCertificate::from_chain(&[BELIEVED.leaf(bytes), raw], &BELIEVED.authorities, NOW);
}

/// Somebody whose tokens are believed.
pub(super) struct Signer {
    key: SigningKey,
    pub(super) key_set: String,
    keys: KeySet,
}

impl Signer {
    fn new() -> Self {
        let (key, _) = SigningKey::generate(Algorithm::Es256).expect("entropy");
        let key_set = format!(r#"{{"keys":[{}]}}"#, key.public().to_json());
        let keys = KeySet::parse(key_set.as_bytes()).expect("own form");
        Self { key, key_set, keys }
    }

    /// A token of this type with these claims, whatever they are.
    pub(super) fn sign(&self, typ: &str, claims: &[u8]) -> String {
        let header = format!(r#"{{"alg":"ES256","typ":"{typ}","kid":"{}"}}"#, self.key.key_id());
        let message = format!("{}.{}", part(header.as_bytes()), part(claims));
        let signature = self.key.sign(message.as_bytes()).expect("entropy");
        format!("{message}.{}", part(&signature))
    }
}

pub(super) static ISSUER: LazyLock<Signer> = LazyLock::new(Signer::new);

/// What is believed of [`ISSUER`]. Its tokens are old, since seeds are.
pub(super) fn rules(kind: IssuerKind) -> IssuerRules {
    IssuerRules {
        name: "issuer".parse().expect("a name"),
        url: "https://issuer.example".to_owned(),
        kind,
        audience: "https://mayfly.example".to_owned(),
        reuse: kind.default_reuse(),
        on_reuse: OnReuse::Alarm,
        algorithms: vec![SignatureAlgorithm::Es256],
        max_age: Duration::from_secs(20 * 365 * 86_400),
        longest_job: LONGEST_JOB,
        allow_events: Vec::new(),
        allow_ssh_rerun: false,
        trust_domain: (kind == IssuerKind::Spiffe).then(|| "prod.example".to_owned()),
    }
}

fn sign_in() -> SignInRules {
    SignInRules {
        issuer: Arc::new(rules(IssuerKind::Generic)),
        scopes: vec!["openid".to_owned()],
        audiences: vec!["another".to_owned()],
        require_nonce: false,
        directory_claim: None,
        require_provisioned: false,
        life: Duration::from_secs(3_600),
        rules: Vec::new(),
    }
}

/// A resource server of one tenant.
struct Tenant {
    verifier: OfflineVerifier,
    issuer: Issuer<'static, KeyPair>,
    key: KeyPair,
}

impl Tenant {
    fn new() -> Self {
        let (issuer, root) = authority();
        let bundle = pb::GetTrustBundleResponse {
            issuer: "https://mayfly.example/t/acme".to_owned(),
            jwks_json: ISSUER.key_set.clone(),
            root_der: vec![root.to_vec()],
            trust_domain: "acme.example".to_owned(),
            max_age_seconds: 300,
        };
        let tenant: TenantName = "acme".parse().expect("a name");
        let bundle = TrustBundle::parse(&bundle, tenant.clone(), NOW).expect("a sound bundle");
        let verifier = OfflineVerifier::new(tenant, Freshness::KeySetOnly);
        assert!(verifier.install(bundle));
        Self { verifier, issuer, key: KeyPair::generate().expect("key") }
    }

    /// A certificate as the tenant's CA makes it, but for its stamp.
    fn leaf(&self, stamp: &[u8]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from_slice(&[0x41; LeaseId::BYTES]));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![SanType::URI("spiffe://acme.example/w/exporter".try_into().expect("ASCII"))];
        params.custom_extensions = vec![CustomExtension::from_oid_content(&Stamp::OID, stamp.to_vec())];
        params.signed_by(&self.key, &self.issuer).expect("a leaf").der().clone()
    }
}

/// A foreign CA that is believed.
struct Believed {
    issuer: Issuer<'static, KeyPair>,
    key: KeyPair,
    authorities: ClientAuthorities,
}

impl Believed {
    fn new() -> Self {
        let ((issuer, root), (_, own)) = (authority(), authority());
        let domain = Config::dev(Path::new("data"), 0).trust_domain;
        let foreign = [("foreign".to_owned(), vec![root])];
        let authorities = ClientAuthorities::new(domain, &[own], &foreign).expect("authorities");
        Self { issuer, key: KeyPair::generate().expect("key"), authorities }
    }

    fn leaf(&self, names: &[u8]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], names.to_vec())];
        params.signed_by(&self.key, &self.issuer).expect("a leaf").der().clone()
    }
}

/// A CA with its root.
fn authority() -> (Issuer<'static, KeyPair>, CertificateDer<'static>) {
    let key = KeyPair::generate().expect("key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).expect("root").der().clone();
    (Issuer::new(params, key), root)
}

/// One part of a token.
fn part(bytes: &[u8]) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

const AUDIENCE: &str = "https://api.example";
/// When all of it is read.
const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
