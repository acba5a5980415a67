use super::*;
use crate::broker::testing::{TRUST, admin, apply, days, founded};

fn key(name: &str) -> pb::UnmanagedCredential {
    pb::UnmanagedCredential {
        tenant: "acme".into(),
        name: name.into(),
        partner: "zeta".into(),
        kind: "api-key".into(),
        owner: "owner@example.com".into(),
        purpose: "nightly export".into(),
        location: "CI variable EXPORT_KEY of acme/export".into(),
        fingerprint: "ab".repeat(32),
        revocation: "console of the vendor, by the owner".into(),
        ..Default::default()
    }
}

fn adding(credentials: Vec<pb::UnmanagedCredential>) -> pb::AddUnmanagedRequest {
    pb::AddUnmanagedRequest { credentials, dry_run: false, reason: "inventory".into() }
}

async fn listed(broker: &Broker) -> Vec<pb::UnmanagedCredential> {
    broker.list_unmanaged(&admin(), pb::ListUnmanagedRequest::default()).await.expect("lists").credentials
}

#[tokio::test]
async fn what_is_registered_is_listed_with_its_reasons_and_in_the_audit() {
    let (broker, hands) = founded().await;
    apply(&broker, TRUST).await;
    let now = broker.now();
    let good =
        pb::UnmanagedCredential { rotated: Some(stamp(now)), expires: Some(stamp(now.after(days(60)))), ..key("good") };
    let lost = pb::UnmanagedCredential { owner: String::new(), kind: "test-token".into(), ..key("lost") };
    let before = broker.ledger.basis().1;
    let done = broker.add_unmanaged(&admin(), adding(vec![good.clone(), lost])).await.expect("answers");
    assert_eq!((done.added, done.changed, done.problems.len()), (2, 0, 0));
    assert_eq!(broker.ledger.log_after(before, 9).expect("reads").len(), 1, "not one commit");
    let again = broker.add_unmanaged(&admin(), adding(vec![good.clone()])).await.expect("answers");
    assert_eq!((again.unchanged, again.revision), (1, None));
    let [first, second] = listed(&broker).await.try_into().expect("two");
    assert!(first.reasons.is_empty(), "{:?}", first.reasons);
    assert_eq!(second.reasons, ["no owner", "no expiry", "never rotated", "test token"]);
    hands.advance(days(91));
    assert_eq!(listed(&broker).await[0].reasons, ["expired", "not rotated for 90 days"]);
    let gone = pb::RemoveUnmanagedRequest { tenant: "acme".into(), name: "good".into(), reason: "ended".into() };
    assert!(broker.remove_unmanaged(&admin(), gone.clone()).await.expect("answers").removed);
    assert!(!broker.remove_unmanaged(&admin(), gone).await.expect("answers").removed);
    assert_eq!(listed(&broker).await.len(), 1);
}

#[tokio::test]
async fn every_problem_is_reported_nothing_is_done_and_no_secret_comes_back() {
    let (broker, _) = founded().await;
    apply(&broker, TRUST).await;
    let secret = concat!("ghp", "_0123456789abcdefABCDEF0123456789abcd");
    let wrong = vec![
        key("fine"),
        pb::UnmanagedCredential { location: secret.into(), kind: "cookie".into(), ..key("a") },
        pb::UnmanagedCredential { fingerprint: secret.into(), tenant: "nobody".into(), ..key("B") },
        pb::UnmanagedCredential { tenant: "nobody".into(), ..key("c") },
        key("fine"),
    ];
    let reply = broker.add_unmanaged(&admin(), adding(wrong)).await.expect("answers");
    let found: Vec<_> = reply.problems.iter().map(|p| (p.index, p.field.as_str())).collect();
    let want = [(1, "kind"), (1, "location"), (2, "name"), (2, "fingerprint"), (3, "tenant"), (4, "name")];
    assert_eq!(found, want);
    assert!(reply.revision.is_none() && listed(&broker).await.is_empty());
    assert!(!format!("{reply:?}").contains(secret));
}

#[tokio::test]
async fn who_has_one_tenant_and_partner_sees_and_changes_no_others() {
    let (broker, _) = founded().await;
    let more = "[[operator]]\nname = \"zed\"\nrole = \"admin\"\ntenants = [\"acme\"]\npartners = [\"zeta\"]\n";
    apply(&broker, &format!("{TRUST}\n{more}")).await;
    let zed = crate::broker::testing::operator("zed");
    let foreign = pb::UnmanagedCredential { partner: String::new(), ..key("theirs") };
    let mine = key("mine");
    broker.add_unmanaged(&admin(), adding(vec![foreign.clone()])).await.expect("answers");
    let reply = broker.add_unmanaged(&zed, adding(vec![mine, key("theirs")])).await.expect("answers");
    assert_eq!(reply.problems.len(), 1, "{reply:?}");
    assert!(!broker.add_unmanaged(&zed, adding(vec![foreign])).await.expect("answers").problems.is_empty());
    let gone = pb::RemoveUnmanagedRequest { tenant: "acme".into(), name: "theirs".into(), reason: "x".into() };
    assert!(!broker.remove_unmanaged(&zed, gone).await.expect("answers").removed);
    broker.add_unmanaged(&zed, adding(vec![key("mine")])).await.expect("answers");
    let seen = broker.list_unmanaged(&zed, pb::ListUnmanagedRequest::default()).await.expect("lists").credentials;
    assert_eq!(seen.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["mine"]);
}
