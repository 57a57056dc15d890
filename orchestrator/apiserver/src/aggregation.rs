//! Aggregation: groups of the API that other servers serve, under this one's roof.
//!
//! An APIService object names the Service that serves a group's version. [`follow`] keeps step with these objects,
//! makes those of what is served here ([`local`]) and asks the others whether they are there ([`availability`]);
//! [`forward`] passes requests on with the user's name in headers; [`documents`] reads what extension servers say
//! of themselves, for discovery and OpenAPI; [`trust`] publishes how they recognise us.

pub(crate) mod availability;
pub(crate) mod documents;
mod follow;
pub(crate) mod forward;
pub(crate) mod local;
mod raised;
pub(crate) mod remote;
pub(crate) mod trust;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::RwLock;

use crate::discovery::{Group, Version};
use crate::outbound::Identity;
use crate::registry::Registry;
use documents::Documents;
use remote::Remote;

pub(crate) use follow::follow;

/// What is known of extension servers. Shared by the request path and the loop that follows them.
pub(crate) struct Aggregation {
    registry: Arc<Registry>,
    /// Shown to extension servers: whoever holds it may speak for any user.
    identity: ArcSwapOption<Identity>,
    known: RwLock<Arc<Known>>,
    generation: AtomicU64,
}

/// Everything at one moment.
#[derive(Default, Clone)]
pub(crate) struct Known {
    /// By group and version.
    remotes: BTreeMap<(String, String), Arc<Remote>>,
    /// What each of them said last, by the name of its APIService.
    documents: BTreeMap<String, Arc<Documents>>,
    /// The largest priority of each group and of each of its versions, local ones included.
    priorities: BTreeMap<String, i64>,
}

// === impl Aggregation ===

impl Aggregation {
    pub(crate) fn new(registry: Arc<Registry>, identity: Option<Identity>) -> Self {
        Self {
            registry,
            identity: ArcSwapOption::new(identity.map(Arc::new)),
            known: RwLock::default(),
            generation: AtomicU64::new(0),
        }
    }

    pub(crate) fn identity(&self) -> Option<Arc<Identity>> {
        self.identity.load_full()
    }

    /// Shows extension servers another certificate from now on.
    pub(crate) fn show(&self, identity: Identity) {
        self.identity.store(Some(Arc::new(identity)));
    }

    pub(crate) fn known(&self) -> Arc<Known> {
        self.known.read().clone()
    }

    fn set(&self, known: Known) {
        *self.known.write() = Arc::new(known);
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// Changes whenever what is known does.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Who serves a group's version, if that is not this server.
    pub(crate) fn remote(&self, group: &str, version: &str) -> Option<Arc<Remote>> {
        let known = self.known();
        if known.remotes.is_empty() {
            return None;
        }
        known.remotes.get(&(group.to_owned(), version.to_owned())).cloned()
    }
}

// === impl Known ===

impl Known {
    /// Adds the groups of extension servers to those served here, which must be in their order, and takes out what
    /// an extension server serves instead. Groups come by priority.
    pub(crate) fn merge(&self, groups: &mut Vec<Group>) {
        for remote in self.remotes.values() {
            let documents = self.documents.get(&remote.name);
            let version = Version {
                name: remote.version.clone(),
                entries: documents.map(|documents| documents.entries.clone()).unwrap_or_default(),
                stale: !remote.available || documents.is_none(),
            };
            match groups.iter_mut().find(|group| group.name == remote.group) {
                Some(group) => {
                    group.versions.retain(|v| v.name != version.name);
                    group.versions.push(version);
                    group.versions.sort_by(|a, b| self.version_order(&remote.group, &a.name, &b.name));
                }
                None => groups.push(Group { name: remote.group.clone(), versions: vec![version] }),
            }
        }
        if !self.remotes.is_empty() {
            groups.sort_by_key(|group| std::cmp::Reverse(self.priority(&group.name)));
        }
    }

    fn priority(&self, group: &str) -> i64 {
        match self.priorities.get(group) {
            Some(priority) => *priority,
            None => local::group_priority(group),
        }
    }

    fn version_order(&self, group: &str, a: &str, b: &str) -> std::cmp::Ordering {
        let priority = |version: &str| {
            let remote = self.remotes.get(&(group.to_owned(), version.to_owned()));
            remote.map_or_else(|| local::version_priority(group, version), |remote| remote.version_priority)
        };
        priority(b).cmp(&priority(a)).then_with(|| crate::registry::version_preference(a, b))
    }

    /// The OpenAPI v3 document of a path such as `apis/metrics.k8s.io/v1beta1`.
    pub(crate) fn openapi(&self, path: &str) -> Option<&documents::OpenApiDocument> {
        let (group, version) = path.strip_prefix("apis/")?.split_once('/')?;
        let remote = self.remotes.get(&(group.to_owned(), version.to_owned()))?;
        self.documents.get(&remote.name)?.openapi.as_ref()
    }

    /// Every OpenAPI v3 document, by its path.
    pub(crate) fn all_openapi(&self) -> impl Iterator<Item = (String, &documents::OpenApiDocument)> {
        self.remotes.values().filter_map(|remote| {
            let document = self.documents.get(&remote.name)?.openapi.as_ref()?;
            Some((format!("apis/{}/{}", remote.group, remote.version), document))
        })
    }
}
