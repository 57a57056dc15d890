//! A webhook that knows tokens: it is asked by TokenReview, and its answers are remembered for a while.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::authz::rules::strings;
use crate::outbound::kubeconfig::Webhook;
use crate::registry::{Registry, User};
use crate::remembered::Remembered;

/// Answers remembered at most.
const REMEMBERED_MAX: usize = 4096;

/// How tokens are reviewed by somebody else.
#[derive(Debug, Clone)]
pub struct TokenWebhookConfig {
    pub webhook: Webhook,
    /// How long an answer counts; zero: the webhook is asked each time.
    pub remember: Duration,
}

/// Why a token is not known.
#[derive(Debug, thiserror::Error)]
pub enum TokenWebhookError {
    #[error("the token webhook could not be asked: {why}")]
    Call { why: String },
    #[error("the token webhook answered {kind:?}, not a TokenReview of authentication.k8s.io/v1")]
    Answer { kind: String },
    #[error("the token webhook: {message}")]
    Said { message: String },
}

/// A user and the audiences the token is good for.
type Known = (User, Vec<String>);

pub struct TokenWebhook {
    registry: Arc<Registry>,
    config: TokenWebhookConfig,
    remembered: Remembered<[u8; 32], Option<Known>>,
}

// === impl TokenWebhook ===

impl TokenWebhook {
    pub fn new(registry: Arc<Registry>, config: TokenWebhookConfig) -> Self {
        Self { registry, config, remembered: Remembered::new(REMEMBERED_MAX) }
    }

    /// Whose token it is for one of `wanted` audiences, and for which of them; `own` are those of a webhook that
    /// knows none. `None`: the webhook does not know it.
    ///
    /// # Errors
    /// Nobody answered, or the answer says why the token is no good. Neither is remembered.
    pub async fn user(
        &self,
        token: &str,
        wanted: &[String],
        own: &[String],
    ) -> Result<Option<Known>, TokenWebhookError> {
        let key = fingerprint(token, wanted);
        if let Some(known) = self.remembered.get(&key) {
            return Ok(known);
        }
        let question = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "metadata": {}, "spec": {"token": token, "audiences": wanted}});
        let answer = self.config.webhook.ask(&self.registry, &question).await;
        let known = read(&answer.map_err(|e| TokenWebhookError::Call { why: e.to_string() })?, wanted, own)?;
        self.remembered.put(key, known.clone(), self.config.remember);
        Ok(known)
    }
}

fn read(review: &Value, wanted: &[String], own: &[String]) -> Result<Option<Known>, TokenWebhookError> {
    let text = |pointer: &str| review.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    if text("/kind") != "TokenReview" || text("/apiVersion") != "authentication.k8s.io/v1" {
        let kind = format!("{} {}", text("/apiVersion"), text("/kind"));
        return Err(TokenWebhookError::Answer { kind });
    }
    if review.pointer("/status/authenticated") != Some(&Value::Bool(true)) {
        return match text("/status/error") {
            "" => Ok(None),
            message => Err(TokenWebhookError::Said { message: message.to_owned() }),
        };
    }
    let said = strings(review.pointer("/status/audiences"));
    // Who says nothing of audiences means this server's.
    let said = if said.is_empty() { own } else { &said[..] };
    let good: Vec<String> = wanted.iter().filter(|audience| said.contains(audience)).cloned().collect();
    if good.is_empty() {
        return Ok(None);
    }
    let mut user = User {
        name: text("/status/user/username").to_owned(),
        uid: text("/status/user/uid").to_owned(),
        groups: strings(review.pointer("/status/user/groups")),
        ..User::default()
    };
    if let Some(extra) = review.pointer("/status/user/extra").and_then(Value::as_object) {
        user.extra = extra.iter().map(|(key, values)| (key.clone(), strings(Some(values)))).collect();
    }
    Ok(Some((user, good)))
}

fn fingerprint(token: &str, audiences: &[String]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in std::iter::once(token).chain(audiences.iter().map(String::as_str)) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: Value, wanted: &[&str]) -> Result<Option<Known>, String> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let review =
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status});
        read(&review, &owned(wanted), &owned(&["api"])).map_err(|error| error.to_string())
    }

    #[test]
    fn a_review_names_a_user_for_the_audiences_asked_for() {
        let status = json!({"authenticated": true, "audiences": ["api", "x"],
            "user": {"username": "ann", "uid": "1", "groups": ["g"], "extra": {"k": ["v"]}}});
        let (user, audiences) = told(status.clone(), &["api", "other"]).unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str(), audiences), ("ann", "1", vec!["api".to_owned()]));
        assert_eq!((&user.groups[..], &user.extra["k"][..]), (&["g".to_owned()][..], &["v".to_owned()][..]));
        assert!(told(status, &["other"]).unwrap().is_none());
        let simple = json!({"authenticated": true, "user": {"username": "ann"}});
        assert!(told(simple.clone(), &["api"]).unwrap().is_some());
        assert!(told(simple, &["other"]).unwrap().is_none(), "who knows no audiences means ours");
    }

    #[test]
    fn what_is_no_yes_is_a_no_or_says_why() {
        assert!(told(json!({}), &["api"]).unwrap().is_none());
        assert!(told(json!({"authenticated": false}), &["api"]).unwrap().is_none());
        let said = told(json!({"authenticated": false, "error": "expired"}), &["api"]).unwrap_err();
        assert_eq!(said, "the token webhook: expired");
        assert!(read(&json!({"kind": "Status"}), &[], &[]).unwrap_err().to_string().contains("Status"));
    }
}
