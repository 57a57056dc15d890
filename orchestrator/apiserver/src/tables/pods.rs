//! Columns of pods; the status word is the one people act on.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{NONE, age, duration, name, text};
use super::{AGE, Column, Columns, NAME};
use crate::registry::object::{items_at, str_at};

pub(crate) const PODS: Columns = Columns {
    columns: &[
        NAME,
        Column::text("Ready", "Containers ready of all."),
        Column::text("Status", "What the pod is doing."),
        Column::text("Restarts", "How often containers were restarted."),
        AGE,
        Column::text("IP", "The pod's address.").wide(),
        Column::text("Node", "Where it runs.").wide(),
        Column::text("Nominated Node", "Where room is being made for it.").wide(),
        Column::text("Readiness Gates", "Conditions it waits for.").wide(),
    ],
    cells,
};

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let seen = observe(o);
    let restarts = match (seen.restarts, seen.last_restart) {
        (0, _) | (_, None) => seen.restarts.to_string(),
        (n, Some(at)) => format!("{n} ({} ago)", duration((now - at).get_seconds())),
    };
    let gates = items_at(o, "/spec/readinessGates");
    let gates = if gates.is_empty() {
        NONE.to_string()
    } else {
        let met = gates
            .iter()
            .filter(|g| {
                items_at(o, "/status/conditions")
                    .iter()
                    .any(|c| c["type"] == g["conditionType"] && c["status"] == "True")
            })
            .count();
        format!("{met}/{}", gates.len())
    };
    vec![
        name(o),
        format!("{}/{}", seen.ready, seen.total).into(),
        seen.word.into(),
        restarts.into(),
        age(o, now),
        text(o, "/status/podIP", NONE),
        text(o, "/spec/nodeName", NONE),
        text(o, "/status/nominatedNodeName", NONE),
        json!(gates),
    ]
}

struct Seen {
    word: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

fn restarted_at(status: &Value) -> Option<Timestamp> {
    str_at(status, "/lastState/terminated/finishedAt").parse().ok()
}

/// Why a container ended, in a word.
fn ended(terminated: &Value, prefix: &str) -> String {
    let reason = str_at(terminated, "/reason");
    if !reason.is_empty() {
        return format!("{prefix}{reason}");
    }
    match terminated["signal"].as_i64().filter(|s| *s != 0) {
        Some(signal) => format!("{prefix}Signal:{signal}"),
        None => format!("{prefix}ExitCode:{}", terminated["exitCode"].as_i64().unwrap_or(0)),
    }
}

fn observe(o: &Value) -> Seen {
    let init_specs = items_at(o, "/spec/initContainers");
    let is_sidecar =
        |name: &Value| init_specs.iter().any(|c| &c["name"] == name && c["restartPolicy"] == "Always");
    let sidecars = init_specs.iter().filter(|c| c["restartPolicy"] == "Always").count();
    let mut seen = Seen {
        word: str_at(o, "/status/phase").to_string(),
        ready: 0,
        total: items_at(o, "/spec/containers").len() + sidecars,
        restarts: 0,
        last_restart: None,
    };
    let reason = str_at(o, "/status/reason");
    if !reason.is_empty() {
        seen.word = reason.to_string();
    }
    for c in items_at(o, "/status/conditions") {
        if c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated" {
            seen.word = "SchedulingGated".into();
        }
    }
    let mut sidecar_restarts = (0, None);
    let mut initializing = false;
    for (i, s) in items_at(o, "/status/initContainerStatuses").iter().enumerate() {
        let restarts = s["restartCount"].as_i64().unwrap_or(0);
        seen.restarts += restarts;
        seen.last_restart = seen.last_restart.max(restarted_at(s));
        if is_sidecar(&s["name"]) {
            sidecar_restarts = (sidecar_restarts.0 + restarts, sidecar_restarts.1.max(restarted_at(s)));
        }
        if s.pointer("/state/terminated/exitCode") == Some(&json!(0)) {
            continue;
        }
        if is_sidecar(&s["name"]) && s["started"] == json!(true) {
            if s["ready"] == json!(true) {
                seen.ready += 1;
            }
            continue;
        }
        let waiting = str_at(s, "/state/waiting/reason");
        seen.word = if let Some(terminated) = s.pointer("/state/terminated") {
            ended(terminated, "Init:")
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{i}/{}", init_specs.len())
        };
        initializing = true;
        break;
    }
    let initialized =
        items_at(o, "/status/conditions").iter().any(|c| c["type"] == "Initialized" && c["status"] == "True");
    if !initializing || initialized {
        (seen.restarts, seen.last_restart) = sidecar_restarts;
        let mut running = false;
        for s in items_at(o, "/status/containerStatuses").iter().rev() {
            seen.restarts += s["restartCount"].as_i64().unwrap_or(0);
            seen.last_restart = seen.last_restart.max(restarted_at(s));
            let waiting = str_at(s, "/state/waiting/reason");
            if !waiting.is_empty() {
                seen.word = waiting.to_string();
            } else if let Some(terminated) = s.pointer("/state/terminated") {
                seen.word = ended(terminated, "");
            } else if s["ready"] == json!(true) && s.pointer("/state/running").is_some() {
                running = true;
                seen.ready += 1;
            }
        }
        if seen.word == "Completed" && running {
            let ready = items_at(o, "/status/conditions")
                .iter()
                .any(|c| c["type"] == "Ready" && c["status"] == "True");
            seen.word = if ready { "Running" } else { "NotReady" }.into();
        }
    }
    if o.pointer("/metadata/deletionTimestamp").is_some() {
        if reason == "NodeLost" {
            seen.word = "Unknown".into();
        } else if !matches!(str_at(o, "/status/phase"), "Failed" | "Succeeded") {
            seen.word = "Terminating".into();
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(o: Value) -> String {
        observe(&o).word
    }

    #[test]
    fn the_status_word_is_what_people_act_on() {
        let spec = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
        let status = |s: Value| json!({"spec": spec, "status": s});
        assert_eq!(word(status(json!({"phase": "Pending"}))), "Pending");
        assert_eq!(
            word(status(
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]})
            )),
            "Init:0/2"
        );
        assert_eq!(
            word(status(
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]})
            )),
            "Init:CrashLoopBackOff"
        );
        assert_eq!(
            word(status(
                json!({"phase": "Running", "containerStatuses": [{"name": "a", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]})
            )),
            "CrashLoopBackOff"
        );
        assert_eq!(
            word(status(
                json!({"phase": "Succeeded", "containerStatuses": [{"name": "a", "state": {"terminated": {"reason": "Completed", "exitCode": 0}}}]})
            )),
            "Completed"
        );
        assert_eq!(
            word(status(
                json!({"phase": "Failed", "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 3}}}]})
            )),
            "ExitCode:3"
        );
        let mut dying = status(json!({"phase": "Running"}));
        dying["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(word(dying), "Terminating");
    }

    #[test]
    fn a_row_of_a_running_pod() {
        let o = json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n", "containers": [{"name": "a"}, {"name": "b"}]},
            "status": {"phase": "Running", "podIP": "10.244.0.5", "containerStatuses": [
                {"name": "a", "ready": true, "restartCount": 2, "state": {"running": {}},
                 "lastState": {"terminated": {"finishedAt": "2026-01-01T00:01:00Z"}}},
                {"name": "b", "ready": false, "restartCount": 0, "state": {"running": {}}}]}});
        let now = "2026-01-01T00:02:00Z".parse().unwrap();
        assert_eq!(
            cells(&o, now),
            vec![
                json!("p"),
                json!("1/2"),
                json!("Running"),
                json!("2 (60s ago)"),
                json!("2m"),
                json!("10.244.0.5"),
                json!("n"),
                json!("<none>"),
                json!("<none>")
            ]
        );
    }
}
