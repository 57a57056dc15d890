//! Moves one request to a backend and its answer back.
//!
//! An answer of 101 turns both connections into byte streams that are copied until either side ends. Nothing is
//! parsed beyond HTTP/1.1.

use axum::body::Body;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::dial::{Dialer, Endpoint};
use crate::error::ApiError;

/// Buffer of each direction of an upgraded connection.
const COPY_BUFFER_BYTES: usize = 32 * 1024;

/// Headers that belong to one connection and are never passed on (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Whether a request asks for an upgrade.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    let names_upgrade = |value: &HeaderValue| {
        value.to_str().is_ok_and(|v| v.split(',').any(|token| token.trim().eq_ignore_ascii_case("upgrade")))
    };
    headers.contains_key(header::UPGRADE) && headers.get_all(header::CONNECTION).iter().any(names_upgrade)
}

/// Sends a request to `path` on the backend and relays what comes back.
pub async fn forward(
    dialer: &Dialer,
    endpoint: &Endpoint,
    parts: Parts,
    body: Body,
    path: &str,
) -> Result<Response<Body>, ApiError> {
    let (passage, mut request) = Passage::begin(parts, body, path)?;
    let host = std::net::SocketAddr::new(endpoint.address, endpoint.port).to_string();
    request.headers_mut().insert(header::HOST, HeaderValue::from_str(&host).map_err(ApiError::internal)?);
    let stream = dialer.dial(endpoint).await?;
    let failed = |e: hyper::Error| endpoint.unreachable(format!("error sending the request: {e}"));
    let (mut sender, connection) = http1::handshake::<_, Body>(TokioIo::new(stream)).await.map_err(failed)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "backend connection ended");
        }
    });
    let answer = sender.send_request(request).await.map_err(failed)?;
    // The sender must outlive the answer, or the connection would end under it.
    passage.end(answer.map(Body::new), sender)
}

/// A request on its way to a backend: what its answer has to do with.
pub struct Passage {
    client_side: Option<OnUpgrade>,
    is_head: bool,
}

// === impl Passage ===

impl Passage {
    /// The request as the backend gets it, but for its `Host`.
    pub fn begin(mut parts: Parts, body: Body, path: &str) -> Result<(Self, Request<Body>), ApiError> {
        let upgrade =
            is_upgrade(&parts.headers).then(|| parts.headers.get(header::UPGRADE).cloned()).flatten();
        let client_side = upgrade.is_some().then(|| parts.extensions.remove::<OnUpgrade>()).flatten();
        let is_head = parts.method == Method::HEAD;
        let mut request = Request::new(body);
        *request.method_mut() = parts.method;
        *request.uri_mut() =
            path.parse().map_err(|_| ApiError::bad_request("the path to pass on is no valid URL"))?;
        let headers = request.headers_mut();
        *headers = parts.headers;
        remove_hop_by_hop(headers);
        if let Some(protocol) = upgrade {
            headers.insert(header::UPGRADE, protocol);
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        }
        Ok((Self { client_side, is_head }, request))
    }

    /// The answer as the client gets it. `kept` is held until the answer's body or the upgraded connection ends.
    pub fn end<K: Send + 'static>(
        self,
        mut answer: Response<Body>,
        kept: K,
    ) -> Result<Response<Body>, ApiError> {
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            let (mut head, body) = answer.into_parts();
            remove_hop_by_hop(&mut head.headers);
            head.version = Version::HTTP_11;
            head.extensions.clear();
            let body = if self.is_head { Body::empty() } else { body };
            return Ok(Response::from_parts(head, held(body, kept)));
        }
        let Some(client_side) = self.client_side else {
            return Err(ApiError::internal("the backend switched protocols, but this connection cannot"));
        };
        let backend_side = hyper::upgrade::on(&mut answer);
        tokio::spawn(async move {
            let _kept = kept;
            match tokio::try_join!(client_side, backend_side) {
                Ok((client, backend)) => {
                    let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
                    let copied = tokio::io::copy_bidirectional_with_sizes(
                        &mut client,
                        &mut backend,
                        COPY_BUFFER_BYTES,
                        COPY_BUFFER_BYTES,
                    );
                    if let Err(error) = copied.await {
                        tracing::debug!(%error, "upgraded connection ended");
                    }
                }
                Err(error) => tracing::debug!(%error, "upgrade failed"),
            }
        });
        let (mut head, _) = answer.into_parts();
        head.extensions.clear();
        Ok(Response::from_parts(head, Body::empty()))
    }
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// A body together with what keeps its connection open.
fn held<K: Send + 'static>(body: Body, kept: K) -> Body {
    Body::from_stream(futures::StreamExt::map(body.into_data_stream(), move |chunk| {
        let _ = &kept;
        chunk
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_headers_stay_on_their_connection() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "X-Hop, close"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("x-stream-protocol-version", "v4"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(|k| k.as_str()).collect::<Vec<_>>(), ["x-stream-protocol-version"]);
    }

    #[test]
    fn an_upgrade_needs_both_headers() {
        let mut headers = HeaderMap::new();
        headers.insert(header::UPGRADE, "SPDY/3.1".parse().unwrap());
        assert!(!is_upgrade(&headers));
        headers.insert(header::CONNECTION, "keep-alive, Upgrade".parse().unwrap());
        assert!(is_upgrade(&headers));
    }
}
