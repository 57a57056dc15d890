//! Paths on the kubelet for pod subresources.
//!
//! Pure: a pod and a query in, a path out, with upstream's errors for containers that cannot be chosen.

use serde_json::Value;

use crate::error::ApiError;
use crate::server::options::integer;
use crate::server::query::{Query, encode};

const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
const LOG_FLAGS: [&str; 3] = ["follow", "previous", "timestamps"];
const LOG_NUMBERS: [(&str, i64); 3] = [("sinceSeconds", 1), ("tailLines", 0), ("limitBytes", 1)];

/// The node a pod is bound to.
pub fn node_of(pod: &Value) -> Option<&str> {
    pod.pointer("/spec/nodeName").and_then(Value::as_str).filter(|n| !n.is_empty())
}

/// `/containerLogs/<namespace>/<pod>/<container>?..`
pub fn log(pod: &Value, query: &Query) -> Result<String, ApiError> {
    let container = container(pod, query)?;
    let mut pieces = Vec::new();
    pieces.extend(LOG_FLAGS.iter().filter(|flag| query.flag(flag)).map(|flag| format!("{flag}=true")));
    for (key, min) in LOG_NUMBERS {
        if let Some(number) = integer(query, key)? {
            if number < min {
                return Err(invalid_log(key, number, min));
            }
            pieces.push(format!("{key}={number}"));
        }
    }
    for key in ["sinceTime", "stream"] {
        if let Some(text) = query.text(key) {
            pieces.push(format!("{key}={}", encode(text)));
        }
    }
    Ok(with_query(&path("containerLogs", pod, Some(&container)), Some(&pieces.join("&"))))
}

/// `/exec/<namespace>/<pod>/<container>?command=..`
pub fn exec(pod: &Value, query: &Query) -> Result<String, ApiError> {
    let container = container(pod, query)?;
    let mut pieces = streams(query);
    let commands: Vec<String> = query.all("command").map(|c| format!("command={}", encode(c))).collect();
    if commands.is_empty() {
        return Err(ApiError::bad_request("you must specify at least 1 command for the container"));
    }
    pieces.extend(commands);
    Ok(with_query(&path("exec", pod, Some(&container)), Some(&pieces.join("&"))))
}

/// `/attach/<namespace>/<pod>/<container>?..`
pub fn attach(pod: &Value, query: &Query) -> Result<String, ApiError> {
    let container = container(pod, query)?;
    Ok(with_query(&path("attach", pod, Some(&container)), Some(&streams(query).join("&"))))
}

/// `/portForward/<namespace>/<pod>?port=..`
pub fn port_forward(pod: &Value, query: &Query) -> String {
    // Every `ports` value may itself be a comma-separated list.
    let ports: Vec<String> = query
        .all("ports")
        .flat_map(|value| value.split(','))
        .filter(|p| p.parse::<u16>().is_ok())
        .map(|p| format!("port={p}"))
        .collect();
    with_query(&path("portForward", pod, None), Some(&ports.join("&")))
}

/// `path?query`, or `path` alone when there is none.
pub fn with_query(path: &str, query: Option<&str>) -> String {
    match query {
        Some(query) if !query.is_empty() => format!("{path}?{query}"),
        _ => path.to_owned(),
    }
}

/// The stream flags in the kubelet's words.
fn streams(query: &Query) -> Vec<String> {
    [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")]
        .iter()
        .filter(|(ours, _)| query.flag(ours))
        .map(|(_, theirs)| format!("{theirs}=1"))
        .collect()
}

fn path(verb: &str, pod: &Value, container: Option<&str>) -> String {
    let text = |pointer: &str| encode(pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default());
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    match container {
        Some(container) => format!("/{verb}/{namespace}/{name}/{}", encode(container)),
        None => format!("/{verb}/{namespace}/{name}"),
    }
}

/// The container asked for, or the only (or default) one.
fn container(pod: &Value, query: &Query) -> Result<String, ApiError> {
    let names = |key: &str| -> Vec<String> {
        let list = pod.pointer(&format!("/spec/{key}")).and_then(Value::as_array);
        let names = list.into_iter().flatten().filter_map(|c| c.get("name").and_then(Value::as_str));
        names.map(str::to_owned).collect()
    };
    let pod_name = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let (main, init, ephemeral) =
        (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let wanted = query.text("container").map(str::to_owned).or_else(|| {
        let annotations = pod.pointer("/metadata/annotations").and_then(Value::as_object);
        annotations?
            .get(DEFAULT_CONTAINER)?
            .as_str()
            .filter(|n| main.iter().any(|m| m == n))
            .map(str::to_owned)
    });
    match wanted {
        Some(name) if main.iter().chain(&init).chain(&ephemeral).any(|n| *n == name) => Ok(name),
        Some(name) => Err(ApiError::bad_request(format!("container {name} is not valid for pod {pod_name}"))),
        None if main.len() == 1 => Ok(main[0].clone()),
        None => {
            let mut message = format!(
                "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                main.join(" ")
            );
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(ApiError::bad_request(message))
        }
    }
}

fn invalid_log(key: &str, number: i64, min: i64) -> ApiError {
    let why = if min == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
    let wrong = crate::error::FieldError::invalid(key, number, why);
    ApiError::invalid("", "PodLogOptions", "", vec![wrong])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(containers: &[&str]) -> Value {
        let containers: Vec<Value> = containers.iter().map(|name| json!({"name": name})).collect();
        json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {"containers": containers}})
    }

    #[test]
    fn queries_are_told_in_the_kubelets_words() {
        let query =
            Query::parse("command=sh&command=-c&command=echo%20%22hi%22&stdin=true&stdout=true&tty=true");
        assert_eq!(
            exec(&pod(&["c"]), &query).unwrap(),
            "/exec/a/p/c?input=1&output=1&tty=1&command=sh&command=-c&command=echo%20%22hi%22"
        );
        let query = Query::parse("follow=true&tailLines=5&sinceTime=2026-01-02T03:04:05Z&container=c");
        assert_eq!(
            log(&pod(&["c", "d"]), &query).unwrap(),
            "/containerLogs/a/p/c?follow=true&tailLines=5&sinceTime=2026-01-02T03%3A04%3A05Z"
        );
        assert_eq!(
            port_forward(&pod(&["c"]), &Query::parse("ports=80,81")),
            "/portForward/a/p?port=80&port=81"
        );
        assert_eq!(port_forward(&pod(&["c"]), &Query::default()), "/portForward/a/p");
    }

    #[test]
    fn a_container_must_be_unambiguous_and_exist() {
        let message = |containers: &[&str], query: &str| {
            attach(&pod(containers), &Query::parse(query)).unwrap_err().message
        };
        assert_eq!(
            message(&["c", "d"], ""),
            "a container name must be specified for pod p, choose one of: [c d]"
        );
        assert_eq!(message(&["c"], "container=x"), "container x is not valid for pod p");
    }

    #[test]
    fn numbers_out_of_range_are_invalid() {
        assert_eq!(log(&pod(&["c"]), &Query::parse("tailLines=-1")).unwrap_err().code, 422);
    }
}
