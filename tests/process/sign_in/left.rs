//! Who left by the word of one, and is there still by the word of the other.

use super::*;

const DISABLED: &str = "risc/event-type/account-disabled";
const ENABLED: &str = "risc/event-type/account-enabled";
const WAS: &str = "owner@example.com";

async fn named(company: &Company, name: &str) -> String {
    let user = json!({ "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": name, "active": true });
    let (status, made) = company.scim("POST", "/Users", &user).await;
    assert_eq!(status, 201, "{made}");
    made["id"].as_str().expect("an id").to_owned()
}

async fn patch(company: &Company, id: &str, path: &str, value: Value) {
    let patch = json!({ "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
        "Operations": [{ "op": "replace", "path": path, "value": value }] });
    let (status, said) = company.scim("PATCH", &format!("/Users/{id}"), &patch).await;
    assert_eq!(status, 200, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_the_provider_disables_leaves_though_the_directory_has_her_and_a_namesake_stays() {
    let company = Company::new().await;
    let me = company.log_in("me").await;
    company.attest(&me);
    // The grant of beta is of who is called now as Ann was once.
    let ann = named(&company, WAS).await;
    patch(&company, &ann, "userName", json!(ANN)).await;
    named(&company, WAS).await;
    let beta =
        issue(&mut company.world.broker("beta").await, request("beta", CredentialKind::Opaque)).await.expect("issued");
    let alpha = company.alphas().await;
    let goes_on = async |tenant: &str, issued: &pb::IssueResponse| {
        is_active(&mut company.world.verifier(tenant).await, issued).await
    };
    // By a name that was Ann's: nothing of hers ends.
    let other = json!({ "sub_id": { "format": "email", "email": WAS } });
    assert_eq!(company.push(&company.event("caep/event-type/session-revoked", &other)).await.0, 202);
    assert_eq!(company.world.process.ask(&me, &["status"]).code, 0, "a namesake's event ended a sign-in");
    // Ann herself, whom the directory says to be there.
    assert_eq!(company.push(&company.event(DISABLED, &json!({}))).await.0, 202);
    assert!(!goes_on("alpha", &alpha).await, "who was disabled owns a grant that goes on");
    assert!(goes_on("beta", &beta).await, "a namesake's grant was suspended");
    assert_eq!(reason(&company.try_token(&company.claims()).await), "SIGN_IN_CLOSED");
    assert_eq!(company.push(&company.event(DISABLED, &other)).await.0, 202);
    assert!(!goes_on("beta", &beta).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enabling_event_opens_what_an_earlier_one_closed_and_brings_nothing_back() {
    let company = Company::new().await;
    let me = company.log_in("me").await;
    let mut fresh = company.claims();
    fresh["iat"] = json!(Company::now() + 30);
    assert_eq!(company.push(&company.event(DISABLED, &json!({}))).await.0, 202);
    // One from before the disabling comes late.
    let early = json!({ "iat": Company::now() - 60 });
    assert_eq!(company.push(&company.event(ENABLED, &early)).await.0, 202);
    assert_eq!(reason(&company.try_token(&fresh).await), "SIGN_IN_CLOSED", "an old event undid a later one");
    assert_eq!(company.events("person.opened").len(), 0);
    assert_eq!(company.push(&company.event(ENABLED, &json!({}))).await.0, 202);
    assert_eq!(company.world.process.ask(&me, &["status"]).code, 1, "an ended sign-in came back");
    company.try_token(&fresh).await.expect("signed in");

    // Whom the directory has removed, the directory alone opens.
    let id = named(&company, ANN).await;
    assert_eq!(company.scim("DELETE", &format!("/Users/{id}"), &Value::Null).await.0, 204);
    fresh["jti"] = json!(hex(&rand16()));
    assert_eq!(company.push(&company.event(ENABLED, &json!({}))).await.0, 202);
    assert_eq!(
        reason(&company.try_token(&fresh).await),
        "SIGN_IN_CLOSED",
        "an event opened whom the directory removed"
    );
    named(&company, ANN).await;
    company.try_token(&fresh).await.expect("signed in");
}
