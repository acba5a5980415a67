//! Sign-ins as laws, on a clock that is moved by hand.

use std::time::Duration;

use super::*;
use crate::{
    broker::{
        directory::UserChange,
        testing::{Company, TRUST, admin, apply},
    },
    ledger::Hold,
    model::SignInRules,
    pb,
};

/// Operators that the rules of [`Company`] make.
const OPERATORS: &str = r#"
    [[operator]]
    name = "op-a"
    role = "auditor"
    tenants = ["acme"]
    partners = "all"
    [[operator]]
    name = "op-b"
    role = "auditor"
    tenants = ["acme"]
    partners = "all"
    [[operator]]
    name = "op-c"
    role = "auditor"
    tenants = ["acme"]
    partners = "all"
"#;

async fn company(rules: impl FnOnce(&mut SignInRules)) -> Company {
    let company = Company::new(rules).await;
    apply(&company.broker, &format!("{TRUST}{OPERATORS}")).await;
    company
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

impl Company {
    /// The reason for which a caller is no operator; empty for one who is.
    fn over(&self, caller: &Caller) -> &'static str {
        self.broker.operator(caller).err().map_or("", |why| why.reason())
    }

    async fn sign_out(&self, person: &str) {
        let request =
            pb::EndSignInsRequest { person: person.into(), reason: "lost laptop".into(), ..Default::default() };
        self.broker.end_sign_ins(&admin(), request).await.expect("ended");
    }

    async fn told_by_directory(&self, name: &str, external_id: &str) -> String {
        let change = UserChange {
            user_name: Some(name.to_owned()),
            external_id: Some(external_id.to_owned()),
            active: Some(true),
        };
        self.broker.add_user(change, None).await.expect("added").id.to_string()
    }

    async fn is_active(&self, id: &str, active: bool) {
        let change = UserChange { active: Some(active), ..UserChange::default() };
        self.broker.change_user(id, change, None).await.expect("changed");
    }
}

#[test]
fn a_person_is_the_owner_of_the_same_address_and_of_none_that_only_folds_into_it() {
    let person = |email: &str| Person {
        text: String::new(),
        identity: Digest::of(b"someone"),
        id: PersonId([0; PersonId::BYTES]),
        email: email.to_owned(),
        called: Called::default(),
        expires: Timestamp::from_millis(0),
    };
    assert!(person("Kim@acme.example").is("kim@ACME.example"));
    assert!(!person("\u{212a}im@acme.example").is("kim@acme.example"));
    assert!(!person("").is(""));
}

#[tokio::test]
async fn a_sign_in_lives_to_its_last_moment_and_no_sweep_need_end_it() {
    let company = company(|rules| rules.life = seconds(600)).await;
    let (ann, expires) = company.sign_in_with(&company.claims("ann", "a")).await.expect("signed in");
    assert_eq!(expires, company.broker.now().after(seconds(600)).floor_second());
    company.hands.advance(expires.since(company.broker.now()) - Duration::from_millis(1));
    assert_eq!(company.over(&ann), "");
    company.hands.advance(Duration::from_millis(1));
    assert_eq!(company.over(&ann), "UNPROVEN", "its row is there still");
    company.hands.advance(seconds(7_200));
    company.broker.sweep_all().await.expect("swept");
    assert!(company.broker.ledger.sign_ins().expect("reads").is_empty(), "nothing is left behind");
    assert_eq!(company.over(&ann), "UNPROVEN");
}

#[tokio::test]
async fn a_token_signs_in_while_it_is_young_and_never_twice() {
    let company = company(|_| {}).await;
    let claims = company.claims("ann", "a");
    company.hands.advance(seconds(599));
    company.sign_in_with(&claims).await.expect("young enough");
    assert_eq!(company.sign_in_with(&claims).await.err(), Some("IDENTITY_TOKEN_SPENT"));
    // Its use is remembered for as long as it could be taken; then its age refuses it.
    for _ in 0..4 {
        company.hands.advance(seconds(30));
        company.broker.sweep_all().await.expect("swept");
        let refused = company.sign_in_with(&claims).await.err();
        assert!(matches!(refused, Some("IDENTITY_TOKEN_SPENT" | "IDENTITY_TOKEN_EXPIRED")), "{refused:?}");
    }
    let mut early = company.claims("ann", "a");
    early["exp"] = (company.broker.now().seconds() + 60).into();
    company.hands.advance(seconds(120));
    assert_eq!(company.sign_in_with(&early).await.err(), Some("IDENTITY_TOKEN_EXPIRED"), "by its own word");
}

#[tokio::test]
async fn who_is_signed_out_begins_anew_and_with_a_newer_token_only() {
    let company = company(|_| {}).await;
    let (ann, bob) = (company.sign_in("ann", "a").await, company.sign_in("bob", "a").await);
    let before = company.claims("ann", "a");
    company.hands.advance(seconds(10));
    company.sign_out("ANN@acme.example").await;
    assert_eq!((company.over(&ann), company.over(&bob)), ("UNPROVEN", ""));
    assert_eq!(company.sign_in_with(&before).await.err(), Some("SIGN_IN_CLOSED"), "a token of before");
    company.hands.advance(seconds(1));
    let again = company.sign_in("ann", "a").await;
    assert_eq!((company.over(&again), company.over(&ann)), ("", "UNPROVEN"));
    company.hands.advance(seconds(3 * 86_400));
    assert_eq!(company.over(&ann), "UNPROVEN");
}

#[tokio::test]
async fn nobody_signs_in_to_a_store_that_is_held_and_who_is_in_stays() {
    let company = company(|_| {}).await;
    let ann = company.sign_in("ann", "a").await;
    company.broker.ledger.holds().set(Hold::Restored);
    assert_eq!(company.sign_in_with(&company.claims("bob", "a")).await.err(), Some("ISSUING_HELD"));
    assert_eq!(company.over(&ann), "");
}

#[tokio::test]
async fn only_who_is_in_the_directory_and_active_signs_in_where_that_is_asked_for() {
    let company = company(|rules| {
        rules.require_provisioned = true;
        rules.directory_claim = Some("oid".to_owned());
    })
    .await;
    let try_ann = async || company.sign_in_with(&company.claims("ann", "a")).await.map(|(caller, _)| caller);
    assert_eq!(try_ann().await.err(), Some("SIGN_IN_NOT_PROVISIONED"));
    // A name is not enough: the next one may have it.
    company.told_by_directory("ann@acme.example", "another").await;
    company.hands.advance(seconds(1));
    assert_eq!(try_ann().await.err(), Some("SIGN_IN_NOT_PROVISIONED"));
    let id = company.told_by_directory("a.smith@acme.example", "oid-ann").await;
    company.hands.advance(seconds(1));
    let ann = try_ann().await.expect("known by the directory's own id");
    assert_eq!(company.over(&ann), "");
    company.is_active(&id, false).await;
    assert_eq!(company.over(&ann), "UNPROVEN");
    assert_eq!(try_ann().await.err(), Some("SIGN_IN_CLOSED"));
    company.is_active(&id, true).await;
    company.hands.advance(seconds(1));
    let back = try_ann().await.expect("there again");
    assert_eq!((company.over(&back), company.over(&ann)), ("", "UNPROVEN"));
    company.broker.remove_user(&id, None).await.expect("removed");
    assert_eq!(company.over(&back), "UNPROVEN");
    let mut nobody = company.claims("ann", "a");
    nobody.as_object_mut().expect("claims").remove("oid");
    company.hands.advance(seconds(1));
    assert_eq!(company.sign_in_with(&nobody).await.err(), Some("SIGN_IN_NOT_PROVISIONED"), "without the claim");
}

#[tokio::test]
async fn without_a_claim_the_directory_and_the_provider_meet_by_sub_or_by_verified_mail() {
    let company = company(|rules| rules.require_provisioned = true).await;
    company.told_by_directory("Ann@acme.example", "").await;
    company.told_by_directory("somebody", "00u-bob").await;
    company.hands.advance(seconds(1));
    company.sign_in("ann", "a").await;
    company.sign_in("bob", "a").await;
    assert_eq!(company.sign_in_with(&company.claims("cleo", "a")).await.err(), Some("SIGN_IN_NOT_PROVISIONED"));
    let mut unverified = company.claims("ann", "a");
    unverified["email_verified"] = false.into();
    assert_eq!(company.sign_in_with(&unverified).await.err(), Some("SIGN_IN_NOT_PROVISIONED"));
}

#[tokio::test]
async fn the_directorys_id_closes_sign_in_whatever_a_person_is_called_by_now() {
    let company = company(|rules| rules.directory_claim = Some("oid".to_owned())).await;
    let id = company.told_by_directory("a.smith@acme.example", "oid-ann").await;
    company.hands.advance(seconds(1));
    let ann = company.sign_in("ann", "a").await;
    company.broker.remove_user(&id, None).await.expect("removed");
    company.hands.advance(seconds(1));
    assert_eq!(company.over(&ann), "UNPROVEN");
    assert_eq!(company.sign_in_with(&company.claims("ann", "a")).await.err(), Some("SIGN_IN_CLOSED"));
}
