//! Whether an extension server is there: its Service, an endpoint, and an answer where it must tell what it serves.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use super::documents;
use super::forward;
use super::remote::Remote;
use crate::discovery::Entry;
use crate::outbound::{CallError, Identity, endpoints};
use crate::registry::object::{items_at, str_at};
use crate::registry::{Registry, User};

/// An extension server has this long to say what it serves.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a check found, in the words of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub status: &'static str,
    pub reason: &'static str,
    pub message: String,
}

// === impl Verdict ===

impl Verdict {
    fn unavailable(reason: &'static str, message: String) -> Self {
        Self { status: "False", reason, message }
    }

    pub fn passed() -> Self {
        Self { status: "True", reason: "Passed", message: "all checks passed".into() }
    }

    pub fn local() -> Self {
        Self { status: "True", reason: "Local", message: "Local APIServices are always available".into() }
    }

    pub fn is_available(&self) -> bool {
        self.status == "True"
    }

    /// The object with this as its condition; the time of the last transition stays while the status does.
    pub fn note(&self, object: &Value, now: &str) -> Value {
        let conditions = items_at(object, "/status/conditions");
        let before = conditions.iter().find(|c| c["type"] == "Available");
        let since = match before {
            Some(before) if before["status"] == self.status => before["lastTransitionTime"].clone(),
            _ => now.into(),
        };
        let mut conditions: Vec<Value> =
            conditions.iter().filter(|c| c["type"] != "Available").cloned().collect();
        conditions.push(json!({"type": "Available", "status": self.status, "lastTransitionTime": since,
            "reason": self.reason, "message": self.message}));
        let mut new = object.clone();
        new["status"]["conditions"] = Value::Array(conditions);
        new
    }

    /// Whether the object says just this already.
    pub fn is_noted(&self, object: &Value) -> bool {
        items_at(object, "/status/conditions").iter().any(|c| {
            c["type"] == "Available"
                && c["status"] == self.status
                && c["reason"] == self.reason
                && c["message"] == *self.message
        })
    }
}

/// What can be said without asking anybody; none when the server must be asked.
pub(super) async fn of_service(registry: &Registry, remote: &Remote) -> Option<Verdict> {
    let Remote { namespace, service, port, .. } = remote;
    match endpoints::of_service(registry, namespace, service, *port).await {
        Ok(_) => None,
        Err(CallError::NoService { .. }) => Some(Verdict::unavailable(
            "ServiceNotFound",
            format!("service/{service} in {namespace:?} is not present"),
        )),
        Err(CallError::NoPort { .. }) => Some(Verdict::unavailable(
            "ServicePortError",
            format!("service/{service} in {namespace:?} is not listening on port {port}"),
        )),
        Err(CallError::NoEndpoints { .. }) => Some(Verdict::unavailable(
            "MissingEndpoints",
            format!("endpointslices for service/{service} in {namespace:?} have no addresses"),
        )),
        Err(error) => Some(Verdict {
            status: "Unknown",
            reason: "ServiceAccessError",
            message: format!("service/{service} in {namespace:?} cannot be checked due to: {error}"),
        }),
    }
}

/// Asks the server what it serves.
pub(super) async fn ask(
    registry: &Registry,
    identity: Option<&Arc<Identity>>,
    remote: &Remote,
) -> (Verdict, Option<Vec<Entry>>) {
    let path = remote.discovery_path();
    let url = format!("https://{}{path}", remote.target.authority());
    let failed = |why: String| {
        let message = format!("failing or missing response from {url}: {why}");
        (Verdict::unavailable("FailedDiscoveryCheck", message), None)
    };
    match tokio::time::timeout(TIMEOUT, get(registry, identity, remote, &path)).await {
        Err(_) => failed("context deadline exceeded".into()),
        Ok(Err(CallError::Refused { code, .. })) => failed(format!("bad status from {url}: {code}")),
        Ok(Err(error)) => failed(error.to_string()),
        Ok(Ok(document)) => {
            // A server that answers with something else is there, and serves nothing anybody could discover.
            let list = serde_json::from_slice::<Value>(&document).unwrap_or_default();
            let is_list = str_at(&list, "/kind") == "APIResourceList";
            let entries =
                if is_list { documents::entries(&remote.group, &remote.version, &list) } else { Vec::new() };
            (Verdict::passed(), Some(entries))
        }
    }
}

/// A document of an extension server, read as somebody who may read everything.
pub(super) async fn get(
    registry: &Registry,
    identity: Option<&Arc<Identity>>,
    remote: &Remote,
    path: &str,
) -> Result<bytes::Bytes, CallError> {
    let unusable = |why: String| CallError::Connection { why };
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = path.parse().map_err(|e: http::uri::InvalidUri| unusable(e.to_string()))?;
    request.headers_mut().insert(http::header::ACCEPT, http::HeaderValue::from_static("application/json"));
    let user = User {
        name: "system:kube-aggregator".into(),
        groups: vec!["system:masters".into()],
        ..User::default()
    };
    forward::speak_for(&user, request.headers_mut());
    let answer = registry.outbound().send(registry, &remote.target, identity, request).await?;
    crate::outbound::exchange::read(answer, documents::DOCUMENT_BYTES_MAX).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let object = json!({"status": {"conditions": [
            {"type": "Available", "status": "True", "reason": "Passed", "lastTransitionTime": "then"}, {"type": "Other"}]}});
        let noted = Verdict::local().note(&object, "now");
        assert_eq!(noted["status"]["conditions"][1]["lastTransitionTime"], "then");
        assert_eq!(noted["status"]["conditions"][0]["type"], "Other");
        assert!(Verdict::local().is_noted(&noted) && !Verdict::passed().is_noted(&noted));
        let lost = Verdict::unavailable("MissingEndpoints", String::new()).note(&noted, "now");
        assert_eq!(lost["status"]["conditions"][1]["lastTransitionTime"], "now");
    }
}
