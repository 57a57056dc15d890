//! Columns of priority and fairness.

use serde_json::{Value, json};

use super::cells::{NONE, age, name, text};
use super::{AGE, Column, Columns, NAME};
use crate::registry::object::items_at;

pub(crate) const FLOW_SCHEMAS: Columns = Columns {
    columns: &[
        NAME,
        Column::text("PriorityLevel", "The priority level its requests belong to."),
        Column::text("MatchingPrecedence", "The smaller, the earlier it is asked."),
        Column::text("DistinguisherMethod", "What tells its flows apart."),
        AGE,
        Column::text("MissingPL", "Whether its priority level is missing or broken."),
    ],
    cells: |o, now| {
        let dangling = items_at(o, "/status/conditions").iter().find(|c| c["type"] == "Dangling");
        vec![
            name(o),
            text(o, "/spec/priorityLevelConfiguration/name", ""),
            json!(o.pointer("/spec/matchingPrecedence").and_then(Value::as_i64).unwrap_or(0)),
            text(o, "/spec/distinguisherMethod/type", NONE),
            age(o, now),
            dangling.map_or_else(|| "?".into(), |c| c["status"].clone()),
        ]
    },
};

pub(crate) const PRIORITY_LEVELS: Columns = Columns {
    columns: &[
        NAME,
        Column::text("Type", "Whether its requests are limited."),
        Column::text("NominalConcurrencyShares", "Its part of the server's seats."),
        Column::text("Queues", "How many queues it has."),
        Column::text("HandSize", "How many of them one flow may use."),
        Column::text("QueueLengthLimit", "How many requests may wait in one."),
        AGE,
    ],
    cells: |o, now| {
        let of = |field: &str| match o.pointer(&format!("/spec/limited/{field}")) {
            Some(number) if number.is_number() => number.clone(),
            _ => NONE.into(),
        };
        vec![
            name(o),
            text(o, "/spec/type", ""),
            of("nominalConcurrencyShares"),
            of("limitResponse/queuing/queues"),
            of("limitResponse/queuing/handSize"),
            of("limitResponse/queuing/queueLengthLimit"),
            age(o, now),
        ]
    },
};
