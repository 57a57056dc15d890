//! What a request is about, read from its method, path and query alone.
//!
//! Authentication, authorisation, metrics and routing all speak of a request in these words, so they are read once.
//! Must not know which kinds exist: whether `/api/v1/widgets` is served is the router's business.

use http::Method;

use super::query::{Query, decode};

/// A request in the API's own words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether the path names an API resource; otherwise only `verb` and `path` mean anything.
    pub is_resource: bool,
    /// `get list watch create update patch delete deletecollection`, or the lower-case method of a plain path.
    pub verb: String,
    /// The path as received (not decoded).
    pub path: String,
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    /// Plural name, e.g. `pods`.
    pub resource: String,
    /// Empty when there is none.
    pub subresource: String,
    /// Empty for cluster-scoped requests and for lists over all namespaces.
    pub namespace: String,
    /// Empty for collections, unless a `metadata.name` field selector names one object.
    pub name: String,
    /// What follows the subresource, not decoded, without a leading slash: the path a proxy passes on.
    pub remainder: String,
    /// Whether the deprecated `/watch/` prefix was used.
    pub watch_prefix: bool,
}

/// Segments after `/namespaces/<name>` that are subresources of the namespace rather than resources inside it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// Subresources whose connections stay open at the client's will.
const LONG_RUNNING_SUBRESOURCES: [&str; 5] = ["attach", "exec", "proxy", "log", "portforward"];

// === impl RequestInfo ===

impl RequestInfo {
    /// Reads a request line. Every path is something; what is not a resource is a plain path.
    pub fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let plain =
            Self { verb: method.as_str().to_ascii_lowercase(), path: path.to_owned(), ..Self::default() };
        let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let group = match parts.first() {
            Some(&"api") if parts.len() >= 3 => String::new(),
            Some(&"apis") if parts.len() >= 4 => decode(parts.remove(1), false),
            _ => return plain,
        };
        let mut info = Self { is_resource: true, group, version: decode(parts[1], false), ..plain };
        let mut rest = &parts[2..];
        let mut verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        };
        if rest[0] == "watch" {
            if rest.len() < 2 {
                return Self { verb: info.verb, path: info.path, ..Self::default() };
            }
            info.watch_prefix = true;
            verb = "watch";
            rest = &rest[1..];
        }
        if rest[0] == "namespaces" && rest.len() > 1 {
            info.namespace = decode(rest[1], false);
            if rest.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&rest[2]) {
                rest = &rest[2..];
            }
        }
        info.resource = decode(rest[0], false);
        info.name = rest.get(1).map(|part| decode(part, false)).unwrap_or_default();
        info.subresource = rest.get(2).map(|part| decode(part, false)).unwrap_or_default();
        if rest.len() > 3 {
            info.remainder = rest[3..].join("/");
        }
        if !info.remainder.is_empty() && path.ends_with('/') {
            info.remainder.push('/');
        }
        if info.name.is_empty() {
            verb = match verb {
                "get" if query.flag("watch") => "watch",
                "get" => "list",
                "delete" => "deletecollection",
                other => other,
            };
            // Authorisation by resourceNames covers lists and watches of one named object.
            if matches!(verb, "list" | "watch" | "deletecollection")
                && let Some(name) = query.text("fieldSelector").and_then(selected_name)
            {
                info.name = name;
            }
        }
        info.verb = verb.to_owned();
        info
    }

    /// Whether the request may outlive the request timeout.
    pub fn is_long_running(&self) -> bool {
        self.is_resource
            && (self.verb == "watch" || LONG_RUNNING_SUBRESOURCES.contains(&self.subresource.as_str()))
    }

    /// Whether it may change something.
    pub fn is_mutating(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch" | "head" | "options")
    }

    /// `cluster`, `namespace`, `resource` or empty: the `scope` label of the request metrics.
    pub fn scope(&self) -> &'static str {
        match (self.is_resource, self.name.is_empty(), self.namespace.is_empty()) {
            (false, ..) => "",
            (true, false, _) => "resource",
            (true, true, false) => "namespace",
            (true, true, true) => "cluster",
        }
    }

    /// The object's name as the path gave it: collections addressed by a field selector have none.
    pub fn path_name(&self) -> Option<&str> {
        let collection = matches!(self.verb.as_str(), "list" | "deletecollection")
            || (self.verb == "watch" && !self.watch_prefix);
        (!collection && !self.name.is_empty()).then_some(self.name.as_str())
    }
}

/// The one name a field selector pins, e.g. `metadata.name=web`.
fn selected_name(selector: &str) -> Option<String> {
    selector.split(',').find_map(|term| {
        let value = term.trim().strip_prefix("metadata.name=")?;
        let value = value.strip_prefix('=').unwrap_or(value);
        (!value.is_empty()).then(|| value.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `verb group/version resource/sub ns name +remainder`, with `-` for what is empty.
    fn told(method: Method, url: &str) -> String {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let info = RequestInfo::parse(&method, path, &Query::parse(query));
        if !info.is_resource {
            return format!("plain {}", info.verb);
        }
        let or_dash = |s: &str| {
            if s.is_empty() { "-".to_owned() } else { s.to_owned() }
        };
        format!(
            "{} {}/{} {}/{} {} {} +{}",
            info.verb,
            or_dash(&info.group),
            info.version,
            info.resource,
            or_dash(&info.subresource),
            or_dash(&info.namespace),
            or_dash(&info.name),
            info.remainder
        )
    }

    #[test]
    fn paths_are_read_like_upstreams() {
        let table = [
            (Method::GET, "/", "plain get"),
            (Method::GET, "/healthz", "plain get"),
            (Method::GET, "/api", "plain get"),
            (Method::GET, "/api/v1", "plain get"),
            (Method::GET, "/apis/apps/v1", "plain get"),
            (Method::POST, "/apis/apps", "plain post"),
            (Method::GET, "/api/v1/watch", "plain get"),
            (Method::GET, "/api/v1/pods", "list -/v1 pods/- - - +"),
            (Method::HEAD, "/api/v1/pods/", "list -/v1 pods/- - - +"),
            (Method::GET, "/api/v1/pods?watch=true", "watch -/v1 pods/- - - +"),
            (Method::GET, "/api/v1/namespaces", "list -/v1 namespaces/- - - +"),
            (Method::GET, "/api/v1/namespaces/a", "get -/v1 namespaces/- a a +"),
            (Method::PUT, "/api/v1/namespaces/a/finalize", "update -/v1 namespaces/finalize a a +"),
            (Method::PATCH, "/api/v1/namespaces/a/status", "patch -/v1 namespaces/status a a +"),
            (Method::GET, "/api/v1/namespaces/a/pods", "list -/v1 pods/- a - +"),
            (Method::POST, "/api/v1/namespaces/a/pods", "create -/v1 pods/- a - +"),
            (Method::DELETE, "/api/v1/namespaces/a/pods", "deletecollection -/v1 pods/- a - +"),
            (Method::DELETE, "/api/v1/namespaces/a/pods/p", "delete -/v1 pods/- a p +"),
            (Method::GET, "/api/v1/namespaces/a/pods/p/log", "get -/v1 pods/log a p +"),
            (Method::POST, "/api/v1/namespaces/a/pods/p/exec", "create -/v1 pods/exec a p +"),
            (
                Method::GET,
                "/api/v1/namespaces/a/pods/p:8080/proxy/x/y/",
                "get -/v1 pods/proxy a p:8080 +x/y/",
            ),
            (Method::GET, "/api/v1/nodes/n/proxy/metrics", "get -/v1 nodes/proxy - n +metrics"),
            (
                Method::GET,
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                "get apps/v1 deployments/scale a d +",
            ),
            (Method::GET, "/api/v1/watch/namespaces/a/pods/p", "watch -/v1 pods/- a p +"),
            (Method::GET, "/api/v1/watch/pods", "watch -/v1 pods/- - - +"),
            (
                Method::GET,
                "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dp",
                "list -/v1 pods/- a p +",
            ),
        ];
        for (method, url, want) in table {
            assert_eq!(told(method.clone(), url), want, "{method} {url}");
        }
    }

    #[test]
    fn a_selected_name_authorises_but_does_not_route() {
        let query = Query::parse("fieldSelector=metadata.name==p,status.phase=Running");
        let info = RequestInfo::parse(&Method::GET, "/api/v1/namespaces/a/pods", &query);
        assert_eq!((info.name.as_str(), info.path_name()), ("p", None));
    }

    #[test]
    fn hostile_paths_are_something() {
        for path in ["", "//", "/api//", "/apis////", "/api/v1/namespaces//pods", "/api/v1/watch//"] {
            RequestInfo::parse(&Method::GET, path, &Query::default());
        }
    }
}
