//! NodeRestriction: a node writes its own Node, its own pods, its own lease, and asks for its own certificates.

use async_trait::async_trait;
use penstock_certificates::Request;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::error::ApiError;
use crate::registry::Registry;
use crate::registry::kinds::certificates::certificatesigningrequests::decoded;
use crate::registry::object::{items_at, str_at};

/// Whose certificates stand for nodes.
const NODE_SIGNERS: [&str; 2] =
    ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];

pub struct NodeRestriction;

#[async_trait]
impl Plugin for NodeRestriction {
    async fn validate(
        &self,
        _registry: &Registry,
        a: &Attributes<'_>,
        object: Option<&Value>,
    ) -> Result<(), ApiError> {
        if a.operation == Operation::Connect {
            return Ok(());
        }
        let user = &a.context.user;
        let Some(node) = user.name.strip_prefix("system:node:") else {
            return Ok(());
        };
        if !user.is_in("system:nodes") {
            return Ok(());
        }
        match (&*a.definition.group, &*a.definition.plural) {
            ("", "nodes") => {
                if a.name != node {
                    return Err(
                        a.forbidden(format!("node \"{node}\" is not allowed to modify node \"{}\"", a.name))
                    );
                }
                if let (Some(new), Some(old)) = (object, a.old)
                    && a.subresource.is_empty()
                    && new.pointer("/spec/taints") != old.pointer("/spec/taints")
                {
                    return Err(a.forbidden(format!("node \"{node}\" is not allowed to modify taints")));
                }
                Ok(())
            }
            ("", "pods") => self.pods(a, node, object),
            ("coordination.k8s.io", "leases") => {
                if a.namespace != "kube-node-lease" {
                    return Err(
                        a.forbidden("can only access leases in the \"kube-node-lease\" system namespace")
                    );
                }
                if a.name != node {
                    return Err(
                        a.forbidden("can only access node lease with the same name as the requesting node")
                    );
                }
                Ok(())
            }
            ("certificates.k8s.io", "certificatesigningrequests") => requests(a, object),
            _ => Ok(()),
        }
    }
}

/// A node asks for certificates in its own name only.
fn requests(a: &Attributes<'_>, object: Option<&Value>) -> Result<(), ApiError> {
    let Some(new) = object.filter(|_| a.operation == Operation::Create) else {
        return Ok(());
    };
    if !NODE_SIGNERS.contains(&str_at(new, "/spec/signerName")) {
        return Ok(());
    }
    let request = Request::parse(&decoded(new, "/spec/request"))
        .map_err(|error| a.forbidden(format!("unable to parse csr: {error}")))?;
    let own = &a.context.user.name;
    if request.common_name != *own {
        return Err(a.forbidden(format!("can only create a node CSR with CN={own}")));
    }
    Ok(())
}

impl NodeRestriction {
    fn pods(&self, a: &Attributes<'_>, node: &str, object: Option<&Value>) -> Result<(), ApiError> {
        match (a.operation, a.subresource) {
            (Operation::Create, "") => {
                let Some(pod) = object else { return Ok(()) };
                let mirror = pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some();
                if !mirror {
                    return Err(a.forbidden(
                        "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"".to_string()
                            + node
                            + "\" can only create mirror pods",
                    ));
                }
                if str_at(pod, "/spec/nodeName") != node {
                    return Err(a.forbidden(format!(
                        "node \"{node}\" can only create pods with spec.nodeName set to itself"
                    )));
                }
                if items_at(pod, "/metadata/ownerReferences")
                    .iter()
                    .any(|o| o["kind"] != "Node" || o["name"] != node)
                {
                    return Err(a.forbidden(format!(
                        "node \"{node}\" can only create pods with an owner reference set to itself"
                    )));
                }
                Ok(())
            }
            (Operation::Delete, _) | (Operation::Update, "status") => {
                let bound = a.old.map(|o| str_at(o, "/spec/nodeName")).unwrap_or_default();
                if bound == node {
                    return Ok(());
                }
                let verb = if a.operation == Operation::Delete {
                    "delete pods"
                } else {
                    "update pod status for pods"
                };
                Err(a.forbidden(format!("node \"{node}\" can only {verb} with spec.nodeName set to itself")))
            }
            (Operation::Update, other) => Err(a.forbidden(format!(
                "node \"{node}\" may not update {}",
                if other.is_empty() { "pods" } else { other }
            ))),
            (Operation::Create | Operation::Connect, _) => Ok(()),
        }
    }
}
