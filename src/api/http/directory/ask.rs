//! What a directory asks: filters, users and patches, as far as they matter here. The rest of a profile is not kept.

use serde::Deserialize;

use super::paper::ScimFault;
use crate::{
    broker::directory::{User, UserChange},
    identity::oidc::Json,
    model::person::folded,
};

/// The query of a list (RFC 7644 section 3.4.2).
#[derive(Debug, Default, Deserialize)]
pub(super) struct Asked {
    pub(super) filter: Option<String>,
    #[serde(rename = "startIndex")]
    pub(super) start: Option<usize>,
    pub(super) count: Option<usize>,
}

/// An attribute and what it equals: all that directories look users up by.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Filter {
    UserName(String),
    ExternalId(String),
    Id(String),
}

impl Filter {
    pub(super) fn parse(text: &str) -> Result<Self, ScimFault> {
        let bad = || ScimFault::bad("invalidFilter", "only userName, externalId and id are filtered, by eq".to_owned());
        let mut words = text.trim().splitn(3, ' ');
        let (Some(attribute), Some(operator), Some(value)) = (words.next(), words.next(), words.next()) else {
            return Err(bad());
        };
        let value: String = serde_json::from_str(value.trim()).map_err(|_| bad())?;
        if !operator.eq_ignore_ascii_case("eq") {
            return Err(bad());
        }
        match plain(attribute).as_str() {
            "username" => Ok(Self::UserName(folded(&value))),
            "externalid" => Ok(Self::ExternalId(value)),
            "id" => Ok(Self::Id(value)),
            _ => Err(bad()),
        }
    }

    pub(super) fn keeps(&self, user: &User) -> bool {
        match self {
            Self::UserName(name) => folded(&user.user_name) == *name,
            Self::ExternalId(id) => user.external_id == *id,
            Self::Id(id) => user.id.to_string() == *id,
        }
    }
}

/// A whole user (sections 3.3 and 3.5.1). What is left out has its default: who is not said to be inactive is active.
pub(super) fn replacement(body: &[u8]) -> Result<UserChange, ScimFault> {
    let user = read(body)?;
    let mut change = UserChange { external_id: Some(String::new()), active: Some(true), ..UserChange::default() };
    take_all(&mut change, &user)?;
    if change.user_name.is_none() {
        return Err(ScimFault::bad("invalidValue", "userName is missing".to_owned()));
    }
    Ok(change)
}

/// A patch (section 3.5.2).
pub(super) fn changes(body: &[u8]) -> Result<UserChange, ScimFault> {
    let patch = read(body)?;
    let operations = member(&patch, "operations").and_then(Json::list);
    let operations = operations.ok_or_else(|| ScimFault::bad("invalidSyntax", "Operations is missing".to_owned()))?;
    let mut change = UserChange::default();
    for operation in operations {
        let word = member(operation, "op").and_then(Json::text).map(str::to_ascii_lowercase);
        let path = member(operation, "path").and_then(Json::text).map(plain);
        let value = member(operation, "value");
        match (word.as_deref(), path, value) {
            (Some("add" | "replace"), None, Some(value @ Json::Object(_))) => take_all(&mut change, value)?,
            (Some("add" | "replace"), Some(path), Some(value)) => take(&mut change, &path, value)?,
            (Some("remove"), Some(path), _) => match path.as_str() {
                "externalid" => change.external_id = Some(String::new()),
                "username" | "active" | "id" => {
                    return Err(ScimFault::bad("mutability", format!("{path} cannot be removed")));
                }
                _ => {}
            },
            _ => return Err(ScimFault::bad("invalidSyntax", "an operation is none that is known here".to_owned())),
        }
    }
    Ok(change)
}

fn take_all(change: &mut UserChange, user: &Json) -> Result<(), ScimFault> {
    for (name, value) in user.members().into_iter().flatten() {
        take(change, &plain(name), value)?;
    }
    Ok(())
}

fn take(change: &mut UserChange, name: &str, value: &Json) -> Result<(), ScimFault> {
    let wrong = || ScimFault::bad("invalidValue", format!("{name} is of another type"));
    match name {
        "username" => change.user_name = Some(value.text().ok_or_else(wrong)?.to_owned()),
        "externalid" if *value == Json::Null => change.external_id = Some(String::new()),
        "externalid" => change.external_id = Some(value.text().ok_or_else(wrong)?.to_owned()),
        "active" => change.active = Some(flag(value).ok_or_else(wrong)?),
        // The rest of the profile is nothing to a broker.
        _ => {}
    }
    Ok(())
}

/// Some directories write flags as texts.
fn flag(value: &Json) -> Option<bool> {
    match value {
        Json::Bool(flag) => Some(*flag),
        Json::Text(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Json::Text(text) if text.eq_ignore_ascii_case("false") => Some(false),
        Json::Text(_) | Json::Null | Json::Number(_) | Json::List(_) | Json::Object(_) => None,
    }
}

fn read(body: &[u8]) -> Result<Json, ScimFault> {
    let json = Json::parse(body).ok().filter(|json| json.members().is_some());
    let json =
        json.ok_or_else(|| ScimFault::bad("invalidSyntax", "the body is no JSON object with one meaning".to_owned()))?;
    // Attributes have no regard to case (RFC 7643 section 2.1), so two spellings of one would have two meanings.
    let mut names: Vec<String> = json.members().into_iter().flatten().map(|(name, _)| plain(name)).collect();
    names.sort();
    if names.windows(2).any(|pair| pair.first() == pair.last()) {
        return Err(ScimFault::bad("invalidSyntax", "an attribute is there twice".to_owned()));
    }
    Ok(json)
}

fn member<'a>(json: &'a Json, name: &str) -> Option<&'a Json> {
    json.members()?.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// An attribute's name without its schema, in lower case.
fn plain(path: &str) -> String {
    let path = path.trim().to_ascii_lowercase();
    path.strip_prefix("urn:ietf:params:scim:schemas:core:2.0:user:").unwrap_or(&path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(operations: &str) -> Result<UserChange, String> {
        let body =
            format!(r#"{{"schemas":["urn:ietf:params:scim:api:messages:2.0:PatchOp"],"Operations":[{operations}]}}"#);
        changes(body.as_bytes()).map_err(|fault| fault.kind.unwrap_or_default().to_owned())
    }

    #[test]
    fn who_is_deactivated_is_so_however_a_directory_spells_it() {
        for spelt in [
            r#"{"op":"replace","path":"active","value":false}"#,
            r#"{"op":"Replace","path":"active","value":"False"}"#,
            r#"{"op":"replace","value":{"active":false}}"#,
            r#"{"op":"add","path":"urn:ietf:params:scim:schemas:core:2.0:User:Active","value":false}"#,
            r#"{"op":"replace","value":{"displayName":"Ann","urn:ietf:params:scim:schemas:core:2.0:User:active":false}}"#,
            r#"{"op":"replace","path":"name.givenName","value":"Ann"},{"op":"replace","path":"active","value":false}"#,
        ] {
            assert_eq!(patch(spelt).expect(spelt).active, Some(false), "{spelt}");
        }
    }

    #[test]
    fn what_could_mean_two_things_is_refused() {
        for (bad, kind) in [
            (r#"{"op":"replace","path":"active","value":"no"}"#, "invalidValue"),
            (r#"{"op":"replace","path":"active"}"#, "invalidSyntax"),
            (r#"{"op":"remove","path":"active"}"#, "mutability"),
            (r#"{"op":"replace","value":{"active":false,"active":true}}"#, "invalidSyntax"),
            (r#"{"op":"erase","path":"active"}"#, "invalidSyntax"),
            (r#"{"path":"active","value":true}"#, "invalidSyntax"),
        ] {
            assert_eq!(patch(bad).expect_err(bad), kind, "{bad}");
        }
        assert!(replacement(br#"{"userName":"a","active":true,"Active":false}"#).is_err());
        assert!(replacement(br#"{"active":true}"#).is_err());
        assert!(replacement(b"[]").is_err());
    }

    #[test]
    fn a_whole_user_that_does_not_say_is_active_and_has_no_other_id() {
        let change = replacement(br#"{"userName":"Ann@acme.example","emails":[{"value":"x"}]}"#).expect("a user");
        assert_eq!((change.user_name.as_deref(), change.active), (Some("Ann@acme.example"), Some(true)));
        assert_eq!(change.external_id.as_deref(), Some(""));
    }

    #[test]
    fn filters_are_by_one_attribute() {
        assert_eq!(
            Filter::parse(r#"userName eq "Ann@Acme.example""#).expect("fits"),
            Filter::UserName("ann@acme.example".into())
        );
        assert_eq!(Filter::parse(r#"externalId EQ "a b""#).expect("fits"), Filter::ExternalId("a b".into()));
        for bad in [
            "",
            "userName",
            "userName co \"a\"",
            "emails eq \"a\"",
            "userName eq a",
            "userName eq \"a\" or id eq \"b\"",
        ] {
            assert!(Filter::parse(bad).is_err(), "{bad}");
        }
    }
}
