//! A kubeconfig file: one cluster, one user, one context.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use crate::files::{self, FileError};
use crate::pki::Issued;

/// What a kubeconfig says.
pub struct Kubeconfig<'a> {
    /// The API server's URL.
    pub server: &'a str,
    pub authority_pem: &'a str,
    pub user: &'a str,
    pub credentials: &'a Issued,
}

// === impl Kubeconfig ===

impl Kubeconfig<'_> {
    /// The file's text. JSON is YAML: every client reads it, and no string needs quoting rules.
    pub fn text(&self) -> String {
        let encode = |pem: &str| BASE64.encode(pem);
        let value = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "penstock", "cluster": {
                "server": self.server,
                "certificate-authority-data": encode(self.authority_pem),
            }}],
            "users": [{"name": self.user, "user": {
                "client-certificate-data": encode(&self.credentials.certificate_pem),
                "client-key-data": encode(&self.credentials.key_pem),
            }}],
            "contexts": [{"name": "penstock", "context": {"cluster": "penstock", "user": self.user}}],
            "current-context": "penstock",
        });
        serde_yaml::to_string(&value).unwrap_or_else(|_| value.to_string())
    }

    /// Writes the file for its owner only.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        files::write_private(path, self.text().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_library_understands_it() {
        let credentials = Issued { certificate_pem: "certificate".to_owned(), key_pem: "key".to_owned() };
        let text = Kubeconfig {
            server: "https://10.0.0.1:6443",
            authority_pem: "authority",
            user: "kubernetes-admin",
            credentials: &credentials,
        }
        .text();
        let parsed = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        assert_eq!(parsed.current_context.as_deref(), Some("penstock"));
        let cluster = parsed.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://10.0.0.1:6443"));
        assert_eq!(cluster.certificate_authority_data.as_deref(), Some(BASE64.encode("authority").as_str()));
        let user = parsed.auth_infos[0].auth_info.as_ref().unwrap();
        assert_eq!(user.client_certificate_data.as_deref(), Some(BASE64.encode("certificate").as_str()));
    }
}
