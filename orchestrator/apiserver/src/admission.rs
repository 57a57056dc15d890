//! Admission: what may change or refuse a write after it is understood and before it is stored.
//!
//! A list of small plugins in upstream's order. Mutating runs see the object; validating runs see what will be
//! stored (nothing, for a delete). A plugin knows one rule and reads other objects through the registry's caches.

mod certificates;
mod defaults;
pub(crate) mod expressions;
mod lifecycle;
mod limit_ranger;
mod node_restriction;
mod pod_security;
pub(crate) mod policies;
mod priority;
mod resource_quota;
mod rounds;
mod runtime_class;
mod service_account;
mod tolerations;
pub(crate) mod webhooks;

use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use serde_json::Value;

use crate::authz::Authorizer;
use crate::error::ApiError;
use crate::registry::Registry;
use crate::registry::context::Context;
use crate::registry::definition::Definition;
pub use rounds::Rounds;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// exec, attach, port-forward, proxy: the object is the request's options, and nothing is stored.
    Connect,
}

// === impl Operation ===

impl Operation {
    /// As configurations and reviews spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// What is being admitted.
pub struct Attributes<'a> {
    pub operation: Operation,
    pub definition: &'a Definition,
    /// Empty for the object itself.
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub context: &'a Context,
    /// The stored object, for updates and deletes.
    pub old: Option<&'a Value>,
    /// What plugins remember while the object is admitted.
    pub rounds: Rounds,
}

impl Attributes<'_> {
    /// Whether this is `operation` on the resource itself.
    pub(crate) fn is(&self, operation: Operation, group: &str, plural: &str) -> bool {
        self.operation == operation
            && self.subresource.is_empty()
            && self.definition.group == group
            && self.definition.plural == plural
    }

    pub(crate) fn is_about_namespaces(&self) -> bool {
        self.definition.group.is_empty() && self.definition.plural == "namespaces"
    }

    /// The namespace the request is in; a request about a namespace is in that one.
    pub(crate) fn namespace_of_request(&self) -> &str {
        if self.is_about_namespaces() { self.name } else { self.namespace }
    }

    pub(crate) fn forbidden(&self, why: impl std::fmt::Display) -> ApiError {
        ApiError::forbidden(&self.definition.group, &self.definition.plural, self.name, why)
    }
}

/// One rule.
#[async_trait]
pub trait Plugin: Send + Sync {
    /// May change `object`.
    async fn admit(
        &self,
        _registry: &Registry,
        _attributes: &Attributes<'_>,
        _object: &mut Value,
    ) -> Result<(), ApiError> {
        Ok(())
    }

    /// Sees what will be stored; `None` for deletes.
    async fn validate(
        &self,
        _registry: &Registry,
        _attributes: &Attributes<'_>,
        _object: Option<&Value>,
    ) -> Result<(), ApiError> {
        Ok(())
    }
}

/// The plugins in order.
pub struct Chain {
    built_in: Vec<Box<dyn Plugin>>,
    /// The authoriser's own check (escalation). It exists only once a server does, and runs last.
    authorization: OnceLock<Box<dyn Plugin>>,
    /// Who expressions ask; nobody until a server exists.
    authorizer: OnceLock<Weak<Authorizer>>,
    policies: Arc<policies::Library>,
}

impl Default for Chain {
    fn default() -> Self {
        let policies = Arc::<policies::Library>::default();
        let built_in: Vec<Box<dyn Plugin>> = vec![
            Box::new(lifecycle::NamespaceLifecycle),
            Box::new(limit_ranger::LimitRanger),
            Box::new(node_restriction::NodeRestriction),
            Box::new(service_account::ServiceAccount),
            Box::new(tolerations::DefaultTolerationSeconds),
            Box::new(pod_security::PodSecurity),
            Box::new(priority::Priority),
            Box::new(defaults::DefaultClasses),
            Box::new(runtime_class::RuntimeClass),
            Box::new(certificates::CertificateApproval),
            Box::new(certificates::CertificateSigning),
            Box::new(certificates::CertificateSubjectRestriction),
            Box::new(policies::MutatingPolicies(policies.clone())),
            Box::new(webhooks::MutatingWebhooks::default()),
            Box::new(policies::ValidatingPolicies(policies.clone())),
            Box::new(webhooks::ValidatingWebhooks::default()),
            Box::new(resource_quota::ResourceQuota::default()),
        ];
        Self { built_in, authorization: OnceLock::new(), authorizer: OnceLock::new(), policies }
    }
}

impl Chain {
    /// Puts the authoriser's check at the end. Only the first one given is kept.
    pub fn set_authorization(&self, plugin: Box<dyn Plugin>) {
        let _ = self.authorization.set(plugin);
    }

    /// Gives expressions somebody to ask. Only the first one given is kept.
    pub(crate) fn set_authorizer(&self, authorizer: Weak<Authorizer>) {
        let _ = self.authorizer.set(authorizer);
    }

    pub(crate) fn authorizer(&self) -> Weak<Authorizer> {
        self.authorizer.get().cloned().unwrap_or_default()
    }

    pub(crate) fn policies(&self) -> &policies::Library {
        &self.policies
    }

    fn plugins(&self) -> impl Iterator<Item = &dyn Plugin> {
        self.built_in.iter().chain(self.authorization.get()).map(|plugin| &**plugin)
    }

    /// Tells whether somebody outside of this program changed the object. Its changes may call for those of the
    /// plugins before it once more, and so for a second round.
    pub async fn admit(
        &self,
        registry: &Registry,
        attributes: &Attributes<'_>,
        object: &mut Value,
    ) -> Result<bool, ApiError> {
        for plugin in self.plugins() {
            plugin.admit(registry, attributes, object).await?;
        }
        if attributes.rounds.begin_second() {
            for plugin in self.plugins() {
                plugin.admit(registry, attributes, object).await?;
            }
        }
        Ok(attributes.rounds.is_touched())
    }

    pub async fn validate(
        &self,
        registry: &Registry,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
    ) -> Result<(), ApiError> {
        for plugin in self.plugins() {
            plugin.validate(registry, attributes, object).await?;
        }
        Ok(())
    }
}
