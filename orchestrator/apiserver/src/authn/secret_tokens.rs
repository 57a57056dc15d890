//! Tokens that lie in Secrets: good while the Secret holds them and its service account is there. When one was last used
//! is a label of its Secret, by which unused ones can be found.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use penstock_tokens::in_secrets::{SecretClaims, claims_to_be_one};
use penstock_tokens::{Issuer, TokenError};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::registry::generic::update::Race;
use crate::registry::ownership::Tracking;
use crate::registry::{CachedObject, Context, Registry, Target, User};
use crate::remembered::Remembered;

const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
/// Set by upstream's cleaner a year after the last use, instead of deleting.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// How long a checked signature is remembered; the objects are looked up each time.
const REMEMBER: Duration = Duration::from_secs(10);
/// Checked signatures remembered at most.
const REMEMBERED_MAX: usize = 1024;

/// Why a token of a Secret was refused.
#[derive(Debug, thiserror::Error)]
pub enum SecretTokenError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the service account {namespace}/{name} of the token is gone")]
    AccountGone { namespace: String, name: String },
    #[error("the secret {namespace}/{name} does not hold the token, or is gone")]
    NotHeld { namespace: String, name: String },
    #[error(
        "the token of the secret {namespace}/{name} was not used for so long that it has been marked as invalid"
    )]
    Invalid { namespace: String, name: String },
}

/// Knows the users of such tokens.
pub(super) struct SecretTokens {
    registry: Arc<Registry>,
    issuer: Arc<Issuer>,
    checked: Remembered<[u8; 32], Arc<SecretClaims>>,
}

// === impl SecretTokens ===

impl SecretTokens {
    pub(super) fn new(registry: Arc<Registry>, issuer: Arc<Issuer>) -> Self {
        Self { registry, issuer, checked: Remembered::new(REMEMBERED_MAX) }
    }

    /// The user of a token that says it lies in a Secret; none if it does not say so.
    pub(super) async fn user(&self, token: &str) -> Result<Option<User>, SecretTokenError> {
        if !claims_to_be_one(token) {
            return Ok(None);
        }
        let claims = self.check(token)?;
        let namespace = claims.namespace.as_str();
        let account = self.object("serviceaccounts", namespace, &claims.account).await;
        let account = account.filter(|account| {
            account.uid == claims.account_uid
                && account.value().pointer("/metadata/deletionTimestamp").is_none()
        });
        if account.is_none() {
            let name = claims.account.clone();
            return Err(SecretTokenError::AccountGone { namespace: namespace.to_owned(), name });
        }
        let named = || (namespace.to_owned(), claims.secret.clone());
        let not_held = || {
            let (namespace, name) = named();
            SecretTokenError::NotHeld { namespace, name }
        };
        let secret = self.object("secrets", namespace, &claims.secret).await.ok_or_else(not_held)?;
        let value = secret.value();
        let held =
            value.pointer("/data/token").and_then(Value::as_str).and_then(|data| STANDARD.decode(data).ok());
        if held.as_deref() != Some(token.as_bytes()) || value.pointer("/metadata/deletionTimestamp").is_some()
        {
            return Err(not_held());
        }
        let labels = &value["metadata"]["labels"];
        if labels[INVALID_SINCE].is_string() {
            let (namespace, name) = named();
            return Err(SecretTokenError::Invalid { namespace, name });
        }
        let today = today();
        if labels[LAST_USED] != today.as_str() {
            self.note_use(&claims, today).await;
        }
        Ok(Some(User {
            name: claims.sub.clone(),
            uid: claims.account_uid.clone(),
            groups: vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")],
            ..User::default()
        }))
    }

    fn check(&self, token: &str) -> Result<Arc<SecretClaims>, TokenError> {
        let fingerprint = Sha256::digest(token.as_bytes()).into();
        if let Some(claims) = self.checked.get(&fingerprint) {
            return Ok(claims);
        }
        let claims = Arc::new(self.issuer.verify_of_secret(token)?);
        self.checked.put(fingerprint, claims.clone(), REMEMBER);
        Ok(claims)
    }

    async fn object(&self, plural: &str, namespace: &str, name: &str) -> Option<Arc<CachedObject>> {
        let definition = self.registry.find("", "v1", plural)?;
        let target = Target::named(Some(namespace), name);
        self.registry.get(&Context::system(), &definition, &target).await.ok()
    }

    /// Labels the Secret. A use is not refused because that failed: the next one tries again.
    async fn note_use(&self, claims: &SecretClaims, today: String) {
        let Some(definition) = self.registry.find("", "v1", "secrets") else { return };
        let target = Target::named(Some(&claims.namespace), &claims.secret);
        let wanted = &mut |old: &Value, _: Option<&Value>| {
            let mut new = old.clone();
            new["metadata"]["labels"][LAST_USED] = today.as_str().into();
            Ok(new)
        };
        let context = Context::system();
        let noted = self
            .registry
            .modify(&context, &definition, &target, Race::Rebases, Tracking::Changes, wanted)
            .await;
        if let Err(error) = noted {
            tracing::debug!(secret = %claims.secret, namespace = %claims.namespace, %error, "a token's use was not noted");
        }
    }
}

/// The day it is in UTC, as `2026-01-31`.
pub(crate) fn today() -> String {
    Timestamp::now().to_zoned(TimeZone::UTC).date().to_string()
}
