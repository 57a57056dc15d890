//! `/containerLogs`: finds the container's log file and streams it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use penstock_runtime::ContainerState;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Refusal, find_container};
use crate::context::Context;
use crate::logs::{self, Options};

const CHUNKS_MAX: usize = 64;

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct LogQuery {
    follow: Option<String>,
    previous: Option<String>,
    timestamps: Option<String>,
    tail_lines: Option<i64>,
    since_seconds: Option<i64>,
    since_time: Option<String>,
    limit_bytes: Option<i64>,
    stream: Option<String>,
}

fn yes(value: &Option<String>) -> bool {
    matches!(value.as_deref(), Some("true" | "1" | "True" | "TRUE" | "t" | "T"))
}

fn options(query: &LogQuery, now: Timestamp) -> Result<Options, Refusal> {
    let bad = |what: &str| Refusal(StatusCode::UNPROCESSABLE_ENTITY, format!("{what} is not valid"));
    let since = match (&query.since_time, query.since_seconds) {
        (Some(time), _) => Some(time.parse().map_err(|_| bad("sinceTime"))?),
        (None, Some(seconds)) => Some(now - SignedDuration::from_secs(seconds.clamp(0, 1 << 32))),
        (None, None) => None,
    };
    let count =
        |value: Option<i64>, what: &str| value.map(|v| usize::try_from(v).map_err(|_| bad(what))).transpose();
    Ok(Options {
        follow: yes(&query.follow),
        tail: count(query.tail_lines, "tailLines")?,
        since,
        timestamps: yes(&query.timestamps),
        limit_bytes: count(query.limit_bytes, "limitBytes")?,
        stream: query.stream.clone(),
    })
}

pub(super) async fn container_logs(
    State(context): State<Arc<Context>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Refusal> {
    let options = options(&query, Timestamp::now())?;
    let found = find_container(&context, &namespace, &pod, &container, yes(&query.previous)).await?;
    let status = context.runtime.container_status(&found.id).await?;
    if status.state == ContainerState::Created {
        let words = format!("container \"{container}\" in pod \"{pod}\" is waiting to start");
        return Err(Refusal(StatusCode::BAD_REQUEST, words));
    }
    let (sender, chunks) = mpsc::channel::<Bytes>(CHUNKS_MAX);
    let (runtime, id) = (context.runtime.clone(), found.id);
    tokio::spawn(async move {
        let ended = || async {
            !matches!(runtime.container_status(&id).await, Ok(s) if s.state == ContainerState::Running)
        };
        if let Err(error) = logs::follow(status.log_path.into(), options, sender.clone(), ended).await {
            let words = format!("failed to open the log of container {container}: {error}\n");
            let _ = sender.send(Bytes::from(words)).await;
        }
    });
    let stream = ReceiverStream::new(chunks).map(Ok::<_, std::convert::Infallible>);
    let response = Response::builder().header("Content-Type", "text/plain").body(Body::from_stream(stream));
    response.map_err(|e| Refusal(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}
