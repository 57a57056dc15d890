//! What a machine that joins may know before it has any credentials: the ConfigMap `cluster-info` of `kube-public`.
//!
//! It holds a kubeconfig with nothing but the server's URL and its authority, as kubeadm publishes it. The controller
//! `bootstrap-signer` adds a signature for each token; anybody may read it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::registry::bootstrap::ensure_object;
use crate::registry::{Registry, RegistryError};
use crate::server::config::ClusterInfo;

const AUTHORITY: &str = "/clusters/0/cluster/certificate-authority-data";

/// Makes the ConfigMap, or puts its authority right. A server that somebody else wrote there, such as a balancer before
/// several, stays.
pub(crate) async fn publish(registry: &Registry, info: &ClusterInfo) -> Result<(), RegistryError> {
    ensure_object(registry, published(info), mend).await
}

fn published(info: &ClusterInfo) -> Value {
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "", "cluster": {
            "certificate-authority-data": STANDARD.encode(&info.authority_pem),
            "server": info.server,
        }}],
        "contexts": [],
        "current-context": "",
        "preferences": {},
        "users": [],
    });
    let text = serde_yaml::to_string(&kubeconfig).unwrap_or_else(|_| kubeconfig.to_string());
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "cluster-info", "namespace": "kube-public"}, "data": {"kubeconfig": text}})
}

fn mend(have: &mut Value, want: &Value) {
    let authority = |object: &Value| {
        let kubeconfig: Value = serde_yaml::from_str(object["data"]["kubeconfig"].as_str()?).ok()?;
        kubeconfig.pointer(AUTHORITY).and_then(Value::as_str).map(str::to_owned)
    };
    if authority(have) != authority(want) {
        have["data"]["kubeconfig"] = want["data"]["kubeconfig"].clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(server: &str, authority: &str) -> Value {
        published(&ClusterInfo { server: server.to_owned(), authority_pem: authority.to_owned() })
    }

    #[test]
    fn a_server_that_somebody_wrote_stays_while_the_authority_is_the_same() {
        let own = info("https://10.0.0.1:6443", "authority");
        let mut have = info("https://balancer:6443", "authority");
        have["data"]["jws-kubeconfig-abcdef"] = "signature".into();
        let before = have.clone();
        mend(&mut have, &own);
        assert_eq!(have, before);

        mend(&mut have, &info("https://10.0.0.1:6443", "another"));
        let text = have["data"]["kubeconfig"].as_str().unwrap();
        assert!(text.contains("10.0.0.1") && text.contains(&STANDARD.encode("another")), "{text}");
        assert_eq!(have["data"]["jws-kubeconfig-abcdef"], "signature", "the signer looks after those");
    }

    #[test]
    fn nothing_is_as_wrong_as_something_unreadable() {
        for data in [json!({}), json!({"kubeconfig": "["}), Value::Null] {
            let mut have = json!({"data": data});
            let want = info("https://10.0.0.1:6443", "authority");
            mend(&mut have, &want);
            assert_eq!(have["data"]["kubeconfig"], want["data"]["kubeconfig"]);
        }
    }
}
