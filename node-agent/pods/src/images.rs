//! Images for containers: present, pulled, or a reason why not. At most four pulls run at once.

use k8s_openapi::api::core::v1::Secret;
use penstock_runtime::{Image, ImageAuth, Runtime, RuntimeError, SandboxConfig};
use serde_json::Value;
use tokio::sync::Semaphore;

use base64::Engine;

const PULLS_MAX: usize = 4;

/// See the module.
pub struct Images {
    pulls: Semaphore,
}

/// Why there is no image. The first field of each is shown as the container's waiting reason.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// `imagePullPolicy: Never` and not there.
    #[error("Container image \"{image}\" is not present with pull policy of Never")]
    NeverPull { image: String },
    /// Not a reference.
    #[error("Failed to apply default image tag \"{image}\": couldn't parse image name")]
    InvalidName { image: String },
    /// The registry or the runtime refused.
    #[error("{source}")]
    Pull { source: RuntimeError },
    /// The runtime could not say whether it is there.
    #[error("{source}")]
    Inspect { source: RuntimeError },
}

impl ImageError {
    /// The waiting reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NeverPull { .. } => "ErrImageNeverPull",
            Self::InvalidName { .. } => "InvalidImageName",
            Self::Pull { .. } => "ErrImagePull",
            Self::Inspect { .. } => "ImageInspectError",
        }
    }
}

impl Default for Images {
    fn default() -> Self {
        Self { pulls: Semaphore::new(PULLS_MAX) }
    }
}

impl Images {
    /// The image, pulled if the policy asks for it. The second value says whether it was pulled.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub async fn ensure(
        &self,
        runtime: &dyn Runtime,
        reference: &str,
        policy: Option<&str>,
        secrets: &[Secret],
        sandbox: &SandboxConfig,
    ) -> Result<(Image, bool), ImageError> {
        if !is_reference(reference) {
            return Err(ImageError::InvalidName { image: reference.to_string() });
        }
        let policy = policy.unwrap_or_else(|| if is_latest(reference) { "Always" } else { "IfNotPresent" });
        let present = runtime.image(reference).await.map_err(|source| ImageError::Inspect { source })?;
        match (present, policy) {
            (Some(image), "IfNotPresent" | "Never") => return Ok((image, false)),
            (None, "Never") => {
                return Err(ImageError::NeverPull { image: reference.to_string() });
            }
            _ => {}
        }
        let _permit = self.pulls.acquire().await;
        let mut failure = None;
        let candidates = credentials(reference, secrets);
        let tries =
            candidates.iter().map(Some).chain(std::iter::once(None).filter(|_| candidates.is_empty()));
        for auth in tries {
            match runtime.pull_image(reference, auth, Some(sandbox)).await {
                Ok(pulled) => {
                    let image =
                        runtime.image(reference).await.map_err(|source| ImageError::Inspect { source })?;
                    return Ok((image.unwrap_or(Image { id: pulled, ..Default::default() }), true));
                }
                Err(error) => failure = Some(error),
            }
        }
        let none = RuntimeError::Failed { call: "PullImage", message: "no attempt was made".into() };
        Err(ImageError::Pull { source: failure.unwrap_or(none) })
    }
}

fn is_latest(reference: &str) -> bool {
    let name = reference.rsplit('/').next().unwrap_or(reference);
    !reference.contains('@') && name.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// A rough check: what no registry could ever serve. The runtime does the exact one.
fn is_reference(reference: &str) -> bool {
    let path = reference.split(['@']).next().unwrap_or_default();
    let repository =
        path.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(path, |(name, _)| name);
    let (_, rest) = repository.split_once('/').unwrap_or(("", repository));
    !repository.is_empty()
        && reference.bytes().all(|b| b.is_ascii_graphic())
        && !rest.bytes().any(|b| b.is_ascii_uppercase())
        && !repository.ends_with(['/', ':', '.', '-'])
        && !repository.starts_with(['/', ':', '.', '-'])
}

/// Credentials of image pull secrets that fit the registry.
fn credentials(reference: &str, secrets: &[Secret]) -> Vec<ImageAuth> {
    let registry = match reference.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "index.docker.io",
    };
    let mut found = Vec::new();
    for secret in secrets {
        let data = secret.data.as_ref();
        let json = |key: &str| -> Option<Value> { serde_json::from_slice(&data?.get(key)?.0).ok() };
        let auths =
            json(".dockerconfigjson").and_then(|v| v.get("auths").cloned()).or_else(|| json(".dockercfg"));
        for (server, entry) in auths.as_ref().and_then(Value::as_object).into_iter().flatten() {
            let host = server.trim_start_matches("https://").trim_start_matches("http://");
            let host = host.split('/').next().unwrap_or(host);
            if host == registry || reference.starts_with(&format!("{server}/")) {
                found.push(auth(server, entry));
            }
        }
    }
    found
}

fn auth(server: &str, entry: &Value) -> ImageAuth {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_string();
    let mut auth = ImageAuth {
        username: text("username"),
        password: text("password"),
        server_address: server.to_string(),
        identity_token: text("identitytoken"),
        ..Default::default()
    };
    let decoded = base64::engine::general_purpose::STANDARD.decode(text("auth")).ok();
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    if let Some((user, password)) = decoded.as_deref().and_then(|d| d.split_once(':'))
        && auth.username.is_empty()
    {
        auth.username = user.to_string();
        auth.password = password.to_string();
    }
    auth
}

#[cfg(test)]
mod tests {
    use super::*;
    use penstock_runtime::fake::Fake;

    #[tokio::test]
    async fn a_present_image_is_not_pulled_and_a_missing_one_is_when_allowed() {
        let (fake, images, sandbox) = (Fake::new(), Images::default(), SandboxConfig::default());
        fake.add_image("a.local/x:1");
        assert!(!images.ensure(&fake, "a.local/x:1", None, &[], &sandbox).await.unwrap().1);
        assert!(images.ensure(&fake, "a.local/y:1", None, &[], &sandbox).await.unwrap().1);
        let never = images.ensure(&fake, "a.local/z:1", Some("Never"), &[], &sandbox).await.unwrap_err();
        assert_eq!(never.reason(), "ErrImageNeverPull");
        let bad = images.ensure(&fake, "Not A Name", None, &[], &sandbox).await.unwrap_err();
        assert_eq!(bad.reason(), "InvalidImageName");
    }

    #[test]
    fn a_pull_secret_fits_by_registry() {
        let config =
            serde_json::json!({"auths": {"https://reg.example:5000/v1/": {"auth": "dTpw"}, "other": {}}});
        let mut secret = Secret::default();
        let bytes = k8s_openapi::ByteString(config.to_string().into_bytes());
        secret.data = Some([(".dockerconfigjson".to_string(), bytes)].into());
        let found = credentials("reg.example:5000/a/b:1", &[secret]);
        assert_eq!((found.len(), found[0].username.as_str(), found[0].password.as_str()), (1, "u", "p"));
    }
}
