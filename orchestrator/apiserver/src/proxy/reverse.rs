//! `pods/proxy` and `services/proxy`: HTTP to a pod's address.
//!
//! The name in the path may be `[scheme:]name[:port]`; a service's request goes to one of its ready endpoints.

use std::net::IpAddr;

use axum::body::Body;
use http::{HeaderValue, Method, Response, StatusCode, header};
use serde_json::Value;

use super::dial::{Endpoint, Security};
use super::{Kind, Proxies, links, location, relay};
use crate::error::ApiError;
use crate::outbound::endpoints;
use crate::registry::{Context, ListOptions, Target};
use crate::server::chain::Call;

/// `[scheme:]name[:port]`.
#[derive(Debug, PartialEq, Eq)]
struct Name<'a> {
    secure: bool,
    name: &'a str,
    port: &'a str,
}

/// Passes a request on to a pod or a service.
pub(crate) async fn serve(
    proxies: &Proxies,
    call: Call,
    body: Body,
    kind: Kind,
) -> Result<Response<Body>, ApiError> {
    let path = call.parts.uri.path();
    if call.info.remainder.is_empty()
        && !path.ends_with('/')
        && matches!(call.parts.method, Method::GET | Method::HEAD)
    {
        return redirect(&location::with_query(&format!("{path}/"), call.parts.uri.query()));
    }
    let namespace = &call.info.namespace;
    let resource = if kind == Kind::PodProxy { "pods" } else { "services" };
    let wanted = Name::parse(&call.info.name)
        .ok_or_else(|| ApiError::bad_request(format!("invalid {resource} request {:?}", call.info.name)))?;
    let (address, port) = match kind {
        Kind::PodProxy => pod(proxies, namespace, &wanted).await?,
        _ => service(proxies, namespace, &wanted).await?,
    };
    let security = if wanted.secure { Security::Unverified } else { Security::Plain };
    let target = location::with_query(&format!("/{}", call.info.remainder), call.parts.uri.query());
    let prefix = path.strip_suffix(&call.info.remainder).unwrap_or(path).trim_end_matches('/').to_owned();
    let endpoint = Endpoint { address, port, security };
    let response = relay::forward(proxies.dialer(), &endpoint, call.parts, body, &target).await?;
    Ok(links::through(response, &prefix))
}

// === impl Name ===

impl<'a> Name<'a> {
    fn parse(raw: &'a str) -> Option<Self> {
        let parts: Vec<&str> = raw.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("http", *name, ""),
            [name, port] => ("http", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        let secure = match scheme {
            "" | "http" => false,
            "https" => true,
            _ => return None,
        };
        (!name.is_empty()).then_some(Self { secure, name, port })
    }
}

fn redirect(to: &str) -> Result<Response<Body>, ApiError> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let to = HeaderValue::from_str(to).map_err(|_| ApiError::bad_request("the path is no valid URL"))?;
    response.headers_mut().insert(header::LOCATION, to);
    Ok(response)
}

async fn pod(proxies: &Proxies, namespace: &str, wanted: &Name<'_>) -> Result<(IpAddr, u16), ApiError> {
    let pod = proxies.find("pods", Some(namespace), wanted.name).await?.value();
    let address = pod.pointer("/status/podIP").and_then(Value::as_str).and_then(|a| a.parse().ok());
    let address = address.ok_or_else(|| ApiError::internal("address not allowed"))?;
    let port = if wanted.port.is_empty() {
        let containers = pod.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten();
        let declared =
            containers.flat_map(|c| c.get("ports").and_then(Value::as_array).into_iter().flatten());
        declared.filter_map(|p| endpoints::port_number(p.get("containerPort"))).next().unwrap_or(80)
    } else {
        wanted
            .port
            .parse()
            .map_err(|_| ApiError::bad_request(format!("invalid pod port {:?}", wanted.port)))?
    };
    Ok((address, port))
}

async fn service(proxies: &Proxies, namespace: &str, wanted: &Name<'_>) -> Result<(IpAddr, u16), ApiError> {
    let service = proxies.find("services", Some(namespace), wanted.name).await?.value();
    let unavailable = || {
        let name = if wanted.port.is_empty() {
            wanted.name.to_owned()
        } else {
            format!("{}:{}", wanted.name, wanted.port)
        };
        ApiError::unavailable(format!("no endpoints available for service {name:?}"))
    };
    let port_name = endpoints::port_name(&service, wanted.port).ok_or_else(|| {
        ApiError::unavailable(format!(
            "no service port {:?} found for service {:?}",
            wanted.port, wanted.name
        ))
    })?;
    let definition = proxies
        .registry()
        .find("discovery.k8s.io", "v1", "endpointslices")
        .ok_or_else(ApiError::no_such_path)?;
    let options = ListOptions {
        label_selector: Some(format!("kubernetes.io/service-name={}", wanted.name)),
        ..ListOptions::default()
    };
    let target = Target::collection(Some(namespace));
    let slices = proxies.registry().list(&Context::system(), &definition, &target, &options).await?;
    let ready: Vec<(IpAddr, u16)> =
        slices.items.iter().flat_map(|slice| endpoints::ready(&slice.value(), &port_name)).collect();
    if ready.is_empty() {
        return Err(unavailable());
    }
    Ok(ready[rand::random_range(0..ready.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_carry_scheme_and_port() {
        let parsed = |raw: &'static str| Name::parse(raw).map(|n| (n.secure, n.name, n.port));
        assert_eq!(parsed("web"), Some((false, "web", "")));
        assert_eq!(parsed("web:80"), Some((false, "web", "80")));
        assert_eq!(parsed("https:web:443"), Some((true, "web", "443")));
        assert_eq!(parsed("https:web:"), Some((true, "web", "")));
        assert_eq!(parsed("ftp:web:21"), None);
        assert_eq!(parsed(":"), None);
    }
}
