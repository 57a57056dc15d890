//! One event in upstream's form, `audit.k8s.io/v1`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::policy::{Level, Stage};
use crate::registry::User;
use crate::server::request_info::RequestInfo;

/// What is known of a request before it is worked on.
#[derive(Debug, Clone)]
pub struct Asked {
    pub id: String,
    pub uri: String,
    pub info: RequestInfo,
    /// Who asked.
    pub user: User,
    /// As whom, if as somebody else.
    pub impersonated: Option<User>,
    pub source_ips: Vec<String>,
    pub user_agent: String,
    pub received: Timestamp,
}

/// What is known at a stage.
#[derive(Debug, Default)]
pub struct Seen {
    pub request_object: Option<Value>,
    pub response_object: Option<Value>,
    /// Code, and of a failure the Status.
    pub response: Option<(u16, Option<Value>)>,
    pub annotations: BTreeMap<String, String>,
}

/// The event as it is written: one line of JSON, without its end.
pub fn written(asked: &Asked, level: Level, stage: Stage, seen: &Seen, now: Timestamp) -> Vec<u8> {
    let mut event = json!({
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": format!("{level:?}"),
        "auditID": asked.id,
        "stage": format!("{stage:?}"),
        "requestURI": asked.uri,
        "verb": asked.info.verb,
        "user": of_user(&asked.user),
        "requestReceivedTimestamp": time(asked.received),
        "stageTimestamp": time(now),
    });
    let mut put = |field: &str, value: Option<Value>| {
        if let Some(value) = value {
            event[field] = value;
        }
    };
    put("impersonatedUser", asked.impersonated.as_ref().map(of_user));
    put("sourceIPs", (!asked.source_ips.is_empty()).then(|| json!(asked.source_ips)));
    put("userAgent", (!asked.user_agent.is_empty()).then(|| asked.user_agent.clone().into()));
    put("objectRef", object_ref(&asked.info, seen.response_object.as_ref()));
    put(
        "responseStatus",
        seen.response.as_ref().map(|(code, status)| response_status(*code, status.as_ref())),
    );
    if level >= Level::Request {
        put("requestObject", seen.request_object.clone());
    }
    if level >= Level::RequestResponse {
        put("responseObject", seen.response_object.clone());
    }
    put("annotations", (!seen.annotations.is_empty()).then(|| json!(seen.annotations)));
    event.to_string().into_bytes()
}

/// Owners of fields are most of many objects and tell an auditor little.
pub fn without_managed_fields(mut object: Value) -> Value {
    let forget = |object: &mut Value| {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    };
    forget(&mut object);
    for item in object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        forget(item);
    }
    object
}

fn of_user(user: &User) -> Value {
    let mut map = Map::new();
    for (field, text) in [("username", &user.name), ("uid", &user.uid)] {
        if !text.is_empty() {
            map.insert(field.into(), text.clone().into());
        }
    }
    if !user.groups.is_empty() {
        map.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        map.insert("extra".into(), json!(user.extra));
    }
    map.into()
}

fn object_ref(info: &RequestInfo, object: Option<&Value>) -> Option<Value> {
    if !info.is_resource {
        return None;
    }
    let of_object =
        |field: &str| object.and_then(|it| it["metadata"][field].as_str()).unwrap_or_default().to_owned();
    // What is created may get its name from the server.
    let name = if info.name.is_empty() { of_object("name") } else { info.name.clone() };
    let parts = [
        ("resource", info.resource.clone()),
        ("namespace", info.namespace.clone()),
        ("name", name),
        ("uid", of_object("uid")),
        ("apiGroup", info.group.clone()),
        ("apiVersion", info.version.clone()),
        ("resourceVersion", of_object("resourceVersion")),
        ("subresource", info.subresource.clone()),
    ];
    let said = parts.into_iter().filter(|(_, text)| !text.is_empty());
    Some(said.map(|(field, text)| (field.to_owned(), Value::from(text))).collect())
}

fn response_status(code: u16, failure: Option<&Value>) -> Value {
    let mut status = json!({"metadata": {}, "code": code});
    for field in ["status", "message", "reason", "details"] {
        if let Some(value) = failure.and_then(|it| it.get(field)) {
            status[field] = value.clone();
        }
    }
    status
}

/// Microseconds, as upstream writes them.
fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::server::query::Query;

    #[test]
    fn an_event_says_who_did_what_to_which_object_and_how_it_ended() {
        let user = |name: &str| User { name: name.to_owned(), groups: vec!["g".into()], ..User::default() };
        let uri = "/api/v1/namespaces/d/pods?dryRun=All";
        let asked = Asked {
            id: "i".into(),
            uri: uri.into(),
            info: RequestInfo::parse(&Method::POST, "/api/v1/namespaces/d/pods", &Query::parse("dryRun=All")),
            user: user("u"),
            impersonated: Some(user("v")),
            source_ips: vec!["10.0.0.1".into()],
            user_agent: "kubectl".into(),
            received: Timestamp::UNIX_EPOCH,
        };
        let seen = Seen {
            request_object: Some(json!({"spec": 1})),
            response_object: Some(json!({"metadata": {"name": "p", "uid": "x"}})),
            response: Some((201, None)),
            annotations: BTreeMap::from([("a".into(), "b".into())]),
        };
        let read = |level| -> Value {
            let event = written(&asked, level, Stage::ResponseComplete, &seen, Timestamp::UNIX_EPOCH);
            serde_json::from_slice(&event).unwrap()
        };
        assert_eq!(
            read(Level::Request),
            json!({
                "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Request", "auditID": "i",
                "stage": "ResponseComplete", "requestURI": uri, "verb": "create",
                "user": {"username": "u", "groups": ["g"]}, "impersonatedUser": {"username": "v", "groups": ["g"]},
                "sourceIPs": ["10.0.0.1"], "userAgent": "kubectl",
                "objectRef": {"resource": "pods", "namespace": "d", "name": "p", "uid": "x", "apiVersion": "v1"},
                "responseStatus": {"metadata": {}, "code": 201},
                "requestObject": {"spec": 1},
                "annotations": {"a": "b"},
                "requestReceivedTimestamp": "1970-01-01T00:00:00.000000Z",
                "stageTimestamp": "1970-01-01T00:00:00.000000Z",
            })
        );
        assert!(read(Level::RequestResponse).get("responseObject").is_some());
        assert!(read(Level::Metadata).get("requestObject").is_none());
    }

    #[test]
    fn owners_of_fields_are_left_out_of_objects_and_lists() {
        let owned = json!({"metadata": {"name": "a", "managedFields": []}});
        let list = json!({"metadata": {}, "items": [owned]});
        assert_eq!(without_managed_fields(owned.clone()), json!({"metadata": {"name": "a"}}));
        assert_eq!(without_managed_fields(list)["items"][0], json!({"metadata": {"name": "a"}}));
    }
}
