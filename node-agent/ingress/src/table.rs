//! The routing table and the decision about one request. Pure.
//!
//! The host is chosen first (the exact name, else the wildcard above it, else the rules without a host), then the
//! path within it; what the chosen host does not match goes to a default backend and never to another host's paths,
//! because the API says that hosts are matched before paths. It must not know endpoints or connections.
//!
//! A lookup costs a hash for every path element up to the longest path of the host, however many routes there are.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::spec::{Name, PathKind, Port};

/// All routes of a node's ingress.
#[derive(Debug, Default)]
pub struct Table {
    exact: HashMap<Box<str>, Host>,
    /// Keyed by the domain without `*.`.
    wildcard: HashMap<Box<str>, Host>,
    any: Option<Host>,
    pub(crate) default: Option<Arc<Route>>,
    routes: usize,
}

/// Where a matched request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The Ingress that says so.
    pub ingress: Name,
    /// Its backend.
    pub target: Target,
}

/// The backend of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A port of a Service.
    Service {
        /// The Service.
        service: Name,
        /// Its port.
        port: Port,
    },
    /// Something this controller cannot forward to, in words.
    Unsupported(String),
}

/// What to do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision<'a> {
    /// Forward it.
    To(&'a Arc<Route>),
    /// No Ingress names the host, and there is no default backend.
    NoHost,
    /// The host has no such path, and there is no default backend.
    NoPath,
}

/// The paths of one host.
#[derive(Debug, Default)]
pub(crate) struct Host {
    exact: HashMap<Box<str>, Arc<Route>>,
    /// Keyed without a slash at the end; `/` is the empty key.
    prefix: HashMap<Box<str>, Arc<Route>>,
    prefix_bytes_max: usize,
    /// The default backend of the Ingresses that name this host.
    pub(crate) default: Option<Arc<Route>>,
}

// === impl Table ===

impl Table {
    /// Decides about a request for `host` (the Host header, with or without a port) and `path` (without a query).
    pub fn route(&self, host: &str, path: &str) -> Decision<'_> {
        let found = self.find_host(&host_name(host));
        let route =
            found.and_then(|host| host.find(path).or(host.default.as_ref())).or(self.default.as_ref());
        match (route, found) {
            (Some(route), _) => Decision::To(route),
            (None, Some(_)) => Decision::NoPath,
            (None, None) => Decision::NoHost,
        }
    }

    /// How many paths there are.
    pub fn len(&self) -> usize {
        self.routes
    }

    /// Whether there is nothing to route to at all.
    pub fn is_empty(&self) -> bool {
        self.routes == 0 && self.default.is_none()
    }

    /// The entry of a rule's host, made if it is not there.
    pub(crate) fn host_entry(&mut self, host: &str) -> &mut Host {
        let host = host.to_ascii_lowercase();
        match host.strip_prefix("*.") {
            Some(domain) => self.wildcard.entry(domain.into()).or_default(),
            None if host.is_empty() => self.any.get_or_insert_default(),
            None => self.exact.entry(host.into()).or_default(),
        }
    }

    /// Adds a path of a host. The route that has it already, if there is one: it stays.
    pub(crate) fn insert(
        &mut self,
        host: &str,
        kind: PathKind,
        path: &str,
        route: Arc<Route>,
    ) -> Result<(), Arc<Route>> {
        self.host_entry(host).insert(kind, path, route)?;
        self.routes += 1;
        Ok(())
    }

    fn find_host(&self, host: &str) -> Option<&Host> {
        let wildcard = || {
            // `*` stands for exactly one label.
            let (label, domain) = host.split_once('.')?;
            self.wildcard.get(domain).filter(|_| !label.is_empty())
        };
        self.exact.get(host).or_else(wildcard).or(self.any.as_ref())
    }
}

// === impl Host ===

impl Host {
    fn insert(&mut self, kind: PathKind, path: &str, route: Arc<Route>) -> Result<(), Arc<Route>> {
        let (paths, path) = match kind {
            PathKind::Exact => (&mut self.exact, if path.is_empty() { "/" } else { path }),
            PathKind::Prefix => (&mut self.prefix, path.trim_end_matches('/')),
        };
        if let Some(holder) = paths.get(path) {
            return Err(holder.clone());
        }
        paths.insert(path.into(), route);
        if kind == PathKind::Prefix {
            self.prefix_bytes_max = self.prefix_bytes_max.max(path.len());
        }
        Ok(())
    }

    fn find(&self, path: &str) -> Option<&Arc<Route>> {
        self.exact.get(path).or_else(|| self.find_prefix(path))
    }

    /// The longest prefix that ends where an element of `path` does. Starts no further right than the longest prefix
    /// reaches: a path of ten thousand slashes costs no more than the routes do.
    fn find_prefix(&self, path: &str) -> Option<&Arc<Route>> {
        if self.prefix.is_empty() {
            return None;
        }
        let bytes = path.as_bytes();
        let mut end = bytes.len().min(self.prefix_bytes_max);
        loop {
            let at_border = end == bytes.len() || bytes[end] == b'/';
            // A border is an ASCII byte or the end, so `get` finds a character's border there.
            if at_border && let Some(route) = path.get(..end).and_then(|prefix| self.prefix.get(prefix)) {
                return Some(route);
            }
            end = bytes[..end].iter().rposition(|byte| *byte == b'/')?;
        }
    }
}

/// The name in a Host header: lower case, without port and final dot.
fn host_name(header: &str) -> Cow<'_, str> {
    let name = match header.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => header.split(':').next().unwrap_or_default(),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => name.to_ascii_lowercase().into(),
        false => name.into(),
    }
}

#[cfg(test)]
mod tests;
