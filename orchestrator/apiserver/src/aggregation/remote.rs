//! An APIService that names a Service, as requests need it. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::outbound::{Address, Target, Trust};
use crate::registry::object::{items_at, meta_str, str_at};

const PORT_DEFAULT: u64 = 443;

/// A version of a group that an extension server serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remote {
    /// Of the APIService.
    pub name: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub service: String,
    pub port: u16,
    pub target: Target,
    pub group_priority: i64,
    pub version_priority: i64,
    /// What its `Available` condition says.
    pub available: bool,
}

// === impl Remote ===

impl Remote {
    /// None for local APIServices.
    pub fn read(object: &Value) -> Option<Self> {
        let spec = &object["spec"];
        let service = spec.get("service").filter(|service| service.is_object())?;
        let (namespace, name) =
            (str_at(service, "/namespace").to_owned(), str_at(service, "/name").to_owned());
        let port = u16::try_from(service["port"].as_u64().unwrap_or(PORT_DEFAULT)).ok()?;
        let trust = if spec["insecureSkipTLSVerify"] == true {
            Trust::Anyone
        } else {
            Trust::Authorities(STANDARD.decode(str_at(spec, "/caBundle")).ok()?.into())
        };
        let address = Address::Service { namespace: namespace.clone(), name: name.clone(), port };
        let available = items_at(object, "/status/conditions")
            .iter()
            .any(|c| c["type"] == "Available" && c["status"] == "True");
        Some(Self {
            name: meta_str(object, "name").to_owned(),
            group: str_at(spec, "/group").to_owned(),
            version: str_at(spec, "/version").to_owned(),
            namespace,
            service: name,
            port,
            target: Target { address, trust },
            group_priority: spec["groupPriorityMinimum"].as_i64().unwrap_or(0),
            version_priority: spec["versionPriority"].as_i64().unwrap_or(0),
            available,
        })
    }

    /// Where the server tells what it serves; every extension server must answer here.
    pub fn discovery_path(&self) -> String {
        format!("/apis/{}/{}", self.group, self.version)
    }
}
