//! NodeRestriction: a node writes its own Node, its own pods, its own lease.

use async_trait::async_trait;
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::error::ApiError;
use crate::registry::Registry;
use crate::registry::object::{items_at, str_at};

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
            _ => Ok(()),
        }
    }
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
