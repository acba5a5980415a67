use std::sync::Arc;

use prost::Message as _;

use super::*;
use crate::{
    broker::spiffe::{TrustBundle, X509Svid},
    foreign::envoy::extensions::transport_sockets::tls::v3::{Secret, secret::Type},
    mint::SecretBytes,
    model::{LeaseId, TaskId, TenantNumber, Timestamp},
};

fn update(names: &[&str]) -> Update {
    let task = TaskId::fresh(TenantNumber::new(3).expect("number")).expect("entropy");
    let svid = |name: &&str| {
        let svid = X509Svid {
            spiffe_id: format!("spiffe://{name}/partner/p/workload/w"),
            chain_der: vec![b"chain".to_vec()],
            key: SecretBytes::new(b"key".to_vec()),
            hint: (*name).to_owned(),
            lease: LeaseId::fresh(task).expect("entropy"),
            renew_at: Timestamp::default(),
        };
        let roots_der = vec![name.as_bytes().to_vec()];
        let bundle = TrustBundle { id: format!("spiffe://{name}"), roots_der, jwks: String::new() };
        (Arc::new(svid), Arc::new(bundle))
    };
    Update(names.iter().map(svid).collect())
}

fn request(names: &[&str], nonce: &str) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        response_nonce: nonce.to_owned(),
        type_url: SECRET.to_owned(),
        ..Default::default()
    }
}

/// Names of what was told, with `cert` or `roots`.
fn told(response: &DiscoveryResponse) -> Vec<String> {
    let secret = |any: &prost_types::Any| {
        let secret = Secret::decode(any.value.as_slice()).expect("a secret");
        let kind = match secret.r#type {
            Some(Type::TlsCertificate(_)) => "cert",
            Some(Type::ValidationContext(_)) => "roots",
            None => "nothing",
        };
        format!("{kind} {}", secret.name)
    };
    response.resources.iter().map(secret).collect()
}

#[test]
fn a_complaint_counts_of_what_was_told_last() {
    let (mut client, update) = (Subscription::default(), update(&["a"]));
    let answer = client.asked(request(&["default"], ""), Some(&update)).expect("known").expect("told");
    let error_detail = Some(crate::foreign::google::rpc::Status { message: "no".into(), ..Default::default() });
    let refused = |nonce: &str| DiscoveryRequest { error_detail: error_detail.clone(), ..request(&["default"], nonce) };
    assert_eq!(client.complaint(&refused(&answer.nonce)), Some("no"));
    assert_eq!((client.complaint(&refused("")), client.complaint(&refused("older"))), (None, None));
    assert_eq!(client.complaint(&request(&["default"], &answer.nonce)), None);
}

#[test]
fn what_is_acknowledged_is_not_told_again_until_it_changes() {
    let (mut client, first, second) = (Subscription::default(), update(&["a", "b"]), update(&["a", "b"]));
    let answer = client.asked(request(&["default", "ROOTCA"], ""), Some(&first)).expect("known").expect("told");
    assert_eq!(told(&answer), ["roots ROOTCA", "cert default"]);
    assert_eq!((answer.version_info.as_str(), answer.type_url.as_str()), ("1", SECRET));
    assert!(client.asked(request(&["ROOTCA", "default"], &answer.nonce), Some(&first)).expect("taken").is_none());
    let next = client.updated(&second).expect("known").expect("told");
    assert_eq!((next.version_info.as_str(), told(&next)), ("2", told(&answer)));
    assert_ne!(next.nonce, answer.nonce);
    // What is said of the first response comes too late, whatever it says.
    assert!(client.asked(request(&["ALL"], &answer.nonce), Some(&second)).expect("ignored").is_none());
    let other = client.asked(request(&["ALL"], &next.nonce), Some(&second)).expect("known").expect("told");
    assert_eq!(told(&other), ["roots ALL"]);
}

#[test]
fn a_refused_response_is_not_repeated() {
    let (mut client, update) = (Subscription::default(), update(&["a"]));
    let answer = client.asked(request(&["default"], ""), Some(&update)).expect("known").expect("told");
    let refused = DiscoveryRequest {
        error_detail: Some(crate::foreign::google::rpc::Status { message: "no\n".into(), ..Default::default() }),
        ..request(&["default"], &answer.nonce)
    };
    assert!(client.asked(refused, Some(&update)).expect("noted").is_none());
}

#[test]
fn names_choose_and_no_name_is_everything() {
    let update = update(&["a", "b"]);
    let tell = |names: &[&str]| {
        Subscription::default().asked(request(names, ""), Some(&update)).map(|answer| told(&answer.expect("told")))
    };
    let own = ["spiffe://a/partner/p/workload/w", "spiffe://b/partner/p/workload/w"];
    let everything =
        [format!("cert {}", own[0]), format!("cert {}", own[1]), "roots spiffe://a".into(), "roots spiffe://b".into()];
    assert_eq!(tell(&[]).expect("known"), everything);
    assert_eq!(tell(&[own[1], "spiffe://b"]).expect("known"), ["roots spiffe://b", everything[1].as_str()]);
    for unknown in ["spiffe://c", "spiffe://a/other", "rootca", "x"] {
        assert!(matches!(tell(&["default", unknown]), Err(Refusal::Invalid { field: "resource_names", .. })));
    }
    let mut other = request(&[], "");
    other.type_url = "type.googleapis.com/envoy.config.cluster.v3.Cluster".into();
    assert!(matches!(Subscription::default().asked(other, None), Err(Refusal::Invalid { field: "type_url", .. })));
}

#[test]
fn nothing_is_told_before_it_is_asked_for_or_known() {
    let (mut client, known) = (Subscription::default(), update(&["a"]));
    assert!(client.updated(&known).expect("nothing").is_none());
    assert!(client.asked(request(&["default"], ""), None).expect("waits").is_none());
    assert_eq!(told(&client.updated(&known).expect("known").expect("told")), ["cert default"]);
}

#[test]
fn a_stream_asks_for_256_names_and_not_one_more() {
    let names = |count: usize| DiscoveryRequest { resource_names: vec!["ROOTCA".into(); count], ..Default::default() };
    let update = update(&["a"]);
    assert!(Subscription::default().asked(names(256), Some(&update)).is_ok());
    assert!(Subscription::default().asked(names(257), Some(&update)).is_err());
}
