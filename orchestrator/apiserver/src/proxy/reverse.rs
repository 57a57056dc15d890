//! `pods/proxy` and `services/proxy`: HTTP to a pod's address.
//!
//! The name in the path may be `[scheme:]name[:port]`; a service's request goes to one of its ready endpoints.

use std::net::IpAddr;

use axum::body::Body;
use http::{HeaderValue, Method, Response, StatusCode, header};
use serde_json::Value;

use super::dial::{Endpoint, Security};
use super::{Kind, Proxies, location, relay};
use crate::error::ApiError;
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
    relay::forward(proxies.dialer(), &Endpoint { address, port, security }, call.parts, body, &target).await
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
        declared.filter_map(|p| port_number(p.get("containerPort"))).next().unwrap_or(80)
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
    let port_name = service_port_name(&service, wanted.port).ok_or_else(|| {
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
        slices.items.iter().flat_map(|slice| ready_endpoints(&slice.value(), &port_name)).collect();
    if ready.is_empty() {
        return Err(unavailable());
    }
    Ok(ready[rand::random_range(0..ready.len())])
}

/// The name of the port `wanted` (a name, a number, or nothing when there is but one) means.
fn service_port_name(service: &Value, wanted: &str) -> Option<String> {
    let ports = service.pointer("/spec/ports")?.as_array()?;
    let name = |port: &Value| port.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    if wanted.is_empty() {
        // Upstream takes the unnamed port, or the only one.
        return ports
            .iter()
            .find(|p| name(p).is_empty())
            .or(if ports.len() == 1 { ports.first() } else { None })
            .map(name);
    }
    let by_number = wanted.parse::<u16>().ok();
    ports
        .iter()
        .find(|p| name(p) == wanted || (by_number.is_some() && port_number(p.get("port")) == by_number))
        .map(name)
}

fn ready_endpoints(slice: &Value, port_name: &str) -> Vec<(IpAddr, u16)> {
    let list = |key: &str| slice.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let port = list("ports").iter().find_map(|p| {
        let name = p.get("name").and_then(Value::as_str).unwrap_or_default();
        (name == port_name).then(|| port_number(p.get("port"))).flatten()
    });
    let Some(port) = port else { return Vec::new() };
    list("endpoints")
        .iter()
        .filter(|e| e.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true))
        .filter_map(|e| e.pointer("/addresses/0")?.as_str()?.parse().ok())
        .map(|address| (address, port))
        .collect()
}

fn port_number(value: Option<&Value>) -> Option<u16> {
    value.and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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

    #[test]
    fn only_ready_endpoints_of_the_right_port_are_taken() {
        let slice = json!({
            "ports": [{"name": "http", "port": 8080}, {"name": "admin", "port": 9090}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}}]});
        assert_eq!(ready_endpoints(&slice, "http"), [("10.0.0.1".parse().unwrap(), 8080)]);
        assert!(ready_endpoints(&slice, "other").is_empty());
    }

    #[test]
    fn a_service_port_is_found_by_name_or_number() {
        let service =
            json!({"spec": {"ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 90}]}});
        assert_eq!(service_port_name(&service, "http").as_deref(), Some("http"));
        assert_eq!(service_port_name(&service, "90").as_deref(), Some("admin"));
        assert_eq!(service_port_name(&service, ""), None);
        assert_eq!(service_port_name(&service, "91"), None);
    }
}
