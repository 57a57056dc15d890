//! Event: something worth telling happened. Kept for an hour. `events.k8s.io` serves the same objects.

use serde_json::Value;

use crate::registry::definition::Declaration;
use crate::registry::meta::NameRule;
use crate::registry::object::str_at;
use crate::tables::core::EVENTS;

const KEPT_SECONDS: u64 = 3600;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("", "v1", "Event", "events")
        .short(&["ev"])
        .columns(EVENTS)
        .name_rule(NameRule::PathSegment)
        .create_on_update()
        .ttl_seconds(KEPT_SECONDS)
        .fields(
            &[
                "involvedObject.kind",
                "involvedObject.namespace",
                "involvedObject.name",
                "involvedObject.uid",
                "involvedObject.apiVersion",
                "involvedObject.resourceVersion",
                "involvedObject.fieldPath",
                "reason",
                "reportingComponent",
                "source",
                "type",
            ],
            fields,
        )
}

fn fields(o: &Value) -> Vec<(&'static str, String)> {
    let about = |f: &str| str_at(o, &format!("/involvedObject/{f}")).to_string();
    let component = str_at(o, "/source/component");
    vec![
        ("involvedObject.kind", about("kind")),
        ("involvedObject.namespace", about("namespace")),
        ("involvedObject.name", about("name")),
        ("involvedObject.uid", about("uid")),
        ("involvedObject.apiVersion", about("apiVersion")),
        ("involvedObject.resourceVersion", about("resourceVersion")),
        ("involvedObject.fieldPath", about("fieldPath")),
        ("reason", str_at(o, "/reason").to_string()),
        ("reportingComponent", str_at(o, "/reportingComponent").to_string()),
        (
            "source",
            if component.is_empty() { str_at(o, "/reportingComponent") } else { component }.to_string(),
        ),
        ("type", str_at(o, "/type").to_string()),
    ]
}
