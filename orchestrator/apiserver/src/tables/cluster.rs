//! Columns of cluster-wide kinds: access, classes, certificates, leases.

use serde_json::{Value, json};

use super::cells::{NONE, age, name, number, text};
use super::{AGE, Column, Columns, NAME};
use crate::registry::object::{items_at, str_at};

const CREATED: Column = Column { kind: "date", ..Column::text("Created At", "When the object was created.") };

/// Roles show when they were made, not their age.
pub(crate) const NAME_AND_CREATED: Columns = Columns {
    columns: &[NAME, CREATED],
    cells: |o, _| vec![name(o), o.pointer("/metadata/creationTimestamp").cloned().unwrap_or_default()],
};

pub(crate) const BINDINGS: Columns = Columns {
    columns: &[
        NAME,
        Column::text("Role", "What is granted."),
        AGE,
        Column::text("Users", "Users it is granted to.").wide(),
        Column::text("Groups", "Groups it is granted to.").wide(),
        Column::text("ServiceAccounts", "Service accounts it is granted to.").wide(),
    ],
    cells: |o, now| {
        let of = |kind: &str| {
            items_at(o, "/subjects")
                .iter()
                .filter(|s| s["kind"] == kind)
                .map(|s| match str_at(s, "/namespace") {
                    "" => str_at(s, "/name").to_string(),
                    namespace => format!("{namespace}/{}", str_at(s, "/name")),
                })
                .collect::<Vec<_>>()
                .join(", ")
        };
        vec![
            name(o),
            format!("{}/{}", str_at(o, "/roleRef/kind"), str_at(o, "/roleRef/name")).into(),
            age(o, now),
            of("User").into(),
            of("Group").into(),
            of("ServiceAccount").into(),
        ]
    },
};

pub(crate) const PRIORITY_CLASSES: Columns = Columns {
    columns: &[
        NAME,
        Column::integer("Value", "The priority."),
        Column::text("Global-Default", "Whether pods without a class get it."),
        AGE,
        Column::text("PreemptionPolicy", "Whether it displaces others."),
    ],
    cells: |o, now| {
        vec![
            name(o),
            json!(number(o, "/value")),
            json!(o["globalDefault"] == json!(true)),
            age(o, now),
            text(o, "/preemptionPolicy", ""),
        ]
    },
};

pub(crate) const CERTIFICATE_SIGNING_REQUESTS: Columns = Columns {
    columns: &[
        NAME,
        AGE,
        Column::text("SignerName", "Who should sign."),
        Column::text("Requestor", "Who asked."),
        Column::text("RequestedDuration", "For how long."),
        Column::text("Condition", "How it stands."),
    ],
    cells: |o, now| {
        let mut words: Vec<&str> = ["Approved", "Denied", "Failed"]
            .into_iter()
            .filter(|t| items_at(o, "/status/conditions").iter().any(|c| c["type"] == *t))
            .collect();
        if words.is_empty() {
            words.push("Pending");
        }
        if !str_at(o, "/status/certificate").is_empty() {
            words.push("Issued");
        }
        let asked = o.pointer("/spec/expirationSeconds").and_then(Value::as_i64);
        vec![
            name(o),
            age(o, now),
            text(o, "/spec/signerName", ""),
            text(o, "/spec/username", ""),
            asked.map_or(NONE.to_string(), super::cells::duration).into(),
            words.join(",").into(),
        ]
    },
};

pub(crate) const LEASES: Columns = Columns {
    columns: &[NAME, Column::text("Holder", "Who has it."), AGE],
    cells: |o, now| vec![name(o), text(o, "/spec/holderIdentity", ""), age(o, now)],
};

pub(crate) const STORAGE_CLASSES: Columns = Columns {
    columns: &[
        NAME,
        Column::text("Provisioner", "Who makes volumes."),
        Column::text("ReclaimPolicy", "What becomes of released volumes."),
        Column::text("VolumeBindingMode", "When volumes are bound."),
        Column::text("AllowVolumeExpansion", "Whether volumes may grow."),
        AGE,
    ],
    cells: |o, now| {
        let is_default = o.pointer("/metadata/annotations/storageclass.kubernetes.io~1is-default-class")
            == Some(&json!("true"));
        let shown =
            if is_default { format!("{} (default)", str_at(o, "/metadata/name")).into() } else { name(o) };
        vec![
            shown,
            text(o, "/provisioner", ""),
            text(o, "/reclaimPolicy", "Delete"),
            text(o, "/volumeBindingMode", "Immediate"),
            json!(o["allowVolumeExpansion"] == json!(true)),
            age(o, now),
        ]
    },
};

pub(crate) const RUNTIME_CLASSES: Columns = Columns {
    columns: &[NAME, Column::text("Handler", "The runtime's name for it."), AGE],
    cells: |o, now| vec![name(o), text(o, "/handler", ""), age(o, now)],
};

pub(crate) const API_SERVICES: Columns = Columns {
    columns: &[
        NAME,
        Column::text("Service", "Who serves it."),
        Column::text("Available", "Whether it answers."),
        AGE,
    ],
    cells: |o, now| {
        let service = match str_at(o, "/spec/service/name") {
            "" => "Local".to_string(),
            service => format!("{}/{service}", str_at(o, "/spec/service/namespace")),
        };
        let available = items_at(o, "/status/conditions").iter().find(|c| c["type"] == "Available");
        let available = available.map_or("Unknown".to_string(), |c| match str_at(c, "/status") {
            "True" => "True".to_string(),
            other => format!("{other} ({})", str_at(c, "/reason")),
        });
        vec![name(o), service.into(), available.into(), age(o, now)]
    },
};
