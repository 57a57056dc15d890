//! Ingresses and classes as this crate wants them told: the API's objects without what routing does not use.
//!
//! It exists so that routing is tested in its own words. It must not know how objects are read or watched.

use std::fmt;

/// Name of an Ingress or a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The namespace; an Ingress names Services of its own one only.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// An IngressClass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Class {
    /// `spec.controller`.
    pub controller: String,
    /// Whether it stands in for Ingresses that name no class.
    pub is_default: bool,
}

/// An Ingress.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ingress {
    /// `spec.ingressClassName`, or the annotation that came before it.
    pub class: Option<String>,
    /// When it was made, in seconds since 1970: of two that claim the same path, the older one has it.
    pub created_seconds: i64,
    /// Where requests go that no rule matches.
    pub default_backend: Option<Backend>,
    /// The rules, in the object's order.
    pub rules: Vec<Rule>,
    /// Whether it asks for TLS.
    pub asks_for_tls: bool,
}

/// The paths of one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// A host name, `*.` and a domain, or empty for every host.
    pub host: String,
    /// The paths; without any, the default backend answers for the host.
    pub paths: Vec<Path>,
}

/// One path of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// How `path` is compared.
    pub kind: PathKind,
    /// The path; empty is the same as `/`.
    pub path: String,
    /// Where its requests go.
    pub backend: Backend,
}

/// How a path is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    /// Byte by byte.
    Exact,
    /// By elements between slashes. The API's `ImplementationSpecific` is this too.
    Prefix,
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// A port of a Service in the Ingress's namespace.
    Service {
        /// The Service's name.
        name: String,
        /// Its port.
        port: Port,
    },
    /// Any other object, which nothing here can forward to.
    Resource {
        /// The object's kind.
        kind: String,
        /// The object's name.
        name: String,
    },
}

/// A Service's port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Port {
    /// `spec.ports[].name`.
    Name(String),
    /// `spec.ports[].port`.
    Number(u16),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Number(number) => number.fmt(f),
        }
    }
}
