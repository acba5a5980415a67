//! Values in hand.

use super::Bed;
use crate::{
    broker::testing::{admin, operator},
    identity::Caller,
    pb,
};

#[tokio::test]
async fn a_value_in_hand_is_recognised_for_its_own_admins_and_is_as_any_text_to_others() {
    let bed = Bed::new().await;
    let value = "sk_live_the_second";
    bed.rotate(value.as_bytes(), false).await.expect("rotated");
    let ask = async |by: &Caller, found: &str| {
        let request = pb::IdentifyRequest { found: found.to_owned() };
        let reply = bed.broker.identify(by, request).await.map_err(|why| why.to_string())?;
        Ok::<_, String>(reply.secret.map(|secret| (secret.name, reply.secret_version)))
    };
    let stripe = |version| Ok(Some(("stripe".to_owned(), version)));
    assert_eq!(ask(&admin(), value).await, stripe(2));
    assert_eq!(ask(&admin(), &format!(" {value}\n")).await, stripe(2), "as pasted");
    let [told] = bed.events("secret.recognised").split_off(1).try_into().expect("each is told");
    assert!(told.details.contains(&"in_force=true".to_owned()), "{told:?}");
    assert!(!format!("{told:?}").contains(value), "{told:?}");
    // Who may not put it is told what is told of any text: an auditor of it, and an admin of another partner's.
    let nothing = ask(&admin(), "sk_live_the_secone").await;
    assert!(nothing.is_err());
    for stranger in ["looker", "other"] {
        assert_eq!(ask(&operator(stranger), value).await, nothing, "{stranger}");
    }
    // Also of a version that is gone, and where it looks like something else.
    let hex = "ab".repeat(20);
    bed.rotate(hex.as_bytes(), false).await.expect("rotated");
    assert_eq!(ask(&admin(), &hex).await, stripe(3));
    assert_eq!(ask(&admin(), value).await, stripe(2));
    assert_eq!(ask(&operator("looker"), &hex).await, Ok(None), "an id of nothing");
    let last = bed.events("secret.recognised").pop().expect("told");
    assert!(last.details.contains(&"in_force=false".to_owned()), "{last:?}");
    // Short ones could be found out by trying: they are nobody's.
    for (short, is_known) in [("fifteen-letters", false), ("sixteen-letters-", true)] {
        bed.rotate(short.as_bytes(), false).await.expect("rotated");
        assert_eq!(ask(&admin(), short).await.is_ok(), is_known, "{short}");
    }
    // Of two tenants' equal values nothing kept is equal.
    let number = |number| crate::model::TenantNumber::new(number).expect("in range");
    assert_ne!(bed.broker.value_mark(number(1), b"x"), bed.broker.value_mark(number(2), b"x"));
}
