//! What SCIM clients read: users, lists, refusals, and what this service can do.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::broker::directory::User;

/// A refusal (RFC 7644 section 3.12).
#[derive(Debug)]
pub(super) struct ScimFault {
    status: StatusCode,
    pub(super) kind: Option<&'static str>,
    detail: String,
}

impl ScimFault {
    pub(super) fn new(status: StatusCode, kind: Option<&'static str>, detail: String) -> Self {
        Self { status, kind, detail }
    }

    pub(super) fn bad(kind: &'static str, detail: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Some(kind), detail)
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, None, "there is none of this id".to_owned())
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, None, "come with the directory's bearer token".to_owned())
    }

    pub(super) fn unavailable() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, None, "try again in a few seconds".to_owned())
    }
}

impl IntoResponse for ScimFault {
    fn into_response(self) -> Response {
        let mut body = json!({
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"],
            "status": self.status.as_str(),
            "detail": self.detail,
        });
        if let (Some(kind), Some(members)) = (self.kind, body.as_object_mut()) {
            members.insert("scimType".to_owned(), json!(kind));
        }
        let mut response = (self.status, json(&body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// One document. Nothing of it is to be kept on the way.
pub(super) fn json(body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/scim+json"), (header::CACHE_CONTROL, "no-store")];
    (headers, body.to_string()).into_response()
}

pub(super) fn of_user(user: &User, base: &str) -> Value {
    let mut shown = json!({
        "schemas": [USER_SCHEMA],
        "id": user.id.to_string(),
        "userName": user.user_name,
        "active": user.active,
        "meta": {
            "resourceType": "User",
            "created": user.created.rfc3339(),
            "lastModified": user.changed.rfc3339(),
            "location": format!("{base}/scim/v2/Users/{}", user.id),
        },
    });
    if let (false, Some(members)) = (user.external_id.is_empty(), shown.as_object_mut()) {
        members.insert("externalId".to_owned(), json!(user.external_id));
    }
    shown
}

pub(super) fn listed(total: usize, start: usize, resources: Vec<Value>) -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
        "totalResults": total,
        "startIndex": start,
        "itemsPerPage": resources.len(),
        "Resources": resources,
    })
}

/// RFC 7643 section 5.
pub(super) fn provider_config() -> Value {
    let no = json!({ "supported": false });
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"],
        "patch": { "supported": true },
        "bulk": { "supported": false, "maxOperations": 0, "maxPayloadSize": 0 },
        "filter": { "supported": true, "maxResults": 200 },
        "changePassword": no, "sort": no, "etag": no,
        "authenticationSchemes": [{
            "type": "oauthbearertoken", "name": "bearer token", "description": "a token whose hash the broker holds",
        }],
    })
}

pub(super) fn resource_types() -> Value {
    listed(1, 1, vec![resource_type()])
}

/// RFC 7643 section 6.
pub(super) fn resource_type() -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ResourceType"],
        "id": "User", "name": "User", "endpoint": "/Users", "description": "a person", "schema": USER_SCHEMA,
    })
}

pub(super) fn schemas() -> Value {
    listed(1, 1, vec![schema()])
}

/// RFC 7643 section 7: what is kept, and nothing more.
pub(super) fn schema() -> Value {
    let attribute = |name: &str, kind: &str, required: bool, unique: &str, exact: bool| {
        json!({
            "name": name, "type": kind, "multiValued": false, "description": name, "required": required,
            "caseExact": exact, "mutability": "readWrite", "returned": "default", "uniqueness": unique,
        })
    };
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Schema"],
        "id": USER_SCHEMA, "name": "User", "description": "a person",
        "attributes": [
            attribute("userName", "string", true, "server", false),
            attribute("externalId", "string", false, "none", true),
            attribute("active", "boolean", false, "none", true),
        ],
    })
}

pub(super) const USER_SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
