//! exec, attach and port-forward: asks the runtime for a one-time URL and hands the connection over to it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::StatusCode;
use penstock_runtime::StreamOptions;

use super::{Refusal, find_running, find_sandbox, tunnel};
use crate::context::Context;

/// Ports of one forwarding session.
const PORTS_MAX: usize = 64;

#[derive(Debug, Default, PartialEq, Eq)]
struct StreamQuery {
    command: Vec<String>,
    streams: StreamOptions,
    ports: Vec<u16>,
}

/// Kubelets name the streams input, output and error; API servers pass stdin, stdout and stderr on as such.
fn parse(query: &str) -> StreamQuery {
    let mut parsed = StreamQuery::default();
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (decode(key), decode(value));
        let on = matches!(value.as_str(), "1" | "true" | "True" | "t");
        match key.as_str() {
            "command" => parsed.command.push(value),
            "input" | "stdin" => parsed.streams.stdin |= on,
            "output" | "stdout" => parsed.streams.stdout |= on,
            "error" | "stderr" => parsed.streams.stderr |= on,
            "tty" => parsed.streams.tty |= on,
            "port" | "ports" => parsed.ports.extend(value.split(',').filter_map(|p| p.parse::<u16>().ok())),
            _ => {}
        }
    }
    // A terminal has one stream for both.
    parsed.streams.stderr &= !parsed.streams.tty;
    parsed.ports.truncate(PORTS_MAX);
    parsed
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(b) = rest.next() {
        match b {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
                let (high, low) = (digit(rest.next()), digit(rest.next()));
                bytes.extend(high.zip(low).and_then(|(h, l)| u8::try_from(h * 16 + l).ok()));
            }
            b => bytes.push(b),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

type Named = Path<(String, String, String)>;
type NamedWithUid = Path<(String, String, String, String)>;

pub(super) async fn exec(
    state: State<Arc<Context>>,
    Path((ns, pod, name)): Named,
    request: Request,
) -> Result<Response, Refusal> {
    exec_in(&state, &ns, &pod, &name, request).await
}

pub(super) async fn exec_with_uid(
    state: State<Arc<Context>>,
    Path((ns, pod, _, name)): NamedWithUid,
    request: Request,
) -> Result<Response, Refusal> {
    exec_in(&state, &ns, &pod, &name, request).await
}

async fn exec_in(
    context: &Context,
    ns: &str,
    pod: &str,
    name: &str,
    request: Request,
) -> Result<Response, Refusal> {
    let query = parse(request.uri().query().unwrap_or_default());
    check_streams(&query)?;
    let container = find_running(context, ns, pod, name).await?;
    let url = context.runtime.exec_url(&container.id, &query.command, query.streams).await?;
    tunnel::remote_command(request, &url, query.streams).await
}

pub(super) async fn attach(
    state: State<Arc<Context>>,
    Path((ns, pod, name)): Named,
    request: Request,
) -> Result<Response, Refusal> {
    attach_in(&state, &ns, &pod, &name, request).await
}

pub(super) async fn attach_with_uid(
    state: State<Arc<Context>>,
    Path((ns, pod, _, name)): NamedWithUid,
    request: Request,
) -> Result<Response, Refusal> {
    attach_in(&state, &ns, &pod, &name, request).await
}

async fn attach_in(
    context: &Context,
    ns: &str,
    pod: &str,
    name: &str,
    request: Request,
) -> Result<Response, Refusal> {
    let mut query = parse(request.uri().query().unwrap_or_default());
    check_streams(&query)?;
    let container = find_running(context, ns, pod, name).await?;
    // What the container was created with decides, not what the caller wishes.
    if let Some(spec) = spec_of(context, ns, pod, name) {
        query.streams.tty = spec;
        query.streams.stderr &= !spec;
    }
    let url = context.runtime.attach_url(&container.id, query.streams).await?;
    tunnel::remote_command(request, &url, query.streams).await
}

fn spec_of(context: &Context, ns: &str, pod: &str, name: &str) -> Option<bool> {
    let pods = context.pods.lock();
    let desired = pods.values().find(|d| d.namespace == ns && d.name == pod)?;
    desired.container(name).map(|s| s.container.tty.unwrap_or(false))
}

fn check_streams(query: &StreamQuery) -> Result<(), Refusal> {
    let StreamOptions { stdin, stdout, stderr, .. } = query.streams;
    if stdin || stdout || stderr {
        return Ok(());
    }
    Err(Refusal(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr".into()))
}

pub(super) async fn port_forward(
    state: State<Arc<Context>>,
    Path((ns, pod)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    forward(&state, &ns, &pod, request).await
}

pub(super) async fn port_forward_with_uid(
    state: State<Arc<Context>>,
    Path((ns, pod, _)): Named,
    request: Request,
) -> Result<Response, Refusal> {
    forward(&state, &ns, &pod, request).await
}

async fn forward(context: &Context, ns: &str, pod: &str, request: Request) -> Result<Response, Refusal> {
    let query = parse(request.uri().query().unwrap_or_default());
    let sandbox = find_sandbox(context, ns, pod).await?;
    let url = context.runtime.port_forward_url(&sandbox, &query.ports).await?;
    tunnel::port_forward(request, &url, &query.ports).await
}

/// Runs a command to its end and answers with its output.
pub(super) async fn run(
    State(context): State<Arc<Context>>,
    Path((ns, pod, name)): Named,
    request: Request,
) -> Result<Vec<u8>, Refusal> {
    let query = request.uri().query().unwrap_or_default();
    let words =
        query.split('&').filter_map(|p| p.strip_prefix("cmd=")).map(decode).collect::<Vec<_>>().join(" ");
    let command: Vec<String> = words.split_whitespace().map(str::to_string).collect();
    let container = find_running(&context, &ns, &pod, &name).await?;
    let mut output = context.runtime.exec_sync(&container.id, &command, Duration::from_secs(60)).await?;
    output.stdout.extend(output.stderr);
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sets_of_names_are_understood() {
        let kubelet = parse("command=sh&command=-c&command=echo+a%20b%2B&input=1&output=1&error=1&tty=0");
        assert_eq!(kubelet.command, ["sh", "-c", "echo a b+"]);
        let api = parse("command=sh&stdin=true&stdout=true&stderr=true&tty=true");
        assert_eq!(api.streams, StreamOptions { stdin: true, stdout: true, stderr: false, tty: true });
        assert!(kubelet.streams.stderr && kubelet.streams.stdin);
        assert_eq!(parse("port=80&port=443").ports, [80, 443]);
    }
}
