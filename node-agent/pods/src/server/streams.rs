//! exec, attach and port-forward: asks the runtime for a one-time URL and hands the connection over to it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::StatusCode;
use penstock_runtime::{ContainerInfo, StreamOptions};
use serde::Deserialize;

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

/// The pod of a path. The pod's UID, which paths may have as well, is not looked at: a name is one pod at a time.
#[derive(Deserialize)]
pub(super) struct OfPod {
    namespace: String,
    pod: String,
}

/// The container of a path; see [`OfPod`].
#[derive(Deserialize)]
pub(super) struct OfContainer {
    namespace: String,
    pod: String,
    container: String,
}

impl OfContainer {
    async fn find(&self, context: &Context) -> Result<ContainerInfo, Refusal> {
        find_running(context, &self.namespace, &self.pod, &self.container).await
    }

    /// Whether it was made with a terminal.
    fn has_terminal(&self, context: &Context) -> Option<bool> {
        let pods = context.pods.lock();
        let desired = pods.values().find(|d| d.namespace == self.namespace && d.name == self.pod)?;
        desired.container(&self.container).map(|s| s.container.tty.unwrap_or(false))
    }
}

pub(super) async fn exec(
    State(context): State<Arc<Context>>,
    Path(of): Path<OfContainer>,
    request: Request,
) -> Result<Response, Refusal> {
    let query = parse(request.uri().query().unwrap_or_default());
    check_streams(&query)?;
    let container = of.find(&context).await?;
    let url = context.runtime.exec_url(&container.id, &query.command, query.streams).await?;
    tunnel::remote_command(request, &url, query.streams).await
}

pub(super) async fn attach(
    State(context): State<Arc<Context>>,
    Path(of): Path<OfContainer>,
    request: Request,
) -> Result<Response, Refusal> {
    let mut query = parse(request.uri().query().unwrap_or_default());
    check_streams(&query)?;
    let container = of.find(&context).await?;
    // What the container was created with decides, not what the caller wishes.
    if let Some(tty) = of.has_terminal(&context) {
        query.streams.tty = tty;
        query.streams.stderr &= !tty;
    }
    let url = context.runtime.attach_url(&container.id, query.streams).await?;
    tunnel::remote_command(request, &url, query.streams).await
}

fn check_streams(query: &StreamQuery) -> Result<(), Refusal> {
    let StreamOptions { stdin, stdout, stderr, .. } = query.streams;
    if stdin || stdout || stderr {
        return Ok(());
    }
    Err(Refusal(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr".into()))
}

pub(super) async fn port_forward(
    State(context): State<Arc<Context>>,
    Path(of): Path<OfPod>,
    request: Request,
) -> Result<Response, Refusal> {
    let query = parse(request.uri().query().unwrap_or_default());
    let sandbox = find_sandbox(&context, &of.namespace, &of.pod).await?;
    let url = context.runtime.port_forward_url(&sandbox, &query.ports).await?;
    tunnel::port_forward(request, &url, &query.ports).await
}

/// Runs a command to its end and answers with its output.
pub(super) async fn run(
    State(context): State<Arc<Context>>,
    Path(of): Path<OfContainer>,
    request: Request,
) -> Result<Vec<u8>, Refusal> {
    let query = request.uri().query().unwrap_or_default();
    let words =
        query.split('&').filter_map(|p| p.strip_prefix("cmd=")).map(decode).collect::<Vec<_>>().join(" ");
    let command: Vec<String> = words.split_whitespace().map(str::to_string).collect();
    let container = of.find(&context).await?;
    let mut output = context.runtime.exec_sync(&container.id, &command, Duration::from_secs(60)).await?;
    output.stdout.extend(output.stderr);
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    /// What a handler learns of a path on routes like the server's.
    async fn told(path: &str) -> String {
        async fn container(Path(of): Path<OfContainer>) -> String {
            format!("{}/{}/{}", of.namespace, of.pod, of.container)
        }
        async fn pod(Path(of): Path<OfPod>) -> String {
            format!("{}/{}", of.namespace, of.pod)
        }
        let routes = Router::new()
            .route("/exec/{namespace}/{pod}/{container}", get(container))
            .route("/exec/{namespace}/{pod}/{uid}/{container}", get(container))
            .route("/portForward/{namespace}/{pod}", get(pod))
            .route("/portForward/{namespace}/{pod}/{uid}", get(pod));
        let request = Request::builder().uri(path).body(axum::body::Body::empty()).unwrap();
        let body = routes.oneshot(request).await.unwrap().into_body();
        let bytes = axum::body::to_bytes(body, 1024).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_path_with_the_pods_uid_names_the_same_as_one_without() {
        assert_eq!(told("/exec/n/p/c").await, "n/p/c");
        assert_eq!(told("/exec/n/p/8a1f/c").await, "n/p/c");
        assert_eq!(told("/portForward/n/p").await, "n/p");
        assert_eq!(told("/portForward/n/p/8a1f").await, "n/p");
    }

    proptest::proptest! {
        #![proptest_config(crate::fuzz_cases(500))]

        #[test]
        fn any_query_asks_for_something(query in "[a-z=&%+,0-9]{0,60}", other in "\\PC{0,40}") {
            for query in [query, other] {
                let asked = parse(&query);
                assert!(asked.ports.len() <= PORTS_MAX);
            }
        }
    }

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
