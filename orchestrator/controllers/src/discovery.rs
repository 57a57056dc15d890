//! All resources the server has, for the loops that deal with objects of every kind.

use kube::Client;
use kube::core::ApiResource;
use kube::discovery::{ApiCapabilities, Discovery, Scope};

/// A resource in the version the server prefers.
#[derive(Clone, Debug)]
pub struct Found {
    pub resource: ApiResource,
    pub namespaced: bool,
    verbs: Vec<String>,
}

impl Found {
    fn new(resource: ApiResource, capabilities: ApiCapabilities) -> Self {
        let namespaced = capabilities.scope == Scope::Namespaced;
        Self { resource, namespaced, verbs: capabilities.operations }
    }

    /// Whether the server offers the verb.
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// Events are notes about objects, not objects anyone owns.
    pub fn is_event(&self) -> bool {
        self.resource.kind == "Event"
    }
}

/// Every resource, each group in its preferred version.
pub async fn observe_resources(client: &Client) -> Result<Vec<Found>, kube::Error> {
    let discovery = Discovery::new(client.clone()).run().await?;
    let found = discovery.groups().flat_map(|group| group.recommended_resources());
    Ok(found.map(|(resource, capabilities)| Found::new(resource, capabilities)).collect())
}
