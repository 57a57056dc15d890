//! Authorisation: may this user do this?
//!
//! The chain is `system:masters`, then the authorisers of the configuration ([`Mode`]: Node, RBAC, and a webhook if there
//! is one). The first with an opinion wins; of ours none denies, they only have none.
//! [`rules`] and [`policy`] are pure, [`feed`] keeps the policy current from the registry. Must not know HTTP.

pub mod escalation;
pub mod feed;
pub mod node;
pub mod policy;
pub mod rules;
pub mod webhook;

use std::sync::Arc;

use parking_lot::RwLock;

use crate::error::ApiError;
use crate::registry::{Registry, User};
use crate::server::request_info::RequestInfo;
use policy::Policy;
use webhook::{AccessWebhook, AccessWebhookConfig};

/// The group that may do everything.
pub const MASTERS: &str = "system:masters";

/// What is asked for, apart from by whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    pub verb: String,
    /// Empty for requests on all namespaces or on cluster-scoped kinds.
    pub namespace: String,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// The path of a request that is not on a resource.
    pub path: String,
    pub is_resource: bool,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Allowed, with a reason for access reviews.
    Allow { reason: String },
    /// Refused, whatever later authorisers would say.
    Deny { reason: String },
    /// Nobody allows it. `reason` may say why a particular authoriser refused; often empty.
    NoOpinion { reason: String },
}

/// One authoriser, as `--authorization-mode` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Node,
    Rbac,
    Webhook,
}

/// Who says what users may do.
#[derive(Debug, Clone)]
pub struct AuthorizationConfig {
    /// In this order; without the webhook, its mode has no opinion.
    pub modes: Vec<Mode>,
    pub webhook: Option<AccessWebhookConfig>,
}

/// All authorisers in order.
pub struct Authorizer {
    registry: Arc<Registry>,
    policy: Arc<RwLock<Policy>>,
    modes: Vec<Mode>,
    webhook: Option<AccessWebhook>,
}

// === impl AuthorizationConfig ===

impl Default for AuthorizationConfig {
    fn default() -> Self {
        Self { modes: vec![Mode::Node, Mode::Rbac], webhook: None }
    }
}

// === impl Attributes ===

impl Attributes {
    /// The attributes of a request.
    pub fn of(info: &RequestInfo) -> Self {
        Self {
            verb: info.verb.clone(),
            namespace: info.namespace.clone(),
            group: info.group.clone(),
            version: info.version.clone(),
            resource: info.resource.clone(),
            subresource: info.subresource.clone(),
            name: info.name.clone(),
            path: info.path.clone(),
            is_resource: info.is_resource,
        }
    }

    /// A verb on one object of a resource.
    pub fn on(verb: &str, group: &str, resource: &str, namespace: &str, name: &str) -> Self {
        Self {
            verb: verb.to_owned(),
            namespace: namespace.to_owned(),
            group: group.to_owned(),
            resource: resource.to_owned(),
            name: name.to_owned(),
            is_resource: true,
            ..Self::default()
        }
    }

    /// The 403 of a request with these attributes, in upstream's words.
    pub fn refusal(&self, user: &User, reason: &str) -> ApiError {
        let mut why = if self.is_resource {
            let resource = if self.subresource.is_empty() {
                self.resource.clone()
            } else {
                format!("{}/{}", self.resource, self.subresource)
            };
            let place = if self.namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {:?}", self.namespace)
            };
            format!(
                "User {:?} cannot {} resource {resource:?} in API group {:?} {place}",
                user.name, self.verb, self.group
            )
        } else {
            format!("User {:?} cannot {} path {:?}", user.name, self.verb, self.path)
        };
        if !reason.is_empty() {
            why = format!("{why}: {reason}");
        }
        ApiError::forbidden(&self.group, &self.resource, &self.name, why)
    }
}

// === impl Decision ===

impl Decision {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }
}

// === impl Authorizer ===

impl Authorizer {
    /// An authoriser over a policy that [`feed::spawn`] keeps current.
    pub fn new(registry: Arc<Registry>, policy: Arc<RwLock<Policy>>, config: &AuthorizationConfig) -> Self {
        let webhook = config.webhook.clone().map(|webhook| AccessWebhook::new(registry.clone(), webhook));
        Self { registry, policy, modes: config.modes.clone(), webhook }
    }

    /// Decides one request.
    pub async fn decide(&self, user: &User, request: &Attributes) -> Decision {
        if user.is_in(MASTERS) {
            return Decision::Allow { reason: String::new() };
        }
        let mut reasons: Vec<String> = Vec::new();
        for mode in &self.modes {
            match self.decide_by(*mode, user, request).await {
                Decision::NoOpinion { reason } if reason.is_empty() => {}
                Decision::NoOpinion { reason } => reasons.push(reason),
                decided => return decided,
            }
        }
        Decision::NoOpinion { reason: reasons.join("\n") }
    }

    async fn decide_by(&self, mode: Mode, user: &User, request: &Attributes) -> Decision {
        let nothing = || Decision::NoOpinion { reason: String::new() };
        match (mode, &self.webhook) {
            (Mode::Node, _) => match node::node_of(user) {
                None => nothing(),
                Some(node) => match node::decide(&self.registry, node, request).await {
                    node::Verdict::Allow => Decision::Allow { reason: String::new() },
                    node::Verdict::Refuse { why } => Decision::NoOpinion { reason: why },
                    node::Verdict::NoOpinion => nothing(),
                },
            },
            (Mode::Rbac, _) => self.decide_by_rbac(user, request).unwrap_or_else(nothing),
            (Mode::Webhook, Some(webhook)) => webhook.decide(user, request).await,
            (Mode::Webhook, None) => nothing(),
        }
    }

    /// Whether somebody else has a say, whose rules nobody can list.
    pub fn asks_a_webhook(&self) -> bool {
        self.webhook.is_some() && self.modes.contains(&Mode::Webhook)
    }

    /// As [`Authorizer::decide`], with the 403 made of a refusal.
    pub async fn authorize(&self, user: &User, request: &Attributes) -> Result<(), ApiError> {
        match self.decide(user, request).await {
            Decision::Allow { .. } => Ok(()),
            Decision::Deny { reason } | Decision::NoOpinion { reason } => Err(request.refusal(user, &reason)),
        }
    }

    /// The rules RBAC grants a user in a namespace (empty: cluster-wide).
    pub fn rules_for(&self, user: &User, namespace: &str) -> Vec<rules::PolicyRule> {
        self.policy.read().rules_for(user, namespace)
    }

    /// The rules of a role a binding refers to.
    pub fn role(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<[rules::PolicyRule]>> {
        self.policy.read().role(kind, namespace, name)
    }

    fn decide_by_rbac(&self, user: &User, request: &Attributes) -> Option<Decision> {
        let mut decision = None;
        self.policy.read().find(user, &request.namespace, |grant| {
            let allows = grant.rule.allows(request);
            if allows {
                decision = Some(Decision::Allow { reason: grant.reason() });
            }
            allows
        });
        decision
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_read_like_upstreams() {
        let user = User { name: "x".into(), ..User::default() };
        let mut asked = Attributes::on("list", "", "pods", "default", "");
        assert_eq!(
            asked.refusal(&user, "").message,
            r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default""#
        );
        asked.subresource = "log".into();
        asked.name = "p".into();
        asked.verb = "get".into();
        assert_eq!(
            asked.refusal(&user, "").message,
            r#"pods "p" is forbidden: User "x" cannot get resource "pods/log" in API group "" in the namespace "default""#
        );
        let nodes = Attributes::on("list", "", "nodes", "", "");
        assert_eq!(
            nodes.refusal(&user, "").message,
            r#"nodes is forbidden: User "x" cannot list resource "nodes" in API group "" at the cluster scope"#
        );
        let path = Attributes { verb: "get".into(), path: "/metrics".into(), ..Attributes::default() };
        assert_eq!(path.refusal(&user, "").message, r#"forbidden: User "x" cannot get path "/metrics""#);
    }
}
