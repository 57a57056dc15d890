//! Columns of workloads.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{NONE, UNKNOWN, age, containers, duration, labels, name, number, selector, since, text};
use super::{AGE, Column, Columns, NAME};
use crate::registry::object::{items_at, str_at};

const CONTAINERS: Column = Column::text("Containers", "Names of the containers.").wide();
const IMAGES: Column = Column::text("Images", "Images of the containers.").wide();
const SELECTOR: Column = Column::text("Selector", "Which pods belong to it.").wide();

/// Pods ready of wanted, as `2/3`.
fn ready_of_wanted(o: &Value) -> Value {
    let (ready, wanted) = (number(o, "/status/readyReplicas"), number(o, "/spec/replicas"));
    format!("{ready}/{wanted}").into()
}

/// Containers, images, selector: the wide end of every workload's row.
fn tail(o: &Value, row: &mut Vec<Value>) {
    let (names, images) = containers(o.pointer("/spec/template/spec"));
    row.extend([names.into(), images.into(), selector(o.pointer("/spec/selector")).into()]);
}

pub(crate) const DEPLOYMENTS: Columns = Columns {
    columns: &[
        NAME,
        Column::text("Ready", "Pods ready of wanted."),
        Column::integer("Up-to-date", "Pods of the newest template."),
        Column::integer("Available", "Pods ready for long enough."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |o, now| {
        let mut row = vec![
            name(o),
            ready_of_wanted(o),
            json!(number(o, "/status/updatedReplicas")),
            json!(number(o, "/status/availableReplicas")),
            age(o, now),
        ];
        tail(o, &mut row);
        row
    },
};

const COUNTED: &[Column] = &[
    NAME,
    Column::integer("Desired", "Pods wanted."),
    Column::integer("Current", "Pods there are."),
    Column::integer("Ready", "Pods ready."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

fn counted(o: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(o),
        json!(number(o, "/spec/replicas")),
        json!(number(o, "/status/replicas")),
        json!(number(o, "/status/readyReplicas")),
        age(o, now),
    ]
}

pub(crate) const REPLICA_SETS: Columns = Columns {
    columns: COUNTED,
    cells: |o, now| {
        let mut row = counted(o, now);
        tail(o, &mut row);
        row
    },
};

pub(crate) const REPLICATION_CONTROLLERS: Columns = Columns {
    columns: COUNTED,
    cells: |o, now| {
        let mut row = counted(o, now);
        let (names, images) = containers(o.pointer("/spec/template/spec"));
        row.extend([names.into(), images.into(), labels(o.pointer("/spec/selector")).into()]);
        row
    },
};

pub(crate) const STATEFUL_SETS: Columns = Columns {
    columns: &[NAME, Column::text("Ready", "Pods ready of wanted."), AGE, CONTAINERS, IMAGES],
    cells: |o, now| {
        let (names, images) = containers(o.pointer("/spec/template/spec"));
        vec![name(o), ready_of_wanted(o), age(o, now), names.into(), images.into()]
    },
};

pub(crate) const DAEMON_SETS: Columns = Columns {
    columns: &[
        NAME,
        Column::integer("Desired", "Nodes that should run it."),
        Column::integer("Current", "Nodes that run it."),
        Column::integer("Ready", "Nodes where it is ready."),
        Column::integer("Up-to-date", "Nodes with the newest template."),
        Column::integer("Available", "Nodes where it is ready for long enough."),
        Column::text("Node Selector", "Which nodes run it."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |o, now| {
        let count = |f: &str| json!(number(o, &format!("/status/{f}")));
        let mut row = vec![
            name(o),
            count("desiredNumberScheduled"),
            count("currentNumberScheduled"),
            count("numberReady"),
            count("updatedNumberScheduled"),
            count("numberAvailable"),
            labels(o.pointer("/spec/template/spec/nodeSelector")).into(),
            age(o, now),
        ];
        tail(o, &mut row);
        row
    },
};

pub(crate) const JOBS: Columns = Columns {
    columns: &[
        NAME,
        Column::text("Status", "How it is going."),
        Column::text("Completions", "Pods done of wanted."),
        Column::text("Duration", "How long it has been running."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |o, now| {
        let done = number(o, "/status/succeeded");
        let completions = match o.pointer("/spec/completions").and_then(Value::as_i64) {
            Some(n) => format!("{done}/{n}"),
            None => match number(o, "/spec/parallelism") {
                n if n > 1 => format!("{done}/1 of {n}"),
                _ => format!("{done}/1"),
            },
        };
        let time = |f: &str| str_at(o, &format!("/status/{f}")).parse::<Timestamp>().ok();
        let ran = match (time("startTime"), time("completionTime")) {
            (None, _) => String::new(),
            (Some(start), Some(end)) => duration((end - start).get_seconds()),
            (Some(start), None) => duration((now - start).get_seconds()),
        };
        let mut row = vec![name(o), job_status(o).into(), completions.into(), ran.into(), age(o, now)];
        tail(o, &mut row);
        row
    },
};

fn job_status(o: &Value) -> &'static str {
    let has =
        |t: &str| items_at(o, "/status/conditions").iter().any(|c| c["type"] == t && c["status"] == "True");
    if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if o.pointer("/metadata/deletionTimestamp").is_some() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

pub(crate) const CRON_JOBS: Columns = Columns {
    columns: &[
        NAME,
        Column::text("Schedule", "When it runs."),
        Column::text("Timezone", "In which time zone."),
        Column::text("Suspend", "Whether it is paused."),
        Column::integer("Active", "Jobs running now."),
        Column::text("Last Schedule", "When it ran last."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |o, now| {
        let last = match o.pointer("/status/lastScheduleTime") {
            None => NONE.into(),
            at => since(at, now),
        };
        let suspended = o.pointer("/spec/suspend") == Some(&json!(true));
        let (names, images) = containers(o.pointer("/spec/jobTemplate/spec/template/spec"));
        vec![
            name(o),
            text(o, "/spec/schedule", ""),
            text(o, "/spec/timeZone", NONE),
            if suspended { "True" } else { "False" }.into(),
            json!(items_at(o, "/status/active").len()),
            last,
            age(o, now),
            names.into(),
            images.into(),
            selector(o.pointer("/spec/jobTemplate/spec/selector")).into(),
        ]
    },
};

pub(crate) const AUTOSCALERS: Columns = Columns {
    columns: &[
        NAME,
        Column::text("Reference", "What it scales."),
        Column::text("Targets", "Measured and wanted."),
        Column::text("MinPods", "At least so many."),
        Column::text("MaxPods", "At most so many."),
        Column::text("Replicas", "So many now."),
        AGE,
    ],
    cells: |o, now| {
        let min = o.pointer("/spec/minReplicas").and_then(Value::as_i64);
        vec![
            name(o),
            format!("{}/{}", str_at(o, "/spec/scaleTargetRef/kind"), str_at(o, "/spec/scaleTargetRef/name"))
                .into(),
            targets(o).into(),
            min.map_or("<unset>".to_string(), |n| n.to_string()).into(),
            json!(number(o, "/spec/maxReplicas")),
            json!(number(o, "/status/currentReplicas")),
            age(o, now),
        ]
    },
};

fn targets(o: &Value) -> String {
    if let Some(wanted) = o.pointer("/spec/targetCPUUtilizationPercentage").and_then(Value::as_i64) {
        let is = o.pointer("/status/currentCPUUtilizationPercentage").and_then(Value::as_i64);
        return format!("cpu: {}/{wanted}%", is.map_or(UNKNOWN.to_string(), |n| format!("{n}%")));
    }
    let all: Vec<String> = items_at(o, "/spec/metrics")
        .iter()
        .filter(|m| m["type"] == "Resource")
        .map(|m| {
            let resource = str_at(m, "/resource/name");
            let is = items_at(o, "/status/currentMetrics")
                .iter()
                .find(|c| str_at(c, "/resource/name") == resource)
                .map(|c| c["resource"]["current"].clone())
                .unwrap_or_default();
            match m.pointer("/resource/target/averageUtilization").and_then(Value::as_i64) {
                Some(wanted) => {
                    let is = is["averageUtilization"].as_i64();
                    format!("{resource}: {}/{wanted}%", is.map_or(UNKNOWN.to_string(), |n| format!("{n}%")))
                }
                None => format!(
                    "{resource}: {}/{}",
                    is["averageValue"].as_str().unwrap_or(UNKNOWN),
                    str_at(m, "/resource/target/averageValue")
                ),
            }
        })
        .collect();
    if all.is_empty() { NONE.into() } else { all.join(", ") }
}

pub(crate) const DISRUPTION_BUDGETS: Columns = Columns {
    columns: &[
        NAME,
        Column::text("Min Available", "At least so many stay."),
        Column::text("Max Unavailable", "At most so many go."),
        Column::integer("Allowed Disruptions", "So many may go now."),
        AGE,
    ],
    cells: |o, now| {
        let either = |f: &str| match o.pointer(&format!("/spec/{f}")) {
            None => json!("N/A"),
            Some(Value::Number(n)) => n.to_string().into(),
            Some(v) => v.clone(),
        };
        vec![
            name(o),
            either("minAvailable"),
            either("maxUnavailable"),
            json!(number(o, "/status/disruptionsAllowed")),
            age(o, now),
        ]
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_row() {
        let o = json!({"metadata": {"name": "d"}, "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}},
            "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}},
            "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1}});
        assert_eq!(
            (DEPLOYMENTS.cells)(&o, Timestamp::UNIX_EPOCH),
            vec![
                json!("d"),
                json!("2/3"),
                json!(3),
                json!(1),
                json!("<unknown>"),
                json!("c"),
                json!("i"),
                json!("a=b")
            ]
        );
    }
}
