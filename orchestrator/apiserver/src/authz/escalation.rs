//! Nobody hands out what they do not hold, and nobody creates by a write of another verb what they may not create.
//!
//! A write of a role must be covered by the writer's own rules unless they may `escalate`; a write of a binding must
//! name a role whose rules the writer holds, unless they may `bind` it. Must not know how objects are stored.

use std::sync::Weak;

use async_trait::async_trait;
use serde_json::Value;

use super::rules::{PolicyRule, uncovered};
use super::{Attributes, Authorizer, MASTERS};
use crate::admission::{self, Operation, Plugin};
use crate::error::ApiError;
use crate::registry::{Registry, User};

const GROUP: &str = "rbac.authorization.k8s.io";

/// The check as the last admission plugin. Weak, because the registry holds the plugin and the authoriser the registry.
pub struct Escalation {
    authorizer: Weak<Authorizer>,
}

// === impl Escalation ===

impl Escalation {
    pub fn new(authorizer: Weak<Authorizer>) -> Self {
        Self { authorizer }
    }
}

#[async_trait]
impl Plugin for Escalation {
    async fn validate(
        &self,
        _: &Registry,
        attributes: &admission::Attributes<'_>,
        object: Option<&Value>,
    ) -> Result<(), ApiError> {
        let (Some(new), Some(authorizer)) = (object, self.authorizer.upgrade()) else {
            return Ok(());
        };
        let is_written = matches!(attributes.operation, Operation::Create | Operation::Update);
        if !is_written || !attributes.subresource.is_empty() {
            return Ok(());
        }
        let (definition, user) = (attributes.definition, &attributes.context.user);
        if attributes.operation == Operation::Create && attributes.context.create_is_unauthorized {
            let (group, plural) = (&definition.group, &definition.plural);
            let create = Attributes::on("create", group, plural, attributes.namespace, attributes.name);
            authorizer.authorize(user, &create).await?;
        }
        check(&authorizer, user, &definition.group, &definition.plural, new, attributes.old).await
    }
}

/// Checks the object about to be stored by a write of `plural` in [`GROUP`]; other resources always pass. `old` is the
/// stored object, on updates.
pub async fn check(
    authorizer: &Authorizer,
    user: &User,
    group: &str,
    plural: &str,
    new: &Value,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    if group != GROUP || user.is_in(MASTERS) {
        return Ok(());
    }
    let text = |pointer: &str| new.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    match plural {
        "roles" | "clusterroles" => {
            let same = old.is_some_and(|o| {
                o.get("rules") == new.get("rules") && o.get("aggregationRule") == new.get("aggregationRule")
            });
            let escalate = Attributes::on("escalate", GROUP, plural, namespace, name);
            if same || authorizer.decide(user, &escalate).await.is_allowed() {
                return Ok(());
            }
            let mut wanted = PolicyRule::all_of(new);
            if new.get("aggregationRule").is_some_and(|rule| !rule.is_null()) {
                // An aggregate may come to hold anything.
                wanted.extend(everything());
            }
            confirm(authorizer, user, namespace, &wanted)
                .map_err(|why| ApiError::forbidden(GROUP, plural, name, why))
        }
        "rolebindings" | "clusterrolebindings" => {
            if old.is_some_and(|o| {
                o.get("roleRef") == new.get("roleRef") && o.get("subjects") == new.get("subjects")
            }) {
                return Ok(());
            }
            let (kind, role) = (text("/roleRef/kind"), text("/roleRef/name"));
            let role_plural = if kind == "ClusterRole" { "clusterroles" } else { "roles" };
            let bind = Attributes::on("bind", GROUP, role_plural, namespace, role);
            if authorizer.decide(user, &bind).await.is_allowed() {
                return Ok(());
            }
            let Some(wanted) = authorizer.role(kind, namespace, role) else {
                return Err(ApiError::not_found(GROUP, role_plural, role));
            };
            confirm(authorizer, user, namespace, &wanted)
                .map_err(|why| ApiError::forbidden(GROUP, plural, name, why))
        }
        _ => Ok(()),
    }
}

fn everything() -> [PolicyRule; 2] {
    let all = || vec!["*".to_owned()];
    [
        PolicyRule { verbs: all(), api_groups: all(), resources: all(), ..PolicyRule::default() },
        PolicyRule { verbs: all(), non_resource_urls: all(), ..PolicyRule::default() },
    ]
}

fn confirm(
    authorizer: &Authorizer,
    user: &User,
    namespace: &str,
    wanted: &[PolicyRule],
) -> Result<(), String> {
    let missing = uncovered(&authorizer.rules_for(user, namespace), wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = missing.iter().map(PolicyRule::describe).collect();
    Err(format!(
        "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        user.groups,
        list.join("\n")
    ))
}
