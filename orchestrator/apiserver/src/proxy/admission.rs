//! Admission of connections: what exec, attach, port-forward and the proxies are asked for, as an object.

use serde_json::{Value, json};

use super::Kind;
use crate::admission::{Attributes, Operation, Rounds};
use crate::error::ApiError;
use crate::registry::{Context, Definition, Registry};
use crate::server::chain::Call;
use crate::server::query::Query;

/// Asks admission whether the connection may be made.
pub(super) async fn admit(
    registry: &Registry,
    definition: &Definition,
    call: &Call,
    kind: Kind,
) -> Result<(), ApiError> {
    let Some(mut options) = options(kind, &call.query, &call.info.remainder) else { return Ok(()) };
    let context = Context::new(call.user.clone());
    let attributes = Attributes {
        operation: Operation::Connect,
        definition,
        subresource: &call.info.subresource,
        namespace: &call.info.namespace,
        name: &call.info.name,
        context: &context,
        old: None,
        rounds: Rounds::default(),
    };
    let admission = registry.admission();
    admission.admit(registry, &attributes, &mut options).await?;
    admission.validate(registry, &attributes, Some(&options)).await
}

/// The options of a connection. Logs are read, not connected to.
fn options(kind: Kind, query: &Query, remainder: &str) -> Option<Value> {
    let flag = |name: &str| query.flag(name);
    let streams = |kind: &str| {
        json!({"kind": kind, "apiVersion": "v1", "stdin": flag("stdin"), "stdout": flag("stdout"),
            "stderr": flag("stderr"), "tty": flag("tty"), "container": query.text("container").unwrap_or_default()})
    };
    let path = |kind: &str| json!({"kind": kind, "apiVersion": "v1", "path": format!("/{remainder}")});
    Some(match kind {
        Kind::Log => return None,
        Kind::Exec => {
            let mut options = streams("PodExecOptions");
            options["command"] = query.all("command").collect::<Vec<_>>().into();
            options
        }
        Kind::Attach => streams("PodAttachOptions"),
        Kind::PortForward => {
            let ports: Vec<i64> = query.all("ports").filter_map(|port| port.parse().ok()).collect();
            json!({"kind": "PodPortForwardOptions", "apiVersion": "v1", "ports": ports})
        }
        Kind::PodProxy => path("PodProxyOptions"),
        Kind::ServiceProxy => path("ServiceProxyOptions"),
        Kind::NodeProxy => path("NodeProxyOptions"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_exec_asks_for_is_an_object() {
        let query = Query::parse("command=ls&command=-l&stdout=true&container=c");
        let options = options(Kind::Exec, &query, "").unwrap();
        assert_eq!(options["command"], json!(["ls", "-l"]));
        assert_eq!(
            (&options["stdout"], &options["stdin"], &options["container"]),
            (&json!(true), &json!(false), &json!("c"))
        );
    }
}
