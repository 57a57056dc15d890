//! Bootstrap tokens: the credentials of machines that join, each in a Secret of `kube-system`.
//!
//! Who may write Secrets there may do anything anyway, so that a token opens nothing that was closed before. A Secret is
//! looked up for every request: a token that was deleted or has ended is refused at once.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use penstock_tokens::bootstrap::{
    BadGroup, BootstrapToken, NAMESPACE, SECRET_TYPE, StoredToken, USER_PREFIX,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::registry::object::str_at;
use crate::registry::{Context, Registry, Target, User};

/// Why a token of this form is no good. Only logs and token reviews show it.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapTokenError {
    #[error("there is no bootstrap token {id:?}")]
    Unknown { id: String },
    #[error("the bootstrap token {id:?} has another secret")]
    Secret { id: String },
    #[error("the bootstrap token {id:?} has ended ({expiration})")]
    Ended { id: String, expiration: String },
    #[error("the bootstrap token {id:?} is not for authentication")]
    Purpose { id: String },
    #[error("the bootstrap token {id:?} is for groups it cannot be for")]
    Groups {
        id: String,
        #[source]
        source: BadGroup,
    },
}

/// Knows their bearers.
pub(super) struct BootstrapTokens {
    registry: Arc<Registry>,
}

// === impl BootstrapTokens ===

impl BootstrapTokens {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }

    /// Whom a token stands for; none if it has not the form of one.
    pub(super) async fn user(&self, token: &str, now: i64) -> Result<Option<User>, BootstrapTokenError> {
        let Some(token) = BootstrapToken::parse(token) else { return Ok(None) };
        let id = token.id().to_owned();
        let Some(stored) = self.stored(&token).await else {
            return Err(BootstrapTokenError::Unknown { id });
        };
        // Digests are compared, so that the time it takes says nothing of the secret.
        let digest = |secret: &str| Sha256::digest(secret.as_bytes());
        if digest(&stored.secret) != digest(token.secret()) {
            return Err(BootstrapTokenError::Secret { id });
        }
        if stored.has_ended(Timestamp::from_second(now).unwrap_or(Timestamp::MAX)) {
            return Err(BootstrapTokenError::Ended { id, expiration: stored.expiration });
        }
        if !stored.is_for_authentication {
            return Err(BootstrapTokenError::Purpose { id });
        }
        let groups = match stored.groups() {
            Ok(groups) => groups,
            Err(source) => return Err(BootstrapTokenError::Groups { id, source }),
        };
        Ok(Some(User { name: format!("{USER_PREFIX}{id}"), groups, ..User::default() }))
    }

    async fn stored(&self, token: &BootstrapToken) -> Option<StoredToken> {
        let definition = self.registry.find("", "v1", "secrets")?;
        let target = Target::named(Some(NAMESPACE), &token.secret_name());
        let secret = self.registry.get(&Context::system(), &definition, &target).await.ok()?.value();
        let is_one = str_at(&secret, "/type") == SECRET_TYPE
            && secret.pointer("/metadata/deletionTimestamp").is_none();
        let text = |key: &str| {
            let data = STANDARD.decode(secret["data"].get(key).and_then(Value::as_str)?).ok()?;
            String::from_utf8(data).ok()
        };
        let stored = StoredToken::read(text);
        (is_one && stored.is_named(&token.secret_name())).then_some(stored)
    }
}
