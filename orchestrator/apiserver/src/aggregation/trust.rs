//! How extension servers recognise this one: the ConfigMap they read at start.

use serde_json::{Value, json};

use crate::registry::bootstrap::ensure_object;
use crate::registry::{Registry, RegistryError};
use crate::server::config::ServerConfig;

/// Puts the ConfigMap `extension-apiserver-authentication` right. What others keep in it stays.
pub(crate) async fn publish(registry: &Registry, config: &ServerConfig) -> Result<(), RegistryError> {
    ensure_object(registry, published(config), |have, want| {
        for (key, value) in want["data"].as_object().into_iter().flatten() {
            have["data"][key] = value.clone();
        }
    })
    .await
}

fn published(config: &ServerConfig) -> Value {
    let pem = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let list = |names: &[&str]| json!(names).to_string();
    let mut data = json!({"client-ca-file": pem(&config.client_ca_pem)});
    if let Some(authority) = &config.front_proxy_ca_pem {
        data["requestheader-client-ca-file"] = pem(authority).into();
        data["requestheader-allowed-names"] = json!(config.front_proxy_names).to_string().into();
        data["requestheader-username-headers"] = list(&["X-Remote-User"]).into();
        data["requestheader-uid-headers"] = list(&["X-Remote-Uid"]).into();
        data["requestheader-group-headers"] = list(&["X-Remote-Group"]).into();
        data["requestheader-extra-headers-prefix"] = list(&["X-Remote-Extra-"]).into();
    }
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"}, "data": data})
}
