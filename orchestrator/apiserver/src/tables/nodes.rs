//! Columns of nodes.

use serde_json::{Value, json};

use super::cells::{NONE, UNKNOWN, age, name, text};
use super::{AGE, Column, Columns, NAME};
use crate::registry::object::{items_at, str_at};

pub(crate) const NODES: Columns = Columns {
    columns: &[
        NAME,
        Column::text("Status", "Whether it is ready and takes pods."),
        Column::text("Roles", "What it is for."),
        AGE,
        Column::text("Version", "The node agent's version."),
        Column::text("Internal-IP", "Its address in the cluster.").wide(),
        Column::text("External-IP", "Its address outside.").wide(),
        Column::text("OS-Image", "Its operating system.").wide(),
        Column::text("Kernel-Version", "Its kernel.").wide(),
        Column::text("Container-Runtime", "What runs its containers.").wide(),
    ],
    cells: |o, now| {
        vec![
            name(o),
            status(o).into(),
            roles(o).into(),
            age(o, now),
            text(o, "/status/nodeInfo/kubeletVersion", ""),
            address(o, "InternalIP").into(),
            address(o, "ExternalIP").into(),
            text(o, "/status/nodeInfo/osImage", UNKNOWN),
            text(o, "/status/nodeInfo/kernelVersion", UNKNOWN),
            text(o, "/status/nodeInfo/containerRuntimeVersion", UNKNOWN),
        ]
    },
};

fn status(o: &Value) -> String {
    let ready = items_at(o, "/status/conditions").iter().find(|c| c["type"] == "Ready");
    let mut text = match ready.map(|c| str_at(c, "/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_string();
    if o.pointer("/spec/unschedulable") == Some(&json!(true)) {
        text.push_str(",SchedulingDisabled");
    }
    text
}

fn roles(o: &Value) -> String {
    let mut found: Vec<&str> = Vec::new();
    for (key, value) in o.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten() {
        if let Some(role) = key.strip_prefix("node-role.kubernetes.io/") {
            found.push(role);
        } else if key == "kubernetes.io/role" {
            found.push(value.as_str().unwrap_or_default());
        }
    }
    found.retain(|r| !r.is_empty());
    found.sort_unstable();
    if found.is_empty() { NONE.into() } else { found.join(",") }
}

fn address(o: &Value, kind: &str) -> String {
    let found = items_at(o, "/status/addresses").iter().find(|a| a["type"] == kind);
    found.map_or(NONE, |a| str_at(a, "/address")).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cordoned_node_says_so() {
        let o = json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": ""}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}});
        assert_eq!(status(&o), "Ready,SchedulingDisabled");
        assert_eq!(roles(&o), "control-plane");
        assert_eq!(address(&o, "InternalIP"), "10.0.0.1");
        assert_eq!(address(&o, "ExternalIP"), "<none>");
    }
}
