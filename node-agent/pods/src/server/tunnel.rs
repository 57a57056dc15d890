//! Hands an upgraded connection over to the runtime's streaming server.
//!
//! The runtime speaks SPDY/3.1 and the older WebSocket protocols; those are passed through byte for byte, the
//! handshake repeated on its side. Version 5 of the WebSocket protocol ends here, in `channels`. A client that offers
//! none of them is refused before the upgrade, and may fall back to SPDY.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper_util::rt::TokioIo;
use penstock_runtime::StreamOptions;
use tokio::net::TcpStream;

use super::{Refusal, channels};

/// WebSocket subprotocols of remote commands the runtime understands.
const RUNTIME_PROTOCOLS: [&str; 4] =
    ["v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io"];
const RELAY_BUFFER_BYTES: usize = 32 * 1024;

fn bad_gateway(error: impl std::fmt::Display) -> Refusal {
    Refusal(StatusCode::BAD_GATEWAY, format!("streaming server of the container runtime: {error}"))
}

fn refuse(words: &str) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, words.to_string())
}

fn upgrade(headers: &HeaderMap) -> String {
    headers.get(header::UPGRADE).and_then(|v| v.to_str().ok()).unwrap_or_default().to_ascii_lowercase()
}

fn offered(headers: &HeaderMap) -> Vec<String> {
    let all = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    all.flat_map(|v| v.split(',')).map(|p| p.trim().to_string()).collect()
}

/// exec and attach.
pub(super) async fn remote_command(
    request: Request,
    url: &str,
    streams: StreamOptions,
) -> Result<Response, Refusal> {
    match upgrade(request.headers()).as_str() {
        "websocket" => {
            let offered = offered(request.headers());
            if offered.iter().any(|p| p == channels::PROTOCOL) {
                return channels::remote_command(request, url, streams).await;
            }
            let common: Vec<&str> =
                RUNTIME_PROTOCOLS.into_iter().filter(|p| offered.iter().any(|o| o == p)).collect();
            if common.is_empty() && !offered.is_empty() {
                return Err(refuse(&format!(
                    "none of the protocols offered is spoken here: {}",
                    offered.join(", ")
                )));
            }
            pass_through(request, url, Some(common.join(", "))).await
        }
        "spdy/3.1" => pass_through(request, url, None).await,
        _ => Err(refuse("an upgrade to SPDY/3.1 or WebSocket is needed")),
    }
}

/// port-forward.
pub(super) async fn port_forward(request: Request, url: &str, ports: &[u16]) -> Result<Response, Refusal> {
    match upgrade(request.headers()).as_str() {
        "websocket" => {
            let offered = offered(request.headers());
            if offered.iter().any(|p| p == super::tunnel_spdy::PROTOCOL) {
                return super::tunnel_spdy::serve(request, url).await;
            }
            if offered.iter().any(|p| p == channels::PROTOCOL) {
                return channels::port_forward(request, url, ports).await;
            }
            pass_through(request, url, Some(offered.join(", "))).await
        }
        "spdy/3.1" => pass_through(request, url, None).await,
        _ => Err(refuse("an upgrade to SPDY/3.1 or WebSocket is needed")),
    }
}

/// Host, port and path of a runtime's URL.
pub(super) fn split_url(url: &str) -> Option<(String, String)> {
    let uri: http::Uri = url.parse().ok()?;
    // A bare word parses as an authority; only a whole URL is one of ours.
    uri.scheme_str().filter(|scheme| *scheme == "http")?;
    let authority = uri.authority()?;
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let port = authority.port_u16().unwrap_or(80);
    Some((format!("{}:{port}", authority.host()), path.to_string()))
}

/// Opens the runtime's side of a session: sends the upgrade, returns the answer's headers and the connection.
pub(super) async fn dial(
    url: &str,
    method: http::Method,
    headers: HeaderMap,
) -> Result<(HeaderMap, hyper::upgrade::Upgraded), Refusal> {
    let (address, path) = split_url(url).ok_or_else(|| bad_gateway(format!("unusable URL {url}")))?;
    let stream = TcpStream::connect(&address).await.map_err(bad_gateway)?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(bad_gateway)?;
    tokio::spawn(connection.with_upgrades());
    let mut outward =
        http::Request::builder().method(method).uri(path).body(Body::empty()).map_err(bad_gateway)?;
    *outward.headers_mut() = headers;
    outward.headers_mut().insert(header::HOST, HeaderValue::from_str(&address).map_err(bad_gateway)?);
    let answer = sender.send_request(outward).await.map_err(bad_gateway)?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = answer.status();
        let body =
            http_body_util::BodyExt::collect(http_body_util::Limited::new(answer.into_body(), 64 * 1024))
                .await;
        let words = body.map(|b| String::from_utf8_lossy(&b.to_bytes()).into_owned()).unwrap_or_default();
        return Err(Refusal(status, words));
    }
    let headers = answer.headers().clone();
    let upgraded = hyper::upgrade::on(answer).await.map_err(bad_gateway)?;
    Ok((headers, upgraded))
}

async fn pass_through(
    mut request: Request,
    url: &str,
    protocols: Option<String>,
) -> Result<Response, Refusal> {
    let client = hyper::upgrade::on(&mut request);
    let mut headers = HeaderMap::new();
    for (name, value) in request.headers() {
        let keep = matches!(*name, header::UPGRADE | header::CONNECTION)
            || name.as_str().starts_with("sec-websocket-")
            || name.as_str() == "x-stream-protocol-version";
        if keep && *name != header::SEC_WEBSOCKET_PROTOCOL {
            headers.append(name.clone(), value.clone());
        }
    }
    if let Some(protocols) = protocols.filter(|p| !p.is_empty()) {
        headers
            .insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(&protocols).map_err(bad_gateway)?);
    }
    let (answer, runtime) = dial(url, request.method().clone(), headers).await?;
    tokio::spawn(async move {
        let Ok(client) = client.await else { return };
        let (mut client, mut runtime) = (TokioIo::new(client), TokioIo::new(runtime));
        let relay = tokio::io::copy_bidirectional_with_sizes(
            &mut client,
            &mut runtime,
            RELAY_BUFFER_BYTES,
            RELAY_BUFFER_BYTES,
        );
        if let Err(error) = relay.await {
            tracing::debug!(%error, "streaming session ended");
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = answer;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_url_is_split_into_address_and_path() {
        let want = ("127.0.0.1:4000".to_string(), "/exec/token?x=1".to_string());
        assert_eq!(split_url("http://127.0.0.1:4000/exec/token?x=1"), Some(want));
        assert_eq!(split_url("nonsense"), None);
    }
}
