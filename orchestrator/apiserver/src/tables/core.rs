//! Columns of namespaces, configuration, events and storage claims.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{NONE, age, labels, name, number, since, text};
use super::{AGE, Column, Columns, NAME};
use crate::registry::object::{items_at, str_at};

fn entries(o: &Value, field: &str) -> usize {
    o.get(field).and_then(Value::as_object).map_or(0, serde_json::Map::len)
}

pub(crate) const CONFIG_MAPS: Columns = Columns {
    columns: &[NAME, Column::integer("Data", "Number of entries."), AGE],
    cells: |o, now| vec![name(o), json!(entries(o, "data") + entries(o, "binaryData")), age(o, now)],
};

pub(crate) const SECRETS: Columns = Columns {
    columns: &[
        NAME,
        Column::text("Type", "What the secret is for."),
        Column::integer("Data", "Number of entries."),
        AGE,
    ],
    cells: |o, now| vec![name(o), text(o, "/type", ""), json!(entries(o, "data")), age(o, now)],
};

pub(crate) const NAMESPACES: Columns = Columns {
    columns: &[NAME, Column::text("Status", "The namespace's phase."), AGE],
    cells: |o, now| vec![name(o), text(o, "/status/phase", ""), age(o, now)],
};

pub(crate) const SERVICE_ACCOUNTS: Columns =
    Columns { columns: &[NAME, AGE], cells: |o, now| vec![name(o), age(o, now)] };

const EVENT_COLUMNS: &[Column] = &[
    Column::text("Last Seen", "When the event was seen last."),
    Column::text("Type", "Normal or Warning."),
    Column::text("Reason", "Why, in a word."),
    Column::text("Object", "What it is about."),
    Column::text("Subobject", "The part of the object it is about.").wide(),
    Column::text("Source", "Who reports it.").wide(),
    Column::text("Message", "What happened."),
    Column::text("First Seen", "When the event was seen first.").wide(),
    Column::text("Count", "How often it was seen.").wide(),
    NAME.wide(),
];

pub(crate) const EVENTS: Columns = Columns {
    columns: EVENT_COLUMNS,
    cells: |o, now| {
        event(
            o,
            now,
            [
                "involvedObject",
                "message",
                "source",
                "reportingComponent",
                "firstTimestamp",
                "lastTimestamp",
                "count",
            ],
        )
    },
};

pub(crate) const EVENTS_V1: Columns = Columns {
    columns: EVENT_COLUMNS,
    cells: |o, now| {
        event(
            o,
            now,
            [
                "regarding",
                "note",
                "deprecatedSource",
                "reportingController",
                "deprecatedFirstTimestamp",
                "deprecatedLastTimestamp",
                "deprecatedCount",
            ],
        )
    },
};

/// `fields`: object, message, source, reporter, first, last, count under the version's names.
fn event(o: &Value, now: Timestamp, fields: [&str; 7]) -> Vec<Value> {
    let [object, message, source, reporter, first, last, count] = fields;
    let times =
        |f: &str| o.get(f).filter(|t| t.is_string()).or_else(|| o.get("eventTime").filter(|t| t.is_string()));
    let mut last_seen = since(times(last), now);
    if times(first) == times(last)
        && let Some(series) = o.pointer("/series/lastObservedTime")
    {
        last_seen = since(Some(series), now);
    }
    let about = &o[object];
    let component = match str_at(&o[source], "/component") {
        "" => o[reporter].as_str().unwrap_or_default(),
        c => c,
    };
    let host = str_at(&o[source], "/host");
    let from = if host.is_empty() { component.to_string() } else { format!("{component}, {host}") };
    let seen = match o.pointer("/series/count").and_then(Value::as_i64) {
        Some(n) => n,
        None => o[count].as_i64().unwrap_or(1),
    };
    vec![
        last_seen,
        text(o, "/type", ""),
        text(o, "/reason", ""),
        format!("{}/{}", str_at(about, "/kind").to_lowercase(), str_at(about, "/name")).into(),
        text(about, "/fieldPath", ""),
        from.into(),
        o[message].as_str().unwrap_or_default().trim().into(),
        since(times(first), now),
        json!(seen.to_string()),
        name(o),
    ]
}

fn access_modes(o: &Value, pointer: &str) -> String {
    let short = |m: &Value| match m.as_str().unwrap_or_default() {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        _ => "",
    };
    items_at(o, pointer).iter().map(short).collect::<Vec<_>>().join(",")
}

fn phase(o: &Value) -> Value {
    if o.pointer("/metadata/deletionTimestamp").is_some() {
        "Terminating".into()
    } else {
        text(o, "/status/phase", "")
    }
}

pub(crate) const CLAIMS: Columns = Columns {
    columns: &[
        NAME,
        Column::text("Status", "The claim's phase."),
        Column::text("Volume", "The volume it is bound to."),
        Column::text("Capacity", "How much it got."),
        Column::text("Access Modes", "How it may be mounted."),
        Column::text("StorageClass", "The class it asks for."),
        Column::text("VolumeAttributesClass", "The attributes it asks for."),
        AGE,
        Column::text("VolumeMode", "Filesystem or block.").wide(),
    ],
    cells: |o, now| {
        let bound = !str_at(o, "/spec/volumeName").is_empty();
        vec![
            name(o),
            phase(o),
            text(o, "/spec/volumeName", ""),
            if bound { text(o, "/status/capacity/storage", "") } else { "".into() },
            if bound { access_modes(o, "/status/accessModes").into() } else { "".into() },
            text(o, "/spec/storageClassName", ""),
            text(o, "/spec/volumeAttributesClassName", "<unset>"),
            age(o, now),
            text(o, "/spec/volumeMode", "<unset>"),
        ]
    },
};

pub(crate) const VOLUMES: Columns = Columns {
    columns: &[
        NAME,
        Column::text("Capacity", "How much there is."),
        Column::text("Access Modes", "How it may be mounted."),
        Column::text("Reclaim Policy", "What becomes of it when released."),
        Column::text("Status", "The volume's phase."),
        Column::text("Claim", "Who has it."),
        Column::text("StorageClass", "Its class."),
        Column::text("VolumeAttributesClass", "Its attributes."),
        Column::text("Reason", "Why it is in its phase."),
        AGE,
        Column::text("VolumeMode", "Filesystem or block.").wide(),
    ],
    cells: |o, now| {
        let claim = match str_at(o, "/spec/claimRef/name") {
            "" => String::new(),
            claim => format!("{}/{claim}", str_at(o, "/spec/claimRef/namespace")),
        };
        vec![
            name(o),
            text(o, "/spec/capacity/storage", ""),
            access_modes(o, "/spec/accessModes").into(),
            text(o, "/spec/persistentVolumeReclaimPolicy", ""),
            phase(o),
            claim.into(),
            text(o, "/spec/storageClassName", ""),
            text(o, "/spec/volumeAttributesClassName", "<unset>"),
            text(o, "/status/reason", ""),
            age(o, now),
            text(o, "/spec/volumeMode", "<unset>"),
        ]
    },
};

pub(crate) const RESOURCE_QUOTAS: Columns = Columns {
    columns: &[
        NAME,
        Column::text("Request", "Used and allowed requests."),
        Column::text("Limit", "Used and allowed limits."),
        AGE,
    ],
    cells: |o, now| {
        let mut split = (Vec::new(), Vec::new());
        for (k, hard) in o.pointer("/status/hard").and_then(Value::as_object).into_iter().flatten() {
            let used =
                o.pointer("/status/used").and_then(|u| u.get(k)).and_then(Value::as_str).unwrap_or("0");
            let term = format!("{k}: {used}/{}", hard.as_str().unwrap_or_default());
            if k.starts_with("limits.") { split.1.push(term) } else { split.0.push(term) }
        }
        vec![name(o), split.0.join(", ").into(), split.1.join(", ").into(), age(o, now)]
    },
};

pub(crate) const POD_TEMPLATES: Columns = Columns {
    columns: &[
        NAME,
        Column::text("Containers", "Names of the containers."),
        Column::text("Images", "Images of the containers."),
        Column::text("Pod Labels", "Labels of the pods."),
    ],
    cells: |o, _| {
        let (names, images) = super::cells::containers(o.pointer("/template/spec"));
        vec![name(o), names.into(), images.into(), labels(o.pointer("/template/metadata/labels")).into()]
    },
};

pub(crate) const CONTROLLER_REVISIONS: Columns = Columns {
    columns: &[
        NAME,
        Column::text("Controller", "What it is a revision of."),
        Column::text("Revision", "Its number."),
        AGE,
    ],
    cells: |o, now| {
        let owner = items_at(o, "/metadata/ownerReferences").iter().find(|r| r["controller"] == json!(true));
        let controller = owner.map_or(NONE.to_string(), |r| {
            let group = str_at(r, "/apiVersion").split_once('/').map_or("", |(g, _)| g);
            let kind = str_at(r, "/kind").to_lowercase();
            let kind = if group.is_empty() { kind } else { format!("{kind}.{group}") };
            format!("{kind}/{}", str_at(r, "/name"))
        });
        vec![name(o), controller.into(), json!(number(o, "/revision").to_string()), age(o, now)]
    },
};
