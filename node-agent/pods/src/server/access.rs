//! Who may call the kubelet API: the API server and administrators at once, other nodes for what they ask of each other,
//! everyone else as a SubjectAccessReview says.

use http::{Method, StatusCode};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Refusal;
use crate::context::Context;
use crate::rotation;

/// A caller with a verified certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Common name.
    pub user: String,
    /// Organisations.
    pub groups: Vec<String>,
}

/// Reads the certificate of a connection; the handshake has verified it.
pub fn caller(connection: &rustls::ServerConnection) -> Option<Caller> {
    let certificate = connection.peer_certificates()?.first()?;
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let subject = parsed.subject();
    let user = subject.iter_common_name().next()?.as_str().ok()?.to_string();
    let groups = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_string).collect();
    Some(Caller { user, groups })
}

/// Refuses who is unknown or not allowed.
pub async fn check(
    context: &Context,
    caller: Option<Caller>,
    method: &Method,
    path: &str,
) -> Result<(), Refusal> {
    let caller = caller.ok_or_else(|| Refusal(StatusCode::UNAUTHORIZED, "Unauthorized".to_string()))?;
    // Not by a review: thousands of nodes ask, often, and a certificate of the cluster's authority says who they are.
    if is_trusted(&caller) || is_node(&caller) && method == Method::GET && path == rotation::PATH {
        return Ok(());
    }
    let (verb, subresource) = attributes(method, path);
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(caller.user.clone()),
            groups: Some(
                caller.groups.clone().into_iter().chain(["system:authenticated".to_string()]).collect(),
            ),
            resource_attributes: Some(ResourceAttributes {
                verb: Some(verb.to_string()),
                version: Some("v1".into()),
                resource: Some("nodes".into()),
                subresource: Some(subresource.to_string()),
                name: Some(context.config.node_name.clone()),
                ..Default::default()
            }),
            ..Default::default()
        },
        ..Default::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(context.client.clone());
    let allowed =
        api.create(&PostParams::default(), &review).await.is_ok_and(|r| r.status.is_some_and(|s| s.allowed));
    let words =
        format!("Forbidden (user={}, verb={verb}, resource=nodes, subresource={subresource})", caller.user);
    if allowed { Ok(()) } else { Err(Refusal(StatusCode::FORBIDDEN, words)) }
}

fn is_trusted(caller: &Caller) -> bool {
    caller.user == "kube-apiserver-kubelet-client" || caller.groups.iter().any(|g| g == "system:masters")
}

/// As kubernetes `plugin/pkg/auth/nodeidentifier` tells a node.
fn is_node(caller: &Caller) -> bool {
    caller.user.starts_with("system:node:") && caller.groups.iter().any(|g| g == "system:nodes")
}

/// As kubernetes `pkg/kubelet/server/auth.go` maps requests.
fn attributes(method: &Method, path: &str) -> (&'static str, &'static str) {
    let verb = match method.as_str() {
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "get",
    };
    let subresource = match path.split('/').nth(1) {
        Some("stats") => "stats",
        Some("metrics") => "metrics",
        Some("logs") => "log",
        Some("pods" | "runningpods") => "pods",
        Some("healthz") => "healthz",
        _ => "proxy",
    };
    (verb, subresource)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_server_and_administrators_are_trusted_and_nobody_else() {
        let caller = |user: &str, group: &str| Caller { user: user.into(), groups: vec![group.into()] };
        assert!(is_trusted(&caller("kube-apiserver-kubelet-client", "")));
        assert!(is_trusted(&caller("x", "system:masters")));
        assert!(!is_trusted(&caller("system:node:n", "system:nodes")));
        assert!(is_node(&caller("system:node:n", "system:nodes")));
        assert!(!is_node(&caller("system:node:n", "")) && !is_node(&caller("x", "system:nodes")));
    }

    #[test]
    fn requests_map_to_subresources_of_the_node() {
        assert_eq!(attributes(&Method::GET, "/metrics/resource"), ("get", "metrics"));
        assert_eq!(attributes(&Method::POST, "/exec/ns/p/c"), ("create", "proxy"));
    }
}
