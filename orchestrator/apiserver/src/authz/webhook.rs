//! A webhook that authorises: it is asked by SubjectAccessReview, and its answers are remembered for a while.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Attributes, Decision};
use crate::outbound::kubeconfig::Webhook;
use crate::registry::{Registry, User};
use crate::remembered::Remembered;

/// Answers remembered at most, and the longest question that is (upstream's).
const REMEMBERED_MAX: usize = 8192;
const QUESTION_BYTES_MAX: usize = 10_000;

/// How requests are authorised by somebody else.
#[derive(Debug, Clone)]
pub struct AccessWebhookConfig {
    pub webhook: Webhook,
    pub remember_allowed: Duration,
    /// How long anything else than a yes counts.
    pub remember_refused: Duration,
}

pub(crate) struct AccessWebhook {
    registry: Arc<Registry>,
    config: AccessWebhookConfig,
    remembered: Remembered<String, Decision>,
}

// === impl AccessWebhook ===

impl AccessWebhook {
    pub fn new(registry: Arc<Registry>, config: AccessWebhookConfig) -> Self {
        Self { registry, config, remembered: Remembered::new(REMEMBERED_MAX) }
    }

    /// What the webhook says. One that does not answer has no opinion, and the log says why.
    pub async fn decide(&self, user: &User, request: &Attributes) -> Decision {
        let spec = spec(user, request);
        let key = spec.to_string();
        if let Some(decision) = self.remembered.get(&key) {
            return decision;
        }
        let question = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "metadata": {}, "spec": spec});
        let nobody = Decision::NoOpinion { reason: String::new() };
        let answer = match self.config.webhook.ask(&self.registry, &question).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(%error, "the authorization webhook could not be asked");
                return nobody;
            }
        };
        let decision = match read(&answer) {
            Ok(decision) => decision,
            Err(why) => {
                tracing::warn!(why, "the authorization webhook's answer means nothing");
                return nobody;
            }
        };
        let AccessWebhookConfig { remember_allowed, remember_refused, .. } = self.config;
        let time = if decision.is_allowed() { remember_allowed } else { remember_refused };
        if key.len() <= QUESTION_BYTES_MAX {
            self.remembered.put(key, decision.clone(), time);
        }
        decision
    }
}

fn read(answer: &Value) -> Result<Decision, &'static str> {
    let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let flag = |pointer: &str| answer.pointer(pointer).and_then(Value::as_bool).unwrap_or_default();
    if text("/kind") != "SubjectAccessReview" || text("/apiVersion") != "authorization.k8s.io/v1" {
        return Err("it is no SubjectAccessReview of authorization.k8s.io/v1");
    }
    let reason = text("/status/reason").to_owned();
    match (flag("/status/allowed"), flag("/status/denied")) {
        (true, true) => Err("it both allows and denies"),
        (true, false) => Ok(Decision::Allow { reason }),
        (false, true) => Ok(Decision::Deny { reason }),
        (false, false) => Ok(Decision::NoOpinion { reason }),
    }
}

/// The spec of a review; what is empty is left out, as upstream does.
fn spec(user: &User, request: &Attributes) -> Value {
    let mut spec = Map::new();
    let asked = if request.is_resource {
        given(&[
            ("namespace", &request.namespace),
            ("verb", &request.verb),
            ("group", &request.group),
            ("version", &request.version),
            ("resource", &request.resource),
            ("subresource", &request.subresource),
            ("name", &request.name),
        ])
    } else {
        given(&[("path", &request.path), ("verb", &request.verb)])
    };
    let part = if request.is_resource { "resourceAttributes" } else { "nonResourceAttributes" };
    spec.insert(part.to_owned(), asked.into());
    spec.extend(given(&[("user", &user.name), ("uid", &user.uid)]));
    if !user.groups.is_empty() {
        spec.insert("groups".to_owned(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        spec.insert("extra".to_owned(), json!(user.extra));
    }
    Value::Object(spec)
}

fn given(fields: &[(&str, &String)]) -> Map<String, Value> {
    let given = fields.iter().filter(|(_, value)| !value.is_empty());
    given.map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_says_who_wants_what() {
        let user = User { name: "ann".into(), groups: vec!["g".into()], ..User::default() };
        let request = Attributes::on("get", "apps", "deployments", "n", "d");
        assert_eq!(
            spec(&user, &request),
            json!({"user": "ann", "groups": ["g"], "resourceAttributes": {
                "namespace": "n", "verb": "get", "group": "apps", "resource": "deployments", "name": "d"}})
        );
        let path = Attributes { verb: "get".into(), path: "/metrics".into(), ..Attributes::default() };
        assert_eq!(spec(&user, &path)["nonResourceAttributes"], json!({"path": "/metrics", "verb": "get"}));
    }

    #[test]
    fn an_answer_allows_denies_or_knows_nothing() {
        let told = |status: Value| {
            read(
                &json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "status": status}),
            )
        };
        assert_eq!(told(json!({"allowed": true, "reason": "r"})), Ok(Decision::Allow { reason: "r".into() }));
        assert_eq!(told(json!({"denied": true})), Ok(Decision::Deny { reason: String::new() }));
        assert_eq!(told(json!({"allowed": false})), Ok(Decision::NoOpinion { reason: String::new() }));
        assert!(told(json!({"allowed": true, "denied": true})).is_err());
        assert!(read(&json!({"kind": "Status"})).is_err());
    }
}
