//! The policies there are, compiled: follows the stored objects, so that a request finds programs ready.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::RwLock;
use penstock_store::cache::Watcher;

use super::compiled::{Binding, Policy, Role};
use super::type_checking;
use crate::error::ApiError;
use crate::registry::Registry;
use crate::registry::generic::cache_error;
use crate::registry::object::{CachedObject, meta_str};

pub(super) const GROUP: &str = "admissionregistration.k8s.io";
/// How long a lost watch is waited for before it is opened again.
const REOPEN_AFTER: Duration = Duration::from_millis(200);
const KINDS: [(&str, &str, Role); 2] = [
    ("validatingadmissionpolicies", "validatingadmissionpolicybindings", Role::Validating),
    ("mutatingadmissionpolicies", "mutatingadmissionpolicybindings", Role::Mutating),
];

/// A policy that is bound, with its bindings by name.
pub(super) struct Bound {
    pub policy: Arc<Policy>,
    pub bindings: Vec<Arc<Binding>>,
}

/// What is in force, replaced whole. Policies are in the order of their names.
#[derive(Default)]
pub(crate) struct Library {
    validating: RwLock<Arc<Vec<Bound>>>,
    mutating: RwLock<Arc<Vec<Bound>>>,
}

// === impl Library ===

impl Library {
    pub(super) fn of(&self, role: Role) -> Arc<Vec<Bound>> {
        self.slot(role).read().clone()
    }

    fn slot(&self, role: Role) -> &RwLock<Arc<Vec<Bound>>> {
        match role {
            Role::Validating => &self.validating,
            Role::Mutating => &self.mutating,
        }
    }
}

/// Compiles what is stored, then follows changes until the registry is dropped.
pub(crate) async fn follow(registry: &Arc<Registry>) -> Result<(), ApiError> {
    for (policies, bindings, role) in KINDS {
        let mut follower = Follower {
            registry: Arc::downgrade(registry),
            policies,
            bindings,
            role,
            compiled: HashMap::new(),
        };
        let watchers = follower.open(registry).await?;
        let stop = registry.background();
        tokio::spawn(async move {
            tokio::select! { () = stop.cancelled() => {}, () = follower.run(watchers) => {} }
        });
    }
    Ok(())
}

type Following = Watcher<Arc<CachedObject>>;

/// Follows the policies of one role and their bindings.
struct Follower {
    registry: Weak<Registry>,
    policies: &'static str,
    bindings: &'static str,
    role: Role,
    /// Compiled policies by name, with the uid and generation they are of.
    compiled: HashMap<String, (String, Arc<Policy>)>,
}

// === impl Follower ===

impl Follower {
    async fn open(&mut self, registry: &Arc<Registry>) -> Result<[Following; 2], ApiError> {
        let mut opened = Vec::new();
        for plural in [self.policies, self.bindings] {
            let cell = registry.cell_of(GROUP, plural)?;
            cell.cache.wait_until_current().await.map_err(cache_error)?;
            let mut watcher = cell.cache.watch(&cell.prefix, None).await.map_err(cache_error)?;
            watcher.take_initial();
            opened.push(watcher);
        }
        self.take(registry).await?;
        opened.try_into().map_err(|_| ApiError::internal("a watch of policies is missing"))
    }

    async fn run(mut self, mut watchers: [Following; 2]) {
        loop {
            let [policies, bindings] = &mut watchers;
            let event = tokio::select! { event = policies.next() => event, event = bindings.next() => event };
            let intact = matches!(event, Some(Ok(_)));
            loop {
                let Some(registry) = self.registry.upgrade() else { return };
                let taken = if intact {
                    self.take(&registry).await
                } else {
                    self.open(&registry).await.map(|opened| watchers = opened)
                };
                match taken {
                    Ok(()) => break,
                    Err(error) => tracing::warn!(%error, "policies cannot be followed; trying again"),
                }
                drop(registry);
                tokio::time::sleep(REOPEN_AFTER).await;
            }
        }
    }

    /// Takes over what is stored now; compiles only what has changed.
    async fn take(&mut self, registry: &Arc<Registry>) -> Result<(), ApiError> {
        let bindings: Vec<Arc<Binding>> = registry
            .all(GROUP, self.bindings, None)
            .await?
            .iter()
            .map(|binding| Arc::new(Binding::of(&binding.value())))
            .collect();
        let (mut kept, mut bound) = (HashMap::new(), Vec::new());
        for object in registry.all(GROUP, self.policies, None).await? {
            let value = object.value();
            let version = format!("{}/{}", meta_str(&value, "uid"), value["metadata"]["generation"]);
            let policy = match self.compiled.remove(&object.name) {
                Some((known, policy)) if known == version => policy,
                _ => Arc::new(Policy::compile(&value, self.role).0),
            };
            kept.insert(object.name.clone(), (version, policy.clone()));
            let own: Vec<_> =
                bindings.iter().filter(|binding| binding.policy == object.name).cloned().collect();
            if !own.is_empty() {
                bound.push(Bound { policy, bindings: own });
            }
            if self.role == Role::Validating {
                type_checking::settle(registry, &value).await;
            }
        }
        self.compiled = kept;
        *registry.admission().policies().slot(self.role).write() = Arc::new(bound);
        Ok(())
    }
}
