//! Requests as nobody sends them: known words in places that are made up, and made-up words in known places.

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderName, HeaderValue, Request};
use penstock_schema::{Schema, protobuf};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::TOKEN;

/// A made-up request.
#[derive(Debug, Clone)]
pub struct Made {
    pub method: &'static str,
    pub uri: String,
    pub headers: Vec<(&'static str, Vec<u8>)>,
    pub body: Vec<u8>,
}

#[rustfmt::skip]
fn path() -> impl Strategy<Value = String> {
    let root = select(vec![
        "/api/v1", "/apis/apps/v1", "/apis/batch/v1", "/apis/rbac.authorization.k8s.io/v1", "/api", "/apis",
        "/apis/authentication.k8s.io/v1", "/apis/authorization.k8s.io/v1", "/apis/apiextensions.k8s.io/v1",
        "/apis/nothing.example/v1", "", "/openapi/v2", "/openapi/v3", "/version", "/livez", "/metrics",
        "/apis/certificates.k8s.io/v1", "/apis/policy/v1", "/.well-known", "/openid/v1/jwks", "/debug",
        "/apis/autoscaling/v2", "/apis/admissionregistration.k8s.io/v1", "/apis/events.k8s.io/v1",
    ]);
    let part = prop_oneof![
        8 => select(vec![
            "namespaces", "default", "pods", "configmaps", "services", "deployments", "a", "nodes", "secrets", "watch",
            "status", "scale", "finalize", "proxy", "log", "exec", "eviction", "binding", "token", "serviceaccounts",
            "selfsubjectreviews", "subjectaccessreviews", "tokenreviews", "customresourcedefinitions", "roles",
            "certificatesigningrequests", "approval", "ephemeralcontainers", "resize", "portforward", "attach", "v1",
            "jobs", "events", "clusterroles", "horizontalpodautoscalers", "componentstatuses", "https:a:80",
        ]).prop_map(str::to_owned),
        1 => "[a-zA-Z0-9%.:~_-]{0,12}",
        1 => select(vec!["%2e%2e", "..", ".", "%00", "%ff", "%", "%zz", "", "%2F", "a%2Fb"]).prop_map(str::to_owned),
    ];
    (root, prop::collection::vec(part, 0..6)).prop_map(|(root, parts)| {
        let path = parts.iter().fold(root.to_owned(), |path, part| format!("{path}/{part}"));
        if path.is_empty() { "/".to_owned() } else { path }
    })
}

#[rustfmt::skip]
pub fn query() -> impl Strategy<Value = String> {
    let key = select(vec![
        "labelSelector", "fieldSelector", "limit", "continue", "resourceVersion", "resourceVersionMatch",
        "watch", "timeoutSeconds", "allowWatchBookmarks", "sendInitialEvents", "fieldValidation",
        "fieldManager", "dryRun", "force", "pretty", "includeObject", "gracePeriodSeconds",
        "propagationPolicy", "orphanDependents", "timeout", "container", "command", "tailLines",
        "sinceSeconds", "ports", "verbose", "exclude", "hash",
    ]);
    let value = prop_oneof![
        4 => select(vec![
            "", "1", "0", "-1", "true", "false", "99999999999999999999", "9223372036854775807", "Exact", "NotOlderThan",
            "All", "Strict", "Warn", "a%3Db", "metadata.name%3Da", "spec.nodeName!%3Dx", "a+in+(b%2Cc)", "%21a", "a%3E1",
            "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhXHUwMDAwIn0", "Foreground", "Orphan", "2s", "None",
            "a%3Db%2C%2Ca", "((", "notin", "%00", "%ff", "Object", "Metadata",
        ]).prop_map(str::to_owned),
        1 => (any::<i64>(), "\\PC{0,6}").prop_map(|(revision, start)| {
            let token = json!({"v": "meta.k8s.io/v1", "rv": revision, "start": start}).to_string();
            URL_SAFE_NO_PAD.encode(token)
        }),
        1 => "[a-zA-Z0-9%=,!()<>.+_-]{0,24}",
    ];
    prop::collection::vec((key, value), 0..4).prop_map(|pairs| {
        pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("&")
    })
}

#[rustfmt::skip]
fn headers() -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    let media = select(vec![
        "application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "*/*", "text/html", "",
        "application/json;as=Table;v=v1;g=meta.k8s.io",
        "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
        "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", "application/json;q=0, */*;q=0.1",
        "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io;stream=watch",
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", "application/json;as=;v=;g=",
        "application/apply-patch+yaml", "application/merge-patch+json",
        "application/strategic-merge-patch+json", "application/json-patch+json", ";;;,,,",
        "application/json;q=nan", "application/cbor",
    ])
    .prop_map(|text| text.as_bytes().to_vec());
    let bytes = prop::collection::vec(prop_oneof![0x20u8..0x7f, 0x80u8..], 0..24);
    let media = prop_oneof![6 => media, 1 => bytes.clone()];
    let other = select(vec![
        "impersonate-user", "impersonate-group", "impersonate-uid", "impersonate-extra-%zz", "accept-encoding",
        "content-encoding", "user-agent", "audit-id", "x-forwarded-for", "upgrade", "connection",
        "x-remote-user", "sec-websocket-protocol", "sec-websocket-key", "if-none-match", "kubectl-command",
        "expect",
    ]);
    let known =
        select(vec!["a", "gzip", "Upgrade", "websocket", "SPDY/3.1", "v5.channel.k8s.io", "system:masters"]);
    let value = prop_oneof![3 => known.prop_map(|text| text.as_bytes().to_vec()), 1 => bytes];
    let others = prop::collection::vec((other, value), 0..3);
    (prop::option::weighted(0.8, media.clone()), prop::option::weighted(0.9, media), others).prop_map(
        |(accept, content, others)| {
            let mut all: Vec<(&'static str, Vec<u8>)> = Vec::new();
            all.extend(accept.map(|value| ("accept", value)));
            all.extend(content.map(|value| ("content-type", value)));
            all.extend(others);
            all
        },
    )
}

/// JSON of any shape around names the API knows.
#[rustfmt::skip]
pub fn any_json() -> impl Strategy<Value = Value> {
    let name = select(vec![
        "metadata", "spec", "status", "name", "generateName", "labels", "annotations", "finalizers",
        "ownerReferences", "resourceVersion", "uid", "managedFields", "data", "binaryData", "immutable",
        "containers", "selector", "ports", "template", "replicas", "apiVersion", "kind", "rules", "versions",
        "group", "names", "scope", "schema", "items", "token", "audiences", "user", "groups",
        "resourceAttributes", "request", "preconditions", "op", "path", "value", "$patch",
        "$setElementOrder/containers", "", "namespace", "deletionTimestamp", "type", "maxReplicas",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,10}".prop_map(Value::from),
        select(vec![
            "a", "default", "v1", "apps/v1", "ConfigMap", "Deployment", "1", "add", "/data", "delete",
            "80%"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            3 => prop::collection::vec((name.clone(), inner), 0..6).prop_map(|fields| {
                Value::Object(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            }),
        ]
    })
}

/// An object that is nearly right, with something made up somewhere.
#[rustfmt::skip]
fn nearly() -> impl Strategy<Value = Value> {
    let whole = select(vec![
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "b"}, "spec": {"ports": [{"port": 80}]}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": {
            "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "ws.x.example"}, "spec": {"group": "x.example", "scope": "Namespaced",
            "names": {"plural": "ws", "kind": "W"}, "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}}),
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {"user": "a"}}),
        json!({"kind": "DeleteOptions", "apiVersion": "v1"}),
        json!([{"op": "add", "path": "/data", "value": {}}]),
    ]);
    let spot = select(vec![
        "/metadata", "/spec", "/data", "/metadata/labels", "/spec/ports", "/spec/ports/0",
        "/spec/containers/0", "/spec/template", "/spec/selector", "/metadata/name",
        "/metadata/ownerReferences", "/metadata/managedFields", "/spec/versions/0/schema", "/spec/names", "/0",
        "/0/path", "/0/value", "/status", "/metadata/annotations",
    ]);
    (whole, spot, any_json()).prop_map(|(mut whole, spot, made)| {
        if let Some(at) = whole.pointer_mut(spot) {
            *at = made;
        } else if let (Some((parent, key)), Value::Object(_)) = (spot.rsplit_once('/'), &whole)
            && let Some(Value::Object(parent)) = whole.pointer_mut(parent)
        {
            parent.insert(key.to_owned(), made);
        }
        whole
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let sealed = nearly().prop_map(|object| {
        let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let ty = Schema::builtin().kind(group, version, &kind);
        let raw = ty
            .and_then(|ty| protobuf::encode(&ty, &object).ok())
            .unwrap_or_else(|| vec![0x0a, 2, 0x0a, 0xff]);
        protobuf::seal_envelope(&api_version, &kind, &raw)
    });
    prop_oneof![
        1 => Just(Vec::new()),
        2 => prop::collection::vec(any::<u8>(), 0..64),
        3 => any_json().prop_map(|value| value.to_string().into_bytes()),
        5 => nearly().prop_map(|value| value.to_string().into_bytes()),
        2 => sealed,
        1 => "[-\\[\\]{}:,&*!|>'\"\\n a-c0-9]{0,60}".prop_map(String::into_bytes),
    ]
}

pub fn anything() -> impl Strategy<Value = Made> {
    let method = select(vec![
        "GET", "GET", "POST", "POST", "PUT", "PATCH", "PATCH", "DELETE", "HEAD", "OPTIONS", "FOO",
    ]);
    (method, path(), query(), headers(), body()).prop_map(|(method, path, query, headers, body)| {
        let uri = if query.is_empty() { path } else { format!("{path}?{query}") };
        Made { method, uri, headers, body }
    })
}

/// The request, if it is one at all by HTTP.
pub fn compiled(made: &Made) -> Option<Request<Body>> {
    let mut request = Request::builder().method(made.method).uri(made.uri.as_str());
    request = request.header("authorization", format!("Bearer {TOKEN}"));
    for (name, value) in &made.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        request = request.header(name, HeaderValue::from_bytes(value).ok()?);
    }
    request.body(Body::from(made.body.clone())).ok()
}
