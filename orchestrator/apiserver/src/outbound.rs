//! Requests the API server makes itself: to webhooks, to converters of custom kinds, to extension API servers.
//!
//! A [`Target`] says where and whom to trust; [`endpoints`] finds the addresses of a Service, [`transport`] keeps
//! connections, [`exchange`] posts one JSON document for another. Knows nothing of what is being asked.

pub(crate) mod endpoints;
pub(crate) mod exchange;
pub mod kubeconfig;
pub(crate) mod transport;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use http::{HeaderValue, Request, Response, Uri, header};
use parking_lot::Mutex;

use crate::registry::Registry;
use transport::{Client, ClientKey};

/// As many different (server name, trust, identity) triples are remembered; one more forgets them all.
const CLIENTS_MAX: usize = 200;

/// Whom a request goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub address: Address,
    pub trust: Trust,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// One of the ready endpoints of a Service, which shows a certificate for `name.namespace.svc`.
    Service { namespace: String, name: String, port: u16 },
    /// A host (name or address) outside of the cluster's Services.
    Host { host: String, port: u16 },
}

/// Which certificates a server may show.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Trust {
    /// Signed by one of these (PEM); by one of the machine's authorities when empty.
    Authorities(Arc<[u8]>),
    /// Any: what somebody asked for by `insecureSkipTLSVerify`.
    Anyone,
}

/// Our own certificate and key (PEM), for servers that ask who calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub certificate_pem: Vec<u8>,
    pub key_pem: Vec<u8>,
}

/// Why nobody answered, or not with what was asked for. Messages end those of admission and conversion.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CallError {
    #[error("service {name:?} not found")]
    NoService { name: String },
    #[error("unsupported service type {kind:?}")]
    ServiceType { kind: String },
    #[error("no service port {port} found for service {name:?}")]
    NoPort { name: String, port: u16 },
    #[error("no endpoints available for service {name:?}")]
    NoEndpoints { name: String },
    #[error("{what}: {why}")]
    Trust { what: &'static str, why: String },
    #[error("{why}")]
    Connection { why: String },
    #[error("context deadline exceeded")]
    Deadline,
    #[error("the server answered with {code}{}", shown(.text))]
    Refused { code: u16, text: String },
    #[error("the answer has more than {bytes_max} bytes")]
    TooLarge { bytes_max: usize },
    #[error("the answer is not JSON: {why}")]
    NotJson { why: String },
}

fn shown(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text:?})") }
}

/// The clients there are. One for the whole server, so that everybody shares connections.
#[derive(Default)]
pub(crate) struct Outbound {
    clients: Mutex<std::collections::HashMap<ClientKey, Client>>,
}

// === impl Target ===

impl Target {
    /// The name in the server's certificate, which is also the host it is asked as.
    pub(crate) fn server_name(&self) -> String {
        match &self.address {
            Address::Service { namespace, name, .. } => format!("{name}.{namespace}.svc"),
            Address::Host { host, .. } => host.clone(),
        }
    }

    /// `host:port` as it is asked for.
    pub(crate) fn authority(&self) -> String {
        let port = match &self.address {
            Address::Service { port, .. } | Address::Host { port, .. } => port,
        };
        let name = self.server_name();
        if name.contains(':') { format!("[{name}]:{port}") } else { format!("{name}:{port}") }
    }

    /// Reads the URL of a client configuration: the target and the path to ask for.
    pub(crate) fn of_url(url: &str, authorities: &[u8]) -> Option<(Self, String)> {
        let uri: Uri = url.parse().ok()?;
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let address = Address::Host { host, port: uri.port_u16().unwrap_or(443) };
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        (uri.scheme_str() == Some("https"))
            .then(|| (Self { address, trust: Trust::Authorities(authorities.into()) }, path))
    }
}

// === impl Outbound ===

impl Outbound {
    /// Sends a request, whose URI is a path, over a kept or a new connection. The caller bounds its time.
    pub(crate) async fn send(
        &self,
        registry: &Registry,
        target: &Target,
        identity: Option<&Arc<Identity>>,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, CallError> {
        let destination = match &target.address {
            Address::Service { namespace, name, port } => {
                endpoints::of_service(registry, namespace, name, *port).await?.to_string()
            }
            Address::Host { .. } => target.authority(),
        };
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let unusable = |why: String| CallError::Connection { why };
        *request.uri_mut() = Uri::builder()
            .scheme("https")
            .authority(destination)
            .path_and_query(path)
            .build()
            .map_err(|e| unusable(e.to_string()))?;
        let host = HeaderValue::from_str(&target.authority()).map_err(|e| unusable(e.to_string()))?;
        request.headers_mut().insert(header::HOST, host);
        let answer = self.client(target, identity)?.request(request).await;
        answer.map(|response| response.map(Body::new)).map_err(|e| unusable(transport::reason(&e)))
    }

    fn client(&self, target: &Target, identity: Option<&Arc<Identity>>) -> Result<Client, CallError> {
        let key = ClientKey {
            server_name: target.server_name(),
            trust: target.trust.clone(),
            identity: identity.cloned(),
        };
        if let Some(client) = self.clients.lock().get(&key) {
            return Ok(client.clone());
        }
        let client = transport::client(&key)?;
        let mut clients = self.clients.lock();
        if clients.len() >= CLIENTS_MAX {
            clients.clear();
        }
        // An identity that was shown before is not shown again.
        clients.retain(|it, _| !key.replaces(it));
        clients.insert(key, client.clone());
        Ok(client)
    }
}

/// Whether a URL is one of HTTPS with a host.
pub(crate) fn is_https(url: &str) -> bool {
    Target::of_url(url, b"").is_some()
}

/// An address a Service's request can go to.
pub(crate) type Endpoint = SocketAddr;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_give_host_port_and_path() {
        let read = |url: &str| Target::of_url(url, b"").map(|(target, path)| (target.authority(), path));
        assert_eq!(read("https://a.example:8443/x/y"), Some(("a.example:8443".into(), "/x/y".into())));
        assert_eq!(read("https://a.example"), Some(("a.example:443".into(), "/".into())));
        assert_eq!(read("https://[::1]:99/"), Some(("[::1]:99".into(), "/".into())));
        assert_eq!(read("http://a.example"), None);
        assert_eq!(read("nonsense"), None);
    }

    #[test]
    fn services_are_asked_under_the_name_of_their_certificate() {
        let address = Address::Service { namespace: "n".into(), name: "s".into(), port: 443 };
        let target = Target { address, trust: Trust::Anyone };
        assert_eq!(target.authority(), "s.n.svc:443");
    }
}
