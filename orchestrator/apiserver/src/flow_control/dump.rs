//! `/debug/api_priority_and_fairness/*`: levels, queues and requests as tables of comma-separated columns, in upstream's
//! layout.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use penstock_schema::duration;

use super::FlowControl;
use super::level::{RequestView, Snapshot};
use crate::registry::definition::api_version;

/// The three tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    Levels,
    Queues,
    Requests {
        /// With who asks for what.
        details: bool,
    },
}

// === impl Table ===

impl Table {
    /// By the last part of its path.
    pub fn of(name: &str, details: bool) -> Option<Self> {
        match name {
            "dump_priority_levels" => Some(Self::Levels),
            "dump_queues" => Some(Self::Queues),
            "dump_requests" => Some(Self::Requests { details }),
            _ => None,
        }
    }
}

/// A table of this moment.
pub fn write(control: &FlowControl, table: Table) -> String {
    let wants_requests = matches!(table, Table::Requests { .. });
    let current = control.current.load();
    let levels: Vec<Snapshot> = current.levels.values().map(|level| level.snapshot(wants_requests)).collect();
    let began = Timestamp::now()
        .checked_sub(SignedDuration::try_from(control.origin.elapsed()).unwrap_or_default())
        .unwrap_or_default();
    lay_out(&match table {
        Table::Levels => of_levels(&levels),
        Table::Queues => of_queues(&levels),
        Table::Requests { details } => of_requests(&levels, began, details),
    })
}

fn of_levels(levels: &[Snapshot]) -> Vec<Vec<String>> {
    let head = row(&[
        "PriorityLevelName",
        "ActiveQueues",
        "IsIdle",
        "IsQuiescing",
        "WaitingRequests",
        "ExecutingRequests",
        "DispatchedRequests",
        "RejectedRequests",
        "TimedoutRequests",
        "CancelledRequests",
    ]);
    let line = |level: &Snapshot| {
        let active = level.queues.iter().filter(|queue| queue.waiting > 0).count();
        let idle = level.totals.waiting == 0 && level.totals.executing == 0;
        vec![
            level.name.clone(),
            active.to_string(),
            idle.to_string(),
            level.quiescing.to_string(),
            level.totals.waiting.to_string(),
            level.totals.executing.to_string(),
            level.counts.dispatched.to_string(),
            level.counts.refused.to_string(),
            level.counts.timed_out.to_string(),
            level.counts.cancelled.to_string(),
        ]
    };
    std::iter::once(head).chain(levels.iter().map(line)).collect()
}

fn of_queues(levels: &[Snapshot]) -> Vec<Vec<String>> {
    let head = row(&[
        "PriorityLevelName",
        "Index",
        "PendingRequests",
        "ExecutingRequests",
        "SeatsInUse",
        "NextDispatchR",
        "InitialSeatsSum",
        "MaxSeatsSum",
        "TotalWorkSum",
    ]);
    let mut lines = vec![head];
    for level in levels {
        for queue in &level.queues {
            lines.push(vec![
                level.name.clone(),
                queue.index.to_string(),
                queue.waiting.to_string(),
                queue.executing.to_string(),
                queue.seats_in_use.to_string(),
                format!("{:.8}ss", queue.next),
                queue.seats_waiting.to_string(),
                queue.seats_waiting.to_string(),
                format!("{:.8}ss", queue.work_waiting),
            ]);
        }
    }
    lines
}

fn of_requests(levels: &[Snapshot], began: Timestamp, details: bool) -> Vec<Vec<String>> {
    let mut head = row(&[
        "PriorityLevelName",
        "FlowSchemaName",
        "QueueIndex",
        "RequestIndexInQueue",
        "FlowDistingsher",
        "ArriveTime",
        "InitialSeats",
        "FinalSeats",
        "AdditionalLatency",
        "StartTime",
    ]);
    if details {
        head.extend(row(&[
            "UserName",
            "Verb",
            "APIPath",
            "Namespace",
            "Name",
            "APIVersion",
            "Resource",
            "SubResource",
        ]));
    }
    let mut lines = vec![head];
    for level in levels {
        for request in &level.requests {
            lines.push(of_request(level, request, began, details));
        }
    }
    lines
}

fn of_request(level: &Snapshot, request: &RequestView, began: Timestamp, details: bool) -> Vec<String> {
    let at = |since: Duration| {
        let at = began.checked_add(SignedDuration::try_from(since).unwrap_or_default());
        at.unwrap_or_default().to_string()
    };
    let index = |place: Option<usize>| place.map_or("-1".to_owned(), |index| index.to_string());
    let info = &request.info;
    let user = crate::registry::User { name: request.user.clone(), ..Default::default() };
    let mut line = vec![
        level.name.clone(),
        request.flow.schema.name.clone(),
        index(request.place.queue.map(|index| index as usize)),
        index(request.place.waiting_at),
        request.flow.schema.flow(&user, info).to_owned(),
        at(request.arrived),
        request.work.seats.to_string(),
        request.work.lingering_seats.to_string(),
        duration::print(i64::try_from(request.work.lingering.as_nanos()).unwrap_or(i64::MAX)),
        request.started.map_or("0001-01-01T00:00:00Z".to_owned(), at),
    ];
    if details {
        line.extend([
            request.user.clone(),
            info.verb.clone(),
            info.path.clone(),
            info.namespace.clone(),
            info.name.clone(),
            api_version(&info.group, &info.version),
            info.resource.clone(),
            info.subresource.clone(),
        ]);
    }
    line
}

fn row(columns: &[&str]) -> Vec<String> {
    columns.iter().map(|column| (*column).to_owned()).collect()
}

/// Columns one below the other, each at least eight wide; the last is as long as it is.
fn lay_out(lines: &[Vec<String>]) -> String {
    const WIDTH_MIN: usize = 8;
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let longest = lines.iter().map(|line| line[column].chars().count() + 1).max().unwrap_or(0);
        (longest + 1).max(WIDTH_MIN)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        for (column, cell) in line.iter().enumerate() {
            if column + 1 == line.len() {
                text.push_str(cell);
            } else {
                // A cell keeps to one line, whatever a path or a name has in it.
                let cell: String = cell.chars().filter(|c| !c.is_control()).chain([',']).collect();
                text.push_str(&format!("{cell:<width$}", width = widths[column]));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_one_below_the_other() {
        let text = lay_out(&[row(&["Name", "Index", "Last"]), row(&["a-long-name", "1", "x"])]);
        assert_eq!(text, "Name,        Index,  Last\na-long-name, 1,      x\n");
    }

    #[test]
    fn tables_are_known_by_their_paths() {
        assert_eq!(Table::of("dump_requests", true), Some(Table::Requests { details: true }));
        assert_eq!(Table::of("dump_everything", false), None);
    }
}
