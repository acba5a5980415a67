//! Appeals of people who sign in.

use super::*;
use crate::broker::testing::Company;

/// Two operators that people sign in as, each may lift.
const TWO: &str = r#"
    [[operator]]
    name = "op-a"
    role = "admin"
    tenants = "all"
    partners = "all"
    [[operator]]
    name = "op-b"
    role = "admin"
    tenants = "all"
    partners = "all"
"#;

#[tokio::test]
async fn nobody_answers_an_own_appeal_by_signing_in_as_somebody_else() {
    let company = Company::new(|_| ()).await;
    apply(&company.broker, &format!("{TWO}{TRUST}velocity = {{ derivations = 1 }}\n")).await;
    let mut bed = Bed { broker: Arc::clone(&company.broker), hands: Arc::clone(&company.hands), task: String::new() };
    for filed_as in ["a", "b"] {
        bed.task = bed.suspended().await;
        let ann = company.sign_in("ann", filed_as).await;
        let id = id_of(&bed.file(&ann, task_scope(&bed.task)).await.expect("filed").appeal);
        company.hands.advance(Duration::from_secs(1));
        for group in ["a", "b"] {
            let again = company.sign_in("ann", group).await;
            for granted in [true, false] {
                assert_eq!(bed.answer(&again, &id, granted).await, Err("NOT_ALLOWED"), "{filed_as} as {group}");
            }
        }
        assert_eq!(bed.tries(&bed.task).await, "SUSPENDED");
        // Somebody else of the very same operator may.
        let bob = company.sign_in("bob", filed_as).await;
        bed.answer(&bob, &id, true).await.expect("another person");
        assert_eq!(bed.tries(&bed.task).await, "");
    }
}
