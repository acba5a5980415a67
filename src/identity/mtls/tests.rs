use super::*;
use crate::identity::testing::{FAR_SECONDS, LeafNames, TestCa, TestLeaf};

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

struct Fixture {
    own: TestCa,
    corp: TestCa,
    authorities: ClientAuthorities,
}

fn fixture() -> Fixture {
    let (own, corp) = (TestCa::new("own"), TestCa::new("corp"));
    let foreign = [("corp".to_owned(), vec![corp.root()])];
    let authorities = ClientAuthorities::new(TrustDomain::default(), &[own.root()], &foreign).expect("sets");
    Fixture { own, corp, authorities }
}

impl Fixture {
    fn judge(&self, leaf: &TestLeaf) -> Result<PeerCertificate, IdentityError> {
        PeerCertificate::from_chain(&leaf.chain, &self.authorities, NOW)
    }
}

#[test]
fn a_certificate_says_who_vouches_for_it_and_its_one_spiffe_id() {
    let f = fixture();
    let leaf = f.own.workload("spiffe://acme.mayfly.internal/w/build");
    let peer = f.judge(&leaf).expect("own");
    assert_eq!(peer.proof().authority, Authority::Own);
    assert_eq!(peer.proof().spiffe_id.as_deref(), Some("spiffe://acme.mayfly.internal/w/build"));
    assert_eq!(peer.proof().sha256, Digest::of(&leaf.chain[0]));
    let peer = f.judge(&f.corp.workload("spiffe://corp.example/ci")).expect("corp");
    assert_eq!(peer.proof().authority, Authority::Foreign("corp".to_owned()));
}

#[test]
fn a_foreign_ca_may_not_vouch_for_our_own_trust_domain() {
    let f = fixture();
    for id in ["spiffe://mayfly.internal/x", "spiffe://acme.mayfly.internal/w/build"] {
        let outcome = f.judge(&f.corp.workload(id)).expect_err(id);
        assert!(matches!(outcome, IdentityError::ForeignIdentity { .. }), "{outcome}");
    }
    assert!(f.judge(&f.corp.workload("spiffe://notmayfly.internal/x")).is_ok());
}

#[test]
fn a_ca_that_nobody_named_vouches_for_nothing() {
    let f = fixture();
    let stranger = TestCa::new("own");
    let outcome = f.judge(&stranger.workload("spiffe://acme.mayfly.internal/w/build")).expect_err("stranger");
    assert_eq!(outcome, IdentityError::Untrusted);
    assert!(matches!(PeerCertificate::from_chain(&[], &f.authorities, NOW), Err(IdentityError::Untrusted)));
}

#[test]
fn a_spiffe_id_beside_another_uri_is_refused_and_other_uris_are_no_identity() {
    let f = fixture();
    let leaf = |uris: &[&str]| f.own.leaf(LeafNames { uris, dns: &["Host.Example"], not_after_seconds: FAR_SECONDS });
    let two = f.judge(&leaf(&["spiffe://acme.mayfly.internal/a", "spiffe://acme.mayfly.internal/b"]));
    assert_eq!(two.expect_err("two"), IdentityError::ManyUris);
    let two = f.judge(&leaf(&["https://x.example/", "SPIFFE://acme.mayfly.internal/b"]));
    assert_eq!(two.expect_err("two"), IdentityError::ManyUris);
    let malformed = f.judge(&leaf(&["spiffe://acme.mayfly.internal"]));
    assert_eq!(malformed.expect_err("no path"), IdentityError::SpiffeId(InvalidSpiffeId::Path));
    let other = f.judge(&leaf(&["https://x.example/"])).expect("plain URI");
    assert_eq!(
        (other.proof().spiffe_id.as_deref(), other.proof().dns_names.as_slice()),
        (None, &["host.example".to_owned()][..])
    );
}

#[test]
fn a_certificate_proves_a_caller_until_its_last_second_and_no_longer() {
    let f = fixture();
    let end = NOW.seconds() + 60;
    let leaf = f.own.leaf(LeafNames {
        uris: &["spiffe://acme.mayfly.internal/w"],
        dns: &[],
        not_after_seconds: i64::try_from(end).expect("fits"),
    });
    let peer = f.judge(&leaf).expect("valid at the connect");
    let source = ([127, 0, 0, 1], 1).into();
    assert!(peer.caller(source, Timestamp::from_millis(end * 1000 + 999)).is_ok());
    let not_after = Timestamp::from_seconds(end);
    let outcome = peer.caller(source, Timestamp::from_seconds(end + 1)).map(|_| ());
    assert_eq!(outcome, Err(IdentityError::Expired { not_after }));
    let outcome = peer.caller(source, Timestamp::from_seconds(1)).map(|_| ());
    assert!(matches!(outcome, Err(IdentityError::NotYetValid { .. })));
    assert!(matches!(
        PeerCertificate::from_chain(&leaf.chain, &f.authorities, Timestamp::from_seconds(end + 1)),
        Err(IdentityError::Untrusted)
    ));
}

#[test]
fn a_ca_in_two_sets_or_an_empty_set_is_refused() {
    let own = TestCa::new("own");
    let build = |own: &[_], foreign: Vec<_>| {
        ClientAuthorities::new(TrustDomain::default(), own, &[("corp".to_owned(), foreign)]).map(|_| ())
    };
    assert!(matches!(build(&[own.root()], vec![own.root()]), Err(AuthorityError::Shared { .. })));
    assert!(matches!(build(&[own.root()], vec![]), Err(AuthorityError::Empty { .. })));
    assert!(matches!(build(&[], vec![own.root()]), Err(AuthorityError::Empty { .. })));
    let garbage = CertificateDer::from(vec![1, 2, 3]);
    assert!(matches!(build(&[own.root()], vec![garbage]), Err(AuthorityError::Malformed { .. })));
}

#[test]
fn a_key_of_ones_own_is_let_through_where_that_is_meant_and_is_no_identity() {
    let f = fixture();
    let taking = ClientAuthorities::new(TrustDomain::default(), &[f.own.root()], &[]).expect("sets").taking_keys();
    for uris in [&[][..], &["spiffe://acme.mayfly.internal/w/build"], &["spiffe://mayfly.internal/operator/admin"]] {
        let own = TestLeaf::self_signed(uris);
        let Ok(Shown::Key(key)) = taking.judge(&own.chain, NOW) else { panic!("a key: {uris:?}") };
        assert_eq!(key.certificate, Digest::of(&own.chain[0]));
        assert!(matches!(f.authorities.judge(&own.chain, NOW), Err(IdentityError::Untrusted)), "where it is not meant");
    }
    let one = TestLeaf::self_signed(&[]);
    let other = TestLeaf::self_signed(&[]);
    let spki = |leaf: &TestLeaf| match taking.judge(&leaf.chain, NOW) {
        Ok(Shown::Key(key)) => key.spki,
        other => panic!("{other:?}"),
    };
    assert_ne!(spki(&one), spki(&other));
    assert!(matches!(taking.judge(&[], NOW), Ok(Shown::Nothing)));
}

#[test]
fn what_a_ca_has_made_is_never_taken_for_a_key_of_ones_own() {
    let f = fixture();
    let taking =
        ClientAuthorities::new(TrustDomain::default(), &[f.own.root()], &[("corp".into(), vec![f.corp.root()])]);
    let taking = taking.expect("sets").taking_keys();
    let stranger = TestCa::new("stranger").workload("spiffe://acme.mayfly.internal/w/build");
    assert!(matches!(taking.judge(&stranger.chain, NOW), Err(IdentityError::Untrusted)), "of a CA that nobody named");
    let leaf = f.corp.workload("spiffe://mayfly.internal/x");
    assert!(
        matches!(taking.judge(&leaf.chain, NOW), Err(IdentityError::ForeignIdentity { .. })),
        "a refused claim stays refused"
    );
    let over = f.own.leaf(LeafNames { uris: &[], dns: &[], not_after_seconds: 1_700_000_000 });
    assert!(taking.judge(&over.chain, NOW).is_err(), "an expired certificate of ours");
    let chain = [TestLeaf::self_signed(&[]).chain, vec![f.own.root()]].concat();
    assert!(matches!(taking.judge(&chain, NOW), Err(IdentityError::Untrusted)), "more than one certificate");
    assert!(matches!(
        taking.judge(&f.own.workload("spiffe://acme.mayfly.internal/x").chain, NOW),
        Ok(Shown::Certificate(_))
    ));
    let mut broken = TestLeaf::self_signed(&[]).chain[0].to_vec();
    broken.push(0);
    assert!(taking.judge(&[broken.into()], NOW).is_err());
}

#[test]
fn a_foreign_ca_that_is_limited_to_trust_domains_vouches_for_no_other() {
    let f = fixture();
    let limited =
        ClientAuthorities::new(TrustDomain::default(), &[f.own.root()], &[("corp".into(), vec![f.corp.root()])]);
    let limited = limited.expect("sets").limited("corp", &["prod.example".to_owned()]);
    let judge = |uri: &str| limited.judge(&f.corp.workload(uri).chain, NOW).map(drop);
    assert_eq!(judge("spiffe://prod.example/ci"), Ok(()));
    for uri in ["spiffe://staging.example/ci", "spiffe://prod.example.evil/ci", "spiffe://x.prod.example/ci"] {
        assert!(matches!(judge(uri), Err(IdentityError::ForeignIdentity { .. })), "{uri}");
    }
    let unnamed = f.corp.leaf(LeafNames { uris: &[], dns: &["host.example"], not_after_seconds: FAR_SECONDS });
    assert!(limited.judge(&unnamed.chain, NOW).is_ok(), "DNS names are bound one by one");
}
