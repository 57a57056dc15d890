//! A node's kubeconfig: one file that holds its certificate and the key, so that they change together.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::config::{KubeConfigOptions, Kubeconfig};
use penstock_process::private_files::{self, FileError};
use serde_json::{Value, json};

use crate::certificate::Facts;
use crate::cluster_info::ClusterInfo;

/// What is wrong with a kubeconfig.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "there is no kubeconfig {path}; join a cluster by --join, --token and --ca-hash (`orchestrator token create` prints the command), or have one made by `orchestrator credentials node`"
    )]
    Absent { path: PathBuf },
    #[error("the kubeconfig {path} cannot be used: {why}")]
    Unusable { path: PathBuf, why: String },
}

/// Reads a kubeconfig, and the files it names.
pub async fn read(path: &Path) -> Result<kube::Config, KubeconfigError> {
    if !path.exists() {
        return Err(KubeconfigError::Absent { path: path.to_owned() });
    }
    let unusable = |why: String| KubeconfigError::Unusable { path: path.to_owned(), why };
    let kubeconfig = Kubeconfig::read_from(path).map_err(|error| unusable(error.to_string()))?;
    kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|error| unusable(error.to_string()))
}

/// Whether there is one that somebody can use at that moment: its certificate, if it has one, has not ended.
pub async fn is_usable(path: &Path, now: SystemTime) -> bool {
    match read(path).await {
        Ok(config) => facts(&config).is_none_or(|facts| now < facts.ends_at),
        Err(_) => false,
    }
}

/// The client certificate that a configuration shows; PEM.
pub(crate) fn client_certificate(config: &kube::Config) -> Option<String> {
    let info = &config.auth_info;
    match (&info.client_certificate_data, &info.client_certificate) {
        (Some(data), _) => String::from_utf8(STANDARD.decode(data).ok()?).ok(),
        (None, Some(file)) => std::fs::read_to_string(file).ok(),
        (None, None) => None,
    }
}

/// What it says.
pub(crate) fn facts(config: &kube::Config) -> Option<Facts> {
    Facts::read(&client_certificate(config)?)
}

/// A new one, of a cluster and a certificate.
pub(crate) fn compose(info: &ClusterInfo, user: &str, certificate_pem: &str, key_pem: &str) -> String {
    text(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "penstock", "cluster": {
            "server": info.server,
            "certificate-authority-data": STANDARD.encode(&info.authority_pem),
        }}],
        "users": [{"name": user, "user": credentials(certificate_pem, key_pem)}],
        "contexts": [{"name": "penstock", "context": {"cluster": "penstock", "user": user}}],
        "current-context": "penstock",
    }))
}

/// The same kubeconfig with another certificate and key for its current user; everything else stays.
pub(crate) fn with_certificate(
    kubeconfig: &str,
    certificate_pem: &str,
    key_pem: &str,
) -> Result<String, String> {
    let mut value: Value = serde_yaml::from_str(kubeconfig).map_err(|error| error.to_string())?;
    let current = value["current-context"].as_str().unwrap_or_default().to_owned();
    let contexts = value["contexts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let context = contexts.iter().find(|it| it["name"] == *current).ok_or("it has no current context")?;
    let name = context["context"]["user"].clone();
    let users = value["users"].as_array_mut().ok_or("it has no users")?;
    let user = users.iter_mut().find(|it| it["name"] == name).ok_or("it has no user of that context")?;
    let mut entry = user["user"].take();
    let fields = entry.as_object_mut().ok_or("its user is empty")?;
    // Data come before files of the same.
    for file in ["client-certificate", "client-key"] {
        fields.remove(file);
    }
    fields.extend(credentials(certificate_pem, key_pem).as_object().cloned().unwrap_or_default());
    user["user"] = entry;
    Ok(text(&value))
}

/// Lets a configuration show another certificate.
pub(crate) fn show(config: &mut kube::Config, certificate_pem: &str, key_pem: &str) {
    let info = &mut config.auth_info;
    (info.client_certificate, info.client_key) = (None, None);
    info.client_certificate_data = Some(STANDARD.encode(certificate_pem));
    info.client_key_data = Some(STANDARD.encode(key_pem).into());
}

/// Writes one for its owner only, whole or not at all.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), FileError> {
    private_files::write_private(path, text.as_bytes())
}

fn credentials(certificate_pem: &str, key_pem: &str) -> Value {
    json!({
        "client-certificate-data": STANDARD.encode(certificate_pem),
        "client-key-data": STANDARD.encode(key_pem),
    })
}

fn text(value: &Value) -> String {
    // JSON is YAML.
    serde_yaml::to_string(value).unwrap_or_else(|_| value.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::certificate::made;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn composed(seconds: u64) -> String {
        let (certificate, key) = made::certificate("n", now(), now() + Duration::from_secs(seconds));
        let info =
            ClusterInfo { server: "https://10.0.0.1:6443".to_owned(), authority_pem: certificate.clone() };
        compose(&info, "system:node:n", &certificate, &key)
    }

    #[tokio::test]
    async fn what_is_composed_is_read_back_and_is_usable_until_its_certificate_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kubeconfig");
        let absent = read(&path).await.unwrap_err().to_string();
        assert!(absent.contains("--join") && absent.contains("orchestrator token create"), "{absent}");
        write(&path, &composed(100)).unwrap();
        let config = read(&path).await.unwrap();
        assert_eq!(config.cluster_url.to_string(), "https://10.0.0.1:6443/");
        assert_eq!(facts(&config).unwrap().node(), Some("n"));
        assert!(is_usable(&path, now()).await);
        assert!(!is_usable(&path, now() + Duration::from_secs(100)).await);
        write(&path, "nonsense: [").unwrap();
        assert!(read(&path).await.unwrap_err().to_string().contains("cannot be used"));
        assert!(!is_usable(&path, now()).await);
    }

    #[tokio::test]
    async fn another_certificate_takes_the_place_of_data_and_of_files_and_the_rest_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kubeconfig");
        let (certificate, key) = made::certificate("other", now(), now() + Duration::from_secs(9));
        let mut of_files: Value = serde_yaml::from_str(&composed(1)).unwrap();
        of_files["users"][0]["user"] = json!({"client-certificate": "/c", "client-key": "/k"});
        of_files["clusters"][0]["cluster"]["tls-server-name"] = "api".into();
        for before in [composed(1), of_files.to_string()] {
            let after = with_certificate(&before, &certificate, &key).unwrap();
            write(&path, &after).unwrap();
            let config = read(&path).await.unwrap();
            assert_eq!(client_certificate(&config).as_deref(), Some(certificate.as_str()));
            let (before, after): (Value, Value) =
                (serde_yaml::from_str(&before).unwrap(), serde_yaml::from_str(&after).unwrap());
            assert_eq!(before["clusters"], after["clusters"]);
            assert_eq!(after["users"][0]["user"].as_object().unwrap().len(), 2);
        }
        for wrong in
            ["", "current-context: x", "[", "current-context: x\ncontexts: [{name: x, context: {user: u}}]"]
        {
            assert!(with_certificate(wrong, &certificate, &key).is_err(), "{wrong}");
        }
    }
}
