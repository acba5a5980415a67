//! A root that is kept elsewhere: request out, chain in, and what is issued stands on it.

use std::{sync::Arc, time::Duration};

use mayfly::pb::{ApplyOptions, CredentialKind, admin_client::AdminClient, broker_client::BrokerClient};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, UnixTime},
    server::WebPkiClientVerifier,
};
use time::OffsetDateTime;

use super::{
    host::Founded,
    rig::{Said, arg, mayfly},
    world::{holder, issue, request, trust},
};
use crate::support::{Authority, Identity, apply, certificates, dial};

struct Root {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

impl Root {
    fn new() -> Self {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "the company's root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        date(&mut params, 900);
        let root = params.self_signed(&key).expect("root");
        Self { pem: root.pem(), der: root.der().clone(), issuer: Issuer::new(params, key) }
    }

    /// The request of a folder, signed, with this root behind it.
    fn chain(&self, founded: &Founded) -> String {
        let at = founded.said.find("-----BEGIN CERTIFICATE REQUEST").expect("a request");
        let mut asked = CertificateSigningRequestParams::from_pem(&founded.said[at..]).expect("a request");
        date(&mut asked.params, 300);
        asked.signed_by(&self.issuer).expect("signed").pem() + &self.pem
    }
}

fn date(params: &mut CertificateParams, days: i64) {
    params.not_before = OffsetDateTime::now_utc() - time::Duration::minutes(5);
    params.not_after = OffsetDateTime::now_utc() + time::Duration::days(days);
}

fn adopt(founded: &Founded, chain: &str) -> Said {
    let file = founded.folder.path().join("chain.pem");
    std::fs::write(&file, chain).expect("written");
    mayfly(&["adopt-root", "--config", arg(founded.config()), "--chain", arg(&file)])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_issued_stands_on_the_root_that_was_adopted() {
    let (founded, other) = (Founded::new(&["--external-root"]), Founded::new(&["--external-root"]));
    let (root, wrong) = (Root::new(), Root::new());
    let said = founded.refusal();
    assert!(said.contains("mayfly adopt-root"), "{said}");
    let good = root.chain(&founded);
    let own = &good[..good.find(&root.pem).expect("the root")];
    for (what, chain, told) in [
        ("another folder's", root.chain(&other), "key"),
        ("under another root", own.to_owned() + &wrong.pem, "is not signed by"),
        ("without its root", own.to_owned(), "is not signed by"),
        ("nothing", String::new(), "certificate"),
    ] {
        let said = adopt(&founded, &chain);
        assert!(said.code == 2 && said.errors.contains(told), "{what}: {said:?}");
        assert!(!founded.operator().exists(), "{what}: an operator was certified");
    }
    let said = adopt(&founded, &good);
    assert_eq!(said.code, 0, "{said:?}");
    let again = adopt(&founded, &good);
    assert!(again.code != 0, "adopted twice: {again:?}");

    let authority = Authority::new("platform").expect("authority");
    let file = founded.folder.path().join("platform.pem");
    std::fs::write(&file, &authority.pem).expect("written");
    let text = std::fs::read_to_string(founded.config()).expect("a configuration");
    std::fs::write(founded.config(), format!("{text}[[client_ca]]\nname = \"platform\"\nfile = {file:?}\n"))
        .expect("ok");
    let process = founded.launch.start().expect("serves");
    let roots = certificates(&founded.operator().join("ca.pem")).expect("roots");
    assert_eq!(roots, std::slice::from_ref(&root.der));
    let operator = Identity::read(&founded.operator()).expect("operator");
    let admin = AdminClient::new(dial(process.address, &roots, Some(&operator)).await.expect("connects"));
    let documents = vec![("trust.toml".to_owned(), trust())];
    apply(admin, ApplyOptions::default(), documents).await.expect("applies");
    let worker = authority.identity("spiffe://platform.example/alpha/worker").expect("identity");
    let channel = dial(process.address, &roots, Some(&worker)).await.expect("connects");
    let reply = issue(&mut BrokerClient::new(channel), request("alpha", CredentialKind::X509)).await.expect("issued");
    let chain = holder(&reply).chain;
    assert!(leads_to(&chain, &root.der) && !leads_to(&chain, &wrong.der));
}

fn leads_to(chain: &[CertificateDer<'static>], root: &CertificateDer<'static>) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().expect("verifier");
    let now = u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).expect("after 1970");
    verifier.verify_client_cert(&chain[0], &chain[1..], UnixTime::since_unix_epoch(Duration::from_secs(now))).is_ok()
}
